"""The figures, on a clock that the test winds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bssl_tf_deploy.benchmark import machine, measure, measure_interleaved, summarise

MS = 1_000_000


class Clock:
    """Stands still but for what the timed functions take."""

    def __init__(self) -> None:
        self.now = 0
        self.calls: list[str] = []

    def __call__(self) -> int:
        return self.now

    def task(self, name: str, durations_ms: Callable[[int], float]) -> Callable[[], None]:
        def run() -> None:
            self.now += int(durations_ms(self.calls.count(name)) * MS)
            self.calls.append(name)

        return run


def test_figures_are_those_of_the_timed_calls() -> None:
    clock = Clock()
    # The first takes 70 ms, 40 of 10 ms warm up (0.4 s), then 1 to 100 ms are timed.
    task = clock.task("a", lambda call: 70 if call == 0 else 10 if call <= 40 else call - 40)
    timings = measure(task, warmup=40, repetitions=100, clock=clock)
    assert timings.first_ms == 70
    assert timings.p50_ms == 50.5
    assert (timings.p90_ms, timings.p99_ms, timings.min_ms) == (91, 100, 1)
    assert timings.spread_ms == 49.5
    assert timings.repetitions == 100
    assert len(clock.calls) == 1 + 40 + 100


def test_calls_alternate_and_the_first_of_each_comes_alone() -> None:
    clock = Clock()
    runs = {name: clock.task(name, lambda call: 100) for name in ("a", "b")}
    measure_interleaved(runs, warmup=3, repetitions=2, clock=clock)
    assert "".join(clock.calls) == "ab" + "ab" * 3 + "ab" * 2


def test_a_drift_of_the_machine_hits_both_alike() -> None:
    clock = Clock()
    # Everything becomes slower by 1 ms with each call of anything.
    runs = {name: clock.task(name, lambda call: 1 + len(clock.calls)) for name in ("a", "b")}
    timings = measure_interleaved(runs, warmup=0, repetitions=50, clock=clock)
    assert timings["b"].p50_ms - timings["a"].p50_ms == 1


@pytest.mark.parametrize(("warmup", "duration_ms", "rounds"), [(0, 1, 200), (0, 300, 1), (500, 1, 500), (10, 50, 10)])
def test_burn_in_lasts_for_the_warm_up_and_two_tenths_of_a_second(warmup: int, duration_ms: float, rounds: int) -> None:
    clock = Clock()
    measure(clock.task("a", lambda call: duration_ms), warmup=warmup, repetitions=1, clock=clock)
    assert len(clock.calls) == 1 + rounds + 1


def test_a_single_call_is_all_percentiles() -> None:
    timings = summarise(2 * MS, [3 * MS])
    assert (timings.p50_ms, timings.p90_ms, timings.p99_ms, timings.min_ms, timings.spread_ms) == (3, 3, 3, 3, 0)


def test_percentiles_agree_with_their_definition(rng: np.random.Generator) -> None:
    nanoseconds = [int(value) for value in rng.integers(MS, 9 * MS, 137)]
    timings = summarise(0, nanoseconds)
    ordered = np.sort(nanoseconds) / MS
    assert timings.p50_ms == np.median(ordered)
    # The smallest call that at least nine in ten are no slower than.
    assert timings.p90_ms == pytest.approx(ordered[np.searchsorted(np.arange(137) / 136, 0.9)])


@pytest.mark.parametrize(("warmup", "repetitions"), [(-1, 1), (0, 0)])
def test_counts_out_of_range_are_refused(warmup: int, repetitions: int) -> None:
    with pytest.raises(ValueError, match="warmup"):
        measure(lambda: None, warmup=warmup, repetitions=repetitions)


def test_the_machine_has_a_name_on_one_line() -> None:
    assert "cores" in machine()
    assert "\n" not in machine()
