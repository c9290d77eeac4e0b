"""How busy the machine was with other work while something was timed."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path


class OthersClock:
    """How many cores other processes keep busy, from Linux's counters.

    Args:
        own: numbers of processes that are not others, beside this one; nor are their children that live at both ends.
    """

    def __init__(self, own: Collection[int] = ()) -> None:
        self._own = frozenset(own)
        self._start = self._now()

    def _now(self) -> tuple[float, float] | None:
        try:
            fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        except OSError:
            return None
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
        times = os.times()
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), busy - times.user - times.system - _seconds_of(self._own)

    def cores(self) -> float | None:
        """Cores in the mean since this object was made; None where the counters are not there."""
        end = self._now()
        if self._start is None or end is None or end[0] <= self._start[0]:
            return None
        return round(max(0.0, (end[1] - self._start[1]) / (end[0] - self._start[0])), 3)


def _seconds_of(processes: frozenset[int]) -> float:
    """What these processes and their descendants have computed so far."""
    if not processes:
        return 0.0
    parents, ticks = {}, {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name before the last parenthesis may hold anything.
            fields = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        number = int(entry.parent.name)
        parents[number], ticks[number] = int(fields[1]), int(fields[11]) + int(fields[12])

    def is_own(number: int) -> bool:
        while number in parents and number not in processes:
            number = parents[number]
        return number in processes

    return sum(count for number, count in ticks.items() if is_own(number)) / os.sysconf("SC_CLK_TCK")
