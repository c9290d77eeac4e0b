"""Images as they lie in files, still encoded, at random access: what streaming decodes. Any thread may read."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from pathlib import Path
from typing import Any

from bssl_tf.data.catalogue import Catalogue, Names, Part
from bssl_tf.data.tfrecords import MAX_FILE_BYTES
from bssl_tf.errors import DataError
from bssl_tf_deploy.files import open_regular
from bssl_tf_deploy.pictures import UnreadableImageError

_MAX_IMAGE_BYTES = 1 << 30
_OPEN_FILES = 64
ARRAY_RECORD_STEP = "Install it: pip install 'bssl-tf[arrayrecord]'; or pack the images as .tar or .tfrecord"


class EncodedImages(ABC):
    """The images of one split of a `Catalogue`."""

    def __init__(self, root: Path, names: Names, part: Part) -> None:
        self._root, self._names, self._places = root, names, part.places

    def __len__(self) -> int:
        return len(self._places)

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The content of the image's file.

        Raises:
            UnreadableImageError: it cannot be read.
        """

    def describe(self, index: int) -> str:
        """Which image it is, for messages: relative to the data set's folder."""
        file, start, _ = self._place(index)
        return f"{self._names[file]}, byte {start}"

    def _place(self, index: int) -> tuple[int, int, int]:
        file, start, size = self._places[index].tolist()
        return file, start, size


class ImageFiles(EncodedImages):
    """Each image is a file."""

    def read(self, index: int) -> bytes:
        path = self._root / self._names[self._place(index)[0]]
        try:
            with open_regular(path, _MAX_IMAGE_BYTES) as file:
                return file.read()
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error)) from error

    def describe(self, index: int) -> str:
        return self._names[self._place(index)[0]]


class Spans(EncodedImages):
    """Images that lie in larger files as they are: WebDataset's tar, TFRecord."""

    def __init__(self, root: Path, names: Names, part: Part) -> None:
        super().__init__(root, names, part)
        self._opened = _Opened(lambda number: open_regular(root / names[number], MAX_FILE_BYTES), _OPEN_FILES)

    def read(self, index: int) -> bytes:
        number, start, size = self._place(index)
        if size > _MAX_IMAGE_BYTES:
            raise UnreadableImageError(f"it has {size:,} bytes")
        try:
            content = self._opened.use(number, lambda file: _read_at(file, size, start))
        except OSError as error:
            raise UnreadableImageError(f"{self._names[number]}: {error.strerror or error}") from error
        if len(content) != size:
            raise UnreadableImageError(f"{self._names[number]} ends before it")
        return content


class ArrayRecords(EncodedImages):
    """Images in examples in ArrayRecord files."""

    def __init__(self, root: Path, names: Names, part: Part) -> None:
        super().__init__(root, names, part)
        reader = array_record_module().ArrayRecordReader
        self._opened = _Opened(
            # As its documentation advises for random access.
            lambda number: reader(str(root / names[number]), "readahead_buffer_size:0,max_parallelism:0"),
            _OPEN_FILES,
        )

    def read(self, index: int) -> bytes:
        from bssl_tf.data.examples import image_of

        number, record, _ = self._place(index)
        try:
            [content] = self._opened.use(number, lambda file: file.read([record]))
            return image_of(content)
        except Exception as error:  # Its reader raises whatever its C++ reports.
            raise UnreadableImageError(f"{type(error).__name__}: {error}".splitlines()[0]) from error

    def describe(self, index: int) -> str:
        number, record, _ = self._place(index)
        return f"{self._names[number]}, record {record}"


def encoded_images(root: Path, catalogue: Catalogue, part: Part) -> EncodedImages:
    """The images of `part`, a split of `catalogue`, which lie below `root`."""
    kinds: dict[str, type[EncodedImages]] = {"image_files": ImageFiles, "spans": Spans, "array_record": ArrayRecords}
    return kinds[catalogue.kind](root, catalogue.names, part)


def array_record_module() -> Any:
    """The library that reads and writes ArrayRecord.

    Raises:
        DataError: it is not installed.
    """
    try:
        from array_record.python import array_record_module as module
    except ImportError as error:
        raise DataError(f"ArrayRecord needs the package array_record ({error})", ARRAY_RECORD_STEP) from error
    return module


class _Opened:
    """Files that were opened last; the oldest one is closed when there are too many. Two threads may use one file."""

    def __init__(self, open_file: Any, most: int) -> None:
        self._open, self._most = open_file, most
        self._files: OrderedDict[int, Any] = OrderedDict()
        self._users: dict[int, int] = {}
        self._lock = threading.Lock()

    def use(self, number: int, function: Any) -> Any:
        """What `function` makes of file `number`."""
        with self._lock:
            if number not in self._files:
                self._files[number] = self._open(number)
            self._files.move_to_end(number)
            file = self._files[number]
            self._users[number] = self._users.get(number, 0) + 1
            if len(self._files) > self._most:
                idle = next((other for other in self._files if not self._users.get(other)), None)
                if idle is not None:
                    self._files.pop(idle).close()
        try:
            return function(file)
        finally:
            with self._lock:
                self._users[number] -= 1


def _read_at(file: Any, size: int, start: int) -> bytes:
    if hasattr(os, "pread"):
        # Needs no position, so threads do not wait for one another.
        return os.pread(file.fileno(), size, start)
    with _SEEKING:
        file.seek(start)
        content: bytes = file.read(size)
        return content


_SEEKING = threading.Lock()
