"""Images in memory or on disk, read at random access, with the labels and the shape they had. No TensorFlow."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bssl_tf.errors import DataError

_HASHED_AT_ONCE = 1024  # images; bounds the memory that hashing a memmap takes


@dataclass(frozen=True)
class SkippedFile:
    """A file that could not be decoded.

    Attributes:
        path: relative to the data set's root, with forward slashes; for TFDS, split and position.
        cause: what the decoder said, one line.
    """

    path: str
    cause: str


class Pictures(NamedTuple):
    """Some images of a set.

    Attributes:
        pixels: uint8 [B, S, S, C].
        aspect_ratios: float32 [B], width / height of the originals.
    """

    pixels: NDArray[np.uint8]
    aspect_ratios: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one common size.

    A picture that was not square is stored squashed to a square; `aspect_ratios` keeps its true geometry, in which
    crops are chosen.

    Attributes:
        name: for messages.
        images: uint8 [N, S, S, C], C 1 (grey) or 3 (RGB); may be a read-only memmap.
        aspect_ratios: float32 [N], width / height of the original.
        labels: int64 [N], or None.
        class_names: the name of each label; empty without labels.
        sizes: int32 [N, 2], width and height of the original in pixels; None where they were not kept. The fingerprint
            is without them, as they do not reach a network.

    Raises:
        ValueError: shapes or types contradict each other; a mistake in the calling code.
    """

    name: str
    images: NDArray[np.uint8]
    aspect_ratios: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...] = ()
    sizes: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] not in (1, 3):
            raise ValueError(f"images must be uint8 [N, S, S, 1 or 3], not {self.images.dtype} {list(shape)}")
        if self.aspect_ratios.dtype != np.float32 or self.aspect_ratios.shape != shape[:1]:
            raise ValueError("aspect_ratios must be float32, one for each image")
        if self.sizes is not None and (self.sizes.dtype != np.int32 or self.sizes.shape != (len(self), 2)):
            raise ValueError("sizes must be int32, two for each image")
        if self.labels is None:
            if self.class_names:
                raise ValueError("class_names without labels")
            return
        if self.labels.dtype != np.int64 or self.labels.shape != shape[:1]:
            raise ValueError("labels must be int64, one for each image")
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.class_names):
            raise ValueError("every label must have a class name")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def loading(self) -> str:
        """How its images reach a batch, for messages."""
        return "mapped from disk" if isinstance(self.images, np.memmap) else "in memory"

    @property
    def notes(self) -> Path | None:
        """A folder for what was computed about the set, where that takes long; None for no need of it."""
        return None

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> Pictures:
        """The pictures at `indices` (integers [B]), in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Pictures(self.images[chosen], self.aspect_ratios[chosen])

    @property
    def stored_size(self) -> int:
        """S, in pixels."""
        return int(self.images.shape[1])

    @property
    def channels(self) -> int:
        """C: 1 or 3."""
        return int(self.images.shape[3])

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr(self.images.shape).encode())
        for start in range(0, len(self), _HASHED_AT_ONCE):
            digest.update(np.ascontiguousarray(self.images[start : start + _HASHED_AT_ONCE]).data)
        digest.update(self.aspect_ratios.astype("<f4").tobytes())
        digest.update(b"unlabelled" if self.labels is None else self.labels.astype("<i8").tobytes())
        digest.update(repr(self.class_names).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """SHA-256, in hex, over shape, pixels, aspect ratios, labels and class names; computed once.

        A run that is resumed compares it, so that it never goes on with other data than it began with.
        """
        return self._fingerprint

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> ImageSet:
        """The images at `indices` (integers [M]), in that order, copied into memory."""
        chosen = np.asarray(indices, dtype=np.int64)
        labels = None if self.labels is None else self.labels[chosen]
        sizes = None if self.sizes is None else self.sizes[chosen]
        pixels = np.asarray(self.images[chosen])
        return ImageSet(self.name, pixels, self.aspect_ratios[chosen], labels, self.class_names, sizes)

    def head(self, limit: int) -> ImageSet:
        """The first `limit` images, or all where there are fewer; a view, nothing is copied."""
        if limit >= len(self):
            return self
        labels = None if self.labels is None else self.labels[:limit]
        sizes = None if self.sizes is None else self.sizes[:limit]
        return ImageSet(self.name, self.images[:limit], self.aspect_ratios[:limit], labels, self.class_names, sizes)

    def spread(self, limit: int) -> ImageSet:
        """`limit` images evenly spaced over the set, in order, or all where there are fewer.

        Unlike `head` it keeps every class of a set that is sorted by class.
        """
        return self if limit >= len(self) else self.subset(spread_indices(len(self), limit))

    def require_labels(self) -> NDArray[np.int64]:
        """The labels, int64 [N].

        Raises:
            DataError: there are none.
        """
        if self.labels is None:
            raise DataError(
                f"{self.name} has no labels, and this step needs them",
                "Use labelled data: one sub-folder for each class with no images beside the sub-folders, a labelled "
                "tfds:NAME, or `embedded`",
            )
        return self.labels

    def labels_as(self, names: Sequence[str]) -> NDArray[np.int64]:
        """The labels as places in `names`, which another network's classes may have in another order.

        Args:
            names: of classes. Where a name stands twice nobody knows which is meant, so that it counts as none; unless
                `names` are `class_names`.

        Returns:
            int64 [N]; -1 where the image's class is not among `names`.

        Raises:
            DataError: there are no labels.
        """
        labels = self.require_labels()
        if tuple(names) == self.class_names:
            return labels
        counts = Counter(names)
        places = {name: place for place, name in enumerate(names) if counts[name] == 1}
        return np.array([places.get(name, -1) for name in self.class_names], np.int64)[labels]


@dataclass(frozen=True)
class DataSplits:
    """What `load_data` returns.

    Attributes:
        name: the spec it was loaded from.
        train: the images to learn from.
        test: held-out images with labels, or None where there are no labels to test with.
        skipped_files: what could not be decoded, in the order of reading.
        validation: of a folder of its own, with labels, where it was asked for and is there; else None.
    """

    name: str
    train: ImageSet
    test: ImageSet | None
    skipped_files: tuple[SkippedFile, ...] = ()
    validation: ImageSet | None = None


def spread_indices(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` positions evenly spaced over 0 .. count - 1: int64, rising, none twice."""
    taken = min(count, limit)
    return np.arange(taken, dtype=np.int64) * count // max(taken, 1)
