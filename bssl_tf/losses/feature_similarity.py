"""Cosine distance between teacher and student: the second loss of joint classifier training."""

from __future__ import annotations

from bssl_tf.backend import tf


def feature_similarity(target: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """2 - 2 cos(target, student), the squared distance of the normalised vectors, with gradients into both.

    Source: BSSL (arXiv 2110.08851), section 4.2 and eq. 3.

    Args:
        target: [B, D] float32.
        student: [B, D] float32.

    Returns:
        A float32 scalar between 0 (same direction) and 4 (opposite).
    """
    cosine = tf.reduce_sum(tf.math.l2_normalize(target, axis=-1) * tf.math.l2_normalize(student, axis=-1), axis=-1)
    return tf.reduce_mean(2.0 - 2.0 * cosine)
