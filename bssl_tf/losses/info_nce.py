"""InfoNCE with a queue of negatives: the loss of MoCo."""

from __future__ import annotations

from bssl_tf.backend import tf


def info_nce(query: tf.Tensor, key: tf.Tensor, queue: tf.Tensor, temperature: float) -> tf.Tensor:
    """Cross-entropy of picking each query's own key among it and the queue.

    Source: MoCo (arXiv 1911.05722), eq. 1 and algorithm 1; MoCo v2 (arXiv 2003.04297) for T = 0.2.

    Args:
        query: [B, D] float32, not yet normalised.
        key: [B, D] float32, not yet normalised; gets no gradient.
        queue: [K, D] float32, normalised keys of earlier batches.
        temperature: T.

    Returns:
        A float32 scalar in nats; log(K + 1) when all similarities are equal.
    """
    query = tf.math.l2_normalize(query, axis=-1)
    key = tf.math.l2_normalize(tf.stop_gradient(key), axis=-1)
    positive = tf.reduce_sum(query * key, axis=-1, keepdims=True)
    negative = tf.matmul(query, queue, transpose_b=True)
    logits = tf.concat([positive, negative], axis=1) / temperature
    return -tf.reduce_mean(tf.nn.log_softmax(logits)[:, 0])
