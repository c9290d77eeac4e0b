"""Decodes image files of any kind that Pillow reads into squares of one size."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

# What is taken for an image in a folder; anything else there is ignored.
IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "dib", "gif", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "pbm"),
        *("pcx", "pgm", "png", "pnm", "ppm", "qoi", "tga", "tif", "tiff", "webp"),
    )
)
_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_SIXTEEN_BIT_MAX = 65535


class UnreadableImageError(Exception):
    """The file cannot be decoded; the message is the cause, on one line. Never leaves `bssl_tf.data`."""


def to_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """uint8 [N, S, S, C] with C turned to `channels`: grey is repeated, RGB becomes ITU-R 601 luma, rounded."""
    if images.shape[-1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=-1)
    # Pillow's fixed-point weights, so that data loaded here and a picture converted on the device agree.
    weights = np.array([19595, 38470, 7471], np.uint32)
    return ((images.astype(np.uint32) @ weights + 0x8000) >> 16).astype(np.uint8)[..., np.newaxis]


def decode(source: Path | bytes, size: int, channels: int) -> tuple[NDArray[np.uint8], float]:
    """The first frame, turned upright as EXIF says, squashed to a square.

    Alpha is laid over white. 16-bit grey is divided by 257.

    Args:
        source: a file, or the content of one.
        size: S, pixels.
        channels: C; 1 (grey, ITU-R 601 luma) or 3 (RGB).

    Returns:
        uint8 [S, S, C], and width / height before squashing.

    Raises:
        UnreadableImageError: missing, empty, truncated, unknown, or too many pixels (decompression bomb).
    """
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            _refuse_bomb(image)
            # Lets a JPEG of many times the size be decoded at a half, a quarter or an eighth; no-op for other formats.
            image.draft(None, (2 * size, 2 * size))
            mode = "L" if channels == 1 else "RGB"
            # Turned first: a 16-bit picture is rebuilt from an array and loses its EXIF.
            picture = _eight_bit(ImageOps.exif_transpose(image), mode)
            ratio = picture.width / picture.height
            if picture.size != (size, size):
                picture = picture.resize((size, size), Image.Resampling.BICUBIC)
            return np.asarray(picture, np.uint8).reshape(size, size, channels), ratio
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file.
        raise UnreadableImageError(_cause(source, error)) from error


def header_size(source: Path) -> tuple[int, int] | None:
    """Width and height as the file's header says, in pixels; None where it cannot be read."""
    try:
        with Image.open(source) as image:
            return image.size
    except Exception:  # As in decode(), which reports the cause.
        return None


def _refuse_bomb(image: Image.Image) -> None:
    # Pillow itself only warns up to twice this limit.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels are more than {limit}")


def _eight_bit(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in _SIXTEEN_BIT_MODES:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > _SIXTEEN_BIT_MAX:
            raise ValueError("pixels beyond 16 bits have no known range")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert(mode)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert(mode)
    # By way of RGB, because not every colour mode has a way to grey, and some have one of their own.
    return image.convert(mode) if image.mode in ("1", "L") else image.convert("RGB").convert(mode)


def _cause(source: Path | bytes, error: Exception) -> str:
    if isinstance(source, bytes):
        empty = not source
    else:
        try:
            empty = source.stat().st_size == 0
        except OSError:
            empty = False
    if empty:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow knows"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return " ".join(f"{type(error).__name__}: {error}".split())
