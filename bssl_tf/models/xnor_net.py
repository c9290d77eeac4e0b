"""XNOR-Net in AlexNet's shape (Rastegari et al., XNOR-Net, ECCV 2016, section 3.2)."""

from __future__ import annotations

from bssl_tf.backend import keras, tf
from bssl_tf.models.layers import batch_norm, binary_conv, check_sizes, total_stem_stride

layers = keras.layers

_STEM_KERNELS = {1: 3, 2: 5, 4: 11}


def xnor_net(image_size: int, channels: int, *, width: int = 256) -> keras.Model:
    """Builds the network: a float stem, four binary convolutions, and AlexNet's two wide layers as binary ones.

    A block is batch norm, sign, convolution, and where AlexNet has one a max pool behind it. The wide layers are
    written as convolutions: the first spans the last map, up to 6x6 as in AlexNet; where the map is larger they
    slide over it. Features are the second one's, after batch norm and ReLU, averaged over what is left of the map.

    The stem from 128 px on is AlexNet's, 11x11 with stride 4, then a 3x3 max pool with stride 2. Below 128 px it is
    5x5 with stride 2, below 64 px 3x3 with stride 1; the three pools stay. The last map has 6 px a side at 224 px,
    3 px at 32, 64 and 128 px, and 2 px at 28 px.

    Not as in the paper: activations are not scaled by their local mean (the paper's K; larq-zoo leaves it out too),
    because LCE has no operator for it; batch norm has a learned scale; convolutions pad with ones.

    Args:
        image_size: height and width in pixels, at least 16.
        channels: image channels, 1 or 3.
        width: channels of the first binary convolution, a multiple of 64; the paper's is 256. The others follow in
            AlexNet's proportions.

    Returns:
        A model from [B, image_size, image_size, channels] float32 to features [B, 16 * width].

    Raises:
        ConfigError: an argument is out of range.
    """
    check_sizes("xnor_net", image_size, width, multiple=64)
    image = layers.Input((image_size, image_size, channels), name="image")
    stride = total_stem_stride(image_size)
    x = layers.Conv2D(
        3 * width // 8, _STEM_KERNELS[stride], strides=stride, padding="same", use_bias=False, name="stem_conv"
    )(image)
    x = layers.ReLU(name="stem_relu")(batch_norm("stem_norm")(x))
    x = layers.MaxPool2D(3, strides=2, name="stem_pool")(x)

    x = _block(x, width, 5, "conv2", pool=True)
    x = _block(x, 3 * width // 2, 3, "conv3")
    x = _block(x, 3 * width // 2, 3, "conv4")
    x = _block(x, width, 3, "conv5", pool=True)
    side = x.shape[1]
    x = _block(x, 16 * width, min(side, 6), "wide6", padding="valid")
    x = _block(x, 16 * width, 1, "wide7", padding="valid")
    x = layers.ReLU(name="wide7_relu")(batch_norm("features_norm")(x))
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(image, features, name="xnor_net")


def _block(x: tf.Tensor, filters: int, size: int, name: str, *, padding: str = "same", pool: bool = False) -> tf.Tensor:
    # The stem's pool leaves no negative value: without batch norm in front the sign would say +1 everywhere.
    x = binary_conv(filters, size, f"{name}_conv", padding=padding)(batch_norm(f"{name}_norm")(x))
    return layers.MaxPool2D(3, strides=2, name=f"{name}_pool")(x) if pool else x
