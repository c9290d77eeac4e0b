"""Images that are decoded when they are read, by several threads: sets too large to be decoded before training.

Nothing is kept but where the images lie, so the memory that is needed does not depend on how large they are. An image
that cannot be read is counted and listed; the next one of its class takes its place, in every epoch and in every
process, so that a run that is resumed sees the same. No TensorFlow.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bssl_tf.data.catalogue import Part
from bssl_tf.data.decoding import UnreadableImageError, decode
from bssl_tf.data.encoded import EncodedImages
from bssl_tf.data.image_set import ImageSet, Pictures, spread_indices
from bssl_tf.errors import BsslError, DataError
from bssl_tf_deploy.text import printable

# How many images' contents a fingerprint is over, beside the bytes and the label of each.
_FINGERPRINTED_IMAGES = 1000
# A part of a set that takes less than this is decoded once and kept: what a probe looks at in every epoch.
_KEPT_BYTES = 1 << 29
_GREY = 128
_log = logging.getLogger(__name__)
_Made = TypeVar("_Made")


class Unreadable:
    """Counts the images of a data set that cannot be read, and lists them; stops the run when they are too many.

    Attributes:
        error: raised when they were too many, also where something between swallowed it; None before.
    """

    def __init__(self, name: str, total: int, max_share: float, listed: Path) -> None:
        """Prepares to count.

        Args:
            name: of the data set.
            total: its images.
            max_share: of them that may be unreadable.
            listed: a file with a line for each, with its cause; those of earlier runs stay.
        """
        self.error: BsslError | None = None
        self._name, self._total, self._max_share, self._listed = name, total, max_share, listed
        self._paths: set[str] = set()
        self._lock = threading.Lock()
        self._known: set[str] = set()
        with contextlib.suppress(OSError):
            lines = listed.read_text("utf-8", "surrogateescape").splitlines()
            self._known = {line.partition("\t")[0] for line in lines[1:]}

    def __len__(self) -> int:
        return len(self._paths)

    def add(self, path: str, cause: str) -> None:
        """Counts an image.

        Raises:
            DataError: there are more than the share that is tolerated.
        """
        with self._lock:
            if path not in self._paths:
                self._paths.add(path)
                self._count(printable(path), printable(cause))
            if self.error is not None:
                raise self.error

    def _count(self, shown: str, cause: str) -> None:
        self._write(shown, cause)
        count = len(self._paths)
        if self.error is None and count > self._max_share * self._total:
            self.error = DataError(
                f"{count} of {self._total} images of {self._name} cannot be read so far (last: {shown}: {cause}), more "
                f"than the {self._max_share:.1%} that are tolerated; they are listed in {self._listed}",
                "Repair or remove those files, or raise --max-unreadable-share",
            )
            return
        # Not a line for each of thousands.
        if count == 10 ** (len(str(count)) - 1):
            images = "1 image" if count == 1 else f"{count} images"
            _log.warning(
                f"{self._name}: {images} cannot be read, and the next of the same class is used instead (last: "
                f"{shown}: {cause}); all are listed in {self._listed}"
            )

    def _write(self, path: str, cause: str) -> None:
        if path in self._known:
            return
        # A list that cannot be written must not stop what does without it.
        with contextlib.suppress(OSError), self._listed.open("a", encoding="utf-8", errors="surrogateescape") as file:
            if not os.fstat(file.fileno()).st_size:
                file.write("path\tcause\n")
            file.write(f"{path}\t{cause}\n")


class StreamedImages:
    """The pixels of a streamed set, where another set has an array of them: decoded whenever it is indexed.

    Attributes:
        encoded: all images of the split.
        size: S, the side to which `read` decodes, pixels.
        channels: C, 1 or 3.
        native: all of them are squares of S pixels, so that nothing is lost when they are decoded to S.
        positions: which images of the split these are, int64 [N].
        unreadable: counts those that cannot be read.
        notes: a folder for what was computed about the set.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        encoded: EncodedImages,
        part: Part,
        size: int,
        channels: int,
        *,
        native: bool,
        unreadable: Unreadable,
        positions: NDArray[np.int64] | None = None,
        notes: Path,
    ) -> None:
        self.encoded, self.size, self.channels, self.native = encoded, size, channels, native
        self.unreadable, self.notes = unreadable, notes
        self.positions = np.arange(len(encoded)) if positions is None else positions
        self._part = part
        self._substitutes: dict[int, int | None] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._pool_owner = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[N, S, S, C]."""
        return len(self), self.size, self.size, self.channels

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        chosen = np.arange(len(self))[key]
        pixels = self.read(np.atleast_1d(chosen)).pixels
        return pixels if np.ndim(chosen) else pixels[0]

    def read(self, indices: NDArray[np.int64]) -> Pictures:
        """The pictures at `indices`, squashed to squares of S pixels, as those in a cache are."""

        def decoded(content: bytes) -> tuple[NDArray[np.uint8], float]:
            found = decode(content, self.size, self.channels)
            return found.pixels, found.ratio

        blank = np.full((self.size, self.size, self.channels), _GREY, np.uint8), 1.0
        found = self.made_of(indices, lambda _, content: decoded(content), blank)
        shape = (len(found), self.size, self.size, self.channels)
        return Pictures(
            np.stack([pixels for pixels, _ in found]) if found else np.zeros(shape, np.uint8),
            np.array([ratio for _, ratio in found], np.float32),
        )

    def made_of(self, indices: NDArray[np.int64], make: Callable[[int, bytes], _Made], blank: _Made) -> list[_Made]:
        """What `make` makes of each image's content, in the order of `indices`, by several threads.

        Args:
            indices: int64 [B].
            make: of the row and the content; raises `UnreadableImageError` where it is damaged. Of an image that cannot
                be read the next one of its class takes the place.
            blank: in place of an image whose class has none that can be read.

        Raises:
            DataError: too many cannot be read.
        """

        def one(row: int, position: int) -> _Made:
            for candidate in self._candidates(position):
                try:
                    made = make(row, self.encoded.read(candidate))
                except UnreadableImageError as error:
                    self.unreadable.add(self.encoded.describe(candidate), str(error))
                    continue
                if candidate != position:
                    self._substitutes[position] = candidate
                return made
            self._substitutes[position] = None
            return blank

        positions = self.positions[indices].tolist()
        return list(self._threads().map(one, range(len(positions)), positions))

    def _candidates(self, position: int) -> Any:
        """Images for the place of this one: itself, then those of its class that come after it, in a circle."""
        if position in self._substitutes:
            known = self._substitutes[position]
            return iter(() if known is None else (known,))
        return self._following(position)

    def _following(self, position: int) -> Any:
        yield position
        labels = self._part.labels
        count = len(self._part)
        if labels is None:
            yield from ((position + step) % count for step in range(1, count))
            return
        same = np.flatnonzero(labels == labels[position])
        place = int(np.searchsorted(same, position))
        yield from (int(other) for other in [*same[place + 1 :], *same[:place]])

    def _threads(self) -> ThreadPoolExecutor:
        # Threads do not survive a fork.
        if self._pool is None or self._pool_owner != os.getpid():
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            # Pillow gives up the interpreter's lock while it decodes. One more, because a disk is waited for too.
            self._pool = ThreadPoolExecutor(cores + 1, thread_name_prefix="decode")
            self._pool_owner = os.getpid()
        return self._pool

    def at(self, indices: NDArray[np.int64]) -> StreamedImages:
        """Those at `indices`, in that order."""
        return StreamedImages(
            self.encoded,
            self._part,
            self.size,
            self.channels,
            native=self.native,
            unreadable=self.unreadable,
            positions=self.positions[indices],
            notes=self.notes,
        )

    def fingerprint(self) -> str:
        """SHA-256, in hex, over the bytes of each image and the content of 1,000 of them, evenly spread."""
        sizes = np.ascontiguousarray(self._part.places[:, 2][self.positions], "<i8")
        digest = hashlib.sha256(repr(("streamed", self.shape, self.native)).encode() + sizes.tobytes())
        for place in self.positions[spread_indices(len(self), _FINGERPRINTED_IMAGES)].tolist():
            try:
                content = self.encoded.read(place)
            except UnreadableImageError:
                content = b""
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class StreamedSet(ImageSet):
    """An `ImageSet` whose images are decoded when they are read.

    Attributes:
        images: `StreamedImages`.
        aspect_ratios: empty; `read` gives them with the pixels.
    """

    images: Any

    def __post_init__(self) -> None:
        if self.labels is not None and len(self.labels) != len(self.images):
            raise ValueError("labels must be one for each image")

    @property
    def loading(self) -> str:
        return "streamed"

    @property
    def notes(self) -> Path | None:
        notes: Path = self.images.notes
        return notes

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> Pictures:
        pictures: Pictures = self.images.read(np.asarray(indices, np.int64))
        return pictures

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self.images.fingerprint().encode())
        digest.update(b"unlabelled" if self.labels is None else self.labels.astype("<i8").tobytes())
        digest.update(repr(self.class_names).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> ImageSet:
        """The images at `indices` (integers [M]), in that order; decoded into memory where they are few."""
        chosen = np.asarray(indices, np.int64)
        labels = None if self.labels is None else self.labels[chosen]
        if len(chosen) * int(np.prod(self.images.shape[1:])) <= _KEPT_BYTES:
            return ImageSet(self.name, *self.read(chosen), labels, self.class_names)
        return StreamedSet(self.name, self.images.at(chosen), self.aspect_ratios, labels, self.class_names)

    def head(self, limit: int) -> ImageSet:
        return self if limit >= len(self) else self.subset(np.arange(limit))
