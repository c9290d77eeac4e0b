"""Opens image files of any kind that Pillow reads, in one way for training on the host and for running on the device.

Imported only where an image is opened: nothing else on a device needs Pillow.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_SIXTEEN_BIT_MAX = 65535
# What Pillow would only warn of is refused below.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class UnreadableImageError(Exception):
    """The file cannot be decoded; the message is the cause, on one line. Callers turn it into an error of their own."""


def open_picture(source: Path | bytes, channels: int, *, at_least: int | None = None) -> Image.Image:
    """The first frame in 8 bits, turned upright as EXIF says, alpha laid over white, 16-bit grey divided by 257.

    Args:
        source: a file, or the content of one.
        channels: 1 (grey, ITU-R 601 luma) or 3 (RGB).
        at_least: lets a JPEG be decoded at a half, a quarter or an eighth, as long as both sides keep so many pixels.

    Raises:
        UnreadableImageError: missing, empty, truncated, unknown, or too many pixels (decompression bomb).
    """
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            _refuse_bomb(image)
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            # Turned first: a 16-bit picture is rebuilt from an array and loses its EXIF.
            return _eight_bit(ImageOps.exif_transpose(image), "L" if channels == 1 else "RGB")
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file.
        raise UnreadableImageError(_cause(source, error)) from error


def _refuse_bomb(image: Image.Image) -> None:
    # Pillow itself only warns up to twice this limit.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels are more than {limit}")


def _eight_bit(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > _SIXTEEN_BIT_MAX:
            raise ValueError("pixels beyond 16 bits have no known range")
        # 65535 / 257 = 255, rounded to the nearest.
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert(mode)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured).convert(mode)
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
