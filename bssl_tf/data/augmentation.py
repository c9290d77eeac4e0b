"""Random views of images: crop, flip, colour jitter, greyscale, blur. The random numbers come from the caller.

Strengths: "lite" from Shen et al., "S2-BNN", CVPR 2021, arXiv 2102.08946; the other from Chen et al., "Improved
Baselines with Momentum Contrastive Learning", arXiv 2003.04297 (MoCo v2).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from bssl_tf.backend import tf
from bssl_tf.errors import ConfigError

# A crop's width / height in true geometry.
MIN_CROP_RATIO = 3 / 4
MAX_CROP_RATIO = 4 / 3
# Blur strengths are given for pictures of this many pixels and shrink with the picture.
_BLUR_REFERENCE_SIZE = 224
# Below this sigma (pixels) a Gaussian on the pixel grid hardly blurs. So that at 28 px blur still is one, the upper end
# of the range never falls below: there a pixel keeps about half (0.54) of its weight along each axis.
_MIN_UPPER_BLUR_SIGMA = 0.75
# How many random numbers make a view of one image.
NUMBERS_PER_VIEW = 13
# Lanes of the widest vectors that a processor computes with (AVX-512).
_LANES = 16
# ITU-R 601 luma.
_LUMA = (0.299, 0.587, 0.114)
_TO_YIQ = np.array([_LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
# What luma, chroma, and chroma after a quarter turn, are of a pixel: float32 [3, 3] matrices.
_OF_LUMA = np.float32(_FROM_YIQ[:, :1] @ _TO_YIQ[:1])
_OF_CHROMA = np.float32(_FROM_YIQ[:, 1:] @ _TO_YIQ[1:])
_OF_TURNED_CHROMA = np.float32(_FROM_YIQ[:, 1:] @ np.array([[0, -1], [1, 0]]) @ _TO_YIQ[1:])


@dataclass(frozen=True)
class Augmentation:
    """How strong a random view differs from its picture.

    Attributes:
        min_area, max_area: the crop's share of the picture's area, drawn uniformly.
        brightness, contrast, saturation: a factor drawn uniformly from 1 - strength to 1 + strength; 0 to 1.
        hue: largest rotation of the hue, in turns; 0 to 0.5.
        jitter_probability, grey_probability, blur_probability, flip_probability: 0 to 1, drawn per image.
        min_blur_sigma, max_blur_sigma: standard deviation of the blur in pixels of a 224-pixel view, drawn uniformly;
            `blur_range` scales it.

    Raises:
        ConfigError: a value is out of range.
    """

    min_area: float
    max_area: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    jitter_probability: float
    grey_probability: float
    blur_probability: float
    min_blur_sigma: float
    max_blur_sigma: float
    flip_probability: float

    def __post_init__(self) -> None:
        limits = {"hue": 0.5, "min_blur_sigma": math.inf, "max_blur_sigma": math.inf}
        for field in fields(self):
            value, limit = getattr(self, field.name), limits.get(field.name, 1.0)
            if not 0 <= value <= limit or not math.isfinite(value):
                raise ConfigError(f"augmentation.{field.name} is {value}", f"Give a number from 0 to {limit:g}")
        for kind in ("area", "blur_sigma"):
            low, high = getattr(self, f"min_{kind}"), getattr(self, f"max_{kind}")
            if not 0 < low <= high:
                raise ConfigError(
                    f"augmentation.min_{kind} is {low} and augmentation.max_{kind} is {high}",
                    "Make the first one above zero and no larger than the second",
                )

    def blur_range(self, image_size: int) -> tuple[float, float]:
        """Smallest and largest sigma, in pixels of a view of `image_size`; the largest is at least 0.75 pixels."""
        scale = image_size / _BLUR_REFERENCE_SIZE
        return self.min_blur_sigma * scale, max(self.max_blur_sigma * scale, _MIN_UPPER_BLUR_SIGMA)


LITE = Augmentation(
    min_area=0.2,
    max_area=1.0,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    jitter_probability=0.6,
    grey_probability=0.2,
    blur_probability=0.2,
    min_blur_sigma=0.1,
    max_blur_sigma=2.0,
    flip_probability=0.5,
)
MOCO_V2 = Augmentation(
    min_area=0.2,
    max_area=1.0,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    jitter_probability=0.8,
    grey_probability=0.2,
    blur_probability=0.5,
    min_blur_sigma=0.1,
    max_blur_sigma=2.0,
    flip_probability=0.5,
)
# Crop and flip only: a label must survive the view, and stay readable at a few pixels.
WEAK = Augmentation(
    min_area=0.5,
    max_area=1.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    jitter_probability=0.0,
    grey_probability=0.0,
    blur_probability=0.0,
    min_blur_sigma=0.1,
    max_blur_sigma=0.1,
    flip_probability=0.5,
)
PRESETS = {"lite": LITE, "moco_v2": MOCO_V2, "weak": WEAK}


def augment(
    images: tf.Tensor, aspect_ratios: tf.Tensor, numbers: tf.Tensor, augmentation: Augmentation, image_size: int
) -> tf.Tensor:
    """One random view of each image, which depends on its own random numbers alone; no state is kept.

    In this order: crop and flip in one resampling, brightness, contrast, saturation, hue, greyscale, blur. The order is
    fixed, and the colour steps are one affine map that is clipped once at its end, not after each step. Images of one
    channel take brightness and contrast only.

    Args:
        images: uint8 [B, S, S, C], squashed to squares; C 1 or 3.
        aspect_ratios: float32 [B], width / height of the originals.
        numbers: float32 [B, 13] in 0 to 1, 1 excluded; see `data.views.view_numbers`.
        augmentation: the strengths.
        image_size: side of the views, pixels.

    Returns:
        float32 [B, image_size, image_size, C] in 0 to 1.
    """
    random = tf.unstack(numbers, NUMBERS_PER_VIEW, axis=1)
    boxes = _in_whole_vectors(functools.partial(crop_boxes, limits=augmentation), aspect_ratios, *random[:4])
    views = _crop_and_flip(images, boxes, random[4] < augmentation.flip_probability, image_size)
    return _jitter_and_blur(views, random, augmentation)


def augment_crops(crops: tf.Tensor, numbers: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """What `augment` does after cropping, for crops that were cut before, see `data.full_resolution`.

    Args:
        crops: uint8 [B, S, S, C], not flipped yet.
        numbers: float32 [B, 13], those that chose the crops.
        augmentation: the strengths.

    Returns:
        float32 [B, S, S, C] in 0 to 1.
    """
    random = tf.unstack(numbers, NUMBERS_PER_VIEW, axis=1)
    flip = (random[4] < augmentation.flip_probability)[:, tf.newaxis, tf.newaxis, tf.newaxis]
    views = tf.cast(tf.where(flip, tf.reverse(crops, [2]), crops), tf.float32) / 255.0
    return _jitter_and_blur(views, random, augmentation)


def _jitter_and_blur(views: tf.Tensor, random: list[tf.Tensor], augmentation: Augmentation) -> tf.Tensor:
    views = _jitter(views, random[5:11], augmentation)
    low, high = augmentation.blur_range(views.shape[1])
    return _blur(views, random[11] < augmentation.blur_probability, low + (high - low) * random[12])


def crop_boxes(
    aspect_ratios: tf.Tensor, area: tf.Tensor, shape: tf.Tensor, top: tf.Tensor, left: tf.Tensor, limits: Augmentation
) -> tf.Tensor:
    """Random boxes inside the pictures, chosen in true geometry.

    The area is uniform in the range of `limits`; the box's width / height is log-uniform over that part of 3/4 to 4/3
    that fits the picture at this area. In a picture so narrow that none fits, the box keeps its shape and gives up
    area.

    Args:
        aspect_ratios: float32 [B], width / height of the pictures.
        area, shape, top, left: float32 [B] in 0 to 1, the random numbers.
        limits: the range of the area.

    Returns:
        float32 [B, 4]: top, left, bottom, right as shares of the picture's height and width.
    """
    # A picture is 1 high and `aspect_ratios` wide.
    share = limits.min_area + (limits.max_area - limits.min_area) * area
    narrowest = tf.clip_by_value(share * aspect_ratios, MIN_CROP_RATIO, MAX_CROP_RATIO)
    widest = tf.clip_by_value(aspect_ratios / share, MIN_CROP_RATIO, MAX_CROP_RATIO)
    ratio = tf.exp(tf.math.log(narrowest) * (1 - shape) + tf.math.log(widest) * shape)
    height = tf.minimum(tf.sqrt(share * aspect_ratios / ratio), tf.minimum(1.0, aspect_ratios / ratio))
    width = tf.minimum(height * ratio / aspect_ratios, 1.0)
    y, x = top * (1 - height), left * (1 - width)
    return tf.stack([y, x, y + height, x + width], axis=1)


def _crop_and_flip(images: tf.Tensor, boxes: tf.Tensor, flip: tf.Tensor, size: int) -> tf.Tensor:
    """Bilinear resize of `boxes` (shares of height and width) to `size`, mirrored where `flip`; float32 in 0 to 1."""
    stored = images.shape[1]
    top, left, bottom, right = tf.unstack(boxes, axis=1)
    left, right = tf.where(flip, right, left), tf.where(flip, left, right)
    # The op puts its first and last sample on the box's edges, measured between the centres of the corner pixels. We
    # want samples in the middle of `size` equal cells. Those can lie up to half a pixel outside of the corner centres,
    # so the picture gets a border of one repeated pixel.
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")
    half_cell_y, half_cell_x = (bottom - top) / (2 * size), (right - left) / (2 * size)
    corners = [top + half_cell_y, left + half_cell_x, bottom - half_cell_y, right - half_cell_x]
    samples = (tf.stack(corners, axis=1) * stored + 0.5) / (stored + 1)
    return tf.image.crop_and_resize(padded, samples, tf.range(tf.shape(images)[0]), [size, size]) / 255.0


def _jitter(views: tf.Tensor, random: list[tf.Tensor], augmentation: Augmentation) -> tf.Tensor:
    """Brightness b, contrast c, saturation and hue (a matrix M that keeps grey grey), greyscale, as one affine map.

    x -> c b M x + (1 - c) b m, where m is the mean luma of the picture.

    Args:
        views: float32 [B, S, S, C] in 0 to 1.
        random: six float32 [B] in 0 to 1: whether to jitter; four strengths; whether to turn grey.
        augmentation: strengths and probabilities.
    """
    jitter = tf.cast(random[0] < augmentation.jitter_probability, tf.float32)
    limits = (augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)
    drawn = [limit * (2 * number - 1) * jitter for limit, number in zip(limits, random[1:5], strict=True)]
    brightness, contrast, saturation = (1 + number for number in drawn[:3])
    channel_means = tf.reduce_mean(views, axis=[1, 2])
    if views.shape[3] == 1:
        offset = ((1 - contrast) * brightness)[:, tf.newaxis] * channel_means
        scale = contrast * brightness
        return tf.clip_by_value(views * scale[:, None, None, None] + offset[:, None, None, :], 0.0, 1.0)
    grey = tf.cast(random[5] < augmentation.grey_probability, tf.float32)
    angle = 2 * math.pi * drawn[3]
    colour = (1 - grey) * saturation
    # Greyscale is saturation 0: chroma is scaled and turned in YIQ, luma stays.
    cos, sin = colour * _in_whole_vectors(tf.cos, angle), colour * _in_whole_vectors(tf.sin, angle)
    matrix = tf.add_n([cos[:, None, None] * _OF_CHROMA, sin[:, None, None] * _OF_TURNED_CHROMA]) + _OF_LUMA
    matrix *= (contrast * brightness)[:, None, None]
    mean_luma = tf.add_n([luma * channel_means[:, channel] for channel, luma in enumerate(_LUMA)])
    offset = (1 - contrast) * brightness * mean_luma
    # Written out: a library may take other code for the products of another number of matrices, which sums in
    # another order, and then a view would depend on the rest of the batch. So it would if TensorFlow, which rewrites
    # sums as far as it knows their shapes, chose the order.
    planes = tf.unstack(views, axis=3)
    mixed = [
        tf.add_n([matrix[:, row, column, None, None] * plane for column, plane in enumerate(planes)])
        + offset[:, None, None]
        for row in range(3)
    ]
    return tf.clip_by_value(tf.stack(mixed, axis=3), 0.0, 1.0)


def _blur(views: tf.Tensor, chosen: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Gaussian blur of the `chosen` views; at the border the weights inside the picture are scaled to sum to one.

    Args:
        views: float32 [B, S, S, C].
        chosen: bool [B].
        sigma: float32 [B], standard deviation, pixels.
    """
    size, channels = views.shape[1], views.shape[3]
    where = tf.where(chosen)
    places = tf.range(size, dtype=tf.float32)
    squared_distance = tf.square(places[:, None] - places[None, :])

    def weights_of(sigma: tf.Tensor) -> tf.Tensor:
        # Row i holds the weights of all pixels for pixel i: a softmax of -d^2 / (2 sigma^2).
        return tf.nn.softmax(-squared_distance / (2 * tf.square(sigma))[:, None, None])

    def along_both_axes(one: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        # One picture at a time, for the reason given in `_jitter`.
        weights, view = one
        rows = tf.reshape(tf.matmul(weights, tf.reshape(view, [size, size * channels])), [size, size, channels])
        rows = tf.reshape(tf.transpose(rows, [1, 0, 2]), [size, size * channels])
        return tf.transpose(tf.reshape(tf.matmul(weights, rows), [size, size, channels]), [1, 0, 2])

    weights = _in_whole_vectors(weights_of, tf.boolean_mask(sigma, chosen))
    taken = tf.gather_nd(views, where)
    blurred = tf.map_fn(along_both_axes, (weights, taken), fn_output_signature=tf.float32)
    # Of no picture there is no shape to tell from.
    return tf.tensor_scatter_nd_update(views, where, tf.reshape(blurred, tf.shape(taken)))


def _in_whole_vectors(function: Callable[..., tf.Tensor], *columns: tf.Tensor) -> tf.Tensor:
    """`function` of some [B], with B filled up to whole vectors of the processor for as long as it computes.

    What is left over after the last whole vector is computed by other code, whose exponentials and cosines may differ
    in the last bit: then a view would depend on its image's place in the batch.
    """
    known = columns[0].shape[0]
    count = tf.shape(columns[0])[0] if known is None else known
    filled = [tf.pad(column, [[0, -count % _LANES]], constant_values=1.0) for column in columns]
    return function(*filled)[:count]
