"""Where the time of a call goes: to our nodes, by the library's own clock, and to what the interpreter runs between.

The library keeps when each of its nodes began and ended, on the clock of `time.monotonic_ns`. What lies between two of
them are operators of the interpreter, whose own times nobody keeps. So each nanosecond of a call has one row: a node of
ours, a stretch of other operators, the copies of input and output, or the interpreter, which goes from node to node.
"""

from __future__ import annotations

import ctypes
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf_deploy.errors import RuntimeUnavailableError
from bssl_tf_deploy.litert import LiteRtInterpreter
from bssl_tf_deploy.nodes import DELEGATE, Stretch, read_nodes, stretches
from bssl_tf_deploy.record import OperatorTime, Profile

_MIN_CALLS, _MAX_CALLS = 20, 2000
_BURN_IN_S = 0.2
COPIES, INTERPRETER = "copies of input and output", "between the nodes"
_UNKNOWN = Stretch(True, "a node of ours", "", "", -1)
# As native/profile.h has it.
_TIME = np.dtype([("node", np.int64), ("begin_ns", np.int64), ("end_ns", np.int64)])


@dataclass(frozen=True)
class Watched:
    """Calls, watched one by one; nanoseconds.

    Attributes:
        nodes: the first operator of each of our nodes, in the order in which they ran.
        begins: int64 [calls, nodes + 2]: when the input was copied, each node began, the output was copied.
        ends: int64 [calls, nodes + 2]: when that ended.
        unwatched: int64 [calls]: calls between the watched ones, with the library's clock off.
    """

    nodes: list[int]
    begins: np.ndarray
    ends: np.ndarray
    unwatched: np.ndarray


def profile_operators(
    model: bytes, inputs: Sequence[np.ndarray], threads: int, library: Path, seconds: float
) -> Profile:
    """Times a network's operators.

    Args:
        model: a TFLite flatbuffer, batches of one.
        inputs: for each input of the network [1, ...], of its type.
        threads: for one image.
        library: the runtime library.
        seconds: for all calls; 20 are made however long they take, and no more than 2000.

    Returns:
        Types of what ran as `operator`, Keras layers as `layer`, a tensor's name as `output`.

    Raises:
        RuntimeUnavailableError: the library or the interpreter does not tell what is needed.
    """
    interpreter = LiteRtInterpreter(model, threads, library, profiled=True)
    try:
        nodes, names = read_nodes(interpreter.native)
        switch = _switch(interpreter, library)
    except AttributeError as error:
        raise RuntimeUnavailableError(
            f"times of single operators cannot be measured ({error})", "Install bssl-tf-deploy and ai-edge-litert again"
        ) from error
    watched = _watch(interpreter, inputs, switch, sum(node.type == DELEGATE for node in nodes), seconds)
    found = stretches(nodes, names, watched.nodes)
    return summary(watched, found)


def summary(watched: Watched, found: Sequence[Stretch]) -> Profile:
    """The figures of `profile_operators`.

    Where `found` has our nodes in another order than they ran in, nobody knows what lies between them, and what does
    is called `other operators`.
    """
    spent = watched.ends - watched.begins
    gaps = watched.begins[:, 1:] - watched.ends[:, :-1]
    calls_ms = (watched.ends[:, -1] - watched.begins[:, 0]) / 1e6
    known = [one.first for one in found if one.ours] == watched.nodes
    ours = {one.first: one for one in found if one.ours}
    between: list[Stretch | None] = [None if known else Stretch(False, "other operators", "", "", -1)] * gaps.shape[1]
    before = 0
    for one in found if known else ():
        if one.ours:
            before += 1
        else:
            between[before] = one
    rows = []
    empty = np.zeros(len(spent), np.int64)
    for place, other in enumerate(between):
        if other is None:
            empty += gaps[:, place]
        else:
            rows.append(_row(gaps[:, place], other))
        if place < len(watched.nodes):
            rows.append(_row(spent[:, place + 1], ours.get(watched.nodes[place], _UNKNOWN)))
    rows.append(_row(empty, Stretch(False, INTERPRETER, "", "", -1)))
    rows.append(_row(spent[:, 0] + spent[:, -1], Stretch(False, COPIES, "", "", -1)))
    whole = sum(row.milliseconds for row in rows)
    call = float(np.median(calls_ms))
    return Profile(
        source="runtime",
        rows=tuple(dataclasses.replace(row, share=row.milliseconds / whole) for row in rows),
        calls=len(calls_ms),
        call_ms=call,
        unwatched_ms=float(np.median(watched.unwatched)) / 1e6,
        left_ms=call - whole,
    )


def _row(nanoseconds: np.ndarray, what: Stretch) -> OperatorTime:
    low, median, high = (float(value) / 1e6 for value in np.percentile(nanoseconds, (25, 50, 75)))
    return OperatorTime(what.operators, what.layer, what.output, what.ours, p50_ms=median, spread_ms=high - low)


def _switch(interpreter: LiteRtInterpreter, library: Path) -> Callable[[np.ndarray | None], int]:
    """What makes the library keep times in an array, or none; it tells how many there were.

    Raises:
        AttributeError: the library, or the interpreter, is older than that.
    """
    function = ctypes.CDLL(str(library)).bssl_runtime_profile
    function.restype = ctypes.c_int64
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    delegate: Any = interpreter.delegate
    pointer = delegate._get_native_delegate_pointer()

    def switch(times: np.ndarray | None) -> int:
        room = (None, 0) if times is None else (times.ctypes.data, len(times))
        return int(function(pointer, *room))

    return switch


def _watch(
    interpreter: LiteRtInterpreter,
    inputs: Sequence[np.ndarray],
    switch: Callable[[np.ndarray | None], int],
    room: int,
    seconds: float,
) -> Watched:
    native, clock = interpreter.native, time.monotonic_ns
    given = [(about["index"], array) for about, array in zip(native.get_input_details(), inputs, strict=True)]
    made = [about["index"] for about in native.get_output_details()]
    times = np.zeros(room, _TIME)

    def call() -> tuple[int, int, int, int]:
        start = clock()
        for place, array in given:
            native.set_tensor(place, array)
        begin = clock()
        native.invoke()
        end = clock()
        for place in made:
            native.get_tensor(place)
        return start, begin, end, clock()

    start = clock()
    while clock() - start < min(_BURN_IN_S, seconds) * 1e9:
        call()
    begins, ends = list[list[int]](), list[list[int]]()
    unwatched = list[int]()
    nodes: list[int] = []
    start = clock()
    while len(begins) < _MIN_CALLS or (clock() - start < seconds * 1e9 and len(begins) < _MAX_CALLS):
        first, _, _, last = call()
        unwatched.append(last - first)
        switch(times)
        first, begin, end, last = call()
        count = switch(None)
        ran = times["node"][:count].tolist()
        if count > room or (nodes and ran != nodes):
            raise RuntimeUnavailableError(
                "the network does not run the same nodes in each call", "Time it as a whole, with `bench`"
            )
        nodes = ran
        begins.append([first, *times["begin_ns"][:count].tolist(), end])
        ends.append([begin, *times["end_ns"][:count].tolist(), last])
    return Watched(nodes, np.array(begins, np.int64), np.array(ends, np.int64), np.array(unwatched, np.int64))
