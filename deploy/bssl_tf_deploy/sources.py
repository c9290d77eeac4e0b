"""Where images to answer come from: files, folders, standard input, videos, cameras; one item after another."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bssl_tf_deploy.errors import ImageError
from bssl_tf_deploy.folders import IMAGE_SUFFIXES, images_below, is_folder
from bssl_tf_deploy.inputs import OneImage

STDIN = "-"
_MOST_BYTES = 1 << 16  # of a path; Linux allows 4096
_CHUNK = 1 << 16


@dataclass(frozen=True, eq=False)
class Item:
    """One image to answer.

    Attributes:
        name: of the file, or of the video or camera.
        image: the image, or why there is none.
        frame: its number in a video, from 0, or since a camera started; None for files.
        seconds: its time there.
    """

    name: str
    image: OneImage | ImageError
    frame: int | None = None
    seconds: float | None = None


def file_items(arguments: Sequence[str]) -> Iterator[Item]:
    """Of files, of all images in folders (`folders.images_below`), and of the paths on standard input for `-`."""
    for argument in arguments:
        if argument == STDIN:
            yield from _given(_lines(0))
        elif is_folder(argument):
            yield from _below(argument)
        else:
            yield _file(argument)


def count_items(arguments: Sequence[str]) -> int | None:
    """How many items `file_items` gives; None where only standard input knows."""
    if STDIN in arguments:
        return None
    return sum(sum(1 for _ in _below(one)) if is_folder(one) else 1 for one in arguments)


def _file(path: str) -> Item:
    return Item(path, Path(path))


def _below(folder: str) -> Iterator[Item]:
    empty = True
    for found in images_below(Path(folder)):
        empty = False
        if isinstance(found, OSError):
            name = os.fsdecode(found.filename or folder)
            cause = found.strerror or type(found).__name__
            yield Item(name, ImageError(f"{name} cannot be listed ({cause})", "Check its permissions, or omit it"))
        else:
            yield Item(str(found), found)
    if empty:
        known = " ".join(sorted(IMAGE_SUFFIXES))
        yield Item(folder, ImageError(f"{folder} holds no images", f"Known endings are {known}"))


def _given(lines: Iterator[bytes]) -> Iterator[Item]:
    for line in lines:
        if len(line) > _MOST_BYTES:
            name = f"a line of standard input with more than {_MOST_BYTES} bytes"
            yield Item(name, ImageError(f"{name} is not a path", "Give one path on each line"))
            continue
        path = os.fsdecode(line)
        if "\0" in path:
            yield Item(
                path, ImageError(f"{path} is not a path", "Give one path on each line (find -print, not -print0)")
            )
        elif path:
            yield _file(path)


def _lines(descriptor: int) -> Iterator[bytes]:
    """Lines without their ends, each as soon as it is there; of a longer one no more than shows that it is too long.

    Read past Python's own buffer, in which a thread that still waits for input would keep the program from its end.
    """
    kept, too_long = b"", False
    while chunk := os.read(descriptor, _CHUNK):
        *ended, rest = chunk.split(b"\n")
        for line in ended:
            yield (kept if too_long else kept + line).removesuffix(b"\r")
            kept, too_long = b"", False
        if not too_long:
            kept += rest
            too_long = len(kept) > _MOST_BYTES
    if kept:
        yield kept.removesuffix(b"\r")
