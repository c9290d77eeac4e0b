"""From an image file to the network's input, in the same steps as on the host (bssl_tf.data)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bssl_tf_deploy.errors import ImageError, RuntimeUnavailableError
from bssl_tf_deploy.manifest import Preprocessing

if TYPE_CHECKING:
    from PIL import Image


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
        from bssl_tf_deploy.pictures import UnreadableImageError, open_picture
    except ImportError as error:
        raise RuntimeUnavailableError("Pillow is not installed", "Install it with `pip install pillow`") from error
    size, channels = preprocessing.image_size, preprocessing.channels
    try:
        pixels = _central_square(open_picture(path, channels), size)
    except UnreadableImageError as error:
        raise ImageError(f"{path} cannot be read: {error}", "Check the file, or leave it out") from error
    return normalise(pixels.reshape(1, size, size, channels), preprocessing.mean, preprocessing.std)


def normalise(pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """(pixel / 255 - mean) / std in float32; uint8 [..., C] to float32 [..., C]. The host calls it too."""
    scaled = pixels.astype(np.float32) / np.float32(255)
    normalised: NDArray[np.float32] = (scaled - np.array(mean, np.float32)) / np.array(std, np.float32)
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


def _central_square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    from PIL import Image

    if image.size != (size, size):
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    return np.asarray(image, np.uint8)
