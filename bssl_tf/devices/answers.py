"""What a device may answer: the agent on a board, the runner and the programs on a phone.

A device may be broken, or a stranger's: nothing of it is taken on trust.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from bssl_tf_deploy.strict import StrictError, expect, parse

T = TypeVar("T")
# Far more than any answer has: what a program printed, and its messages.
MAX_ANSWER_BYTES = 1 << 26
MOST_CORES = 1 << 16


@dataclass(frozen=True)
class _Facts:
    """See `bssl_tf_deploy.conditions.facts`; what a machine need not tell is None."""

    machine: str
    pointer_bits: int
    system: str
    kernel: str
    python: str
    glibc: str
    cores: int
    processor: str
    memory_total_mib: int
    memory_available_mib: int
    governors: tuple[str, ...] | None
    clock_mhz: float | None
    clock_max_mhz: float | None
    temperature_c: float | None
    throttled: tuple[str, ...] | None
    power_mw: dict[str, float] | None


@dataclass(frozen=True)
class _Opened:
    folder: str
    free_bytes: int
    environments: tuple[str, ...]


@dataclass(frozen=True)
class _Done:
    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Tensor:
    """Of the network on a phone; `type` is TensorFlow Lite's number."""

    type: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Ran:
    """What the runner on a phone (deploy/native/runner) says of a network that it ran; "" without our runtime."""

    bssl_tf_runner: Literal[1]
    tflite: str
    input: Tensor
    output: Tensor
    runtime: str
    kernels: str


@dataclass(frozen=True)
class Started:
    """Of a network that it started; memory is 0 where the phone does not report it."""

    bssl_tf_runner: Literal[1]
    tflite: str
    load_ns: int
    first_ns: int
    memory_before_kib: int
    peak_memory_kib: int


@dataclass(frozen=True)
class Sensor:
    """A thermal zone."""

    kind: str
    millicelsius: int


@dataclass(frozen=True)
class PhoneState:
    """Its clocks and sensors, those that may be read."""

    governors: tuple[str, ...]
    clock_khz: tuple[int, ...]
    clock_max_khz: tuple[int, ...]
    sensors: tuple[Sensor, ...]


@dataclass(frozen=True)
class Times:
    """Of a network, ns."""

    first_ns: int
    durations_ns: tuple[int, ...]


@dataclass(frozen=True)
class Timed:
    """Of networks that the runner timed, interleaved."""

    bssl_tf_runner: Literal[1]
    tflite: str
    before: PhoneState
    after: PhoneState
    networks: tuple[Times, ...]


_RUNTIME = ("runtime", "kernels")
_NUMBER = re.compile(r"[0-9]{1,15}")
_MAY_LACK = ("governors", "clock_mhz", "clock_max_mhz", "temperature_c", "throttled", "power_mw")


def read_answer(request: str, line: bytes) -> dict[str, Any]:
    """An answer: `{"ok": ...}`, in which all is there that belongs to the request, or `{"error": ..., "message": ...}`.

    Args:
        request: what the agent was asked to do.
        line: what it answered.

    Raises:
        StrictError: it is anything else.
    """
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise StrictError("the answer is not JSON") from error
    expect(isinstance(answer, dict), "the answer", "an object")
    if set(answer) == {"error", "message"}:
        expect(all(isinstance(text, str) for text in answer.values()), "the answer's error", "text")
        return answer
    expect(set(answer) == {"ok"}, "the answer", "one of the agent")
    found = answer["ok"]
    if request == "facts":
        expect(isinstance(found, dict), "facts", "an object")
        facts = parse(_Facts, dict.fromkeys(_MAY_LACK) | found, "facts")
        expect(1 <= facts.cores <= MOST_CORES, "facts.cores", "a number of processors")
    elif request == "open":
        parse(_Opened, found, "folder")
    elif request == "run":
        parse(_Done, found, "result")
    elif request == "clean":
        expect(isinstance(found, bool), "the answer", "yes or no")
    return answer


def read_runner(kind: type[T], line: str) -> T:
    """What the runner on a phone printed.

    Args:
        kind: `Ran`, `Started` or `Timed`.
        line: its record.

    Raises:
        StrictError: it is anything else, or a duration, a size or a clock is negative.
    """
    try:
        found = json.loads(line, object_hook=_named_sensors)
    except (ValueError, RecursionError) as error:
        raise StrictError("the record is not JSON") from error
    expect(isinstance(found, dict), "the record", "an object")
    record = parse(kind, dict.fromkeys(_RUNTIME, "") | found if kind is Ran else found, "the record")
    if isinstance(record, Started):
        numbers = [record.load_ns, record.first_ns, record.memory_before_kib, record.peak_memory_kib]
    elif isinstance(record, Timed):
        expect(all(one.durations_ns for one in record.networks), "the record", "of networks that were timed")
        numbers = [value for one in record.networks for value in (one.first_ns, *one.durations_ns)]
        numbers += [
            clock for state in (record.before, record.after) for clock in (*state.clock_khz, *state.clock_max_khz)
        ]
    else:
        numbers = []
    expect(all(0 <= number < 1 << 63 for number in numbers), "a number in the record", "one that can be measured")
    return record


def _named_sensors(found: dict[str, Any]) -> dict[str, Any]:
    """Sensors are pairs in the record."""
    sensors = found.get("sensors")
    if isinstance(sensors, list) and all(isinstance(one, list) and len(one) == 2 for one in sensors):
        found["sensors"] = [{"kind": kind, "millicelsius": value} for kind, value in sensors]
    return found


def number(text: str, most: int = 1 << 49) -> int | None:
    """A whole number that a program on a phone printed, alone; None for anything else, as phones differ in programs."""
    found = _NUMBER.fullmatch(text.strip())
    return value if found and (value := int(found[0])) <= most else None
