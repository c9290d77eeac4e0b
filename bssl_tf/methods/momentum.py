"""Networks that follow another one as a moving average of its weights (momentum encoders)."""

from __future__ import annotations

from bssl_tf.backend import keras, tf


def follow(follower: keras.Model, leader: keras.Model, momentum: float | tf.Tensor) -> None:
    """follower = momentum * follower + (1 - momentum) * leader, for every trainable weight.

    Batch norm's moving averages are left: the follower normalises with its own batches (MoCo, arXiv 1911.05722,
    section 3.3).
    """
    for weight, target in zip(follower.trainable_variables, leader.trainable_variables, strict=True):
        weight.assign(momentum * weight + (1.0 - momentum) * target)
