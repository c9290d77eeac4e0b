"""From an image file to the network's input, in the same steps as on the host (bssl_tf.data)."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bssl_tf_deploy.errors import ImageError, RuntimeUnavailableError
from bssl_tf_deploy.manifest import Preprocessing

if TYPE_CHECKING:
    from PIL import Image

_SIXTEEN_BIT_MAX = 65535


def load_image(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Reads an image: first frame, upright as EXIF says, alpha over white, central square, resized, normalised.

    The resize is Pillow's BILINEAR, whose filter widens where it shrinks. A square picture of the network's size is
    taken as it is.

    Args:
        path: any format that Pillow reads.
        preprocessing: of the bundle.

    Returns:
        float32 [1, S, S, C].

    Raises:
        ImageError: the file is missing, empty, cut short, no image, or of too many pixels.
        RuntimeUnavailableError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise RuntimeUnavailableError("Pillow is not installed", "Install it with `pip install pillow`") from error
    size, channels = preprocessing.image_size, preprocessing.channels
    try:
        with warnings.catch_warnings():
            # Pillow warns of a decompression bomb and goes on; up to twice its limit that is too much here.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                pixels = _central_square(_upright(image, "L" if channels == 1 else "RGB"), size)
    # Pillow's decoders raise nearly anything on a damaged file.
    except Exception as error:
        raise ImageError(f"{path} cannot be read: {_cause(path, error)}", "Check the file, or leave it out") from error
    return normalise(pixels.reshape(1, size, size, channels), preprocessing)


def normalise(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """(pixel / 255 - mean) / std in float32; uint8 [..., C] to float32 [..., C]."""
    scaled = pixels.astype(np.float32) / np.float32(255)
    normalised: NDArray[np.float32] = (scaled - np.asarray(preprocessing.mean, np.float32)) / np.asarray(
        preprocessing.std, np.float32
    )
    return normalised


def encode_png(image: NDArray[np.float32], preprocessing: Preprocessing) -> bytes:
    """The picture that `load_image` turns into `image` again, as a PNG file.

    Args:
        image: float32 [S, S, C], normalised from whole grey levels.
        preprocessing: of the bundle.
    """
    from PIL import Image

    scaled = image.astype(np.float64) * preprocessing.std + preprocessing.mean
    pixels = np.clip(np.rint(scaled * 255), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def _upright(image: Image.Image, mode: str) -> Image.Image:
    from PIL import Image, ImageOps

    # Turned first: a 16-bit picture is rebuilt from an array and loses its EXIF.
    image = ImageOps.exif_transpose(image)
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
    # A palette goes by way of RGB, because its grey would be taken from the index.
    return image.convert("RGB").convert(mode) if image.mode == "P" else image.convert(mode)


def _central_square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    from PIL import Image

    if image.size != (size, size):
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    return np.asarray(image, np.uint8)


def _cause(path: Path, error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is empty" if not path.stat().st_size else "not an image that Pillow knows"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return f"{type(error).__name__}: {error}"
