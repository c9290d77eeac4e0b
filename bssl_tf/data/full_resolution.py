"""Crops that are cut from the files of a streamed set at full resolution, and only then resized to the network's input.

A cache keeps pictures at a little more than the network's size, so that a small crop of one is enlarged. Here a crop
has all the pixels that the file has. Pillow decodes, as everywhere. Of a large JPEG file only the part is computed that
holds the crops of all views (libjpeg-turbo, by TensorFlow's `decode_and_crop_jpeg`). For a small one that would take
longer than all of it, and what is odd about a JPEG is left to Pillow: a turn, CMYK, damage.
"""

from __future__ import annotations

import functools
import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bssl_tf.backend import tf
from bssl_tf.data.augmentation import MAX_CROP_RATIO, MIN_CROP_RATIO, Augmentation
from bssl_tf.data.decoding import UnreadableImageError
from bssl_tf.data.streamed import StreamedImages
from bssl_tf_deploy.image_formats import open_image
from bssl_tf_deploy.pictures import open_picture

_GREY = 128
_ORIENTATION = 0x0112
_END_OF_IMAGE = b"\xff\xd9"
# Some writers pad what follows the end marker.
_TAIL_BYTES = 1 << 10
# Pixels; with fewer, calling the decoder takes longer than it spares.
_WORTH_SPARING = 500_000
# What libjpeg decodes at, of the full size.
_SCALES = (8, 4, 2)
# A crop that is decoded smaller keeps this many pixels for each of the view's.
_KEPT_PIXELS = 2


def cut_crops(
    images: StreamedImages,
    indices: NDArray[np.int64],
    numbers: NDArray[np.float32],
    augmentation: Augmentation,
    image_size: int,
) -> NDArray[np.uint8]:
    """The crops that `augment` would choose, at full resolution; not flipped.

    Args:
        images: of a streamed set.
        indices: int64 [B].
        numbers: float32 [V, B, 13], see `data.views.view_numbers`.
        augmentation: the range of the crops' areas.
        image_size: side of the views, pixels.

    Returns:
        uint8 [V, B, image_size, image_size, C].

    Raises:
        DataError: too many images cannot be read.
    """
    channels, views = images.channels, len(numbers)
    blank = np.full((views, image_size, image_size, channels), _GREY, np.uint8)

    def cut(row: int, content: bytes) -> NDArray[np.uint8]:
        boxes_of = functools.partial(crop_boxes_of, numbers=numbers[:, row], limits=augmentation)
        return _cut(content, boxes_of, image_size, channels)

    return np.stack(images.made_of(indices, cut, blank), axis=1)


def crop_boxes_of(aspect_ratio: float, numbers: NDArray[np.float32], limits: Augmentation) -> NDArray[np.float64]:
    """What `augmentation.crop_boxes` gives for one picture: the formula is there, this is for threads that decode.

    Args:
        aspect_ratio: width / height.
        numbers: float32 [V, 4 or more] in 0 to 1, a row for each view: area, shape, top, left.
        limits: the range of the area.

    Returns:
        float64 [V, 4]: top, left, bottom, right as shares of the picture's height and width.
    """
    area, shape, top, left = numbers[:, :4].astype(np.float64).T
    share = limits.min_area + (limits.max_area - limits.min_area) * area
    narrowest = np.clip(share * aspect_ratio, MIN_CROP_RATIO, MAX_CROP_RATIO)
    widest = np.clip(aspect_ratio / share, MIN_CROP_RATIO, MAX_CROP_RATIO)
    ratio = np.exp(np.log(narrowest) * (1 - shape) + np.log(widest) * shape)
    height = np.minimum(np.sqrt(share * aspect_ratio / ratio), np.minimum(1.0, aspect_ratio / ratio))
    width = np.minimum(height * ratio / aspect_ratio, 1.0)
    y, x = top * (1 - height), left * (1 - width)
    return np.stack([y, x, y + height, x + width], axis=1)


def _cut(content: bytes, boxes_of: functools.partial, size: int, channels: int) -> NDArray[np.uint8]:
    """The crops of one picture, uint8 [V, S, S, C]. Raises `UnreadableImageError`."""
    header = _header(content)
    boxes = boxes_of(header.width / header.height if header is not None else 1.0)
    if (
        header is not None
        and _spared_pixels(header, boxes) > _WORTH_SPARING
        and _is_plain_jpeg(header, content, channels)
    ):
        try:
            return _cut_jpeg(content, boxes, header.height, header.width, size, channels)
        except tf.errors.OpError:  # Pillow repairs it, or names the cause.
            pass
    narrowest = float((boxes[:, 2:] - boxes[:, :2]).min())
    picture = open_picture(content, channels, stored=math.ceil(size / max(narrowest, 1e-3))).image
    # Upright now, which the header's ratio need not be.
    boxes = boxes_of(picture.width / picture.height)
    scale = np.array([picture.height, picture.width] * 2)
    return np.stack([_resized(picture, box * scale, size, channels) for box in boxes])


def _spared_pixels(header: Image.Image, boxes: NDArray[np.float64]) -> float:
    """How much of the picture lies outside of the smallest part that holds all boxes."""
    height, width = boxes[:, 2:].max(axis=0) - boxes[:, :2].min(axis=0)
    return float((1 - height * width) * header.width * header.height)


def _is_plain_jpeg(image: Image.Image, content: bytes, channels: int) -> bool:
    """Whether TensorFlow decodes it as Pillow does."""
    if _END_OF_IMAGE not in content[-_TAIL_BYTES:]:
        return False
    if image.format != "JPEG" or image.mode not in (("L",) if channels == 1 else ("L", "RGB")):
        return False
    try:
        return bool(image.getexif().get(_ORIENTATION, 1) == 1)
    except Exception:  # Pillow's parser raises nearly anything on damaged Exif.
        return False


def _header(content: bytes) -> Image.Image | None:
    """The picture, of which only the header was read; None where that is damaged."""
    try:
        return open_image(io.BytesIO(content))
    except Exception:  # Whoever decodes it reports the cause.
        return None


def _cut_jpeg(
    content: bytes, boxes: NDArray[np.float64], height: int, width: int, size: int, channels: int
) -> NDArray[np.uint8]:
    """The crops of one picture, uint8 [V, S, S, C]. Raises `tf.errors.OpError` where the file is damaged."""
    extents = (boxes[:, 2:] - boxes[:, :2]) * [height, width]
    ratio = next((ratio for ratio in _SCALES if extents.min() / ratio >= _KEPT_PIXELS * size), 1)
    # As libjpeg rounds.
    height, width = -(-height // ratio), -(-width // ratio)
    edges = boxes * np.array([height, width, height, width])
    # What resizing looks at around a box: a pixel, or more where it averages.
    margin = 1 + math.ceil(extents.max() / ratio / size)
    top, left = (max(0, math.floor(edge) - margin) for edge in edges[:, :2].min(axis=0))
    lowest, rightmost = edges[:, 2:].max(axis=0)
    bottom, right = min(height, math.ceil(lowest) + margin), min(width, math.ceil(rightmost) + margin)
    with tf.device("/CPU:0"):
        # One part that holds the crops of all views: most of the work is the same for each.
        window = tf.io.decode_and_crop_jpeg(
            content,
            [top, left, bottom - top, right - left],
            channels=channels,
            ratio=ratio,
            # What Pillow decodes with.
            dct_method="INTEGER_ACCURATE",
        ).numpy()
    picture = Image.fromarray(window[..., 0] if channels == 1 else window)
    return np.stack([_resized(picture, box - [top, left, top, left], size, channels) for box in edges])


def _resized(picture: Image.Image, edges: NDArray[np.float64], size: int, channels: int) -> NDArray[np.uint8]:
    """What lies between `edges` (top, left, bottom, right, in pixels), bilinear, averaged where it shrinks."""
    top, left, bottom, right = edges.tolist()
    box = (max(left, 0.0), max(top, 0.0), min(right, float(picture.width)), min(bottom, float(picture.height)))
    try:
        resized = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
    except ValueError as error:  # A box without area, of a picture that is thousands of times as wide as high.
        raise UnreadableImageError(f"it cannot be cropped: {error}") from error
    return np.asarray(resized, np.uint8).reshape(size, size, channels)
