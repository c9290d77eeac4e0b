"""The three kinds of shards: where the images lie in one, and how one is written.

WebDataset's tar: the files of a sample are members with one name and several endings: `7.jpg`, `7.cls` with the number
of its class, or `7.json` with a `label`. TFRecord and ArrayRecord: records that are examples, see `data.examples`.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar, NamedTuple

from bssl_tf.data.catalogue import Kind
from bssl_tf.data.encoded import array_record_module
from bssl_tf.data.tfrecords import FRAME_BYTES, HEADER_BYTES, MAX_FILE_BYTES, largest_record
from bssl_tf.errors import DataError, first_line
from bssl_tf.files import open_regular, require_regular
from bssl_tf_deploy.folders import is_image

# A number of a class, or a small object about the sample.
_MAX_LABEL_BYTES = 1 << 16
_MAX_LABEL = (1 << 31) - 1
# Names of members, which are read before anything is known of them.
_MAX_HEADER_BYTES = 1 << 20
_READ_AT_ONCE = 64


class Found(NamedTuple):
    """An image in a shard.

    Attributes:
        start: the byte at which its content begins; its number in ArrayRecord.
        size: bytes of its content.
        label: None without one.
    """

    start: int
    size: int
    label: int | None


class ShardFormat(ABC):
    """A kind of shards.

    Attributes:
        suffix: of its files.
        kind: how their images are read, see `data.catalogue`.
    """

    suffix: ClassVar[str]
    kind: ClassVar[Kind]

    @abstractmethod
    def images(self, path: Path) -> Iterator[Found]:
        """The images of a shard, in order. Raises what the library that reads it raises, or `ValueError`."""

    @abstractmethod
    def writer(self, path: Path) -> Any:
        """A context manager whose value takes (name, content, label) of each image."""

    def found(self, path: Path) -> Iterator[Found]:
        """`images`, with one kind of error.

        Raises:
            DataError: the shard is damaged, compressed, or of another kind.
        """
        try:
            require_regular(path, MAX_FILE_BYTES)
            for found in self.images(path):
                if found.label is not None and not -1 <= found.label <= _MAX_LABEL:
                    raise ValueError(f"a label is {found.label}")
                yield found
        except DataError:
            raise
        except Exception as error:  # Each library has its own.
            raise DataError(
                f"{path} cannot be read as {self.suffix} ({type(error).__name__}: {first_line(error)})",
                "Copy it again, or unpack it if it is compressed: there is no random access to what is",
            ) from error


class Tar(ShardFormat):
    """WebDataset's."""

    suffix = ".tar"
    kind: ClassVar[Kind] = "spans"

    def images(self, path: Path) -> Iterator[Found]:
        # Of a sample, whose members follow one another.
        key, image, label = None, None, None
        with (
            open_regular(path, MAX_FILE_BYTES) as file,
            tarfile.open(fileobj=_ShortReads(file), mode="r:", errors="surrogateescape") as tar,
        ):
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # Or it keeps all of a million.
                if not member.isreg() or member.sparse is not None:
                    continue
                name = PurePosixPath(member.name)
                stem, _, ending = name.name.partition(".")
                if (name.parent, stem) != key:
                    if image is not None:
                        yield Found(*image, label)
                    key, image, label = (name.parent, stem), None, None
                if is_image(name.name) and image is None:
                    image = member.offset_data, member.size
                elif ending in ("cls", "json") and member.size <= _MAX_LABEL_BYTES:
                    content = tar.extractfile(member)
                    assert content is not None
                    found = _label(ending, content.read())
                    label = label if found is None else found
            if image is not None:
                yield Found(*image, label)

    def writer(self, path: Path) -> Any:
        return _TarWriter(path)


class TfRecord(ShardFormat):
    """TensorFlow's; what is compressed has no random access."""

    suffix = ".tfrecord"
    kind: ClassVar[Kind] = "spans"

    def images(self, path: Path) -> Iterator[Found]:
        from bssl_tf.backend import tf
        from bssl_tf.data.examples import image_and_label

        largest_record(path)
        start = 0
        # It compares the checksums of all records.
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            image, label = image_and_label(record)
            # Its bytes lie in the record as they are.
            place = record.index(image)
            yield Found(start + HEADER_BYTES + place, len(image), label)
            start += FRAME_BYTES + len(record)

    def writer(self, path: Path) -> Any:
        from bssl_tf.backend import tf

        return _ExampleWriter(tf.io.TFRecordWriter(str(path)))


class ArrayRecord(ShardFormat):
    """That of the package array_record, which is random access by design."""

    suffix = ".array_record"
    kind: ClassVar[Kind] = "array_record"

    def images(self, path: Path) -> Iterator[Found]:
        from bssl_tf.data.examples import image_and_label

        reader = array_record_module().ArrayRecordReader(str(path))
        try:
            for start in range(0, reader.num_records(), _READ_AT_ONCE):
                end = min(start + _READ_AT_ONCE, reader.num_records())
                for number, record in enumerate(reader.read(start, end), start):
                    image, label = image_and_label(record)
                    yield Found(number, len(image), label)
        finally:
            reader.close()

    def writer(self, path: Path) -> Any:
        # Each record for itself: a group would have to be read for one of its images.
        return _ExampleWriter(array_record_module().ArrayRecordWriter(str(path), "group_size:1"))


FORMATS: dict[str, ShardFormat] = {"tar": Tar(), "tfrecord": TfRecord(), "array_record": ArrayRecord()}
# As they are named: `x.tfrecord-00001-of-00010` too, and without an ending those of TensorFlow's script for ImageNet.
_NAMED = re.compile(r".*\.(?P<format>tar|tfrecord|array_record)s?(-\d+-of-\d+)?", re.IGNORECASE)
_IMAGENET = re.compile(r"(train|validation)-\d{5}-of-\d{5}")
_COMPRESSED = re.compile(r".*\.(tar|tfrecords?)\.(gz|bz2|xz|zst)|.*\.tgz", re.IGNORECASE)


def format_of(name: str) -> ShardFormat | None:
    """Of a shard with this file name; None for what is not named like one."""
    if named := _NAMED.fullmatch(name):
        return FORMATS[named["format"].lower()]
    return FORMATS["tfrecord"] if _IMAGENET.fullmatch(name) else None


def is_compressed(name: str) -> bool:
    """Whether it is named like a shard that was compressed."""
    return _COMPRESSED.fullmatch(name) is not None


def _label(ending: str, content: bytes) -> int | None:
    if ending == "cls":
        return int(content)
    about = json.loads(content)
    label = about.get("label", about.get("cls")) if isinstance(about, dict) else None
    return label if isinstance(label, int) else None


class _ShortReads(io.RawIOBase):
    """A file of which nothing long is read at once: a tar file's header may claim a name of any length."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise ValueError(f"a header has {size:,} bytes")
        return self._file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()


class _TarWriter:
    def __init__(self, path: Path) -> None:
        # GNU's format, not POSIX's, whose headers for a name that is not ASCII are a kilobyte each.
        self._tar = tarfile.open(path, "w", format=tarfile.GNU_FORMAT, errors="surrogateescape")  # noqa: SIM115

    def __enter__(self) -> _TarWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._tar.close()

    def add(self, number: int, name: str, content: bytes, label: int | None) -> None:
        """Adds an image and its label; in the order of `number`, which keeps equal names apart."""
        path = PurePosixPath(name)
        # What comes after the first dot is the ending, for WebDataset.
        stem = f"{number:09d}/{path.parent / path.stem.replace('.', '_')}"
        self._member(stem + path.suffix.lower(), content)
        if label is not None:
            self._member(f"{stem}.cls", str(label).encode())

    def _member(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._tar.addfile(member, io.BytesIO(content))
        self._tar.members = []  # type: ignore[attr-defined]  # Or it keeps all of a million.


class _ExampleWriter:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __enter__(self) -> _ExampleWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def add(self, number: int, name: str, content: bytes, label: int | None) -> None:
        """Adds an image and its label."""
        from bssl_tf.data.examples import example_of

        self._writer.write(example_of(content, label))
