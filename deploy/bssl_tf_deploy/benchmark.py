"""Times a function, or several interleaved, and shows how much the figures spread."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bssl_tf_deploy.record import Latency

_BURN_IN_NS = 200_000_000
Clock = Callable[[], int]


@dataclass(frozen=True)
class Timings:
    """Latencies in milliseconds.

    Attributes:
        first_ms: the very first call, which allocates and packs.
        p50_ms: median of the timed calls.
        p90_ms: nine in ten were faster.
        p99_ms: 99 in a hundred were faster; the slowest when there are fewer calls.
        min_ms: the fastest.
        spread_ms: interquartile range.
        repetitions: timed calls.
        durations_ns: every one of them.
    """

    first_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    spread_ms: float
    repetitions: int
    durations_ns: tuple[int, ...]

    def latency(self) -> Latency:
        """The same for a record, without the first call."""
        return Latency(
            p50_ms=self.p50_ms,
            calls=self.repetitions,
            min_ms=self.min_ms,
            p90_ms=self.p90_ms,
            p99_ms=self.p99_ms,
            spread_ms=self.spread_ms,
            durations_ns=self.durations_ns,
        )


def measure(
    run: Callable[[], object], *, warmup: int, repetitions: int, clock: Clock = time.perf_counter_ns
) -> Timings:
    """Times `run`; see `measure_interleaved`."""
    return measure_interleaved({"run": run}, warmup=warmup, repetitions=repetitions, clock=clock)["run"]


def measure_interleaved(
    runs: Mapping[str, Callable[[], object]],
    *,
    warmup: int,
    repetitions: int,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, Timings]:
    """Times functions interleaved, A B A B, so that a drift of the machine hits all alike.

    Every function is first called once by itself, then all alternately `warmup` times and for at least 0.2 s each,
    which lets caches fill and the clock frequency settle; then the timed calls follow.

    Args:
        runs: name -> what to time.
        warmup: untimed calls of each, 0 or more.
        repetitions: timed calls of each, 1 or more.
        clock: gives nanoseconds.

    Raises:
        ValueError: a count is out of range.
    """
    if warmup < 0 or repetitions < 1:
        raise ValueError(f"warmup {warmup} must not be negative and repetitions {repetitions} must be positive")

    first = {name: timed(run, clock) for name, run in runs.items()}
    spent = dict.fromkeys(runs, 0)
    rounds = 0
    while rounds < warmup or any(total < _BURN_IN_NS for total in spent.values()):
        for name, run in runs.items():
            spent[name] += timed(run, clock)
        rounds += 1
    nanoseconds: dict[str, list[int]] = {name: [] for name in runs}
    for _ in range(repetitions):
        for name, run in runs.items():
            nanoseconds[name].append(timed(run, clock))
    return {name: summarise(first[name], nanoseconds[name]) for name in runs}


def timed(run: Callable[[], object], clock: Clock) -> int:
    """How long a call takes, in nanoseconds."""
    start = clock()
    run()
    return clock() - start


def summarise(first_ns: int, timed_ns: list[int]) -> Timings:
    """Figures in milliseconds of calls in nanoseconds; `timed_ns` has at least one."""
    milliseconds = np.array(timed_ns) / 1e6
    low, median, high = (float(value) for value in np.percentile(milliseconds, (25, 50, 75)))
    # Percentiles that were measured, not ones between two measurements.
    p90, p99 = (float(value) for value in np.percentile(milliseconds, (90, 99), method="higher"))
    fastest = float(np.min(milliseconds))
    return Timings(first_ns / 1e6, median, p90, p99, fastest, high - low, len(timed_ns), tuple(timed_ns))


def machine() -> str:
    """Processor, number of cores and system, as far as they can be found out."""
    processor = platform.processor() or platform.machine()
    # Linux names the processor only here; ARM kernels have another key or none.
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
        processor = names[0] if names else processor
    return f"{processor}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
