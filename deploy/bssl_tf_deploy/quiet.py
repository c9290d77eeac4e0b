"""Keeps native libraries from writing to the terminal, without losing their messages."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator

_TAIL_BYTES = 8000


class LibraryOutput(Exception):
    """What a native library printed before it failed; chained below an error, so that --debug shows it."""


@contextlib.contextmanager
def captured_output() -> Iterator[Callable[[], str]]:
    """Sends file descriptors 1 and 2 to a temporary file for the length of the block.

    MLIR and TFLite write from C++, past `sys.stdout`, so the descriptors themselves are turned. Not for use while
    other threads print.

    Yields:
        A function that gives the end of what was written so far.
    """
    _flush()
    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as stack:

        def tail() -> str:
            _flush()
            size = os.fstat(log.fileno()).st_size
            return os.pread(log.fileno(), _TAIL_BYTES, max(size - _TAIL_BYTES, 0)).decode("utf-8", "replace")

        for descriptor in (1, 2):
            saved = os.dup(descriptor)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, descriptor)
            os.dup2(log.fileno(), descriptor)
        try:
            yield tail
        finally:
            _flush()


def with_output(error: Exception, output: str) -> Exception:
    """An exception to raise another one from: the library's output, and below it `error`."""
    if not output.strip():
        return error
    chained = LibraryOutput(output)
    chained.__cause__ = error
    return chained


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A stream may be closed, or stand for nothing (pythonw).
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
