"""Files that are either whole or absent: written under a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from bssl_tf_deploy.errors import StorageError


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns an `OSError` on `path` into a `StorageError` that names the cause and a next step."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or type(error).__name__
        raise StorageError(
            f"cannot write {path}: {cause}",
            "Free space there or choose another place, then run the same command again; "
            "what was saved before is intact",
        ) from error


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Opens a binary file that appears under `path` only when the block ends without an error.

    Raises:
        StorageError: the folder cannot be made, or the file cannot be written, synced or renamed.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes private files; give what the user's umask would have given.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path`, atomically. Raises `StorageError`."""
    with atomic_writer(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Writes `content` to `path` as UTF-8, atomically. Raises `StorageError`."""
    write_bytes(path, content.encode("utf-8"))
