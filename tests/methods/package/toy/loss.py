"""Two views of an image should have the same features, and a batch of images should not."""

from __future__ import annotations

from bssl_tf.backend import tf


def invariance(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Mean squared distance of two views' features, [B, D] float32 each; a float32 scalar."""
    return tf.reduce_mean(tf.square(one - other))


def lack_of_spread(features: tf.Tensor, spread: float) -> tf.Tensor:
    """By how much the standard deviation of [B, D] features over the batch falls short of `spread`, mean over D.

    Source: VICReg (arXiv 2105.04906), eq. 1.
    """
    deviation = tf.sqrt(tf.math.reduce_variance(features, axis=0) + 1e-4)
    return tf.reduce_mean(tf.nn.relu(spread - deviation))
