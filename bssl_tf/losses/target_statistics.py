"""What tells a useful target from a collapsed one; logged beside the losses of joint classifier training."""

from __future__ import annotations

from bssl_tf.backend import tf


def target_statistics(target_logits: tf.Tensor, temperature: float) -> dict[str, tf.Tensor]:
    """What tells a useful target from a collapsed one.

    Args:
        target_logits: [B, D] float32.
        temperature: T of the softmax.

    Returns:
        `target_entropy`: mean entropy of the B distributions, nats, 0 to log D; near either end the target may have
        collapsed, but a sharp one is useful too.
        `target_spread`: standard deviation over the batch, mean over the D outputs.
        `target_information`: entropy of the mean distribution less the mean entropy, nats: what a target tells about
        which image of the batch it belongs to, 0 to log B. Zero is collapse, whatever its shape.
    """
    log_p = tf.nn.log_softmax(target_logits / temperature)
    p = tf.exp(log_p)
    entropy = -tf.reduce_mean(tf.reduce_sum(p * log_p, axis=-1))
    mean = tf.reduce_mean(p, axis=0)
    return {
        "target_entropy": entropy,
        "target_spread": tf.reduce_mean(tf.math.reduce_std(target_logits, axis=0)),
        "target_information": -tf.reduce_sum(tf.math.xlogy(mean, mean)) - entropy,
    }
