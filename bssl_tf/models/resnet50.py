"""ResNet-50 (He et al., CVPR 2016, table 1), in the form whose self-supervised weights are published.

That form is torchvision's, often called v1.5: a bottleneck that halves the picture does so in its 3x3 convolution, not
in the first 1x1. Pictures are padded with as many zeros on each side, where Keras's `same` would pad the right and
bottom only, so that imported weights (`bssl-tf import-teacher`) give the numbers that they gave in PyTorch.
"""

from __future__ import annotations

from bssl_tf.backend import keras
from bssl_tf.errors import ConfigError
from bssl_tf.models.layers import batch_norm

layers = keras.layers

# Bottlenecks in each stage; a stage ends with 256, 512, 1024 and 2048 channels.
BLOCKS = (3, 4, 6, 3)


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
    if image_size < 32:
        raise ConfigError(f"image size {image_size} is too small for resnet50", "Choose 32 px or more")

    image = layers.Input((image_size, image_size, channels), name="image")
    x = layers.ZeroPadding2D(3, name="stem_pad")(image)
    x = layers.Conv2D(64, 7, strides=2, use_bias=False, name="stem_conv")(x)
    x = layers.ReLU(name="stem_relu")(batch_norm("stem_norm")(x))
    # Behind a ReLU a border of zeros never wins, so that it is the same as one of minus infinity.
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPool2D(3, strides=2, name="stem_pool")(x)
    for stage, blocks in enumerate(BLOCKS, start=1):
        for block in range(1, blocks + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            x = _bottleneck(x, 64 * 2 ** (stage - 1), strides, block == 1, f"stage{stage}_block{block}")
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(image, features, name="resnet50")


def _bottleneck(x: object, width: int, strides: int, projects: bool, name: str) -> object:
    def convolution(y: object, filters: int, size: int, stride: int, part: str) -> object:
        if size > 1:
            y = layers.ZeroPadding2D(size // 2, name=f"{name}_{part}_pad")(y)
        y = layers.Conv2D(filters, size, strides=stride, use_bias=False, name=f"{name}_{part}")(y)
        return batch_norm(f"{name}_{part}_norm")(y)

    shortcut = convolution(x, 4 * width, 1, strides, "shortcut") if projects else x
    y = layers.ReLU(name=f"{name}_relu1")(convolution(x, width, 1, 1, "conv1"))
    y = layers.ReLU(name=f"{name}_relu2")(convolution(y, width, 3, strides, "conv2"))
    y = convolution(y, 4 * width, 1, 1, "conv3")
    return layers.ReLU(name=f"{name}_relu3")(layers.Add(name=f"{name}_add")([y, shortcut]))
