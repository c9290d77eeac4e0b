"""A network as a user writes one: models in it that call their layers alike, branches, a function of TensorFlow."""

from __future__ import annotations

from typing import Any

import larq as lq
import tensorflow as tf
from beside import DEPTH  # type: ignore[import-not-found]

layers = tf.keras.layers


def block(width: int, name: str) -> Any:
    image = tf.keras.Input((None, None, width))
    x = lq.layers.QuantConv2D(
        width,
        3,
        padding="same",
        pad_values=1,
        use_bias=False,
        input_quantizer="approx_sign",
        kernel_quantizer="magnitude_aware_sign",
        kernel_constraint="weight_clip",
        name="conv",
    )(image)
    x = layers.BatchNormalization(name="norm", momentum=0.9)(x)
    return tf.keras.Model(image, layers.Add(name="add")([image, x]), name=name)


def network(image_size: int, channels: int, width: int = 32, branches: int = 1) -> Any:
    """`branches` chains of blocks on one stem, pooled and joined."""
    image = tf.keras.Input((image_size, image_size, channels))
    x = layers.Conv2D(width, 3, strides=4, padding="same", use_bias=False)(image)
    stem = layers.BatchNormalization(momentum=0.9)(x)
    ends = []
    for branch in range(branches):
        x = stem
        for number in range(DEPTH):
            x = block(width, f"branch{branch}_block{number}")(x)
        ends.append(layers.GlobalAveragePooling2D()(tf.nn.relu(x)))
    features = layers.Concatenate()(ends) if branches > 1 else ends[0]
    return tf.keras.Model(image, features, name="mine")
