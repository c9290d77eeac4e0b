"""What a data set looks like to the network: preprocessing fitted to it, and its images in batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bssl_tf.data.image_set import ImageSet, spread_indices
from bssl_tf.errors import BsslError
from bssl_tf.files import read_json, write_json
from bssl_tf.preprocessing import Preprocessing

_FITTED_IMAGES = 10_000
_FITTED_AT_ONCE = 256
# One grey level: a data set of constant colour must not divide by zero.
_MIN_STD = 1 / 255


def fit_preprocessing(images: ImageSet, image_size: int) -> Preprocessing:
    """Takes mean and standard deviation of each channel from up to 10,000 images spread over the set.

    Those of a streamed set, which are decoded for it, are kept beside its catalogue.
    """
    if images.notes is None:
        return _fitted(images, image_size)
    note = images.notes / f"statistics-{images.fingerprint()[:16]}-{image_size}.json"
    try:
        return Preprocessing.from_dict(read_json(note))
    except (BsslError, OSError):  # Missing or damaged: made again.
        fitted = _fitted(images, image_size)
    with contextlib.suppress(BsslError, OSError):
        write_json(note, fitted.to_dict())
    return fitted


def _fitted(images: ImageSet, image_size: int) -> Preprocessing:
    total = np.zeros(images.channels, np.float64)
    squares = np.zeros(images.channels, np.float64)
    chosen = spread_indices(len(images), _FITTED_IMAGES)
    for start in range(0, len(chosen), _FITTED_AT_ONCE):
        pixels = images.read(chosen[start : start + _FITTED_AT_ONCE]).pixels.astype(np.float64) / 255
        total += pixels.sum(axis=(0, 1, 2))
        squares += np.square(pixels).sum(axis=(0, 1, 2))
    count = max(len(chosen) * images.stored_size**2, 1)
    mean = total / count
    std = np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0)), _MIN_STD)
    return Preprocessing(image_size, images.channels, tuple(map(float, mean)), tuple(map(float, std)))


def evaluation_views(
    image_set: ImageSet, preprocessing: Preprocessing, indices: Sequence[int] | NDArray[np.int64]
) -> NDArray[np.float32]:
    """The central square of each picture, in true geometry, resized to `image_size` and normalised.

    The device has the original file, crops its central square and resizes once; here a picture that is not stored at
    its native size was resized once before, when it was squashed for storage. So the two agree exactly for native-size
    sets, and up to that extra resampling otherwise.

    Args:
        image_set: images with the channels of `preprocessing`.
        preprocessing: of the network.
        indices: integers [B].

    Returns:
        float32 [B, image_size, image_size, C].
    """
    if image_set.channels != preprocessing.channels:
        raise ValueError(
            f"preprocessing is for {preprocessing.channels} channels, {image_set.name} has {image_set.channels}"
        )
    chosen = np.asarray(indices, dtype=np.int64)
    return preprocessing.normalise(preprocessing.central_squares(*image_set.read(chosen)))


def evaluation_batches(
    image_set: ImageSet, preprocessing: Preprocessing, batch_size: int
) -> Iterator[NDArray[np.float32]]:
    """All images in order as float32 [B, image_size, image_size, C]; the last batch may be smaller."""
    for start in range(0, len(image_set), batch_size):
        yield evaluation_views(image_set, preprocessing, np.arange(start, min(start + batch_size, len(image_set))))
