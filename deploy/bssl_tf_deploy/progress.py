"""A line on a terminal that says how far a run is; nothing at all elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from bssl_tf_deploy.text import redraw, show

_EVERY_S = 0.1


class Progress:
    """A context manager; the line is gone at its end.

    Args:
        total: how many items there are, None if that is not known.
        done: how many were done by an earlier run.
        shown: False for nothing at all, as where answers go to the same terminal.
    """

    def __init__(self, total: int | None, done: int, *, shown: bool) -> None:
        self._total, self._before, self._shown = total, done, shown and sys.stderr.isatty()
        self._done, self._unreadable, self._start, self._drawn = 0, 0, time.monotonic(), 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.say("")

    def step(self, *, readable: bool) -> None:
        """Another item was done."""
        self._done += 1
        self._unreadable += not readable
        now = time.monotonic()
        if self._shown and now - self._drawn >= _EVERY_S:
            self._drawn = now
            redraw(self._line(now))

    def say(self, line: str) -> None:
        """A line on stderr that stays, and not in the middle of this one."""
        if self._shown:
            redraw()
        if line:
            show(line, file=sys.stderr)

    def _line(self, now: float) -> str:
        rate = self._done / max(now - self._start, 1e-9)
        done = self._before + self._done
        parts = [f"{done:,} images" if self._total is None else f"{done:,} of {self._total:,} images"]
        parts.append(f"{rate:.1f}/s")
        if self._unreadable:
            parts.append(f"{self._unreadable:,} unreadable")
        if self._total is not None:
            left = max(self._total - done, 0) / rate
            parts.append(f"{int(left // 3600)}:{int(left // 60 % 60):02}:{int(left % 60):02} left")
        return ", ".join(parts)
