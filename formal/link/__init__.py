"""Proofs about the link's blocks."""
