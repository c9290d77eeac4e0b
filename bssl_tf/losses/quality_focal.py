"""Quality focal loss: one score for the class and for how well the box fits."""

from __future__ import annotations

from bssl_tf.backend import tf


def quality_focal(logits: tf.Tensor, quality: tf.Tensor, beta: float = 2.0) -> tf.Tensor:
    """|q - sigmoid(x)|^beta times the cross-entropy of q and sigmoid(x).

    With q of 0 and 1 alone it is the focal loss without its weight alpha (Lin et al., ICCV 2017, equation 4).

    Source: Li et al., Generalized Focal Loss, NeurIPS 2020 (arXiv 2006.04388), equation 4.

    Args:
        logits: float32, of any shape.
        quality: the same shape, 0 to 1: 0 for a class that is not there, else the overlap of box and truth.
        beta: how much less an easy example counts.

    Returns:
        float32, the same shape, in nats; 0 where sigmoid(x) is q at 0 or 1.
    """
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=quality, logits=logits)
    # As a product for the usual beta: a power's gradient is not defined at 0.
    distance = tf.abs(quality - tf.sigmoid(logits))
    return entropy * (tf.square(distance) if beta == 2.0 else tf.pow(tf.maximum(distance, 1e-12), beta))
