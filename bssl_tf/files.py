"""Files of the host side: where caches and settings lie, atomic writes, locks, JSON and line-by-line records."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import platformdirs

from bssl_tf.errors import RunFolderError, StorageError
from bssl_tf_deploy.files import (
    atomic_writer,
    new_folder,
    open_regular,
    read_regular,
    require_regular,
    storage_errors,
    with_checksum,
    without_checksum,
    write_bytes,
    write_text,
)
from bssl_tf_deploy.system_errors import next_step

__all__ = [
    "MAX_JSON_BYTES",
    "MAX_RECORDS_BYTES",
    "append_record",
    "atomic_writer",
    "cache_dir",
    "config_dir",
    "held_lock",
    "line_count",
    "locked",
    "new_folder",
    "open_regular",
    "parse_json",
    "read_complete_records",
    "read_json",
    "read_records",
    "read_regular",
    "require_regular",
    "storage_errors",
    "write_bytes",
    "write_json",
    "write_text",
]


_logger = logging.getLogger(__name__)
_APP = "bssl-tf"
# Far more than any of ours has.
MAX_JSON_BYTES = 1 << 23
MAX_RECORDS_BYTES = 1 << 26
_MAX_DIGITS = 300
# Of which the millions of lists are not searched for garbage while they are read.
_LONG_TEXT = 1 << 20


def cache_dir() -> Path:
    """The folder of what can be made again: $BSSL_TF_CACHE, else the user's cache folder on this system.

    On Linux that is $XDG_CACHE_HOME/bssl-tf or ~/.cache/bssl-tf, as in `bssl_tf_deploy.files.cache_dir`. Nothing is
    made.

    Raises:
        StorageError: there is no home folder, and no variable names another place.
    """
    try:
        if named := os.environ.get("BSSL_TF_CACHE"):
            return Path(named).expanduser()
        return platformdirs.user_cache_path(_APP, appauthor=False)
    except RuntimeError as error:
        raise StorageError(
            f"there is no folder for caches ({error})", "Name a folder with the environment variable BSSL_TF_CACHE"
        ) from error


def config_dir() -> Path:
    """The folder of the user's own settings: on Linux $XDG_CONFIG_HOME/bssl-tf or ~/.config/bssl-tf. Nothing is made.

    Raises:
        StorageError: there is no home folder, and no variable names another place.
    """
    try:
        return platformdirs.user_config_path(_APP, appauthor=False)
    except RuntimeError as error:
        raise StorageError(
            f"there is no folder for settings ({error})",
            "Name a folder with the environment variable XDG_CONFIG_HOME",
        ) from error


@contextlib.contextmanager
def held_lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Holds a lock of the system on the file `path`; yields whether it is held.

    It is released when its holder dies, however that happens. False where the file system has no locks, as some of
    networks have not.

    Args:
        path: made if it is not there; its folder must be.
        wait: for another holder; without it, another holder raises `filelock.Timeout`.

    Raises:
        filelock.Timeout: another process or thread holds it.
        OSError: the file cannot be made.
    """
    # A soft lock is a file that outlives a killed process: worse than no lock.
    lock = filelock.FileLock(path, fallback_to_soft=False)
    # Apart from the lock, so that only what is said of files is an error.
    path.open("a").close()
    try:
        lock.acquire(blocking=wait)
    except filelock.Timeout:
        raise
    except (OSError, NotImplementedError) as error:
        _logger.debug("%s cannot be locked (%s)", path, error)
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextlib.contextmanager
def locked(path: Path, what: str, option: str) -> Iterator[None]:
    """Holds the lock file `path` against a second process; the lock goes with the process, however it ends.

    Args:
        path: made if it is not there, with its folder.
        what: who else holds it, for the message: "another process is training".
        option: the command's option that names another folder: "--out".

    Raises:
        RunFolderError: another process holds it.
        StorageError: the file cannot be made.
    """
    with contextlib.ExitStack() as stack:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                held = stack.enter_context(held_lock(path, wait=False))
            except filelock.Timeout as error:
                raise RunFolderError(
                    f"{what} in {path.parent}", f"Wait for it, or choose another folder with {option}"
                ) from error
        if not held:
            # A run on such a file system is worth more than the guard.
            _logger.warning("%s is on a file system without locks: use it in one process at a time", path.parent)
        yield


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes `content` as indented JSON with sorted keys and a checksum, atomically. Raises `StorageError`."""
    write_text(path, json.dumps(with_checksum(content), indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; a checksum, as `write_json` adds, is checked.

    Raises:
        RunFolderError: the file is missing, not JSON, not an object, or not what was written.
    """
    try:
        content = parse_json(read_regular(path, MAX_JSON_BYTES).decode("utf-8"))
    except FileNotFoundError as error:
        raise RunFolderError(f"{path} is missing", "Check the path") from error
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({error.strerror})", next_step(error)) from error
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{path} is not valid JSON ({error})", "Restore the file or make it again") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{path} is not a JSON object", "Restore the file or make it again")
    try:
        plain: dict[str, Any] = without_checksum(content)
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged ({error})", "Restore the file or make it again") from error
    return plain


def read_complete_records(path: Path, fields: Iterable[str], next_step: str) -> list[dict[str, Any]]:
    """Every record of a file that figures are made from; none where there is no such file.

    Args:
        path: one JSON object a line.
        fields: what each holds at least.
        next_step: what to do about a line that does not, an imperative without a final full stop.

    Raises:
        RunFolderError: the file cannot be read, or a line is not a record or lacks one of `fields`.
    """
    records = read_records(path)
    if len(records) < line_count(path):
        raise RunFolderError(f"line {len(records) + 1} in {path} is not a record", next_step)
    for number, record in enumerate(records, start=1):
        missing = [name for name in fields if name not in record]
        if missing:
            raise RunFolderError(f"record {number} in {path} has no {missing[0]}", next_step)
    return records


def append_record(path: Path, *records: dict[str, Any]) -> None:
    """Appends JSON objects, a line each, in one write; a line that a killed process left half written goes away.

    Raises:
        StorageError: the file cannot be written.
    """
    lines = "".join(json.dumps(record, sort_keys=True) + "\n" for record in records).encode()
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.truncate(_end_of_last_line(file))
            file.write(lines)


def _end_of_last_line(file: BinaryIO) -> int:
    """Where the last newline ends, 0 without one."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def read_records(path: Path) -> list[dict[str, Any]]:
    """Reads the records of a file of JSON lines, none if it is missing, less a last line that a killed process cut.

    Raises:
        RunFolderError: the file cannot be read.
    """
    records = []
    # Not splitlines, which also parts at characters that may stand in JSON's text.
    for line in _text(path).removesuffix("\n").split("\n"):
        try:
            record = parse_json(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(record, dict):
            break
        records.append(record)
    return records


def line_count(path: Path) -> int:
    """How many line breaks a file of records has, 0 if it is missing: more than records where a line is not a record.

    Raises:
        RunFolderError: the file cannot be read.
    """
    return _text(path).count("\n")


def parse_json(text: str) -> Any:
    """JSON whose whole numbers fit into a float, as whoever computes with them may make them one."""
    with _uncollected() if len(text) > _LONG_TEXT else contextlib.nullcontext():
        return _DECODER.decode(text)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection, which among millions of lists would take three times as long as to read them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


# Made once: a file of records has a million lines.
_DECODER = json.JSONDecoder(parse_int=_whole)


def _text(path: Path) -> str:
    try:
        return read_regular(path, MAX_RECORDS_BYTES).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({error.strerror})", next_step(error)) from error
