"""ReActNet-A (Liu et al., ReActNet, ECCV 2020): MobileNet v1 in 1 bit, with learned thresholds and activations.

Section 4.1 gives the blocks, section 4.2 RSign and RPReLU. With the paper's classifier for 1000 classes it has
29.4 M parameters, 4.82 G binary and 11.9 M float multiply-accumulates at 224 px.
"""

from __future__ import annotations

from bssl_tf.backend import keras, tf
from bssl_tf.models.layers import LearnedShift, batch_norm, binary_conv, check_sizes, total_stem_stride

layers = keras.layers

# (channels that come out over the stem's, stride), MobileNet v1's thirteen blocks.
_BLOCKS = ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *[(16, 1)] * 5, (32, 2), (32, 1))


def reactnet_a(image_size: int, channels: int, *, width: int = 32) -> keras.Model:
    """Builds the network: a 3x3 float stem, then thirteen blocks of a binary 3x3 and a binary 1x1 convolution.

    Each convolution sees signs behind a learned shift (RSign) and is followed by batch norm, a real shortcut and
    RPReLU. Where the picture is halved the shortcut is an average pool; where channels double there are two 1x1
    convolutions of the same input, each with its own batch norm and the same shortcut, and their outputs side by side.

    The strides are the paper's from 128 px on: 2 in the stem and in blocks 2, 4, 6 and 12. Below 128 px block 2 has
    stride 1, below 64 px the stem too. The last map has 7 px a side at 224 px and 4 px at 28, 32, 64 and 128 px.

    Not as in the paper: binary convolutions pad with ones, not zeros, because LCE is faster so.

    Args:
        image_size: height and width in pixels, at least 16.
        channels: image channels, 1 or 3.
        width: channels of the stem, a multiple of 32; the paper's is 32.

    Returns:
        A model from [B, image_size, image_size, channels] float32 to pooled features [B, 32 * width].

    Raises:
        ConfigError: an argument is out of range.
    """
    check_sizes("reactnet_a", image_size, width)
    image = layers.Input((image_size, image_size, channels), name="image")
    stem_stride = total_stem_stride(image_size)
    x = layers.Conv2D(width, 3, strides=min(stem_stride, 2), padding="same", use_bias=False, name="stem_conv")(image)
    x = batch_norm("stem_norm")(x)
    for block, (factor, strides) in enumerate(_BLOCKS, start=1):
        x = _block(x, factor * width, 1 if block == 2 and stem_stride < 4 else strides, f"block{block}")
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(image, features, name="reactnet_a")


def _block(x: tf.Tensor, filters: int, strides: int, name: str) -> tf.Tensor:
    incoming = x.shape[-1]
    shortcut = x
    if strides == 2:
        shortcut = layers.AveragePooling2D(2, padding="same", name=f"{name}_shortcut_pool")(x)
    signed = LearnedShift(name=f"{name}_spatial_threshold")(x)
    x = _rprelu(_conv_add(signed, shortcut, incoming, 3, strides, f"{name}_spatial"), f"{name}_spatial")

    signed = LearnedShift(name=f"{name}_channel_threshold")(x)
    if filters == incoming:
        y = _conv_add(signed, x, filters, 1, 1, f"{name}_channel")
    else:
        halves = [_conv_add(signed, x, incoming, 1, 1, f"{name}_channel{half}") for half in (1, 2)]
        y = layers.Concatenate(name=f"{name}_channel_both")(halves)
    return _rprelu(y, f"{name}_channel")


def _conv_add(signed: tf.Tensor, shortcut: tf.Tensor, filters: int, size: int, strides: int, name: str) -> tf.Tensor:
    y = binary_conv(filters, size, f"{name}_conv", strides=strides)(signed)
    y = batch_norm(f"{name}_norm")(y)
    return layers.Add(name=f"{name}_add")([y, shortcut])


def _rprelu(x: tf.Tensor, name: str) -> tf.Tensor:
    x = LearnedShift(name=f"{name}_shift_in")(x)
    slope = keras.initializers.Constant(0.25)
    x = layers.PReLU(alpha_initializer=slope, shared_axes=[1, 2], name=f"{name}_prelu")(x)
    return LearnedShift(name=f"{name}_shift_out")(x)
