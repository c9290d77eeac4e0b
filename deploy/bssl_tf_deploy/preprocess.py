"""From an image file to the network's input, in the same steps as on the host (bssl_tf.data)."""

from __future__ import annotations

import io
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bssl_tf_deploy.errors import ImageError, RuntimeUnavailableError
from bssl_tf_deploy.manifest import Manifest, Preprocessing

if TYPE_CHECKING:
    from PIL import Image

_log = logging.getLogger(__name__)


def load_image(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Reads an image as `load_pixels` does, and normalises it: float32 [1, S, S, C]."""
    return normalise(load_pixels(path, preprocessing), preprocessing.mean, preprocessing.std)


def load_pixels(path: Path, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Reads an image as the host does for training (`bssl_tf_deploy.pictures`); central square, resized.

    What a user should know of how it was read is logged as a warning. The resize is Pillow's BILINEAR, whose filter
    widens where it shrinks. A square picture of the network's size is taken as it is.

    Args:
        path: any format that Pillow reads.
        preprocessing: of the bundle.

    Returns:
        uint8 [1, S, S, C].

    Raises:
        ImageError: the file is missing, a folder, empty, cut short, not an image, or has too many pixels.
        RuntimeUnavailableError: Pillow is not installed.
    """
    try:
        from bssl_tf_deploy.pictures import UnreadableImageError, open_picture, stored_side
    except ImportError as error:
        raise RuntimeUnavailableError("Pillow is not installed", "Install it with `pip install pillow`") from error
    size, channels = preprocessing.image_size, preprocessing.channels
    try:
        picture = open_picture(path, channels, stored=stored_side(size))
    except UnreadableImageError as error:
        if path.is_dir():
            raise ImageError(f"{path} is a folder", f"Name the files in it: {shlex.quote(str(path))}/*.jpg") from error
        raise ImageError(f"{path} cannot be read: {error}", "Check the file, or omit it") from error
    for remark in picture.remarks:
        _log.warning("%s: %s", path, remark)
    return _central_square(picture.image, size).reshape(1, size, size, channels)


def normalise(pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """(pixel / 255 - mean) / std in float32; uint8 [..., C] to float32 [..., C]. The host calls it too."""
    scaled = pixels.astype(np.float32) / np.float32(255)
    normalised: NDArray[np.float32] = (scaled - np.array(mean, np.float32)) / np.array(std, np.float32)
    return normalised


def normalised(inputs: np.ndarray, manifest: Manifest) -> NDArray[np.float32]:
    """What the inputs of a bundle's network, [B, S, S, C] of its type, stand for: float32, normalised."""
    if inputs.dtype == np.uint8:
        return normalise(inputs, manifest.preprocessing.mean, manifest.preprocessing.std)
    quantization = manifest.signature.input.quantization
    floats: NDArray[np.float32] = inputs if quantization is None else quantization.floats(inputs)
    return floats


def whole_pixels(images: NDArray[np.float32], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """The pixels nearest to normalised images, float32 [..., C] to uint8 [..., C]: the reverse of `normalise`."""
    scaled = images.astype(np.float64) * std + mean
    return np.clip(np.rint(scaled * 255), 0, 255).astype(np.uint8)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file that `load_pixels` turns into `pixels`, uint8 [S, S, C], again."""
    from PIL import Image

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
