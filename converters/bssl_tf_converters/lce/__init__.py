"""Keras networks out: folding, checks, conversion by Larq Compute Engine, parity."""
