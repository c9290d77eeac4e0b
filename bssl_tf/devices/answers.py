"""What the agent on a device may answer. A device may be broken, or a stranger's: nothing of it is taken on trust."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from bssl_tf_deploy.strict import StrictError, expect, parse

# Far more than any answer has: what a program printed, and its messages.
MAX_ANSWER_BYTES = 1 << 26


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
        expect(1 <= facts.cores <= 1 << 16, "facts.cores", "a number of processors")
    elif request == "open":
        parse(_Opened, found, "folder")
    elif request == "run":
        parse(_Done, found, "result")
    elif request == "clean":
        expect(isinstance(found, bool), "the answer", "yes or no")
    return answer
