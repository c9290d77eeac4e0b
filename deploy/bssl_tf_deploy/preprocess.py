"""From an image file to the network's input, in the same steps as on the host (bssl_tf.data)."""

from __future__ import annotations

import dataclasses
import io
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bssl_tf_deploy.boxes import letterbox
from bssl_tf_deploy.errors import ImageError, RuntimeUnavailableError
from bssl_tf_deploy.folders import is_folder
from bssl_tf_deploy.manifest import Manifest, Preprocessing
from bssl_tf_deploy.resizing import resized
from bssl_tf_deploy.tasks.task import Frame, View

if TYPE_CHECKING:
    from PIL import Image

    from bssl_tf_deploy.inputs import OneImage

_log = logging.getLogger(__name__)


def load_image(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Reads an image as `load_pixels` does, and normalises it: float32 [1, H, W, C]."""
    return normalise(load_pixels(path, preprocessing), preprocessing.mean, preprocessing.std)


def load_pixels(path: Path, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The pixels of `load_view`."""
    return load_view(path, preprocessing)[0]


def load_view(image: OneImage, preprocessing: Preprocessing, frame: Frame = "crop") -> tuple[NDArray[np.uint8], View]:
    """Reads an image as the host does for training (`bssl_tf_deploy.pictures`); its central part or all, resized.

    The part is the largest of the network's shape: for a square input the central square. What a user should know of
    how it was read is logged as a warning. The resize is `resizing.resized`. A picture of the network's size is taken
    as it is.

    Args:
        image: a file of any format that Pillow reads, or its content; a Pillow image; or pixels, uint8 [H, W, 3]
            (RGB) or [H, W, 1].
        preprocessing: of the bundle.
        frame: `crop` for the central part, `letterbox` for the whole with grey around it (`boxes.letterbox`).

    Returns:
        uint8 [1, H, W, C], and which part of the picture that is.

    Raises:
        ImageError: the file is missing, a folder, empty, cut short, not an image, or has too many pixels.
        RuntimeUnavailableError: Pillow is not installed.
    """
    try:
        from PIL import Image

        from bssl_tf_deploy.pictures import UnreadableImageError, open_picture, picture_of, stored_side
    except ImportError as error:
        raise RuntimeUnavailableError("Pillow is not installed", "Install it with `pip install pillow`") from error
    p = preprocessing
    name = image if isinstance(image, Path) else getattr(image, "filename", "") or "the image"
    try:
        if isinstance(image, (Path, bytes)):
            picture = open_picture(image, p.channels, stored=stored_side(max(p.height, p.width)))
        else:
            held = Image.fromarray(_contiguous(image)) if isinstance(image, np.ndarray) else image
            picture = picture_of(held, p.channels)
    except UnreadableImageError as error:
        if isinstance(image, Path) and is_folder(str(image)):
            raise ImageError(f"{name} is a folder", f"Name the files in it: {shlex.quote(str(image))}/*.jpg") from error
        raise ImageError(f"{name} cannot be read: {error}", "Check the file, or omit it") from error
    for remark in picture.remarks:
        _log.warning("%s: %s", name, remark)
    framed = letterbox if frame == "letterbox" else _central_part
    pixels, view = framed(picture.image, p.width, p.height)
    width, height = picture.size
    return pixels.reshape(1, p.height, p.width, p.channels), dataclasses.replace(view, width=width, height=height)


def _contiguous(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 3], or [H, W] of [H, W, 1], as Pillow takes it."""
    return np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def normalise(pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """(pixel / 255 - mean) / std in float32; uint8 [..., C] to float32 [..., C]. The host calls it too."""
    scaled = pixels.astype(np.float32) / np.float32(255)
    normalised: NDArray[np.float32] = (scaled - np.array(mean, np.float32)) / np.array(std, np.float32)
    return normalised


def normalised(inputs: np.ndarray, manifest: Manifest) -> NDArray[np.float32]:
    """What the inputs of a bundle's network, [B, H, W, C] of its type, stand for: float32, normalised."""
    if inputs.dtype == np.uint8:
        return normalise(inputs, manifest.preprocessing.mean, manifest.preprocessing.std)
    quantization = manifest.inputs[0].quantization
    floats: NDArray[np.float32] = inputs if quantization is None else quantization.floats(inputs)
    return floats


def averaged(images: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Images averaged over squares down to `side` pixels or less, in one row each: [B, S, S, C] to [B, D]."""
    step = -(-images.shape[1] // side)
    size = images.shape[1] // step
    cut = images[:, : size * step, : size * step]
    return cut.reshape(len(images), size, step, size, step, -1).mean(axis=(2, 4)).reshape(len(images), -1)


def whole_pixels(images: NDArray[np.float32], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """The pixels nearest to normalised images, float32 [..., C] to uint8 [..., C]: the reverse of `normalise`."""
    scaled = images.astype(np.float64) * std + mean
    return np.clip(np.rint(scaled * 255), 0, 255).astype(np.uint8)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file that `load_pixels` turns into `pixels`, uint8 [H, W, C], again."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def _central_part(image: Image.Image, width: int, height: int) -> tuple[NDArray[np.uint8], View]:
    wide, high = min(image.width, image.height * width / height), min(image.height, image.width * height / width)
    left, top = (image.width - wide) / 2, (image.height - high) / 2
    box = (left, top, left + wide, top + high)
    # As shares of the picture: it may have been decoded reduced.
    view = View(box[0] / image.width, box[1] / image.height, box[2] / image.width, box[3] / image.height)
    if image.size != (width, height):
        image = resized(image, width, height, box)
    return np.asarray(image, np.uint8), view
