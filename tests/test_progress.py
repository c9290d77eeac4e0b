from __future__ import annotations

import io
import sys

import pytest

from bssl_tf.progress import progress


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> int:
    monkeypatch.setattr(sys, "stderr", stream)
    # A clock on which every step takes a second.
    seconds = iter(range(10**6))
    with progress(total=300, description="training") as bar:
        bar._time = lambda: float(next(seconds))
        bar.start_t = bar.last_print_t = 0.0
        for _ in range(300):
            bar.update()
    assert "300/300" in stream.getvalue()
    return stream.getvalue().count("\r")


def test_a_bar_moves_on_a_terminal_and_seldom_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, Terminal()) > 100
    assert 5 < drawn(monkeypatch, io.StringIO()) < 15
