"""Images with boxes, in memory or on disk, read at random access."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bssl_tf.data.image_set import ImageSet, SkippedFile
from bssl_tf.tasks.detection.annotations import Fault


@dataclass(frozen=True, eq=False)
class Objects:
    """What is on one image.

    Attributes:
        boxes: float32 [N, 4]: left, top, right, bottom as shares of the picture, 0 to 1.
        classes: int64 [N].
        ignored: bool [N]: counts neither as hit nor as miss.
    """

    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    ignored: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, eq=False)
class BoxSet:
    """Images with boxes.

    Attributes:
        name: for messages.
        images: stored squashed to squares, without labels, with the originals' sizes; some may not belong to this set.
        indices: int64 [N], the places of this set's images in `images`.
        paths: N, for messages and reports.
        objects: N.
        class_names: K.

    Raises:
        ValueError: these contradict each other; a mistake in the calling code.
    """

    name: str
    images: ImageSet
    indices: NDArray[np.int64]
    paths: tuple[str, ...]
    objects: tuple[Objects, ...]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.indices) == len(self.paths) == len(self.objects):
            raise ValueError("indices, paths and objects must be of one number")
        if self.images.sizes is None:
            raise ValueError("images with boxes need the sizes of the originals")
        for one in self.objects:
            if one.boxes.shape != (len(one.classes), 4) or one.ignored.shape != one.classes.shape:
                raise ValueError("every box needs a class")
            if len(one) and not 0 <= int(one.classes.min()) <= int(one.classes.max()) < len(self.class_names):
                raise ValueError("every class needs a name")

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def channels(self) -> int:
        """C: 1 or 3."""
        return self.images.channels

    @property
    def loading(self) -> str:
        """How its images reach a batch, for messages."""
        return self.images.loading

    def pixels(self, positions: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at `positions`, squashed: uint8 [M, S, S, C]."""
        return np.asarray(self.images.images[self.indices[np.asarray(positions, np.int64)]])

    def ratios(self, positions: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Width / height of the pictures at `positions`: float32 [M]."""
        return self.images.aspect_ratios[self.indices[np.asarray(positions, np.int64)]]

    def sizes(self) -> NDArray[np.int32]:
        """Width and height of the photos, pixels: int32 [N, 2]."""
        assert self.images.sizes is not None
        return self.images.sizes[self.indices]

    def subset(self, positions: Sequence[int] | NDArray[np.int64]) -> BoxSet:
        """Those at `positions`, in that order; no pixels are copied."""
        chosen = np.asarray(positions, np.int64)
        return BoxSet(
            self.name,
            self.images,
            self.indices[chosen],
            tuple(self.paths[place] for place in chosen),
            tuple(self.objects[place] for place in chosen),
            self.class_names,
        )

    def class_counts(self) -> NDArray[np.int64]:
        """Boxes of each class that count: int64 [K]."""
        found = [np.zeros(0, np.int64), *(one.classes[~one.ignored] for one in self.objects)]
        return np.bincount(np.concatenate(found), minlength=len(self.class_names)).astype(np.int64)

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self.images.fingerprint().encode())
        digest.update(self.indices.astype("<i8").tobytes())
        for one in self.objects:
            digest.update(len(one).to_bytes(8, "little"))
            digest.update(one.boxes.astype("<f4").tobytes() + one.classes.astype("<i8").tobytes())
            digest.update(one.ignored.tobytes())
        digest.update(repr(self.class_names).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """SHA-256, in hex, over images, boxes and class names; computed once. A run that is resumed compares it."""
        return self._fingerprint


@dataclass(frozen=True)
class BoxSplits:
    """What `open_boxes` returns.

    Attributes:
        name: the spec it was loaded from.
        train: to learn from.
        validation: to stop by, or None.
        test: held out.
        skipped_files: images that could not be decoded.
        faults: what made no sense in annotations, in the order of reading.
    """

    name: str
    train: BoxSet
    validation: BoxSet | None
    test: BoxSet
    skipped_files: tuple[SkippedFile, ...] = ()
    faults: tuple[Fault, ...] = ()
