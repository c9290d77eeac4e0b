"""Convolutions in half precision, by Keras' mixed-precision policies; everything else stays float32.

Only convolutions are faster on matrix units, and most of the rest must not be rounded: the sign of a rounded number is
another sign, and so is that of its distance from a learned threshold; batch norm's variance is a sum of small squares;
a contrastive loss is a difference of large exponents.
"""

from __future__ import annotations

from typing import Any

from bssl_tf.backend import functional_model, keras, lq, tf
from bssl_tf.models.binarization import copy_of


class HalfPrecisionConv2D(keras.layers.Conv2D):
    """A convolution under a policy of Keras' mixed precision that gives float32.

    Keras' layers would take either; operators in a network, such as `x + y`, take two numbers of one kind only.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] to [B, H', W', D] float32."""
        return tf.cast(super().call(inputs), tf.float32)


class HalfPrecisionDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """As `HalfPrecisionConv2D`, depthwise."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] to [B, H', W', C * depth multiplier] float32."""
        return tf.cast(super().call(inputs), tf.float32)


class HalfPrecisionQuantConv2D(lq.layers.QuantConv2D):
    """A 1-bit convolution that takes signs of float32 numbers and multiplies them in half precision.

    A Keras policy alone would round inputs and latent weights before their signs are taken.

    Args:
        computed_in: `float16` or `bfloat16`.
    """

    def __init__(self, *args: Any, computed_in: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self._computed_in = computed_in

    def get_config(self) -> dict[str, Any]:
        """Of larq's own, and `computed_in`."""
        return super().get_config() | {"computed_in": self._computed_in}

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] and [K, K, C, D] float32 to float32."""
        half = tf.as_dtype(self._computed_in)
        return tf.cast(super().convolution_op(tf.cast(inputs, half), tf.cast(kernel, half)), tf.float32)


def in_precision(model: keras.Model, precision: str) -> keras.Model:
    """`model` itself for `float32`, else a copy of it whose convolutions compute in half precision.

    These are Keras' full and depthwise ones and larq's `QuantConv2D`; other layers compute in float32.

    On a CPU `bfloat16` changes nothing here: there oneDNN does it (`backend.configure`).

    Args:
        model: a functional model of layers of Keras and larq; models may be among its layers.
        precision: `float32`, `bfloat16` or `float16`.
    """
    on_cpu = not tf.config.list_logical_devices("GPU") and not tf.config.list_logical_devices("TPU")
    if precision == "float32" or (precision == "bfloat16" and on_cpu):
        return model

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, functional_model()):
            return keras.models.clone_model(layer, clone_function=clone)
        config = layer.get_config()
        # Of these types exactly: what is derived from them may do something else, such as take signs.
        if type(layer) is lq.layers.QuantConv2D:
            return HalfPrecisionQuantConv2D.from_config(config | {"computed_in": precision})
        mixed = config | {"dtype": f"mixed_{precision}"}
        if type(layer) is keras.layers.Conv2D:
            return HalfPrecisionConv2D.from_config(mixed)
        if type(layer) is keras.layers.DepthwiseConv2D:
            return HalfPrecisionDepthwiseConv2D.from_config(mixed)
        return type(layer).from_config(config)

    return copy_of(model, clone)
