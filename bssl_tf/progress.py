"""A progress bar on stderr that moves on a terminal and hardly says anything in a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_TERMINAL_S, _LOG_S = 0.1, 30.0
_silenced = False


def silence() -> None:
    """Shows no bars from now on: one of several workers speaks for all."""
    global _silenced
    _silenced = True


def progress(steps: Iterable[Any] | None = None, *, total: int, description: str, done: int = 0) -> tqdm:
    """A bar over `steps`, or one to `update()` by hand.

    It is redrawn ten times a second on a terminal, and else twice a minute.

    Args:
        steps: what to go through, or None.
        total: steps in all.
        description: what stands before the bar.
        done: steps done before.
    """
    return tqdm(
        steps,
        total=total,
        initial=done,
        desc=description,
        unit="step",
        file=sys.stderr,
        disable=_silenced,
        mininterval=_TERMINAL_S if sys.stderr.isatty() else _LOG_S,
        miniters=1,  # tqdm's own guess makes it draw where no time has passed
    )
