"""Proofs about what stands round an accelerator on a board."""
