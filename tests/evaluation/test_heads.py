"""Which of two classifiers is better on the same images, and for which classes."""

from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.evaluation.heads import NOT_SHOWN, PROBE_BETTER, TUNED_BETTER, compare_heads
from bssl_tf.evaluation.predictions import Answers, Predictions
from bssl_tf.evaluation.records import BEFORE, STUDENT
from bssl_tf.evaluation.statistics import paired_difference

NAMES = ("a", "b", "c")


def answers(tuned_right: int, probe_right: int, images: int = 200) -> Answers:
    """Of `images`, the first so many are right; classes 0 and 1 in turn, none of class 2."""
    truth = np.arange(images) % 2

    def of(right: int) -> Predictions:
        return Predictions(np.where(np.arange(images) < right, truth, 2)[np.newaxis], truth)

    return {STUDENT: {"fine-tuned": of(tuned_right)}, BEFORE: {"linear-probe": of(probe_right)}}


@pytest.mark.parametrize(
    ("tuned", "probe", "better", "begins"),
    [
        (180, 120, TUNED_BETTER, "The fine-tuned network is better than a linear probe on the network before: 90.0 % "),
        (120, 180, PROBE_BETTER, "A linear probe on the network before is better than the fine-tuned network: 60.0 % "),
        (121, 120, NOT_SHOWN, "200 test images do not show whether the fine-tuned network or a linear probe on the "),
    ],
)
def test_better_is_what_a_paired_test_shows(tuned: int, probe: int, better: str, begins: str) -> None:
    given = answers(tuned, probe)
    found = compare_heads(given, NAMES)
    assert found is not None
    one, other = (given[who][how].correct[0] for who, how in ((STUDENT, "fine-tuned"), (BEFORE, "linear-probe")))
    assert (found.better, found.points) == (better, (tuned - probe) / 2)
    assert found.p_value == paired_difference(one, other).p_value
    assert found.sentence.startswith(begins) and found.interval.low <= found.points <= found.interval.high
    assert [(each.name, each.images) for each in found.classes] == [("a", 100), ("b", 100)]
    assert found.classes[0].fine_tuned == pytest.approx(100 * np.mean(one[::2]))
    assert found.classes[1].probe == pytest.approx(100 * np.mean(other[1::2]))


def test_without_both_there_is_no_comparison() -> None:
    for missing in (STUDENT, BEFORE):
        assert compare_heads({who: one for who, one in answers(9, 5).items() if who != missing}, NAMES) is None
