"""Files that are either whole or absent: written under a temporary name, synced, then renamed. Where caches lie.

Standard library only: the runtime's build and the device side use it, and the host side builds on it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from bssl_tf_deploy.errors import StorageError
from bssl_tf_deploy.system_errors import next_step

_Made = TypeVar("_Made")
_TRIES = 100
_CHUNK_BYTES = 1 << 20
CHECKSUM = "content_sha256"
# In place of a checksum, for those who edit a file by hand.
EDITED = "edited"
# What `standing_in` looks at.
HEAD_BYTES = 512
_CACHE_STEP = "Name a folder with the environment variable BSSL_TF_CACHE"


def cache_dir() -> Path:
    """The folder of what can be made again: $BSSL_TF_CACHE, else $XDG_CACHE_HOME/bssl-tf, else ~/.cache/bssl-tf.

    The rule that platformdirs, which a device need not have, follows on Linux; `bssl_tf.files.cache_dir` is the host's,
    which follows the customs of other systems too. As the XDG base directory specification demands, a relative path in
    XDG_CACHE_HOME counts for nothing. Nothing is made.

    Raises:
        StorageError: there is no home folder, and no variable names another place.
    """
    try:
        if named := os.environ.get("BSSL_TF_CACHE"):
            return Path(named).expanduser()
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (base if base.is_absolute() else Path.home() / ".cache") / "bssl-tf"
    except RuntimeError as error:
        raise StorageError(f"there is no folder for caches ({error})", _CACHE_STEP) from error


def new_file(folder: Path, prefix: str, suffix: str, mode: int = 0o666) -> tuple[int, Path]:
    """Makes a file with a name that nothing has: its descriptor, open for reading and writing, and its path.

    The system applies the umask to `mode`. `tempfile.mkstemp` makes private files, and a program can only ask for its
    umask by changing it, which the files of other threads would notice.

    Raises:
        OSError: the file cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return _under_a_new_name(folder, prefix, suffix, lambda path: os.open(path, flags, mode))


def new_folder(folder: Path, prefix: str, suffix: str) -> Path:
    """Makes a folder in `folder` with a name that nothing has, with the permissions that the umask leaves.

    Raises:
        OSError: it cannot be made.
    """
    return _under_a_new_name(folder, prefix, suffix, lambda path: path.mkdir(0o777))[1]


def _under_a_new_name(folder: Path, prefix: str, suffix: str, make: Callable[[Path], _Made]) -> tuple[_Made, Path]:
    for _ in range(_TRIES):
        path = folder / f"{prefix}{secrets.token_hex(6)}{suffix}"
        with contextlib.suppress(FileExistsError):
            return make(path), path
    raise FileExistsError(errno.EEXIST, "no unused name was found", str(folder))


def open_regular(path: Path, limit: int) -> io.BufferedReader:
    """Opens a file that a user or a stranger handed over, to read it: regular files of at most `limit` bytes only.

    A pipe would be waited on for ever, and a device such as /dev/zero never ends.

    Raises:
        OSError: it cannot be opened, is not a regular file (EINVAL; EISDIR for a folder), or is larger (EFBIG).
    """
    require_regular(path, limit)
    # It may have become a pipe since.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _require_regular(path, os.fstat(descriptor), limit)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, limit: int) -> bytes:
    """The content of such a file.

    Raises:
        OSError: see `open_regular`; also where it grows beyond `limit` while it is read.
    """
    with open_regular(path, limit) as file:
        # Not `limit` at once, for which Python would take the memory. Files in /proc state no size.
        content = file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)
        while len(content) <= limit and (more := file.read(min(_CHUNK_BYTES, limit + 1 - len(content)))):
            content += more
    if len(content) > limit:
        raise OSError(errno.EFBIG, _too_large(limit), str(path))
    return content


def require_regular(path: Path, limit: int) -> None:
    """For files that a library opens by name. Raises `OSError` as `open_regular` does."""
    _require_regular(path, path.stat(), limit)


def _require_regular(path: Path, status: os.stat_result, limit: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    if status.st_size > limit:
        raise OSError(errno.EFBIG, _too_large(limit), str(path))


def _too_large(limit: int) -> str:
    return f"Larger than {limit:,} bytes, the most that such a file may have"


def standing_in(head: bytes) -> str | None:
    """What stands in place of a file that was never fetched, by its first `HEAD_BYTES`; None if nothing known."""
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a Git LFS pointer, not the file itself, which `git lfs pull` fetches"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")) or (text.startswith(b"<?xml") and b"<html" in text):
        return "a web page (HTML), not the file itself, which has to be downloaded again"
    return None


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns an `OSError` on `path` into a `StorageError` that names the cause and a next step."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or type(error).__name__
        raise StorageError(f"cannot write {path}: {cause}", next_step(error)) from error


@contextlib.contextmanager
def atomic_writer(path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Opens a binary file that appears under `path` only when the block ends without an error.

    Args:
        path: its folder is made if need be.
        mode: permissions before the umask.

    Raises:
        StorageError: the folder cannot be made, or the file cannot be written, synced or renamed.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = new_file(path.parent, f".{path.name}.", ".tmp", mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def write_bytes(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Writes `content` to `path`, atomically, with the permissions `mode` before the umask. Raises `StorageError`."""
    with atomic_writer(path, mode) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Writes `content` to `path` as UTF-8, atomically. Raises `StorageError`."""
    write_bytes(path, content.encode("utf-8"))


def with_checksum(content: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with its own SHA-256 as one more key, which `without_checksum` checks: disks do lose bits."""
    return content | {CHECKSUM: _json_sha256(content)}


def without_checksum(content: Any) -> Any:
    """What was read from JSON, less its checksum.

    Raises:
        ValueError: it is not what was written, or the checksum is missing: other damage would go unnoticed.
    """
    if not isinstance(content, dict):
        return content
    content = dict(content)
    checksum = content.pop(CHECKSUM, None)
    if checksum not in (EDITED, _json_sha256(content)):
        lost = "it was changed since it was written" if checksum else "its checksum is missing"
        raise ValueError(f'{lost}; after an edit of your own, set {CHECKSUM} to "{EDITED}"')
    return content


def _json_sha256(content: Any) -> str:
    # Through JSON once, in which tuples are lists and all keys text.
    plain = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
