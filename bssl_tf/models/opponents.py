"""Float networks that an engineer would pick in place of a binary one, for `bssl-tf bench --beside`."""

from __future__ import annotations

import numpy as np

from bssl_tf.backend import keras
from bssl_tf.models.efficientnet_lite0 import efficientnet_lite0

_SETTLING_IMAGES = 8


def build_opponent(name: str, image_size: int, channels: int) -> keras.Model:
    """Builds one of `bssl_tf.workflows.networks_beside.OPPONENTS` with random weights, which is all that timing needs.

    Every batch norm has the statistics of random images, so that no activation vanishes on its way through the layers:
    numbers too small for a normal float would cost time that trained networks do not take.

    Args:
        name: `mobilenet_v2` (Sandler et al., CVPR 2018), `mobilenet_v3_small` (Howard et al., ICCV 2019), both from
            keras.applications with a width of 1.0; or `efficientnet_lite0`.
        image_size: height and width in pixels, at least 32.
        channels: image channels, 1 or 3.

    Returns:
        A model from [B, image_size, image_size, channels] float32 to pooled features [B, D].
    """
    keras.utils.set_random_seed(0)
    shape = (image_size, image_size, channels)
    pooled = {"input_shape": shape, "include_top": False, "weights": None, "pooling": "avg"}
    if name == "mobilenet_v2":
        network = keras.applications.MobileNetV2(**pooled)
    elif name == "mobilenet_v3_small":
        network = keras.applications.MobileNetV3Small(**pooled, include_preprocessing=False)
    else:
        network = efficientnet_lite0(image_size, channels)
    settle(network, np.random.default_rng(0).normal(0, 1, (_SETTLING_IMAGES, *shape)).astype(np.float32))
    return network


def settle(network: keras.Model, images: np.ndarray) -> None:
    """Gives every batch norm of a network the statistics of `images`, float32 [B, H, W, C]."""
    norms = [layer for layer in network.submodules if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    # In training each norm works with the batch's own statistics, so one pass sets those of all.
    network(images, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
