"""Which files in a folder are images; the host's data sets and the device's `run` both go by it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# What is taken for an image in a folder; anything else there is ignored.
IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "dib", "gif", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "pbm"),
        *("pcx", "pgm", "png", "pnm", "ppm", "qoi", "tga", "tif", "tiff", "webp"),
    )
)
# Of desktops (thumbnails, waste bins), file systems and NAS; of those with a dot only what holds copies of photos.
SYSTEM_NAMES = frozenset(
    (
        *("@eadir", "@recently-snapshot", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler"),
        *("__macosx", "lost+found", "system volume information", "thumbs", "thumbs.db", "desktop.ini"),
    )
)


def images_below(root: Path) -> Iterator[Path | OSError]:
    """The images in `root` and below, or the errors of folders that cannot be listed.

    In each folder the files come first, in the order of their names, then its folders. Neither what is hidden nor what
    is the system's; no pipes or devices, on which reading would hang. Links to folders are followed, but no folder is
    entered twice, so that loops end. The names of one folder at a time are in memory.
    """
    waiting, seen = [root], set[tuple[int, int]]()
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            files, folders = _entries(folder)
        except OSError as error:
            yield error
            continue
        waiting.extend(folder / name for name in sorted(folders, reverse=True))
        files.sort()
        for name in files:
            yield folder / name


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of images in `folder`, and of folders."""
    files, folders = [], []
    with os.scandir(folder) as scanned:
        for entry in scanned:
            if entry.name.startswith(".") or entry.name.casefold() in SYSTEM_NAMES:
                continue
            if entry.is_dir():
                folders.append(entry.name)
            # A link that leads nowhere is named, as an image that is missing.
            elif is_image(entry.name) and (entry.is_file() or (entry.is_symlink() and not Path(entry).exists())):
                files.append(entry.name)
    return files, folders


def is_folder(path: str) -> bool:
    """Whether it is a folder, or a link to one; False also for what cannot be a path, or is too long for one."""
    return os.path.isdir(path)  # noqa: PTH112  Path.is_dir raises an error for a name that is too long


def is_image(name: str) -> bool:
    """Whether a file's name ends like an image's."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122  a Path for each takes four times as long
