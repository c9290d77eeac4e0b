"""Layers that several networks share."""

from __future__ import annotations

from bssl_tf.backend import keras


def batch_norm(name: str) -> keras.layers.Layer:
    """Batch norm with moving averages that settle within a few hundred steps (momentum 0.9, as in PyTorch)."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)
