"""Repeats functions alternately until their medians are known well enough, and computes how well."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bssl_tf_deploy.benchmark import Clock, timed

CONFIDENCE = 0.95
PRECISION = 0.01
_MIN_ROUNDS = 20
_BURN_INS = 4
# So many that the 99th percentile is not merely the slowest.
_ENOUGH_ROUNDS = 101
# Kept in the record, a number each.
MAX_ROUNDS = 10_000


@dataclass(frozen=True)
class Repeated:
    """Durations of one function.

    Attributes:
        first_ns: of the very first call.
        durations_ns: of the timed calls, in their order.
        median_low_ns: lower end of the median's 95 % interval.
        median_high_ns: upper end.
        stable: whether the interval lies within 1 % of the median.
    """

    first_ns: int
    durations_ns: list[int]
    median_low_ns: int
    median_high_ns: int
    stable: bool


def until_stable(
    runs: Mapping[str, Callable[[], object]],
    *,
    burn_in_s: float = 0.5,
    budget_s: float = 30.0,
    precision: float = PRECISION,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, Repeated]:
    """Calls functions alternately, A B A B, until every median is known to `precision` or the budget is spent.

    Each is first called once by itself, then all alternately for `burn_in_s` seconds each or four times as long
    together; the timed calls follow, 101 or more of each where the budget allows it, and at least 20 however long they
    take.

    Args:
        runs: name -> what to time; at least one.
        burn_in_s: seconds of untimed calls of each.
        budget_s: seconds for all timed calls together.
        precision: how far, as a share of the median, its 95 % interval may reach to either side.
        clock: gives nanoseconds.
    """

    first = {name: timed(run, clock) for name, run in runs.items()}
    spent = dict.fromkeys(runs, 0)
    # Of a fast function beside a slow one, not so many calls that the slow one takes minutes.
    longest = _BURN_INS * len(runs) * burn_in_s * 1e9
    while min(spent.values()) < burn_in_s * 1e9 and sum(spent.values()) < longest:
        for name, run in runs.items():
            spent[name] += timed(run, clock)
    durations: dict[str, list[int]] = {name: [] for name in runs}
    start, rounds, look = clock(), 0, _ENOUGH_ROUNDS
    while rounds < MAX_ROUNDS:
        for name, run in runs.items():
            durations[name].append(timed(run, clock))
        rounds += 1
        if rounds < _MIN_ROUNDS:
            continue
        if clock() - start > budget_s * 1e9:
            break
        if rounds >= look:
            # Looked at ever more seldom, so that sorting does not warm other caches than the calls do.
            look = rounds + max(10, rounds // 5)
            if all(is_stable(values, precision) for values in durations.values()):
                break
    made = {}
    for name, values in durations.items():
        low, high = median_interval(values)
        made[name] = Repeated(first[name], values, low, high, is_stable(values, precision))
    return made


def is_stable(durations: Sequence[int], precision: float = PRECISION) -> bool:
    """Whether the interval of the median lies within `precision` of it to either side."""
    ordered = sorted(durations)
    median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    low, high = median_interval(durations)
    return low >= median * (1 - precision) and high <= median * (1 + precision)


def median_interval(durations: Sequence[int]) -> tuple[int, int]:
    """The 95 % interval of the median by order statistics, whatever the distribution; all of them below six.

    The k-th smallest and k-th largest of n independent values enclose the median with probability
    1 - 2 P(Binomial(n, 1/2) < k) (David and Nagaraja, Order Statistics, 3rd ed., section 7.1). Calls that follow each
    other are not wholly independent, so the true interval is somewhat wider.
    """
    ordered = sorted(durations)
    rank = _rank(len(ordered))
    return ordered[rank - 1], ordered[len(ordered) - rank]


@functools.lru_cache(maxsize=256)
def _rank(count: int) -> int:
    """The largest k, at least 1, with 2 P(Binomial(count, 1/2) < k) <= 5 %."""
    below, rank = 0.0, 0
    while rank < count // 2:
        log_share = math.lgamma(count + 1) - math.lgamma(rank + 1) - math.lgamma(count - rank + 1)
        below += math.exp(log_share - count * math.log(2))
        if 2 * below > 1 - CONFIDENCE:
            break
        rank += 1
    return max(rank, 1)
