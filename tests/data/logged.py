"""What the package logs, for tests that look at single calls."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


@contextlib.contextmanager
def logged(lines: list[str] | None) -> Iterator[None]:
    """Appends the messages of level INFO and above to `lines` while the block runs."""
    logger, handler = logging.getLogger("bssl_tf"), _Lines([] if lines is None else lines)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
