"""EfficientNet-Lite0: EfficientNet-B0 (Tan and Le, ICML 2019, table 1) made plain for small devices.

Lite leaves the squeeze-and-excitation out, takes ReLU6 for swish, and never scales stem and head. Its published weights
were trained with ImageNet's labels; `bssl-tf import-teacher` makes a teacher of them.
"""

from __future__ import annotations

from bssl_tf.backend import keras
from bssl_tf.errors import ConfigError
from bssl_tf.models.layers import batch_norm

layers = keras.layers

# Of each stage: blocks, kernel size, strides of the first block, expansion, output channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280


def efficientnet_lite0(image_size: int, channels: int) -> keras.Model:
    """Builds the network.

    Every convolution pads as TensorFlow does (`same`). The last map is a 32nd of the picture, 7 px a side at 224 px.

    Args:
        image_size: height and width in pixels, at least 32; published weights were trained at 224.
        channels: image channels, 1 or 3.

    Returns:
        A model from [B, image_size, image_size, channels] float32 to pooled features [B, 1280].

    Raises:
        ConfigError: the image size is out of range.
    """
    if image_size < 32:
        raise ConfigError(f"image size {image_size} is too small for efficientnet_lite0", "Choose 32 px or more")

    image = layers.Input((image_size, image_size, channels), name="image")
    x = layers.Conv2D(_STEM_CHANNELS, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(image)
    x = _norm_relu6(x, "stem")
    for stage, (blocks, size, first_strides, expansion, filters) in enumerate(STAGES, start=1):
        for block in range(1, blocks + 1):
            strides = first_strides if block == 1 else 1
            x = _inverted_bottleneck(x, size, strides, expansion, filters, f"stage{stage}_block{block}")
    x = layers.Conv2D(_HEAD_CHANNELS, 1, use_bias=False, name="top_conv")(x)
    x = _norm_relu6(x, "top")
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(image, features, name="efficientnet_lite0")


def _inverted_bottleneck(x: object, size: int, strides: int, expansion: int, filters: int, name: str) -> object:
    shortcut, channels = x, int(x.shape[-1])  # type: ignore[attr-defined]
    y = x
    if expansion > 1:
        y = layers.Conv2D(channels * expansion, 1, use_bias=False, name=f"{name}_expand_conv")(y)
        y = _norm_relu6(y, f"{name}_expand")
    y = layers.DepthwiseConv2D(size, strides=strides, padding="same", use_bias=False, name=f"{name}_depthwise_conv")(y)
    y = _norm_relu6(y, f"{name}_depthwise")
    y = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project_conv")(y)
    y = _norm(f"{name}_project_norm")(y)
    if strides > 1 or channels != filters:
        return y
    return layers.Add(name=f"{name}_add")([y, shortcut])


def _norm_relu6(x: object, name: str) -> object:
    return layers.ReLU(6.0, name=f"{name}_relu")(_norm(f"{name}_norm")(x))


def _norm(name: str) -> keras.layers.Layer:
    # The constants of the published weights, not those of `layers.batch_norm`.
    return batch_norm(name, momentum=0.99, epsilon=1e-3)
