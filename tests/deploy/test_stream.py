"""Images are prepared beside the network, in order, and never many ahead."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bssl_tf_deploy import stream
from bssl_tf_deploy.errors import CameraError, ImageError
from bssl_tf_deploy.predictor import Prepared
from bssl_tf_deploy.sources import Item


class Source:
    """Items that are counted as they are taken."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.taken, self.closed = 0, threading.Event()
        self._count, self._error = count, error

    def items(self) -> Iterator[Item]:
        try:
            for number in range(self._count):
                self.taken += 1
                yield Item(str(number), Path(str(number)))
            if self._error is not None:
                raise self._error
        finally:
            self.closed.set()


def slow(item: Item) -> Prepared | ImageError:
    time.sleep(random.random() / 500)
    return ImageError(item.name, "")


@pytest.mark.parametrize("live", [False, True])
def test_order_is_kept_and_nothing_is_lost(live: bool) -> None:
    found = [(item.name, str(made)) for item, made in stream.in_order(Source(200).items(), slow, live=live)]
    assert found == [(str(number), str(ImageError(str(number), ""))) for number in range(200)]


def test_images_are_prepared_beside_the_network_and_few_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    source, made = Source(100), threading.Semaphore(0)

    def prepare(item: Item) -> Prepared | ImageError:
        made.release()
        return ImageError(item.name, "")

    ready = stream.in_order(source.items(), prepare, live=False)
    next(ready)
    # While this thread stands for the network, others go on: 4 wait, and 1 has no place to wait in.
    for _ in range(5):
        assert made.acquire(timeout=10)
    time.sleep(0.3)
    assert source.taken <= 1 + 4 + 1
    ready.close()
    assert source.closed.wait(10)
    assert source.taken < 100


def test_nothing_is_prepared_ahead_of_a_camera() -> None:
    source = Source(100)
    ready = stream.in_order(source.items(), slow, live=True)
    for number in range(1, 10):
        next(ready)
        assert source.taken == number


def test_an_error_of_the_source_comes_after_what_was_before_it() -> None:
    ready = stream.in_order(Source(3, CameraError("gone", "Look")).items(), slow, live=False)
    assert [next(ready)[0].name for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(CameraError, match="gone"):
        next(ready)


def test_an_error_that_is_not_the_images_is_raised() -> None:
    def broken(item: Item) -> Prepared | ImageError:
        raise ZeroDivisionError(item.name)

    with pytest.raises(ZeroDivisionError):
        list(stream.in_order(Source(5).items(), broken, live=False))


def test_an_answer_does_not_wait_for_the_next_image() -> None:
    """As where paths come by a pipe, one in a while."""
    go = threading.Event()

    def items() -> Iterator[Item]:
        yield Item("first", Path("first"))
        assert go.wait(10)
        yield Item("second", Path("second"))

    ready = stream.in_order(items(), slow, live=False)
    assert next(ready)[0].name == "first"
    go.set()
    assert next(ready)[0].name == "second"
