"""A small float residual network (He et al., CVPR 2016, basic blocks): the teacher's backbone."""

from __future__ import annotations

from bssl_tf.backend import keras
from bssl_tf.errors import ConfigError
from bssl_tf.models.layers import batch_norm

layers = keras.layers


def float_resnet(image_size: int, channels: int, *, width: int = 32, depth: int = 2) -> keras.Model:
    """Builds the network.

    A 3x3 stem and a max pool (for 64 px and more the stem has stride 2 too), then three stages of `depth` basic
    blocks (four stages for 128 px and more), each but the first with stride 2 and twice the channels.

    Args:
        image_size: height and width in pixels, at least 16.
        channels: image channels, 1 or 3.
        width: channels of the first stage.
        depth: basic blocks (two convolutions each) in a stage.

    Returns:
        A model from [B, image_size, image_size, channels] float32 to pooled features [B, width * 2**(stages - 1)].

    Raises:
        ConfigError: an argument is out of range.
    """
    if width < 1 or depth < 1:
        raise ConfigError(f"width {width} and depth {depth} must be positive", "Try width 32 and depth 2")
    if image_size < 16:
        raise ConfigError(f"image size {image_size} is too small for float_resnet", "Choose 16 px or more")

    image = layers.Input((image_size, image_size, channels), name="image")
    strides = 2 if image_size >= 64 else 1
    x = layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False, name="stem_conv")(image)
    x = layers.ReLU(name="stem_relu")(batch_norm("stem_norm")(x))
    x = layers.MaxPool2D(2, padding="same", name="stem_pool")(x)

    stages = 4 if image_size >= 128 else 3
    for stage in range(1, stages + 1):
        for block in range(1, depth + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            x = _basic_block(x, width * 2 ** (stage - 1), strides, f"stage{stage}_block{block}")
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(image, features, name="float_resnet")


def _basic_block(x: object, filters: int, strides: int, name: str) -> object:
    def convolution(y: object, size: int, stride: int, part: str) -> object:
        y = layers.Conv2D(filters, size, strides=stride, padding="same", use_bias=False, name=f"{name}_{part}")(y)
        return batch_norm(f"{name}_{part}_norm")(y)

    shortcut = x if strides == 1 else convolution(x, 1, strides, "shortcut")
    y = layers.ReLU(name=f"{name}_relu1")(convolution(x, 3, strides, "conv1"))
    y = convolution(y, 3, 1, "conv2")
    return layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([y, shortcut]))
