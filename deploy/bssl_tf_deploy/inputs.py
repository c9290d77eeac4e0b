"""Refuses tensors that the manifest does not allow, with what was given and what is wanted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bssl_tf_deploy.errors import ImageError
from bssl_tf_deploy.manifest import Manifest, TensorSignature

# Images that were preprocessed elsewhere may have been resized with a filter that overshoots.
_SLACK = 0.25


def check_tensors(manifest: Manifest, tensors: Mapping[str, np.ndarray], *, one: bool = False) -> None:
    """Compares tensors with the manifest's inputs: names, types, shapes, numbers that are not finite, and range.

    Only the range of the image is known: what pixels of 0 to 255 become.

    Args:
        manifest: of the bundle.
        tensors: by name, [N, ...].
        one: N must be 1.

    Raises:
        ImageError: the first that is not as it should be.
    """
    names = [about.name for about in manifest.inputs]
    if set(tensors) != set(names):
        raise ImageError(f"the inputs are {_listed(tensors)}; the network takes {_listed(names)}", "Give these")
    counts = {len(tensor) for tensor in tensors.values() if isinstance(tensor, np.ndarray) and tensor.ndim}
    for about in manifest.inputs:
        _check_type(manifest, about, tensors[about.name], one=one)
    if len(counts) != 1:
        raise ImageError(f"the inputs are of {_listed(counts)} images", "Give as many of each")
    image = tensors[names[0]]
    if image.dtype == np.float32:
        _check_range(manifest, image)


def _check_type(manifest: Manifest, about: TensorSignature, tensor: object, *, one: bool) -> None:
    count: int | str = 1 if one else "N"
    wanted = f"{about.dtype} [{', '.join(map(str, (count, *about.shape[1:])))}]"
    if not isinstance(tensor, np.ndarray):
        raise ImageError(f"{about.name} is a {type(tensor).__name__}; the network takes {wanted}", "Give an array")
    fits = tensor.ndim == len(about.shape) and tensor.shape[1:] == about.shape[1:] and len(tensor) > 0
    if tensor.dtype != about.dtype or not fits or (one and len(tensor) != 1):
        step = _step(manifest, about, tensor)
        if fits and tensor.dtype == about.dtype:
            step = "Give one array for each image, or all of them to run_tensor"
        raise ImageError(f"{about.name} is {tensor.dtype} {list(tensor.shape)}; the network takes {wanted}", step)
    if tensor.dtype == np.float32 and not np.all(np.isfinite(tensor)):
        raise ImageError(f"{about.name} holds numbers that are not finite", "Look at where the array comes from")


def _step(manifest: Manifest, about: TensorSignature, tensor: np.ndarray) -> str:
    if about is not manifest.inputs[0]:
        return "Give an array of this type and shape"
    if about.dtype == "float32" and tensor.dtype == np.uint8:
        return "Give the image file, or normalise the pixels: (pixel / 255 - mean) / std with the manifest's constants"
    if about.dtype == "uint8":
        return "Give the image file, or its RGB or grey pixels, 0 to 255, at this size"
    return "Give the image file, or an array of this type and shape"


def _check_range(manifest: Manifest, image: np.ndarray) -> None:
    p = manifest.preprocessing
    mean, std = np.array(p.mean), np.array(p.std)
    low, high = (0 - _SLACK - mean) / std, (1 + _SLACK - mean) / std
    if np.any(image < low) or np.any(image > high):
        raise ImageError(
            f"{manifest.inputs[0].name} holds numbers from {image.min():.3g} to {image.max():.3g}; pixels normalised "
            f"for this network are from {low.min():.3g} to {high.max():.3g}",
            "Normalise them: (pixel / 255 - mean) / std with the manifest's constants, or give the image file",
        )


def _listed(names: object) -> str:
    return ", ".join(sorted(map(str, names))) or "none"  # type: ignore[call-overload]
