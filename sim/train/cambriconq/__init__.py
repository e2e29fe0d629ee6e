"""Cambricon-Q's part of training: networks as programs, a step each."""
