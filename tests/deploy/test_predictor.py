from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bssl_tf_deploy.bundle import Bundle, read_bundle, write_bundle
from bssl_tf_deploy.errors import BundleError, ImageError
from bssl_tf_deploy.manifest import Quantization
from bssl_tf_deploy.predictor import Predictor, softmax
from tests.deploy.bundles import LABELS, PIXELS, golden, manifest, write


class Fixed:
    """An interpreter that gives what it is told, for any images."""

    def __init__(self, logits: np.ndarray) -> None:
        self.logits = logits

    def predict(self, batch: np.ndarray) -> np.ndarray:
        return self.logits[: len(batch)]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return read_bundle(write(tmp_path / "bundle"))


@given(arrays(np.float32, (3, 5), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_scores_are_probabilities_in_the_order_of_the_logits(logits: np.ndarray) -> None:
    scores = softmax(logits)
    assert np.all((scores >= 0) & (scores <= 1))
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-12)
    for row, score in zip(logits, scores, strict=True):
        assert np.all(np.diff(score[np.argsort(row, kind="stable")]) >= 0)


@given(arrays(np.float32, 4, elements=st.floats(-50, 50, width=32)), st.floats(-1000, 1000, width=32))
def test_scores_do_not_change_when_all_logits_are_shifted(logits: np.ndarray, shift: float) -> None:
    np.testing.assert_allclose(softmax(logits.astype(np.float64) + shift), softmax(logits), atol=1e-9)


def test_the_best_classes_come_first_and_ties_in_the_order_of_labels(bundle: Bundle) -> None:
    image = bundle.golden_inputs[:1]
    [best] = Predictor(bundle, Fixed(np.array([[0, 3, 0]], np.float32))).classify([image], top=5)
    assert [label for label, _ in best] == [LABELS[1], LABELS[0], LABELS[2]]
    assert sum(score for _, score in best) == pytest.approx(1)
    [best] = Predictor(bundle, Fixed(np.array([[0, 3, 0]], np.float32))).classify([image], top=1)
    [(label, score)] = best
    assert label == LABELS[1]
    assert score == pytest.approx(np.exp(3) / (np.exp(3) + 2))


def test_files_and_arrays_are_taken(bundle: Bundle, tmp_path: Path) -> None:
    predictor = Predictor(bundle, Fixed(bundle.golden_outputs))
    file = bundle.path / "examples" / "0-cat.png"
    assert predictor.classify([file]) == predictor.classify([bundle.golden_inputs[:1]])
    with pytest.raises(ImageError):
        predictor.classify([tmp_path / "nothing.png"])


def test_a_network_that_takes_pixels_gets_pixels(tmp_path: Path) -> None:
    about = manifest()
    signature = dataclasses.replace(about.signature, input=dataclasses.replace(about.signature.input, dtype="uint8"))
    about = dataclasses.replace(about, signature=signature)
    write_bundle(tmp_path / "b", about, b"model", PIXELS, golden()[1], ["a", "b", "c", "d"])
    seen: list[np.ndarray] = []

    class Recorder:
        def predict(self, batch: np.ndarray) -> np.ndarray:
            seen.append(batch)
            return golden()[1][: len(batch)]

    predictor = Predictor(read_bundle(tmp_path / "b"), Recorder())
    predictor.verify_golden()
    file = sorted((tmp_path / "b" / "examples").iterdir())[0]
    predictor.outputs([file])
    predictor.check_against(Recorder(), [file])
    assert {batch.dtype.name for batch in seen} == {"uint8"}
    np.testing.assert_array_equal(seen[0], PIXELS)
    for batch in seen[1:]:
        np.testing.assert_array_equal(batch[0], PIXELS[0])


def test_a_network_that_takes_int8_gets_int8(tmp_path: Path) -> None:
    about, (inputs, outputs) = manifest(), golden()
    taken = Quantization(0.021, -5)
    image = dataclasses.replace(about.signature.input, dtype="int8", quantization=taken)
    about = dataclasses.replace(about, signature=dataclasses.replace(about.signature, input=image))
    write_bundle(tmp_path / "b", about, b"model", taken.integers(inputs), outputs, ["a", "b", "c", "d"])
    seen: list[np.ndarray] = []

    class Recorder:
        def predict(self, batch: np.ndarray) -> np.ndarray:
            seen.append(batch)
            return outputs[: len(batch)]

    bundle = read_bundle(tmp_path / "b")
    files = sorted((tmp_path / "b" / "examples").iterdir())
    Predictor(bundle, Recorder()).outputs(files)
    assert {batch.dtype.name for batch in seen} == {"int8"}
    # The pictures went through int8 once already.
    off = np.concatenate(seen).astype(int) - bundle.golden_inputs
    assert np.max(np.abs(off)) <= 1


def test_golden_outputs_within_rounding_pass(bundle: Bundle) -> None:
    outputs = bundle.golden_outputs
    Predictor(bundle, Fixed(outputs)).verify_golden()
    Predictor(bundle, Fixed(outputs * np.float32(1 + 1e-5))).verify_golden()
    one_flipped = outputs.copy()
    one_flipped[2] += 0.1
    Predictor(bundle, Fixed(one_flipped)).verify_golden()


def test_other_golden_outputs_are_refused(bundle: Bundle) -> None:
    outputs = bundle.golden_outputs
    two_off = outputs.copy()
    two_off[:2] += 0.1
    for wrong in (two_off, -outputs, outputs * np.float32(1.02), np.full_like(outputs, np.nan), outputs[:, :2]):
        with pytest.raises(BundleError, match="does not give the golden outputs"):
            Predictor(bundle, Fixed(wrong)).verify_golden()
