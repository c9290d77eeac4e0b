"""The verdict follows from paired tests: what it says, what it never says, and what it advises."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bssl_tf.evaluation.predictions import Answers, Predictions
from bssl_tf.evaluation.records import RAW_PIXELS, STUDENT, TEACHER, untrained
from bssl_tf.evaluation.verdict import LEARNED, NOT_ABOVE_PIXELS, NOT_SHOWN, UNKNOWN, Facts, Origin, make_verdict

FACTS = Facts("runs/a b", 4303, 64, pretrained=False)


def answers(*sides_of: list[bool]) -> Answers:
    """Of student, untrained student and raw pixels: right where True, the truth being class 1 for all."""
    sides = dict(zip((STUDENT, untrained(STUDENT), RAW_PIXELS), sides_of, strict=True))
    truth = np.ones(len(sides_of[0]))
    return {name: {"linear-probe": Predictions(np.array([right], int), truth)} for name, right in sides.items()}


def shares(count: int, student: int, plain: int, pixels: int) -> Answers:
    """The first so many images are right, so that the better one is right wherever the other is."""
    return answers(*([place < right for place in range(count)] for right in (student, plain, pixels)))


def test_a_student_above_both_learned() -> None:
    found = make_verdict(STUDENT, shares(480, 295, 240, 250), FACTS)
    assert found.outcome == LEARNED and found.next_step == ""
    assert found.sentence.startswith("The student learned: linear-probe 61.5 % (95 % interval 57.0 to 65.7, 480 test")
    assert (
        "+11.5 points against the untrained student" in found.sentence
        and "paired test, adjusted p < 0.001" in found.sentence
    )
    assert found.sentence.count(". ") == 0 and found.sentence.endswith(".")


def test_the_numbers_of_issue_13_are_told_as_they_are() -> None:
    """50.3 against 50.0 untrained, 4,303 photos: nothing was learned, and a pretrained teacher is the next step."""
    rng = np.random.default_rng(0)
    mixed = [list(rng.permutation(np.arange(320) < right)) for right in (161, 160, 158)]
    found = make_verdict(STUDENT, answers(*mixed), FACTS)
    assert found.outcome == NOT_SHOWN
    assert found.sentence.startswith(
        "320 test images do not show that the student learned anything: linear-probe 50.3 %"
    )
    assert "bssl-tf teacher --pretrained --image-size 64" in found.next_step and "4,303 photos" in found.next_step
    assert "trained with ImageNet's labels" in found.next_step


@pytest.mark.parametrize(
    ("photos", "pretrained", "advised"),
    [(None, False, True), (49_999, False, True), (50_000, False, False), (4303, True, False)],
)
def test_a_pretrained_teacher_is_advised_for_few_photos_and_to_those_who_have_none(
    photos: int | None, pretrained: bool, advised: bool
) -> None:
    found = make_verdict(STUDENT, shares(300, 150, 150, 140), Facts("run", photos, 64, pretrained))
    assert ("teacher --pretrained" in found.next_step) == advised and found.next_step
    # Of photos that nobody counted it is not claimed that they are few.
    assert ("since fewer than 50,000 photos" in found.next_step) == (photos is None)


@pytest.mark.parametrize(
    ("origin", "advised"),
    [
        ("trained here", "more epochs, more photos like those to be classified, or larger images"),
        ("imported", "Import it again for larger images (`--image-size`, now 64)"),
        ("saved model", "Check that `--pixels` and `--image-size` are those that it was trained with"),
    ],
)
def test_only_a_network_of_a_run_is_advised_to_be_trained_longer(origin: Origin, advised: str) -> None:
    found = make_verdict(STUDENT, shares(300, 150, 150, 140), Facts("run", None, 64, True, origin))
    assert found.outcome == NOT_SHOWN and advised in found.next_step
    assert ("epochs" in found.next_step) == (origin == "trained here")


def test_a_student_that_is_only_as_good_as_raw_pixels_is_told_so() -> None:
    found = make_verdict(STUDENT, shares(2000, 1724, 1398, 1724), FACTS)
    assert found.outcome == NOT_ABOVE_PIXELS
    assert found.sentence.startswith("The student learned, but is not shown to be better than raw pixels: ")
    assert "+0.0 points against raw pixels" in found.sentence
    worse = make_verdict(STUDENT, shares(2000, 1600, 1398, 1724), FACTS)
    assert worse.sentence.startswith("The student learned, but is worse than raw pixels: ")


def test_with_few_test_images_a_large_gain_asks_for_labels_not_for_a_teacher() -> None:
    found = make_verdict(STUDENT, shares(34, 29, 25, 20), FACTS)
    assert found.outcome == NOT_SHOWN
    assert found.next_step.startswith("Label more images") and "34 test images" in found.next_step


def test_no_difference_on_few_test_images_offers_more_labels_beside_the_change() -> None:
    few = make_verdict(STUDENT, shares(34, 17, 17, 10), FACTS)
    assert few.outcome == NOT_SHOWN and few.next_step.startswith("Take a pretrained teacher")
    assert ". Or label more images: with 34 for testing, even a gain of " in few.next_step
    many = make_verdict(STUDENT, shares(4000, 2000, 2000, 1000), FACTS)
    assert many.outcome == NOT_SHOWN and "label more images" not in many.next_step.lower()
    worse = make_verdict(STUDENT, shares(500, 200, 300, 300), FACTS)
    assert "label more images" not in worse.next_step.lower()


def test_worse_than_untrained_is_called_that() -> None:
    found = make_verdict(STUDENT, shares(500, 200, 300, 300), FACTS)
    assert found.outcome == NOT_SHOWN and found.sentence.startswith("The student is worse than untrained: ")


def test_without_controls_nothing_is_claimed() -> None:
    alone = {STUDENT: shares(100, 90, 1, 1)[STUDENT]}
    found = make_verdict(STUDENT, alone, FACTS)
    assert found.outcome == UNKNOWN and "not known" in found.sentence and found.comparisons == ()
    assert found.next_step == "Run `bssl-tf evaluate 'runs/a b'` without --no-controls"


def test_protocols_that_no_verdict_rests_on_are_not_taken_for_missing_controls() -> None:
    few = {name: {"few-shot-svm-1": found["linear-probe"]} for name, found in shares(100, 90, 50, 50).items()}
    found = make_verdict(STUDENT, few, FACTS)
    assert found.outcome == UNKNOWN and "controls" not in found.sentence and "linear-probe" in found.sentence
    assert found.next_step == "Run `bssl-tf evaluate 'runs/a b'` with --protocol linear-probe"


def test_the_protocol_is_one_that_all_were_measured_by() -> None:
    both = shares(100, 90, 50, 50)
    both[STUDENT]["knn-20"] = both[untrained(STUDENT)]["knn-20"] = both[RAW_PIXELS]["linear-probe"]
    assert make_verdict(STUDENT, both, FACTS).protocol == "linear-probe"
    del both[untrained(STUDENT)]["linear-probe"]
    assert make_verdict(STUDENT, both, FACTS).protocol == "knn-20"
    # Fine-tuning has no raw pixels: one comparison, and no correction for two.
    tuned = shares(200, 150, 140, 0)
    tuned = {name: {"finetune-10%": found["linear-probe"]} for name, found in tuned.items() if name != RAW_PIXELS}
    found = make_verdict(STUDENT, tuned, FACTS)
    assert [one.control for one in found.comparisons] == [untrained(STUDENT)]
    assert found.comparisons[0].p_value == pytest.approx(2 * 0.5**10)
    teacher = {TEACHER: both[STUDENT], untrained(TEACHER): both[RAW_PIXELS]}
    assert make_verdict(TEACHER, teacher, FACTS).sentence.startswith("The teacher learned: ")


@given(st.integers(0, 2**32 - 1), st.integers(1, 200))
def test_learned_is_said_exactly_where_both_corrected_tests_say_so(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    sides = [list(rng.random(count) < rng.random()) for _ in range(3)]
    found = make_verdict(STUDENT, answers(*sides), FACTS)
    own, *controls = (np.array(side) for side in sides)
    raw = [stats.binomtest(int((own & ~c).sum()), max(int((own ^ c).sum()), 1), 0.5).pvalue if (own ^ c).any() else 1.0
           for c in controls]  # fmt: skip
    low, high = sorted(raw)
    low = min(1.0, 2 * low)
    expected = {min(raw): low, max(raw): max(low, high)} if raw[0] != raw[1] else {raw[0]: low}
    for one, p, control in zip(found.comparisons, raw, controls, strict=True):
        assert one.p_value == pytest.approx(expected[p])
        assert one.points == pytest.approx(100 * (own.mean() - control.mean()))
    better = [one.points > 0 and one.p_value <= 0.05 for one in found.comparisons]
    assert found.outcome == (LEARNED if all(better) else NOT_ABOVE_PIXELS if better[0] else NOT_SHOWN)
    assert (found.outcome == LEARNED) == (found.next_step == "")
    assert re.fullmatch(r"[^\n]+\.", found.sentence)
