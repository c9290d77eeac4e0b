"""A file of answers that is written line by line and continued where it ends, whatever ended the run before.

Next to FILE lies `.FILE.run.json`, which says what the file is of, as long as it is not complete. A file without it is
never touched.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from bssl_tf_deploy.errors import StorageError
from bssl_tf_deploy.files import read_regular, require_regular, storage_errors, write_text
from bssl_tf_deploy.results import Format
from bssl_tf_deploy.sources import Item

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None  # type: ignore[assignment]

_OTHER = "Choose another --out, or remove this file"
_MOST_STATE_BYTES = 1 << 20
_MOST_LINE_BYTES = 1 << 24
_MAX_BYTES = 1 << 50


class OutputFile:
    """A file that answers are appended to; a context manager.

    Args:
        path: the file; its folder must exist.
        state: what it is of, as JSON values: the bundle, what is asked, where images come from. None for what cannot
            be continued, such as a camera.

    Attributes:
        answered: items that an earlier run answered.
        unreadable: items that it could not read.

    Raises:
        StorageError: the file is of something else, is complete, cannot be written, or another process writes it.
    """

    def __init__(self, path: Path, state: dict[str, Any] | None) -> None:
        self._path, self._state_path, self._state = path, path.with_name(f".{path.name}.run.json"), state
        self.answered = self.unreadable = 0
        with storage_errors(path):
            self._descriptor = self._open()

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            with storage_errors(self._path):
                os.fsync(self._descriptor)
                # With an error, there is something left to do.
                if error is None:
                    self._state_path.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)

    def write(self, text: str) -> None:
        """Appends `text`; it is with the system when this returns. Raises `StorageError`."""
        left = memoryview(text.encode("utf-8"))
        with storage_errors(self._path):
            while left:
                left = left[os.write(self._descriptor, left) :]

    def continued(self, items: Iterator[Item], made: Format) -> Iterator[Item]:
        """What is left of `items`, after those that the file has; it is cut where its last line is not complete.

        Raises:
            StorageError: the file names other items.
        """
        head = made.head().encode("utf-8")
        with open(self._descriptor, "rb", closefd=False) as file:
            end = 0 if file.read(len(head)) != head else len(head)
            if end or not head:
                for line in _complete_lines(file):
                    said = made.said(line)
                    if said is None:
                        break
                    item = next(items, None)
                    place, answered = said
                    if item is None or made.place(item) != place:
                        now = f"{item.name} is in that place now" if item else "there are fewer images now"
                        raise StorageError(
                            f"{self._path} cannot be continued: it has {place.get('image')} as number "
                            f"{self.answered + self.unreadable + 1}, and {now}",
                            "Put the images back as they were, or choose another --out",
                        )
                    self.answered += answered
                    self.unreadable += not answered
                    end += len(line.encode("utf-8", "surrogateescape")) + 1
        with storage_errors(self._path):
            os.truncate(self._descriptor, end)
            os.lseek(self._descriptor, end, io.SEEK_SET)
        if not end:
            self.write(made.head())
        return items

    def _open(self) -> int:
        path = self._path
        if path.exists():
            # Never a pipe or a device.
            require_regular(path, _MAX_BYTES)
        there = path.exists() and path.stat().st_size > 0
        if there:
            self._require_ours()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            if fcntl is not None:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise StorageError(
                        f"another process is writing {path}", "Wait for it, or choose another --out"
                    ) from error
            # Only now is it certain that nobody has just completed it.
            if os.fstat(descriptor).st_size and not self._state_path.exists():
                raise self._taken()
            if self._state is not None and not there:
                write_text(self._state_path, json.dumps(self._state) + "\n")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _require_ours(self) -> None:
        try:
            state = json.loads(read_regular(self._state_path, _MOST_STATE_BYTES))
        except FileNotFoundError as error:
            raise self._taken() from error
        except (ValueError, RecursionError) as error:
            raise StorageError(f"{self._state_path} is damaged ({error})", _OTHER) from error
        if self._state is None:
            raise self._taken()
        if state != self._state:
            there = state if isinstance(state, dict) else {}
            odd = [key for key in {**self._state, **there} if there.get(key) != self._state.get(key)]
            raise StorageError(
                f"{self._path} was started with another {' and '.join(odd) or 'version of bssl-tf-deploy'}",
                "Pass the same options to continue it, or choose another --out",
            )

    def _taken(self) -> StorageError:
        return StorageError(f"{self._path} exists, and is either complete or was not written by this command", _OTHER)


def _complete_lines(file: io.BufferedReader) -> Iterator[str]:
    """Lines without their ends, up to the first that has none."""
    while (line := file.readline(_MOST_LINE_BYTES)).endswith(b"\n"):
        yield line[:-1].decode("utf-8", "surrogateescape")
