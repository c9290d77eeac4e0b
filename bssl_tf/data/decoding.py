"""Decodes image files of any kind that Pillow reads into squares of one size."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bssl_tf_deploy.pictures import UnreadableImageError, open_picture, picture_size

__all__ = ["Decoded", "UnreadableImageError", "decode", "header_size", "to_channels"]


def to_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """uint8 [N, S, S, C] with C turned to `channels`: grey is repeated, RGB becomes ITU-R 601 luma, rounded."""
    if images.shape[-1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=-1)
    # Pillow's fixed-point weights, so that data loaded here and a picture converted on the device agree.
    weights = np.array([19595, 38470, 7471], np.uint32)
    return ((images.astype(np.uint32) @ weights + 0x8000) >> 16).astype(np.uint8)[..., np.newaxis]


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: uint8 [S, S, C].
        ratio: width / height before squashing.
        size: width and height in the file, upright, pixels.
        remarks: what a user should know of how it was read.
    """

    pixels: NDArray[np.uint8]
    ratio: float
    size: tuple[int, int]
    remarks: tuple[str, ...]


def decode(source: Path | bytes, size: int, channels: int) -> Decoded:
    """A picture as `open_picture` reads it, squashed to a square.

    Args:
        source: a file, or the content of one.
        size: S, pixels.
        channels: C; 1 (grey, ITU-R 601 luma) or 3 (RGB).

    Raises:
        UnreadableImageError: see `open_picture`.
    """
    opened = open_picture(source, channels, stored=size)
    picture = opened.image
    ratio = picture.width / picture.height
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    return Decoded(np.asarray(picture, np.uint8).reshape(size, size, channels), ratio, opened.size, opened.remarks)


def header_size(source: Path) -> tuple[int, int] | None:
    """Width and height from the file's header, in pixels; None where it cannot be read."""
    try:
        return picture_size(source)
    except UnreadableImageError:  # As in decode(), which reports the cause.
        return None
