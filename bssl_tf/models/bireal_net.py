"""Bi-Real Net-18 (Liu et al., Bi-Real Net, ECCV 2018, section 3): a real shortcut around each binary convolution.

So real-valued activations reach the next block, and not only their signs.
"""

from __future__ import annotations

from bssl_tf.backend import keras, tf
from bssl_tf.models.layers import batch_norm, binary_conv, check_sizes, total_stem_stride

layers = keras.layers

_STAGES = 4
_BLOCKS = 4


def bireal_net18(image_size: int, channels: int, *, width: int = 64) -> keras.Model:
    """Builds the network: a float stem, then four stages of four binary 3x3 convolutions.

    Each convolution is followed by batch norm and the shortcut; there is no ReLU. Each stage but the first halves the
    picture and doubles the channels: there the shortcut is an average pool, a float 1x1 convolution and batch norm.

    The stem from 128 px on is the paper's: 7x7 with stride 2, batch norm, a 3x3 max pool with stride 2. For smaller
    images it is a 3x3 convolution without the pool, with stride 2 from 64 px on and stride 1 below. The last map has
    7 px a side at 224 px and 4 px at 28, 32, 64 and 128 px.

    Not as in the paper: binary convolutions pad with ones, not zeros, because LCE is faster so.

    Args:
        image_size: height and width in pixels, at least 16.
        channels: image channels, 1 or 3.
        width: channels of the first stage, a multiple of 32; the paper's is 64.

    Returns:
        A model from [B, image_size, image_size, channels] float32 to pooled features [B, 8 * width].

    Raises:
        ConfigError: an argument is out of range.
    """
    check_sizes("bireal_net18", image_size, width)
    image = layers.Input((image_size, image_size, channels), name="image")
    stride = total_stem_stride(image_size)
    x = layers.Conv2D(
        width, 7 if stride == 4 else 3, strides=min(stride, 2), padding="same", use_bias=False, name="stem_conv"
    )(image)
    x = batch_norm("stem_norm")(x)
    if stride == 4:
        x = layers.MaxPool2D(3, strides=2, padding="same", name="stem_pool")(x)
    for stage in range(1, _STAGES + 1):
        for block in range(1, _BLOCKS + 1):
            name = f"stage{stage}_block{block}"
            x = _block(x, width * 2 ** (stage - 1), 2 if stage > 1 and block == 1 else 1, name)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(image, features, name="bireal_net18")


def _block(x: tf.Tensor, filters: int, strides: int, name: str) -> tf.Tensor:
    shortcut = x
    if strides == 2:
        shortcut = layers.AveragePooling2D(2, padding="same", name=f"{name}_shortcut_pool")(x)
        shortcut = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_shortcut_conv")(shortcut)
        shortcut = batch_norm(f"{name}_shortcut_norm")(shortcut)
    y = binary_conv(filters, 3, f"{name}_conv", strides=strides)(x)
    y = batch_norm(f"{name}_norm")(y)
    return layers.Add(name=f"{name}_add")([y, shortcut])
