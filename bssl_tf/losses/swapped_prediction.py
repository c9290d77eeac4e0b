"""Balanced cluster assignments and their swapped prediction: the loss of SwAV."""

from __future__ import annotations

from bssl_tf.backend import tf


def balanced_assignment(scores: tf.Tensor, epsilon: float, iterations: int) -> tf.Tensor:
    """Soft assignments that use every prototype alike, by Sinkhorn and Knopp's alternating normalisation.

    Source: SwAV (arXiv 2006.09882), section 3.1, eq. 3 to 5. Computed on logarithms, so that no scale overflows.

    Args:
        scores: [B, K] float32, similarities of embeddings and prototypes; gets no gradient.
        epsilon: how soft the assignment is, 0.05 in the paper.
        iterations: rounds of normalisation, 3 in the paper.

    Returns:
        [B, K] float32; every row sums to one, every column to about B / K.
    """
    log_q = tf.stop_gradient(scores) / epsilon
    for _ in range(iterations):
        log_q -= tf.reduce_logsumexp(log_q, axis=0, keepdims=True)
        log_q -= tf.reduce_logsumexp(log_q, axis=1, keepdims=True)
    return tf.exp(log_q)


def swapped_prediction(codes: tf.Tensor, scores: tf.Tensor, temperature: float) -> tf.Tensor:
    """Cross-entropy of one view's softmax(scores / T) under the other view's code.

    Source: SwAV (arXiv 2006.09882), section 3, eq. 2.

    Args:
        codes: [B, K] float32, rows sum to one; get no gradient.
        scores: [B, K] float32.
        temperature: T, 0.1 in the paper.

    Returns:
        A float32 scalar in nats.
    """
    log_p = tf.nn.log_softmax(scores / temperature)
    return -tf.reduce_mean(tf.reduce_sum(tf.stop_gradient(codes) * log_p, axis=-1))
