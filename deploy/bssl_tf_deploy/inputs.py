"""What a predictor may be given: images of any kind, one by one, or tensors that are ready for the network.

Everything else is refused, with what was given and what is wanted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from bssl_tf_deploy.errors import ImageError
from bssl_tf_deploy.manifest import Manifest, TensorSignature

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

# Images that were preprocessed elsewhere may have been resized with a filter that overshoots.
_SLACK = 0.25
# An array is one image, [H, W, C], or several, [N, H, W, C].
Image: TypeAlias = "str | os.PathLike[str] | np.ndarray | PillowImage"
Images: TypeAlias = "Image | Iterable[Image]"
# Of an array, [H, W, C] in RGB or grey; of bytes, what a file of it would hold.
OneImage: TypeAlias = "Path | bytes | np.ndarray | PillowImage"
_WANTED = "a path, a Pillow image, or uint8 pixels [H, W, 3 or 1] or [N, H, W, 3 or 1]"


def single_images(images: Images, *, bgr: bool = False) -> Iterator[OneImage]:
    """Each image, in order: of an array [N, H, W, C], N of them.

    Args:
        images: one image, several in one array, or any number of both.
        bgr: the channels of arrays are in OpenCV's order, blue first.

    Raises:
        ImageError: there are none, or one is not an image; found when its turn comes.
    """
    several: Iterable[object]
    if isinstance(images, (str, os.PathLike, np.ndarray)) or _is_pillow(images):
        several = [images]
    elif isinstance(images, (bytes, Mapping)) or not isinstance(images, Iterable):
        raise _not_an_image(images)
    else:
        several = images
    count = 0
    for given in several:
        for image in _singles(given, bgr):
            count += 1
            yield image
    if not count:
        raise ImageError("there are no images to run", "Give at least one")


def _singles(given: object, bgr: bool) -> Iterator[OneImage]:
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.ndim not in (3, 4) or given.shape[-1] not in (1, 3):
            raise _not_an_image(given)
        if 0 in given.shape[-3:]:
            raise ImageError(f"an image is {list(given.shape)}, without pixels", f"Give {_WANTED}")
        ordered = given[..., ::-1] if bgr else given
        yield from [ordered] if given.ndim == 3 else ordered
    elif isinstance(given, (str, os.PathLike)):
        path = os.fspath(given)
        if not isinstance(path, str):
            raise _not_an_image(path)
        yield Path(path)
    elif _is_pillow(given):
        yield given  # type: ignore[misc]
    else:
        raise _not_an_image(given)


def _is_pillow(value: object) -> bool:
    # Whoever has such an image has loaded Pillow; nobody else waits for it.
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def _not_an_image(value: object) -> ImageError:
    if not isinstance(value, np.ndarray):
        return ImageError(f"an image is of type {type(value).__name__}; expected: {_WANTED}", "Give one of these")
    if value.dtype != np.uint8:
        step = "Give the pixels, 0 to 255, as they come; a tensor that is ready for the network goes to run_tensor"
    elif value.ndim == 2:
        step = "Give grey pixels a last axis: array[..., np.newaxis]"
    else:
        step = "Put the channels last: 3 for red, green and blue (or blue first, with bgr=True), 1 for grey, no alpha"
    return ImageError(f"an image is {value.dtype} {list(value.shape)}; expected: {_WANTED}", step)


def check_tensors(manifest: Manifest, tensors: Mapping[str, np.ndarray]) -> None:
    """Compares tensors with the manifest's inputs: names, types, shapes, numbers that are not finite, and range.

    Only the range of the image is known: what pixels of 0 to 255 become.

    Args:
        manifest: of the bundle.
        tensors: by name, [N, ...].

    Raises:
        ImageError: the first that is not as it should be.
    """
    names = [about.name for about in manifest.inputs]
    if set(tensors) != set(names):
        raise ImageError(f"the inputs are {_listed(tensors)}; the network takes {_listed(names)}", "Give these")
    counts = {len(tensor) for tensor in tensors.values() if isinstance(tensor, np.ndarray) and tensor.ndim}
    for about in manifest.inputs:
        _check_type(manifest, about, tensors[about.name])
    if len(counts) != 1:
        raise ImageError(
            f"the inputs hold different numbers of images ({_listed(counts)})", "Give the same number of each"
        )
    image = tensors[names[0]]
    if image.dtype == np.float32:
        _check_range(manifest, image)


def _check_type(manifest: Manifest, about: TensorSignature, tensor: object) -> None:
    wanted = f"{about.dtype} [{', '.join(map(str, ('N', *about.shape[1:])))}]"
    if not isinstance(tensor, np.ndarray):
        raise ImageError(f"{about.name} is a {type(tensor).__name__}; the network takes {wanted}", "Give an array")
    fits = tensor.ndim == len(about.shape) and tensor.shape[1:] == about.shape[1:] and len(tensor) > 0
    if tensor.dtype != about.dtype or not fits:
        raise ImageError(
            f"{about.name} is {tensor.dtype} {list(tensor.shape)}; the network takes {wanted}",
            _step(manifest, about, tensor),
        )
    if tensor.dtype == np.float32 and not np.all(np.isfinite(tensor)):
        raise ImageError(f"{about.name} holds numbers that are not finite", "Check where the array comes from")


def _step(manifest: Manifest, about: TensorSignature, tensor: np.ndarray) -> str:
    if about is not manifest.inputs[0]:
        return "Give an array of this type and shape"
    if tensor.dtype == np.uint8 and about.dtype != "uint8":
        return "Give pixels to classify, answers or outputs, which prepare them as the network needs"
    if about.dtype == "uint8":
        return "Give the image to classify, answers or outputs, or its RGB or grey pixels, 0 to 255, at this size"
    return "Give the image to classify, answers or outputs, or an array of this type and shape"


def _check_range(manifest: Manifest, image: np.ndarray) -> None:
    p = manifest.preprocessing
    mean, std = np.array(p.mean), np.array(p.std)
    low, high = (0 - _SLACK - mean) / std, (1 + _SLACK - mean) / std
    if np.any(image < low) or np.any(image > high):
        raise ImageError(
            f"{manifest.inputs[0].name} holds numbers from {image.min():.3g} to {image.max():.3g}; pixels normalised "
            f"for this network are from {low.min():.3g} to {high.max():.3g}",
            "Normalise them: (pixel / 255 - mean) / std with the manifest's constants, or give the image to classify, "
            "answers or outputs",
        )


def _listed(names: object) -> str:
    return ", ".join(sorted(map(str, names))) or "none"  # type: ignore[call-overload]
