"""Weights in: PyTorch checkpoints, read without running anything in them."""
