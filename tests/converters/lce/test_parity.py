from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from bssl_tf.errors import ConversionError
from bssl_tf_converters.lce.parity import compare, least_share_of_a_place, require
from bssl_tf_deploy.manifest import ParityFigures


@pytest.fixture
def logits(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 3, (200, 10)).astype(np.float32)


def compared(expected: np.ndarray, found: np.ndarray) -> ParityFigures:
    return compare({"logits": expected}, {"logits": found})


def tolerance(logits: np.ndarray) -> float:
    return compared(logits, logits).outputs["logits"].tolerance


def test_a_network_agrees_with_itself(logits: np.ndarray) -> None:
    parity = compared(logits, logits)
    assert (parity.images, parity.agreement, parity.share_within_tolerance) == (200, 1.0, 1.0)
    assert parity.outputs["logits"].max_abs_difference == parity.outputs["logits"].median_abs_difference == 0
    require(parity)


def test_the_tolerance_grows_with_the_logits(logits: np.ndarray) -> None:
    assert tolerance(100 * logits) == pytest.approx(100 * tolerance(logits))


def test_a_logit_of_an_absent_class_does_not_widen_the_tolerance(logits: np.ndarray) -> None:
    with_absent = np.concatenate([logits, np.full((200, 1), -1e4, np.float32)], axis=1)
    assert tolerance(with_absent) < 2 * tolerance(logits)


def test_single_flipped_signs_are_borne(logits: np.ndarray, rng: np.random.Generator) -> None:
    flipped = logits.copy()
    flipped[::20] += 1e-2 * rng.normal(size=(10, 10)).astype(np.float32)
    parity = compared(logits, flipped)
    assert parity.share_within_tolerance == pytest.approx(0.95)
    assert parity.outputs["logits"].median_abs_difference == 0
    require(parity)


def test_a_small_difference_on_every_image_is_a_fault(logits: np.ndarray) -> None:
    with pytest.raises(ConversionError, match=r"0\.00 % have all outputs within"):
        require(compared(logits, logits * np.float32(1.01)))


def test_other_best_classes_are_a_fault(logits: np.ndarray) -> None:
    swapped = logits.copy()
    swapped[:3] = -swapped[:3]
    with pytest.raises(ConversionError, match=r"98\.50 % of 200 images have the same answer"):
        require(compared(logits, swapped))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_a_fault(logits: np.ndarray, broken: float) -> None:
    other = logits.copy()
    other[0, 0] = broken
    for pair in ((logits, other), (other, logits)):
        with pytest.raises(ConversionError, match="not finite"):
            compared(*pair)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (np.zeros((20, 10)), "are equal"),
        (np.ones((20, 10)), "are equal"),
        (np.tile(np.arange(10.0), (20, 1)), "are equal"),
        (np.zeros((1, 10)), "are equal"),
        (1e-39 * np.arange(200.0).reshape(20, 10), "too small"),
        (np.arange(10.0) + 1e-6 * np.arange(20.0)[:, np.newaxis], "equal but for rounding"),
    ],
)
def test_outputs_that_a_broken_network_may_have_too_are_not_compared(outputs: np.ndarray, words: str) -> None:
    with pytest.raises(ConversionError, match=words):
        compared(outputs.astype(np.float32), outputs.astype(np.float32))


def test_other_shapes_and_no_images_are_refused(logits: np.ndarray) -> None:
    for other in (logits[:5], logits[:, :3]):
        with pytest.raises(ConversionError, match="logits"):
            compared(logits, other)
    with pytest.raises(ConversionError, match="at least one image"):
        compared(logits[:0], logits[:0])


def boxes_and_scores(rng: np.random.Generator, images: int = 200) -> dict[str, np.ndarray]:
    return {
        "boxes": rng.normal(0, 30, (images, 12, 4)).astype(np.float32),
        "scores": rng.normal(0, 1, (images, 12)).astype(np.float32),
    }


def nothing_differs(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(np.argmax(expected["scores"], axis=1) == np.argmax(found["scores"], axis=1))


def test_each_of_several_outputs_has_its_own_tolerance(rng: np.random.Generator) -> None:
    outputs = boxes_and_scores(rng)
    parity = compare(outputs, outputs, nothing_differs)
    assert list(parity.outputs) == ["boxes", "scores"]
    assert 20 < parity.outputs["boxes"].tolerance / parity.outputs["scores"].tolerance < 45
    # What is rounding to boxes is a fault in scores.
    small = 0.5 * parity.outputs["boxes"].tolerance
    moved = outputs | {"boxes": outputs["boxes"] + np.float32(small)}
    require(compare(outputs, moved, nothing_differs))
    with pytest.raises(ConversionError, match=r"0\.00 % have all outputs within tolerance.* in boxes .* in scores"):
        require(compare(outputs, outputs | {"scores": outputs["scores"] + np.float32(small)}, nothing_differs))


def test_an_image_is_within_tolerance_if_all_its_outputs_are(rng: np.random.Generator) -> None:
    outputs = boxes_and_scores(rng)
    off = {name: array.copy() for name, array in outputs.items()}
    off["boxes"][:40] += 10
    off["scores"][20:50] += 10
    assert compare(outputs, off, nothing_differs).share_within_tolerance == pytest.approx(0.75)


def test_the_task_counts_what_is_the_same_answer(rng: np.random.Generator) -> None:
    outputs = boxes_and_scores(rng)
    parity = compare(outputs, outputs, lambda expected, found: np.arange(200) < 150)
    assert parity.agreement == 0.75
    with pytest.raises(ConversionError, match=r"75\.00 % of 200 images have the same answer"):
        require(parity)


@pytest.mark.parametrize(("images", "differing"), [(24, 1), (60, 1), (100, 1), (200, 2), (1000, 10)])
def test_one_flip_is_no_fault_however_few_the_images(rng: np.random.Generator, images: int, differing: int) -> None:
    outputs = boxes_and_scores(rng, images)

    def judged(count: int) -> None:
        require(compare(outputs, outputs, lambda expected, found: np.arange(images) >= count))

    judged(differing)
    with pytest.raises(ConversionError, match="have the same answer"):
        judged(differing + 1)


def test_other_names_are_refused(logits: np.ndarray) -> None:
    with pytest.raises(ConversionError, match=r"Keras gives .*logits.*the converted network .*scores"):
        compare({"logits": logits}, {"scores": logits})


def test_an_output_that_is_mostly_zero_has_a_tolerance() -> None:
    sparse = np.zeros((10, 50), np.float32)
    sparse[:, 3] = np.arange(10)
    # A thousandth of the median of what is not zero, 1 to 9.
    assert tolerance(sparse) == pytest.approx(5e-3)


def test_maps_may_differ_somewhere_in_every_image_but_nowhere_in_most() -> None:
    """A flipped sign is at one place of one image; a wrong padding at the border of all."""
    rng = np.random.default_rng(0)
    expected = {
        name: rng.normal(size=(40, side, side, 3)).astype(np.float32) for name, side in (("fine", 8), ("coarse", 4))
    }

    def nothing_differs(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.ones(len(one["fine"]))

    def judged(found: dict[str, np.ndarray]) -> None:
        parity = compare(expected, found, nothing_differs)
        require(parity, share_of_places=least_share_of_a_place(parity, expected, found))

    flipped = {name: array.copy() for name, array in expected.items()}
    for image in range(40):
        flipped["fine"][image, rng.integers(8), rng.integers(8)] += 1
    assert compare(expected, flipped, nothing_differs).share_within_tolerance == 0
    judged(flipped)
    with pytest.raises(ConversionError, match="does not match"):
        require(compare(expected, flipped, nothing_differs))
    padded = {name: array.copy() for name, array in expected.items()}
    padded["coarse"][:, 0] += 0.01
    with pytest.raises(ConversionError, match="does not match"):
        judged(padded)
