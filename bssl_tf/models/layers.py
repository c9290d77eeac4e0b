"""What several networks share: layers, one choice of quantisers, and how a stem depends on the image size."""

from __future__ import annotations

from typing import Any

from bssl_tf.backend import keras, lq, tf
from bssl_tf.errors import ConfigError
from bssl_tf.quantizers import activation_quantizer, kernel_quantizer

SMALLEST_IMAGE = 16


def batch_norm(name: str) -> keras.layers.Layer:
    """Batch norm with moving averages that settle within a few hundred steps (momentum 0.9, as in PyTorch)."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)


def binary_conv(
    filters: int, size: int, name: str, *, strides: int = 1, padding: str = "same"
) -> lq.layers.QuantConv2D:
    """A convolution of 1-bit inputs with 1-bit kernels and a scale for each output channel, without bias.

    Same padding pads with ones, which LCE computes fastest: there is no third value beside +1 and -1.
    """
    return lq.layers.QuantConv2D(
        filters,
        size,
        strides=strides,
        padding=padding,
        pad_values=1.0,
        use_bias=False,
        input_quantizer=activation_quantizer(),
        kernel_quantizer=kernel_quantizer(),
        # Latent weights beyond 1 get no gradient from the clipped straight-through estimator; keep them within.
        kernel_constraint="weight_clip",
        name=name,
    )


@keras.utils.register_keras_serializable(package="bssl_tf")
class LearnedShift(keras.layers.Layer):
    """Adds one learned number to each channel, at first 0: [B, H, W, C] to the same shape.

    In front of a sign it is the threshold of RSign, around a PReLU it makes RPReLU (ReActNet, Liu et al., ECCV 2020,
    section 4.2).
    """

    def build(self, input_shape: Any) -> None:
        """Makes the weight `shift`, float32 [C]."""
        self.shift = self.add_weight(name="shift", shape=(int(input_shape[-1]),), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """inputs + shift."""
        return inputs + self.shift


@keras.utils.register_keras_serializable(package="bssl_tf")
class BlurKernel(keras.initializers.Initializer):
    """A depthwise kernel that blurs: binomial in both directions, its sum 1 for each channel.

    Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019, section 3.
    """

    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> tf.Tensor:
        """The kernel, [K, K, C, 1], as the convolution's `shape` wants it."""
        row = [1.0]
        for _ in range(shape[0] - 1):
            row = [a + b for a, b in zip([0.0, *row], [*row, 0.0], strict=True)]
        line = tf.constant(row, dtype or tf.float32) / sum(row)
        return tf.broadcast_to(tf.tensordot(line, line, 0)[:, :, tf.newaxis, tf.newaxis], shape)


def total_stem_stride(image_size: int) -> int:
    """By how much a stem shrinks the picture: 4 as in the papers from 128 px on, 2 from 64 px on, below that 1.

    So the last map has 4 px a side at 28, 32 and 64 px, where the papers' stems would leave 1 or 2.
    """
    if image_size >= 128:
        return 4
    return 2 if image_size >= 64 else 1


def check_sizes(network: str, image_size: int, width: int, multiple: int = 32) -> None:
    """Raises `ConfigError` for images that are too small, and widths that LCE's kernels would have to fill up."""
    if image_size < SMALLEST_IMAGE:
        raise ConfigError(f"image size {image_size} is too small for {network}", f"Choose {SMALLEST_IMAGE} px or more")
    if width < multiple or width % multiple:
        raise ConfigError(
            f"width {width} is not a multiple of {multiple}", f"Choose {multiple}, {2 * multiple} or {4 * multiple}"
        )
