"""Times calls interleaved, so that a drift of the machine hits all alike, and compares them turn by turn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

from bssl_tf_deploy.record import Ratio

Clock = Callable[[], int]
Key = TypeVar("Key", bound=Hashable)

# A turn begins with calls that do not count. They bring the caller's weights back into the caches, as they are in
# steady use; and the idle threads of whoever was called before, which spin for some milliseconds, go to sleep.
_SETTLE_NS = 5_000_000
_TIMED_NS = 20_000_000
_MOST_CALLS = 20
_BURN_IN_NS = 300_000_000
_RESAMPLES = 2000


def interleave(
    calls: Mapping[Key, Callable[[], object]],
    *,
    budget_s: float,
    min_rounds: int,
    seed: int,
    clock: Clock = time.perf_counter_ns,
) -> dict[Key, np.ndarray]:
    """Calls everything in rounds until the budget is spent.

    In each round every call has one turn, in an order drawn anew: 5 ms and at least one call that do not count, then
    as many as fit into 20 ms, at least 1 and at most 20. Before the rounds come 0.3 s of calls of each.

    Args:
        calls: what to time, at least one.
        budget_s: seconds for all rounds together; the last one begins within them.
        min_rounds: rounds that are made in any case, at least 1.
        seed: of the orders.
        clock: gives nanoseconds.

    Returns:
        For each call milliseconds, float64 [rounds, calls of a turn].
    """
    counts = {}
    for key, call in calls.items():
        spent, done = 0, 0
        while spent < _BURN_IN_NS:
            start = clock()
            call()
            spent += clock() - start
            done += 1
        counts[key] = max(1, min(_MOST_CALLS, math.ceil(_TIMED_NS * done / spent)))
    rng = np.random.default_rng(seed)
    keys = list(calls)
    turns: dict[Key, list[list[int]]] = {key: [] for key in keys}
    begin, rounds = clock(), 0
    while rounds < min_rounds or clock() - begin < budget_s * 1e9:
        for index in rng.permutation(len(keys)):
            turns[keys[index]].append(_turn(calls[keys[index]], counts[keys[index]], clock))
        rounds += 1
    return {key: np.array(turns[key], np.float64) / 1e6 for key in keys}


def _turn(call: Callable[[], object], count: int, clock: Clock) -> list[int]:
    begin = clock()
    while True:
        call()
        if clock() - begin >= _SETTLE_NS:
            break
    timed = []
    for _ in range(count):
        start = clock()
        call()
        timed.append(clock() - start)
    return timed


def percentiles(milliseconds: np.ndarray) -> tuple[float, float, float]:
    """10th percentile, median and 90th percentile of all calls, whatever the shape of `milliseconds`."""
    low, median, high = (float(value) for value in np.percentile(milliseconds, (10, 50, 90)))
    return low, median, high


def ratio(numerator: np.ndarray, denominator: np.ndarray, seed: int = 0) -> Ratio:
    """How many times as long one takes as the other, round by round.

    Args:
        numerator: milliseconds, float64 [rounds, calls of a turn].
        denominator: the same rounds of the other; it may have another number of calls.

    Returns:
        Of the rounds' ratios of median calls; the median's 95 % interval is by bootstrap over rounds.
    """
    ratios = np.median(numerator, axis=1) / np.median(denominator, axis=1)
    drawn = np.random.default_rng(seed).integers(0, len(ratios), (_RESAMPLES, len(ratios)))
    low, high = (float(value) for value in np.percentile(np.median(ratios[drawn], axis=1), (2.5, 97.5)))
    p10, median, p90 = (float(value) for value in np.percentile(ratios, (10, 50, 90)))
    return Ratio(median, low, high, p10, p90)
