"""Temperature scaling against its definition, and against data whose right temperature is known."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssl_tf.data.image_set import ImageSet
from bssl_tf.tasks.calibration import MIN_IMAGES, calibrate, calibration_error, fit_temperature
from bssl_tf.tasks.classification import LOGITS, Classification
from bssl_tf.tasks.task import Arrays
from bssl_tf_deploy.tasks.classification import Table, softmax


def drawn(count: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times those which the labels were drawn from."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 2, (count, 5))
    labels = np.array([rng.choice(5, p=row) for row in softmax(true)])
    return (true * temperature).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_data_were_made_with_is_found(temperature: float) -> None:
    found = fit_temperature(*drawn(20_000, temperature))
    # The standard error of the maximum likelihood estimate is below 1 % here.
    assert found == pytest.approx(temperature, rel=0.04)


@given(st.integers(0, 1000), st.floats(0.5, 3))
def test_no_other_temperature_is_more_likely(seed: int, temperature: float) -> None:
    logits, labels = drawn(300, temperature, seed)
    found = fit_temperature(logits, labels)
    assert found is not None

    def loss(one: float) -> float:
        return -float(np.mean(np.log(softmax(logits / one)[np.arange(len(labels)), labels])))

    assert all(loss(found) <= loss(found * factor) + 1e-9 for factor in (0.5, 0.95, 1.05, 2))


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 20))
def test_the_error_is_that_of_the_definition(seed: int, count: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, labels = softmax(rng.normal(0, 2, (count, 4))), rng.integers(0, 4, count)
    expected = 0.0
    for number in range(bins):
        inside = [row for row in range(count) if number / bins < max(probabilities[row]) <= (number + 1) / bins]
        if inside:
            accuracy = np.mean([np.argmax(probabilities[row]) == labels[row] for row in inside])
            expected += len(inside) / count * abs(accuracy - np.mean([max(probabilities[row]) for row in inside]))
    assert calibration_error(probabilities, labels, bins) == pytest.approx(expected, abs=1e-12)


def test_an_overconfident_network_is_calibrated_on_images_that_were_not_used() -> None:
    logits, labels = drawn(4000, 3.0)
    found = calibrate(logits, labels)
    assert found is not None and found.images == 4000 and found.bins == 15
    assert found.temperature == pytest.approx(fit_temperature(logits, labels), rel=1e-5)
    assert found.ece_percent_before == pytest.approx(100 * calibration_error(softmax(logits), labels), abs=1e-4)
    assert found.ece_percent_after < 3 < 10 < found.ece_percent_before
    # One that was right before stays as it was.
    right = calibrate(*drawn(4000, 1.0))
    assert right is not None and abs(right.ece_percent_after - right.ece_percent_before) < 1


def test_what_cannot_be_calibrated_is_left_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logits, labels = drawn(MIN_IMAGES, 2.0)
    assert calibrate(logits, labels) is not None
    assert calibrate(logits[1:], labels[1:]) is None
    assert "99 labelled test images are fewer than 100" in caplog.text
    # All answers right: the colder the better. Anti-correlated: the hotter the better.
    assert calibrate(logits, logits.argmax(axis=1)) is None
    assert calibrate(logits, logits.argmin(axis=1)) is None
    assert caplog.text.count("or no temperature improves them") == 2


def test_export_calibrates_the_converted_network_on_the_images_that_have_its_labels() -> None:
    """In whatever order the labels are, and without images of other classes."""
    logits, labels = drawn(400, 2.0)
    names = ("a", "b", "c", "d", "e")
    others = np.arange(400) % 7 == 0
    shown = ("other", "e", "d", "c", "b", "a")
    given = np.where(others, 0, 5 - labels)
    images = ImageSet("test", np.zeros((400, 8, 8, 3), np.uint8), np.ones(400, np.float32), given, shown)

    def both(indices: np.ndarray) -> Iterator[tuple[Arrays, Arrays]]:
        for start in range(0, len(indices), 64):
            some = indices[start : start + 64]
            yield {LOGITS: -logits[some]}, {LOGITS: logits[some]}

    table = Classification().with_accuracy(Table(names, None, None), images, np.arange(400), both)
    assert table.calibration == calibrate(logits[~others], labels[~others])
    assert table.calibration is not None and table.accuracy.images == table.calibration.images == 342
    right = logits[~others].argmax(axis=1) == labels[~others]
    assert table.accuracy.top1_percent == pytest.approx(100 * right.mean())
    assert table.accuracy.keras_top1_percent < table.accuracy.top1_percent
