"""A small binary residual network in the manner of Bi-Real Net (Liu et al., ECCV 2018), laid out for LCE.

Every convolution but the first is 1-bit in weights and activations. The grain is the one that LCE's kernels like:
channels in multiples of 32, same-one padding, ReLU and batch norm right behind the convolution, a real-valued shortcut
around every convolution. Where a stage halves the picture and doubles the channels, the shortcut is an average pool
repeated twice along the channels, so that it needs no convolution of its own.
"""

from __future__ import annotations

from bssl_tf.backend import keras
from bssl_tf.errors import ConfigError
from bssl_tf.models.layers import batch_norm, binary_conv

layers = keras.layers


def binary_resnet(image_size: int, channels: int, *, width: int = 32, depth: int = 4) -> keras.Model:
    """Builds the network.

    A 3x3 float stem with stride 2, and for images of 64 px and more a max pool behind it; then stages of `depth`
    binary 3x3 convolutions, each stage but the first beginning with stride 2 and twice the channels: three stages, and
    from 128 px on four. The last map has 4 px a side at 28, 32 and 64 px, and 7 px at 224 px.

    Args:
        image_size: height and width in pixels, at least 16.
        channels: image channels, 1 or 3.
        width: channels of the first stage, a multiple of 32.
        depth: binary convolutions in a stage.

    Returns:
        A model from [B, image_size, image_size, channels] float32 to pooled features [B, width * 2**(stages - 1)].

    Raises:
        ConfigError: an argument is out of range.
    """
    if width < 32 or width % 32:
        raise ConfigError(f"width {width} is not a multiple of 32", "Choose 32, 64, 96 or 128")
    if depth < 1:
        raise ConfigError(f"depth {depth} is not positive", "Choose 2, 3 or 4")
    if image_size < 16:
        raise ConfigError(f"image size {image_size} is too small for binary_resnet", "Choose 16 px or more")

    image = layers.Input((image_size, image_size, channels), name="image")
    x = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(image)
    x = batch_norm("stem_norm")(x)
    if image_size >= 64:
        x = layers.MaxPool2D(3, strides=2, padding="same", name="stem_pool")(x)

    stages = 4 if image_size >= 128 else 3
    for stage in range(1, stages + 1):
        filters = width * 2 ** (stage - 1)
        for block in range(1, depth + 1):
            name = f"stage{stage}_block{block}"
            strides = 2 if stage > 1 and block == 1 else 1
            x = _binary_block(x, filters, strides, name)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(image, features, name="binary_resnet")


def _binary_block(x: object, filters: int, strides: int, name: str) -> object:
    shortcut = x
    if strides == 2:
        pooled = layers.AveragePooling2D(2, strides=2, padding="same", name=f"{name}_shortcut_pool")(x)
        shortcut = layers.Concatenate(name=f"{name}_shortcut")([pooled, pooled])
    y = binary_conv(filters, 3, f"{name}_conv", strides=strides)(x)
    # In this order a ReLU and a batch norm can become part of the convolution. LCE fuses them for kernels without a
    # scale only; with ours they stay small operators of their own for now.
    y = layers.ReLU(name=f"{name}_relu")(y)
    y = batch_norm(f"{name}_norm")(y)
    return layers.Add(name=f"{name}_add")([y, shortcut])
