"""Kullback-Leibler divergence between two classifiers' outputs: the first loss of joint classifier training."""

from __future__ import annotations

from bssl_tf.backend import tf


def kl_divergence(target_logits: tf.Tensor, student_logits: tf.Tensor, temperature: float) -> tf.Tensor:
    """KL( softmax(target / T) || softmax(student / T) ), with gradients into both.

    The target is trained too (that is the joint classifier), so it is not detached here.
    Source: BSSL (arXiv 2110.08851), section 4.1 and eq. 2.

    Args:
        target_logits: [B, D] float32, un-normalised.
        student_logits: [B, D] float32, un-normalised.
        temperature: T, 0.2 in the paper.

    Returns:
        A float32 scalar in nats, never negative but for rounding.
    """
    log_target = tf.nn.log_softmax(target_logits / temperature)
    log_student = tf.nn.log_softmax(student_logits / temperature)
    return tf.reduce_mean(tf.reduce_sum(tf.exp(log_target) * (log_target - log_student), axis=-1))
