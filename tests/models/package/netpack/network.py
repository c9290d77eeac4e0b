"""A network with code of its own: a layer, and a quantiser of weights that learns its scale."""

from __future__ import annotations

from typing import Any

from bssl_tf.backend import keras, lq, tf

layers = keras.layers


@keras.utils.register_keras_serializable("netpack")
class LearnedScale(lq.quantizers.SteSign):
    """sign(w) times one learned number."""

    precision = 1

    def build(self, input_shape: Any) -> None:
        """Makes the weight `scale`, a float32 scalar."""
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Of any shape, to the same."""
        return self.scale * super().call(inputs)


class Centred(keras.layers.Layer):
    """[B, H, W, C] less its mean over places."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Of any shape, to the same."""
        return inputs - tf.reduce_mean(inputs, axis=(1, 2), keepdims=True)


def network(image_size: int, channels: int, width: int = 32) -> keras.Model:
    """One binary layer."""
    image = keras.Input((image_size, image_size, channels), name="image")
    x = layers.Conv2D(width, 3, strides=2, padding="same", name="stem")(image)
    x = lq.layers.QuantConv2D(
        width, 3, input_quantizer="ste_sign", kernel_quantizer=LearnedScale(name="learned"), name="conv"
    )(Centred(name="centred")(x))
    return keras.Model(image, layers.GlobalAveragePooling2D(name="pool")(x), name="packed")


NOTHING = None


def any_size(image_size: int, channels: int) -> keras.Model:
    """Of images of any size."""
    image = keras.Input((None, None, channels))
    return keras.Model(image, layers.GlobalAveragePooling2D()(image))


class Unregistered(LearnedScale):
    """Keras does not find it again by its name."""


def not_copied(image_size: int, channels: int) -> keras.Model:
    """With a quantiser that Keras cannot copy."""
    image = keras.Input((image_size, image_size, channels))
    x = lq.layers.QuantConv2D(8, 3, input_quantizer="ste_sign", kernel_quantizer=Unregistered())(image)
    return keras.Model(image, layers.GlobalAveragePooling2D()(x), name="not_copied")
