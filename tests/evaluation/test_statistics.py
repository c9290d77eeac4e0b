"""Intervals and paired tests: against independent references, and by what must hold for all inputs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import confusion_matrix as sklearn_confusion

from bssl_tf.evaluation.statistics import (
    Interval,
    PairedDifference,
    accuracy_interval,
    confusion_matrix,
    holm,
    mean_half_width,
    paired_difference,
    wilson_interval,
)

COUNTS = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS)
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    correct, images = counts
    expected = stats.binomtest(correct, images).proportion_ci(confidence_level=0.95, method="wilson")
    found = wilson_interval(correct, images)
    assert (found.low, found.high) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-9)


@given(COUNTS)
def test_wilson_holds_what_was_measured_mirrors_and_narrows_with_images(counts: tuple[int, int]) -> None:
    correct, images = counts
    found, mirrored = wilson_interval(correct, images), wilson_interval(images - correct, images)
    assert 0 <= found.low <= 100 * correct / images <= found.high <= 100
    assert (found.low, found.high) == pytest.approx((100 - mirrored.high, 100 - mirrored.low), abs=1e-9)
    more = wilson_interval(4 * correct, 4 * images)
    assert more.high - more.low < found.high - found.low


@pytest.mark.parametrize(("share", "images"), [(0.5, 40), (0.9, 60), (0.98, 100), (0.1, 34)])
def test_wilson_holds_the_true_share_about_as_often_as_it_promises(share: float, images: int) -> None:
    """Summed over the whole binomial distribution, not sampled."""
    chances = stats.binom.pmf(np.arange(images + 1), images, share)
    held = sum(chance for k, chance in enumerate(chances) if 100 * share in wilson_interval(k, images))
    assert 0.92 < held < 0.985


def test_a_known_interval_and_the_mean_over_seeds() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 gives 0.2553 to 0.3662.
    found = wilson_interval(81, 263)
    assert (round(found.low, 2), round(found.high, 2)) == (25.53, 36.62)
    values = [86.2, 84.55, 83.6]
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    half = mean_half_width(values)
    assert half == pytest.approx((expected.high - expected.low) / 2)
    assert mean_half_width([50.0]) is None
    assert accuracy_interval([81 / 2.63], 263) == found
    assert accuracy_interval(values, 2000).high == pytest.approx(expected.high)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300))
def test_mcnemar_is_the_sum_of_the_binomial_tails(pairs: list[tuple[bool, bool]]) -> None:
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    found = paired_difference(first, second)
    b, c = found.first_only, found.second_only
    assert found.points == pytest.approx(100 * (first.mean() - second.mean()))
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert found.p_value == pytest.approx(min(1.0, 2 * tail))
    other = paired_difference(second, first)
    assert other.p_value == found.p_value and other.points == -found.points
    assert found.points in found.interval() or b + c == len(pairs)
    mirrored = other.interval()
    assert (found.interval().low, found.interval().high) == pytest.approx((-mirrored.high, -mirrored.low))


def test_the_interval_of_a_difference_holds_the_true_one() -> None:
    rng = np.random.default_rng(0)
    cells = np.array([0.55, 0.15, 0.10, 0.20])
    drawn = rng.multinomial(150, cells, size=4000)
    held = [5.0 in PairedDifference(150, int(b), int(c)).interval() for _, b, c, _ in drawn]
    assert 0.935 < np.mean(held) < 0.97


def test_without_an_effect_the_paired_test_rarely_finds_one() -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(500):
        # The same images are hard for both; neither is better.
        hard = rng.random(200)
        first, second = (hard > rng.normal(0.4, 0.1, 200) for _ in range(2))
        wrong += paired_difference(first, second).p_value <= 0.05
    assert wrong / 500 <= 0.07


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(after >= before for after, before in zip(adjusted, p_values, strict=True))
    for alpha in (0.01, 0.05, 0.3):
        rejected: set[int] = set()
        order = sorted(range(len(p_values)), key=lambda one: p_values[one])
        for rank, place in enumerate(order):
            if p_values[place] * (len(order) - rank) > alpha:
                break
            rejected.add(place)
        assert {place for place, p in enumerate(adjusted) if p <= alpha} == rejected


def test_holm_of_a_known_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.03, 0.02]) == pytest.approx((0.04, 0.04)) and holm([]) == ()


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=80))
def test_the_confusion_matrix_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
    found = confusion_matrix(truth, predicted, 7)
    np.testing.assert_array_equal(found, sklearn_confusion(truth, predicted, labels=range(7)))
    assert found.sum() == len(pairs)


def test_counts_that_cannot_be_are_refused() -> None:
    for correct, images in itertools.product((-1, 5), (0, 4)):
        with pytest.raises(ValueError, match="images at confidence"):
            wilson_interval(correct, images)
    with pytest.raises(ValueError, match="paired comparison"):
        paired_difference(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(ValueError, match="out of range"):
        confusion_matrix(np.array([0]), np.array([2]), 2)
    assert 3.0 in Interval(2.0, 3.0) and 3.1 not in Interval(2.0, 3.0)
