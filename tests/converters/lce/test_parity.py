from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.errors import ConversionError
from bssl_tf_converters.lce.parity import compare, require


@pytest.fixture
def logits(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 3, (200, 10)).astype(np.float32)


def test_a_network_agrees_with_itself(logits: np.ndarray) -> None:
    parity = compare(logits, logits)
    assert (parity.images, parity.top1_agreement, parity.share_within_tolerance) == (200, 1.0, 1.0)
    assert parity.max_abs_difference == parity.median_abs_difference == 0
    require(parity)


def test_the_tolerance_grows_with_the_logits(logits: np.ndarray) -> None:
    assert compare(100 * logits, 100 * logits).tolerance == pytest.approx(100 * compare(logits, logits).tolerance)


def test_a_logit_of_an_absent_class_does_not_widen_the_tolerance(logits: np.ndarray) -> None:
    with_absent = np.concatenate([logits, np.full((200, 1), -1e4, np.float32)], axis=1)
    assert compare(with_absent, with_absent).tolerance < 2 * compare(logits, logits).tolerance


def test_single_flipped_signs_are_borne(logits: np.ndarray, rng: np.random.Generator) -> None:
    flipped = logits.copy()
    flipped[::20] += 1e-2 * rng.normal(size=(10, 10)).astype(np.float32)
    parity = compare(logits, flipped)
    assert parity.share_within_tolerance == pytest.approx(0.95)
    assert parity.median_abs_difference == 0
    require(parity)


def test_a_small_difference_on_every_image_is_a_fault(logits: np.ndarray) -> None:
    with pytest.raises(ConversionError, match=r"0\.00 % have all logits within"):
        require(compare(logits, logits * np.float32(1.01)))


def test_other_best_classes_are_a_fault(logits: np.ndarray) -> None:
    swapped = logits.copy()
    swapped[:3] = -swapped[:3]
    with pytest.raises(ConversionError, match=r"98\.50 % of 200 images have the same best class"):
        require(compare(logits, swapped))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_a_fault(logits: np.ndarray, broken: float) -> None:
    other = logits.copy()
    other[0, 0] = broken
    for pair in ((logits, other), (other, logits)):
        with pytest.raises(ConversionError, match="not finite"):
            compare(*pair)


def test_other_shapes_and_no_images_are_refused(logits: np.ndarray) -> None:
    for other in (logits[:5], logits[:, :3]):
        with pytest.raises(ConversionError, match="logits"):
            compare(logits, other)
    with pytest.raises(ConversionError, match="at least one image"):
        compare(logits[:0], logits[:0])
