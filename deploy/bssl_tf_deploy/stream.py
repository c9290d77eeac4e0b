"""Prepares images in threads while the network runs, and gives them in their order."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from bssl_tf_deploy.errors import ImageError
from bssl_tf_deploy.inputs import OneImage
from bssl_tf_deploy.predictor import Prepared
from bssl_tf_deploy.sources import Item

_MOST_WORKERS = 4
_WAIT_S = 0.1
Ready = tuple[Item, Prepared | ImageError]
_Waiting = tuple[Item, "Future[Prepared | ImageError]"]


def preparer(prepare: Callable[[OneImage], Prepared]) -> Callable[[Item], Prepared | ImageError]:
    """What `in_order` takes, of what prepares one image and raises `ImageError`."""

    def prepared(item: Item) -> Prepared | ImageError:
        if isinstance(item.image, ImageError):
            return item.image
        try:
            return prepare(item.image)
        except ImageError as error:
            return error

    return prepared


def in_order(
    items: Iterator[Item], prepare: Callable[[Item], Prepared | ImageError], *, live: bool
) -> Generator[Ready, None, None]:
    """Each item with what `prepare` makes of it, as soon as it and those before it are ready.

    `items` is read, and closed, in a thread of its own; an error of it comes when all before it were given. At most
    twice as many images as there are threads are in memory.

    Args:
        items: what is to be prepared; may wait for input.
        prepare: called in several threads.
        live: nothing is prepared ahead, as it would be old when its turn comes.
    """
    if live:
        yield from ((item, prepare(item)) for item in items)
        return
    workers = min(os.cpu_count() or 1, _MOST_WORKERS)
    waiting: queue.Queue[_Waiting | BaseException | None] = queue.Queue(2 * workers)
    stop = threading.Event()

    def put(value: _Waiting | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return waiting.put(value, timeout=_WAIT_S)
            except queue.Full:
                continue

    def read(pool: ThreadPoolExecutor) -> None:
        end: BaseException | None = None
        try:
            for item in items:
                put((item, pool.submit(prepare, item)))
                if stop.is_set():
                    break
        except BaseException as error:  # Raised again where it is waited for.
            end = error
        finally:
            if isinstance(items, Generator):
                items.close()
            put(end)

    pool = ThreadPoolExecutor(workers, "prepare")
    # A daemon: it may be waiting for a line of standard input when the program ends.
    threading.Thread(target=read, args=(pool,), name="source", daemon=True).start()
    try:
        while (one := waiting.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            item, future = one
            yield item, future.result()
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
