"""ResNet-18, 34 and 50 (He et al., CVPR 2016, table 1), in the form whose weights are published.

That form is torchvision's, often called v1.5: a bottleneck that halves the picture does so in its 3x3 convolution, not
in the first 1x1. Pictures are padded with as many zeros on each side, where Keras's `same` would pad the right and
bottom only, so that imported weights (`bssl-tf import-teacher`) give the numbers that they gave in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bssl_tf.backend import keras
from bssl_tf.errors import ConfigError
from bssl_tf.models.layers import batch_norm

layers = keras.layers

# Blocks in each of the four stages. Basic blocks end them with 64 to 512 channels, bottlenecks with 256 to 2048.
BLOCKS_18 = (2, 2, 2, 2)
BLOCKS_34 = BLOCKS_50 = (3, 4, 6, 3)


def resnet18(image_size: int, channels: int) -> keras.Model:
    """Builds the network of basic blocks, two in each stage; pooled features [B, 512]. See `resnet50`."""
    return _resnet("resnet18", image_size, channels, _basic, BLOCKS_18)


def resnet34(image_size: int, channels: int) -> keras.Model:
    """Builds the network of basic blocks, three to six in each stage; pooled features [B, 512]. See `resnet50`."""
    return _resnet("resnet34", image_size, channels, _basic, BLOCKS_34)


def resnet50(image_size: int, channels: int) -> keras.Model:
    """Builds the network.

    A 7x7 stem and a max pool, then four stages of bottlenecks; the last map is a 32nd of the picture, 7 px a side at
    224 px. Strides are the same for smaller pictures, of which little is left then: 2 px at 64 px, 1 px at 32 px.

    Args:
        image_size: height and width in pixels, at least 32; published weights were trained at 224.
        channels: image channels, 1 or 3.

    Returns:
        A model from [B, image_size, image_size, channels] float32 to pooled features [B, 2048].

    Raises:
        ConfigError: the image size is out of range.
    """
    return _resnet("resnet50", image_size, channels, _bottleneck, BLOCKS_50)


def _resnet(
    name: str, image_size: int, channels: int, block_of: Callable[..., object], blocks: Sequence[int]
) -> keras.Model:
    if image_size < 32:
        raise ConfigError(f"image size {image_size} is too small for {name}", "Choose 32 px or more")

    image = layers.Input((image_size, image_size, channels), name="image")
    x = layers.ZeroPadding2D(3, name="stem_pad")(image)
    x = layers.Conv2D(64, 7, strides=2, use_bias=False, name="stem_conv")(x)
    x = layers.ReLU(name="stem_relu")(batch_norm("stem_norm")(x))
    # After a ReLU a border of zeros never wins, so that it is the same as one of minus infinity.
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPool2D(3, strides=2, name="stem_pool")(x)
    for stage, count in enumerate(blocks, start=1):
        for block in range(1, count + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            x = block_of(x, 64 * 2 ** (stage - 1), strides, block == 1, f"stage{stage}_block{block}")
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(image, features, name=name)


def _convolution(x: object, filters: int, size: int, strides: int, name: str) -> object:
    if size > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(filters, size, strides=strides, use_bias=False, name=name)(x)
    return batch_norm(f"{name}_norm")(x)


def _basic(x: object, width: int, strides: int, first: bool, name: str) -> object:
    # The first stage has as many channels as the stem.
    shortcut = _convolution(x, width, 1, strides, f"{name}_shortcut") if first and strides > 1 else x
    y = layers.ReLU(name=f"{name}_relu1")(_convolution(x, width, 3, strides, f"{name}_conv1"))
    y = _convolution(y, width, 3, 1, f"{name}_conv2")
    return layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([y, shortcut]))


def _bottleneck(x: object, width: int, strides: int, first: bool, name: str) -> object:
    shortcut = _convolution(x, 4 * width, 1, strides, f"{name}_shortcut") if first else x
    y = layers.ReLU(name=f"{name}_relu1")(_convolution(x, width, 1, 1, f"{name}_conv1"))
    y = layers.ReLU(name=f"{name}_relu2")(_convolution(y, width, 3, strides, f"{name}_conv2"))
    y = _convolution(y, 4 * width, 1, 1, f"{name}_conv3")
    return layers.ReLU(name=f"{name}_relu3")(layers.Add(name=f"{name}_add")([y, shortcut]))
