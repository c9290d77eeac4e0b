from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bssl_tf_deploy.bundle import Bundle, read_bundle, write_bundle
from bssl_tf_deploy.errors import BundleError, ImageError
from bssl_tf_deploy.inputs import check_tensors
from bssl_tf_deploy.manifest import Manifest, Quantization
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.preprocess import normalise
from bssl_tf_deploy.tasks.classification import softmax
from tests.deploy.bundles import LABELS, PIXELS, SIZE, golden, manifest, write


class Fixed:
    """An interpreter that gives what it is told, for any images."""

    def __init__(self, *outputs: np.ndarray) -> None:
        self.outputs = outputs

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [output[: len(inputs[0])] for output in self.outputs]


class Recorder:
    """An interpreter that keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.seen += inputs
        return [golden()[1][0][: len(inputs[0])]]


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
    [image] = bundle.first_inputs
    [best] = Predictor(bundle, Fixed(np.array([[0, 3, 0]], np.float32))).classify([image], top=5)
    assert [label for label, _ in best] == [LABELS[1], LABELS[0], LABELS[2]]
    assert sum(score for _, score in best) == pytest.approx(1)
    [best] = Predictor(bundle, Fixed(np.array([[0, 3, 0]], np.float32))).classify([image], top=1)
    [(label, score)] = best
    assert label == LABELS[1]
    assert score == pytest.approx(np.exp(3) / (np.exp(3) + 2))


def test_files_and_arrays_are_taken(bundle: Bundle, tmp_path: Path) -> None:
    predictor = Predictor(bundle, Fixed(*bundle.golden_outputs))
    file = bundle.path / "examples" / "0-cat.png"
    assert predictor.classify([file]) == predictor.classify(bundle.first_inputs)
    with pytest.raises(ImageError):
        predictor.classify([tmp_path / "nothing.png"])


def with_input(about: Manifest, **changes: Any) -> Manifest:
    return dataclasses.replace(about, inputs=(dataclasses.replace(about.inputs[0], **changes),))


def test_a_network_that_takes_pixels_gets_pixels(tmp_path: Path) -> None:
    about = with_input(manifest(), dtype="uint8")
    write_bundle(tmp_path / "b", about, b"model", [PIXELS], golden()[1], ["a", "b", "c", "d"])
    recorder, second = Recorder(), Recorder()
    predictor = Predictor(read_bundle(tmp_path / "b"), recorder)
    predictor.verify_golden()
    file = sorted((tmp_path / "b" / "examples").iterdir())[0]
    predictor.outputs([file])
    predictor.check_against(second, [file])
    seen = recorder.seen + second.seen
    assert {batch.dtype.name for batch in seen} == {"uint8"}
    np.testing.assert_array_equal(seen[0], PIXELS)
    for batch in seen[1:]:
        np.testing.assert_array_equal(batch[0], PIXELS[0])


def test_a_network_that_takes_int8_gets_int8(tmp_path: Path) -> None:
    (inputs,), outputs = golden()
    taken = Quantization(0.021, -5)
    about = with_input(manifest(), dtype="int8", quantization=taken)
    write_bundle(tmp_path / "b", about, b"model", [taken.integers(inputs)], outputs, ["a", "b", "c", "d"])
    recorder = Recorder()
    bundle = read_bundle(tmp_path / "b")
    files = sorted((tmp_path / "b" / "examples").iterdir())
    Predictor(bundle, recorder).outputs(files)
    assert {batch.dtype.name for batch in recorder.seen} == {"int8"}
    # The pictures went through int8 once already.
    off = np.concatenate(recorder.seen).astype(int) - bundle.golden_inputs[0]
    assert np.max(np.abs(off)) <= 1


def test_golden_outputs_within_rounding_pass(bundle: Bundle) -> None:
    [outputs] = bundle.golden_outputs
    Predictor(bundle, Fixed(outputs)).verify_golden()
    Predictor(bundle, Fixed(outputs * np.float32(1 + 1e-5))).verify_golden()
    one_flipped = outputs.copy()
    one_flipped[2] += 0.1
    Predictor(bundle, Fixed(one_flipped)).verify_golden()


def test_other_golden_outputs_are_refused(bundle: Bundle) -> None:
    [outputs] = bundle.golden_outputs
    two_off = outputs.copy()
    two_off[:2] += 0.1
    for wrong in (two_off, -outputs, outputs * np.float32(1.02), np.full_like(outputs, np.nan), outputs[:, :2]):
        with pytest.raises(BundleError, match="does not reproduce the golden outputs"):
            Predictor(bundle, Fixed(wrong)).verify_golden()


ENTRIES: dict[str, Callable[[Predictor, Any], object]] = {
    "classify": lambda predictor, tensor: predictor.classify([tensor]),
    "answers": lambda predictor, tensor: predictor.answers([tensor]),
    "outputs": lambda predictor, tensor: predictor.outputs([tensor]),
    "run_tensor": lambda predictor, tensor: predictor.run_tensor(tensor),
    "check_against": lambda predictor, tensor: predictor.check_against(Recorder(), [tensor]),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_the_manifest_does_not_allow_is_refused_by_every_way_in(bundle: Bundle, entry: str) -> None:
    """With what was given and what is wanted; the network is not run."""
    recorder = Recorder()
    predictor = Predictor(bundle, recorder)
    [good] = bundle.first_inputs
    nan = good.copy()
    nan[0, 3, 3, 1] = np.nan
    wanted = rf"the network takes float32 \[{'N' if entry == 'run_tensor' else 1}, 8, 8, 3\]"
    for tensor, message in (
        (PIXELS[:1], rf"image is uint8 \[1, 8, 8, 3\]; {wanted}\. .*normalise the pixels"),
        (good.astype(np.float64), rf"image is float64 \[1, 8, 8, 3\]; {wanted}"),
        (good[0], rf"image is float32 \[8, 8, 3\]; {wanted}"),
        (good[:, :7], rf"image is float32 \[1, 7, 8, 3\]; {wanted}"),
        (good[..., :1], rf"image is float32 \[1, 8, 8, 1\]; {wanted}"),
        (good[:0], rf"image is float32 \[0, 8, 8, 3\]; {wanted}"),
        (nan, "holds numbers that are not finite"),
        (good + np.float32(np.inf), "holds numbers that are not finite"),
        (PIXELS[:1].astype(np.float32), r"from 0 to 249; pixels normalised for this network are from -3"),
    ):
        with pytest.raises(ImageError, match=message):
            ENTRIES[entry](predictor, tensor)
    assert recorder.seen == []
    ENTRIES[entry](predictor, good)
    assert recorder.seen


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_a_network_of_whole_numbers_refuses_floats(tmp_path: Path, dtype: str) -> None:
    quantization = Quantization(0.021, -5) if dtype == "int8" else None
    about = with_input(manifest(), dtype=dtype, quantization=quantization)
    given = PIXELS if quantization is None else quantization.integers(golden()[0][0])
    write_bundle(tmp_path / "b", about, b"model", [given], golden()[1], ["a", "b", "c", "d"])
    predictor = Predictor(read_bundle(tmp_path / "b"), Recorder())
    for entry in ENTRIES.values():
        entry(predictor, given[:1])
        with pytest.raises(ImageError, match=rf"image is float32 .* the network takes {dtype}"):
            entry(predictor, golden()[0][0][:1])


def test_two_images_in_one_array_are_a_batch_for_run_tensor_and_refused_elsewhere(bundle: Bundle) -> None:
    predictor, batch = Predictor(bundle, Recorder()), bundle.golden_inputs[0][:2]
    assert predictor.run_tensor(batch)["logits"].shape == (2, 3)
    for name in ("classify", "answers", "outputs", "check_against"):
        with pytest.raises(ImageError, match=r"float32 \[2, 8, 8, 3\]; the network takes float32 \[1, .*one array for"):
            ENTRIES[name](predictor, batch)


def test_no_images_and_inputs_of_other_names_are_refused(bundle: Bundle) -> None:
    predictor, [good] = Predictor(bundle, Recorder()), bundle.first_inputs
    for call in (predictor.outputs, predictor.answers, predictor.classify):
        with pytest.raises(ImageError, match="there are no images"):
            call([])
    with pytest.raises(ImageError, match="there are no images"):
        predictor.check_against(Recorder(), [])
    with pytest.raises(ImageError, match="the inputs are picture; the network takes image"):
        predictor.run_tensor({"picture": good})
    with pytest.raises(ImageError, match=r"image is a list; the network takes float32 \[N, 8, 8, 3\]"):
        predictor.run_tensor({"image": good.tolist()})
    np.testing.assert_array_equal(predictor.run_tensor({"image": good})["logits"], predictor.run_tensor(good)["logits"])


@given(st.integers(0, 2**32 - 1))
def test_every_picture_normalised_is_within_the_range(seed: int) -> None:
    p = manifest().preprocessing
    pixels = np.random.default_rng(seed).choice(np.array([0, 1, 254, 255], np.uint8), (2, SIZE, SIZE, 3))
    check_tensors(manifest(), {"image": normalise(pixels, p.mean, p.std)})
