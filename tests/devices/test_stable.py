"""Repeating until the median is known, on a clock that the test winds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from bssl_tf_deploy.stable import MAX_ROUNDS, is_stable, median_interval, until_stable
from tests.deploy.test_benchmark import MS, Clock


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=300))
@settings(deadline=None)
def test_the_interval_is_the_widest_pair_of_ranks_that_the_binomial_asks_for(durations: list[int]) -> None:
    low, high = median_interval(durations)
    count, ordered = len(durations), sorted(durations)
    # The independent way: scipy's quantile, the smallest k with P(X <= k) >= 2.5 %.
    rank = max(int(binom.ppf(0.025, count, 0.5)), 1)
    assert (low, high) == (ordered[rank - 1], ordered[count - rank])
    assert low <= np.median(durations) <= high


def test_the_interval_covers_the_true_median_as_often_as_it_says(rng: np.random.Generator) -> None:
    # Of a skew distribution, as latencies are; 2000 trials, so that three standard errors are 1.5 %.
    samples = rng.exponential(1000, (2000, 101)).astype(int)
    covered = [low <= 1000 * np.log(2) <= high for low, high in map(median_interval, samples.tolist())]
    assert 0.94 <= np.mean(covered) <= 0.985


@given(st.lists(st.integers(10**6, 10**7), min_size=6, max_size=100), st.integers(2, 9))
@settings(deadline=None)
def test_stability_does_not_depend_on_the_unit_or_the_order(durations: list[int], factor: int) -> None:
    assert is_stable(durations) == is_stable([value * factor for value in durations][::-1])


def test_a_steady_function_is_called_often_enough_for_its_percentiles_and_no_more() -> None:
    clock = Clock()
    found = until_stable({"a": clock.task("a", lambda call: 10)}, burn_in_s=0.1, budget_s=100, clock=clock)["a"]
    assert found.stable and len(found.durations_ns) == 101
    assert (found.first_ns, found.median_low_ns, found.median_high_ns) == (10 * MS, 10 * MS, 10 * MS)
    assert len(clock.calls) == 1 + 10 + 101


def test_an_unsteady_function_is_called_until_it_is_known_or_the_budget_ends(rng: np.random.Generator) -> None:
    noise = rng.uniform(5, 15, 2 * MAX_ROUNDS)
    clock = Clock()
    run = clock.task("a", lambda call: noise[call])
    found = until_stable({"a": run}, burn_in_s=0, budget_s=3, clock=clock)["a"]
    assert not found.stable and sum(found.durations_ns[:-1]) <= 3000 * MS < sum(found.durations_ns) + 15 * MS
    noise = rng.uniform(9, 11, MAX_ROUNDS)
    clock = Clock()
    run = clock.task("a", lambda call: noise[call])
    found = until_stable({"a": run}, burn_in_s=0, budget_s=1000, clock=clock)["a"]
    # The median's standard error is 1 ms over the root of the number of calls: 384 for 0.1 ms with 95 %.
    assert found.stable and 200 < len(found.durations_ns) < 800
    low, high = median_interval(found.durations_ns)
    assert (low, high) == (found.median_low_ns, found.median_high_ns) and high - low <= 0.02 * 10 * MS * 1.1


def test_a_slow_function_is_called_twenty_times_whatever_the_budget() -> None:
    clock = Clock()
    runs = {name: clock.task(name, lambda call: 5000) for name in ("a", "b")}
    found = until_stable(runs, burn_in_s=0.1, budget_s=1, clock=clock)
    assert [len(row.durations_ns) for row in found.values()] == [20, 20]


def test_a_fast_function_is_not_warmed_up_for_minutes_by_a_slow_one_beside_it() -> None:
    clock = Clock()
    runs = {"fast": clock.task("f", lambda call: 1), "slow": clock.task("s", lambda call: 1000)}
    until_stable(runs, burn_in_s=0.5, budget_s=0, clock=clock)
    # One first call and 20 timed ones; between them 4 burn-ins of two functions, 4 s, and not 500 s.
    assert clock.calls.count("s") == 1 + 4 + 20


def test_functions_take_turns() -> None:
    clock = Clock()
    runs = {name: clock.task(name, lambda call: 1 + len(clock.calls)) for name in ("a", "b")}
    found = until_stable(runs, burn_in_s=0, budget_s=10, clock=clock)
    assert "".join(clock.calls[:2]) == "ab"
    # Everything becomes slower by 1 ms with each call of anything: that hits both alike.
    differences = np.subtract(found["b"].durations_ns, found["a"].durations_ns)
    assert set(differences) == {MS}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_calls_are_known_by_all_of_them(count: int) -> None:
    durations = list(range(1, count + 1))
    assert median_interval(durations) == (1, count)
