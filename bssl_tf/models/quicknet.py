"""QuickNet (Bannink et al., Larq Compute Engine, MLSys 2021): binary networks made for LCE's kernels.

Sections of residual binary 3x3 convolutions; between two of them a float transition that blurs before it skips
pixels, so that no detail folds over, and widens with a 1x1 convolution. The sizes are those of larq-zoo 2.4, and one
smaller.

Not as in the zoo: kernels have a scale for each output channel and both quantisers' gradients end at 1 instead of 1.25
(one choice for all networks here); all batch norms have scale and shift, momentum 0.9 and epsilon 1e-5.
"""

from __future__ import annotations

from collections.abc import Sequence

from bssl_tf.backend import keras, tf
from bssl_tf.models.layers import BlurKernel, batch_norm, binary_conv, check_sizes, total_stem_stride

layers = keras.layers


def quicknet_tiny(image_size: int, channels: int, *, width: int = 32) -> keras.Model:
    """QuickNet for microcontrollers and small pictures: three sections of 2, of `width` times 1, 2 and 4 channels.

    Its stem keeps one stride of 2 below 64 px and both from there on: what fills a microcontroller's memory is the
    first float map, and this makes it four times smaller (16x16x32 at 32 px, 32 KiB). The weights take about 98 KiB,
    40 of them the two float transitions.

    Args, Returns, Raises: see `quicknet`; features are [B, 4 * width].
    """
    stride = max(total_stem_stride(2 * image_size), 2)
    return _quicknet("quicknet_tiny", image_size, channels, (2, 2, 2), (1, 2, 4), width, stride)


def quicknet_small(image_size: int, channels: int, *, width: int = 32) -> keras.Model:
    """QuickNetSmall: four sections of 4, of `width` times 1, 2, 8 and 16 channels.

    Args, Returns, Raises: see `quicknet`; features are [B, 16 * width].
    """
    return _quicknet("quicknet_small", image_size, channels, (4, 4, 4, 4), (1, 2, 8, 16), width)


def quicknet(image_size: int, channels: int, *, width: int = 64) -> keras.Model:
    """QuickNet: four sections of 4 binary convolutions, of `width` times 1, 2, 4 and 8 channels.

    The stem is a 3x3 convolution to a quarter of `width`, a depthwise 3x3 and a 1x1 convolution. Both 3x3 have stride
    2 from 128 px on as in the zoo, the first alone from 64 px on, neither below. The last map has 7 px a side at
    224 px, 4 px at 32, 64 and 128 px, and 3 px at 28 px.

    Args:
        image_size: height and width in pixels, at least 16.
        channels: image channels, 1 or 3.
        width: channels of the first section, a multiple of 32.

    Returns:
        A model from [B, image_size, image_size, channels] float32 to pooled features [B, 8 * width].

    Raises:
        ConfigError: an argument is out of range.
    """
    return _quicknet("quicknet", image_size, channels, (4, 4, 4, 4), (1, 2, 4, 8), width)


def quicknet_large(image_size: int, channels: int, *, width: int = 64) -> keras.Model:
    """QuickNetLarge: four sections of 6, 8, 12 and 6, of `width` times 1, 2, 4 and 8 channels.

    Args, Returns, Raises: see `quicknet`; features are [B, 8 * width].
    """
    return _quicknet("quicknet_large", image_size, channels, (6, 8, 12, 6), (1, 2, 4, 8), width)


def _quicknet(
    name: str,
    image_size: int,
    channels: int,
    blocks: Sequence[int],
    factors: Sequence[int],
    width: int,
    stem_stride: int = 0,
) -> keras.Model:
    check_sizes(name, image_size, width)
    image = layers.Input((image_size, image_size, channels), name="image")
    x = _stem(image, width, stem_stride or total_stem_stride(image_size))
    for section, (depth, factor) in enumerate(zip(blocks, factors, strict=True), start=1):
        if section > 1:
            x = _transition(x, factor * width, f"section{section}_transition")
        for block in range(1, depth + 1):
            x = _residual(x, factor * width, f"section{section}_block{block}")
    x = layers.ReLU(name="features_relu")(x)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(image, features, name=name)


def _stem(x: tf.Tensor, filters: int, stride: int) -> tf.Tensor:
    x = layers.Conv2D(filters // 4, 3, strides=min(stride, 2), padding="same", use_bias=False, name="stem_conv")(x)
    x = layers.ReLU(name="stem_relu")(batch_norm("stem_norm")(x))
    x = layers.DepthwiseConv2D(3, strides=max(stride // 2, 1), padding="same", use_bias=False, name="stem_depthwise")(x)
    x = batch_norm("stem_depthwise_norm")(x)
    x = layers.Conv2D(filters, 1, use_bias=False, name="stem_widen")(x)
    return batch_norm("stem_widen_norm")(x)


def _residual(x: tf.Tensor, filters: int, name: str) -> tf.Tensor:
    y = binary_conv(filters, 3, f"{name}_conv")(x)
    # The zoo's order, which becomes one operator: conversion moves the kernel's scale behind the ReLU.
    y = layers.ReLU(name=f"{name}_relu")(y)
    y = batch_norm(f"{name}_norm")(y)
    return layers.Add(name=f"{name}_add")([y, x])


def _transition(x: tf.Tensor, filters: int, name: str) -> tf.Tensor:
    x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.MaxPool2D(2, strides=1, name=f"{name}_pool")(x)
    x = layers.DepthwiseConv2D(
        3,
        strides=2,
        padding="same",
        use_bias=False,
        depthwise_initializer=BlurKernel(),
        trainable=False,
        name=f"{name}_blur",
    )(x)
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_widen")(x)
    return batch_norm(f"{name}_norm")(x)
