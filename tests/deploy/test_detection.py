"""Bundles of detectors: boxes in pixels of the picture that was given, manifests that lie, boxes drawn."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf_deploy.agreement import Agreement
from bssl_tf_deploy.bench import bench_bundle
from bssl_tf_deploy.boxes import FILL
from bssl_tf_deploy.bundle import Bundle, read_bundle, write_bundle
from bssl_tf_deploy.errors import BundleError, StorageError, UsageError
from bssl_tf_deploy.manifest import FORMAT, Manifest, OutputParity, ParityFigures, Preprocessing, TensorSignature
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.running import RunSettings, run
from bssl_tf_deploy.tasks import find_task
from bssl_tf_deploy.tasks.detection import FINAL_OUTPUTS, Box, Detection, Precision, Table, final_outputs
from bssl_tf_deploy.tasks.task import View
from tests.deploy import bundles

SIZE, LABELS = 64, ("cell", "=platelet\x1b[2J")
SHAPES = {"scores_16": (4, 4, 2), "boxes_16": (4, 4, 4), "scores_32": (2, 2, 2), "boxes_32": (2, 2, 4)}
# On the input: the first from the cell in row 1 and column 2 of stride 16, the second from the last one of stride 32.
FIRST, SECOND = (28.0, 16.0, 56.0, 32.0), (32.0, 32.0, 64.0, 64.0)


class Fixed:
    """An interpreter that finds the same two boxes on everything, one of them twice, and keeps what it was given."""

    name, kernel = "own", "none"

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}
        self.given: list[np.ndarray] = []

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.given.append(inputs[0])
        outputs = {name: np.full(shape, -9.0, np.float32) for name, shape in SHAPES.items()}
        outputs["scores_16"][1, 2, 0] = 2.0
        outputs["boxes_16"][1, 2] = np.log(np.array([40 - 28, 24 - 16, 56 - 40, 32 - 24]) / 16)
        # Nearly the same, and worse.
        outputs["scores_16"][1, 1, 0] = 1.0
        outputs["boxes_16"][1, 1] = np.log(np.array([1e-9 + 24 - 23, 24 - 16, 56 - 24, 32 - 24]) / 16)
        outputs["scores_32"][1, 1, 1] = 0.0
        outputs["boxes_32"][1, 1] = np.log(np.array([16, 16, 16, 16]) / 32)
        return [np.repeat(outputs[name][np.newaxis], len(inputs[0]), axis=0) for name in SHAPES]


def manifest(**changes: Any) -> Manifest:
    outputs = {name: OutputParity(1e-5, 1e-6, 1e-3) for name in SHAPES}
    made = bundles.manifest(
        task="detection",
        inputs=(TensorSignature("image", (1, SIZE, SIZE, 3), "float32"),),
        outputs=tuple(TensorSignature(name, (1, *shape), "float32") for name, shape in SHAPES.items()),
        preprocessing=Preprocessing(SIZE, SIZE, 3, (0.0,) * 3, (1.0,) * 3),
        parity=ParityFigures(10, 1.0, 1.0, outputs),
        table=Table(LABELS, (16, 32), "letterbox", 0.3, 0.5, 100, Precision(20, 30.0, 60.0, 31.0, 61.0)),
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    rng = np.random.default_rng(0)
    outputs = [rng.normal(size=(2, *shape)).astype(np.float32) for shape in SHAPES.values()]
    inputs = rng.random((2, SIZE, SIZE, 3)).astype(np.float32)
    write_bundle(tmp_path / "bundle", manifest(), b"model", [inputs], outputs, ["a", "b"])
    return read_bundle(tmp_path / "bundle")


def close(found: Box, label: str, score: float, sides: Sequence[float]) -> None:
    assert found.label == label and found.score == pytest.approx(score, abs=1e-6)
    assert found[2:] == pytest.approx(sides, abs=1e-3)


def test_boxes_are_in_pixels_of_the_picture_whatever_its_shape_and_wherever_it_comes_from(
    bundle: Bundle, tmp_path: Path
) -> None:
    predictor = Predictor(bundle, Fixed())
    # 1280 x 640 fills 64 x 32 pixels in the middle of the input: 20 pixels of it for each, 16 rows of grey above.
    wide = Image.new("RGB", (1280, 640), "white")
    expected = [(20 * left, 20 * (top - 16), 20 * right, 20 * (bottom - 16)) for left, top, right, bottom in (FIRST,)]
    expected.append((640.0, 320.0, 1280.0, 640.0))  # Cut at the lower border.
    # As a JPEG so large that it is decoded at a fraction of its size; and lying on its side, upright by Exif.
    wide.save(tmp_path / "wide.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    wide.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif)
    assert Image.open(tmp_path / "turned.jpg").size == (640, 1280)
    for given in (wide, np.asarray(wide), tmp_path / "wide.jpg", str(tmp_path / "turned.jpg")):
        [found] = predictor.detect(given)
        assert len(found) == 2
        close(found[0], "cell", 1 / (1 + math.exp(-2)), expected[0])
        close(found[1], LABELS[1], 0.5, expected[1])
    assert [len(boxes) for boxes in predictor.detect([wide, wide.resize((64, 64))], 1)] == [1, 1]
    [small] = predictor.detect(wide.resize((64, 64)))
    close(small[0], "cell", 1 / (1 + math.exp(-2)), FIRST)
    close(small[1], LABELS[1], 0.5, SECOND)


def test_the_network_sees_the_whole_picture_with_grey_around_it(bundle: Bundle) -> None:
    interpreter = Fixed()
    Predictor(bundle, interpreter).detect(Image.new("RGB", (200, 100), "white"))
    grey = np.float32(FILL) / np.float32(255)
    assert np.all(interpreter.given[0][0, :16] == grey) and np.all(interpreter.given[0][0, 48:] == grey)
    assert np.all(interpreter.given[0][0, 16:48] == 1)
    text = " ".join((bundle.path / "README.md").read_text().split())
    assert "all of the picture in its true shape, in the middle, grey (114) around it, 64 x 64 pixels" in text
    assert "Finds objects of 2 classes" in text
    assert "AP50 60.0 %, AP 30.0 % (in Keras, float32: 61.0 % and 31.0 %)" in text


def test_other_tasks_are_not_asked_for_boxes_nor_this_one_for_classes(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is for detection, not for classification"):
        Predictor(bundle, Fixed()).classify(np.zeros((8, 8, 3), np.uint8))
    other = Predictor(read_bundle(bundles.write(tmp_path / "classifier")), Fixed())
    with pytest.raises(BundleError, match="is for classification, not for detection"):
        other.detect(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="classification are not drawn"):
        run(other, RunSettings(("a.png",), annotate=tmp_path / "drawn"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": []}, "table.labels is not a list of at least one"),
        ({"labels": ["cell", " "]}, r"table.labels\[1\] is not 1 to 200 characters"),
        ({"labels": ["cell", "x" * 201]}, r"table.labels\[1\] is not 1 to 200"),
        ({"labels": ["cell", 3]}, "of type str"),
        ({"labels": ["cell"]}, r"outputs\[0\].shape is not \[1, 4, 4, 1\]"),
        ({"strides": []}, "table.strides is not a list of at least one"),
        ({"strides": [32, 16]}, "in rising order"),
        ({"strides": [16, 16]}, "in rising order"),
        ({"strides": [0, 32]}, "in 1 to 128"),
        ({"strides": [-16, 32]}, "in 1 to 128"),
        ({"strides": [24, 32]}, "a divisor of both sides"),
        ({"strides": [8, 32]}, "outputs is not the list of scores_8, boxes_8, scores_32, boxes_32"),
        ({"strides": [16]}, "outputs is not the list of"),
        ({"frame": "crop"}, "table.frame is not 'letterbox'"),
        ({"min_score": 0.0}, "table.min_score is not from 0.0001"),
        ({"min_score": 1}, "table.min_score"),
        ({"min_score": math.nan}, "table.min_score is not a finite number"),
        ({"max_overlap": 1.5}, "table.max_overlap"),
        ({"max_boxes": 0}, "table.max_boxes"),
        ({"max_boxes": 10**9}, "table.max_boxes"),
        ({"accuracy": {"images": 1}}, "missing key"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_manifests_that_contradict_themselves_are_refused(change: dict[str, Any], words: str) -> None:
    content = json.loads(json.dumps(manifest().to_dict()))
    assert content["format"] == FORMAT and Manifest.from_dict(content) == manifest()
    content["table"] |= change
    with pytest.raises(BundleError, match=words):
        Manifest.from_dict(content)


def test_run_prints_boxes_and_draws_them(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (128, 128), "white").save(tmp_path / folder / "a.png")
    images = tuple(str(tmp_path / folder / "a.png") for folder in ("one", "two"))
    predictor, drawn = Predictor(bundle, Fixed()), tmp_path / "drawn"
    assert run(predictor, RunSettings(images, annotate=drawn)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{images[0]}  cell  0.8808  56.0 32.0 112.0 64.0"
    assert lines[1] == f"{images[0]}  =platelet\\x1b[2J  0.5000  64.0 64.0 128.0 128.0" and len(lines) == 4
    # Images of one name are not written over one another, and the picture shows where the boxes are.
    assert sorted(file.name for file in drawn.iterdir()) == ["a-2.jpg", "a.jpg"]
    pixels = np.asarray(Image.open(drawn / "a.jpg")).astype(int)
    assert pixels.shape == (128, 128, 3)
    coloured = np.abs(pixels - 255).max(axis=2) > 60
    assert coloured[32:64, 56:58].mean() > 0.9 and coloured[126:128, 64:128].mean() > 0.9
    assert not coloured[70:, :60].any() and not coloured[37:48, 62:108].any()
    with pytest.raises(StorageError, match="is not empty"):
        run(predictor, RunSettings(images, annotate=drawn))
    capsys.readouterr()
    run(predictor, RunSettings(images[:1], format="json"))
    [record] = json.loads(capsys.readouterr().out)
    assert [one["label"] for one in record["boxes"]] == list(LABELS)
    assert record["boxes"][0]["box"] == pytest.approx([56, 32, 112, 64], abs=1e-3)
    run(predictor, RunSettings(images[:1], format="csv", top=2))
    head, row = capsys.readouterr().out.splitlines()
    assert head.startswith("image,error,label_1,score_1,left_1,top_1,right_1,bottom_1,label_2") and "'=platelet" in row


@pytest.mark.parametrize("name", ["classification", "detection", "multilabel"])
def test_the_figures_that_a_task_names_are_in_its_table_for_both_networks(name: str) -> None:
    """`export` and `summary` print them."""
    task = find_task(name)
    [accuracy] = (
        one for one in typing.get_args(typing.get_type_hints(task.table)["accuracy"]) if one is not type(None)
    )
    fields = {field.name for field in dataclasses.fields(accuracy)}
    assert task.figures and fields == {"images", *task.figures, *(f"keras_{key}" for key in task.figures)}


def test_nothing_found_is_an_answer(bundle: Bundle, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    class Nothing(Fixed):
        def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
            return [np.full_like(array, -9) for array in super().run(inputs)]

    Image.new("L", (20, 10)).save(tmp_path / "a.png")
    assert Predictor(bundle, Nothing()).detect(tmp_path / "a.png") == [[]]
    run(Predictor(bundle, Nothing()), RunSettings((str(tmp_path / "a.png"),)))
    assert capsys.readouterr().out.endswith("a.png  no box\n")


class Final(Fixed):
    """The same boxes as TFLite's operator gives them."""

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        maps = dict(zip(SHAPES, super().run(inputs), strict=True))
        found = final_outputs(maps, manifest().table, (SIZE, SIZE))
        return [found[name] for name in FINAL_OUTPUTS]


def final_manifest() -> Manifest:
    shapes = zip(FINAL_OUTPUTS, ((1, 100, 4), (1, 100), (1, 100), (1,)), strict=True)
    return manifest(
        outputs=tuple(TensorSignature(name, shape, "float32") for name, shape in shapes),
        parity=ParityFigures(10, 1.0, 1.0, {name: OutputParity(1e-5, 1e-6, 1e-3) for name in FINAL_OUTPUTS}),
    )


def test_final_boxes_are_the_same_answers(bundle: Bundle, tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).random((2, SIZE, SIZE, 3)).astype(np.float32)
    outputs = Final().run([inputs])
    outputs[2][1] /= 2
    write_bundle(tmp_path / "final", final_manifest(), b"model", [inputs], outputs, ["a", "b"])
    final = read_bundle(tmp_path / "final")
    for picture in (Image.new("RGB", (1280, 640), "white"), Image.new("RGB", (64, 64))):
        [expected], [found] = (
            Predictor(one, interpreter).detect(picture) for one, interpreter in ((bundle, Fixed()), (final, Final()))
        )
        assert len(expected) == 2
        for one, other in zip(found, expected, strict=True):
            close(one, other.label, other.score, other[2:])
    text = " ".join((final.path / "README.md").read_text().split())
    assert "TFLite_Detection_PostProcess" in text and "top, left, bottom and right of each box" in text


def test_final_boxes_of_nearly_one_score_may_come_in_any_order(bundle: Bundle) -> None:
    expected = Final().run([np.zeros(2)])
    for array in expected:
        array[1] *= np.float32(0.9) if array.ndim == 3 else 1
    swapped = [array[:, [1, 0, *range(2, 100)]] if array.ndim > 1 else array for array in expected]
    about = dataclasses.replace(bundle, manifest=final_manifest(), golden_outputs=tuple(expected))
    for found, same in ((expected, True), (swapped, True), ([array + 0.01 for array in expected], False)):
        agreement = Agreement(about)
        agreement.add(found, expected)
        assert (agreement.fault() == "") == same and agreement.images == 2
    for name, place in zip(FINAL_OUTPUTS, range(4), strict=True):
        wrong = [array.copy() for array in swapped]
        wrong[place].reshape(2, -1)[:, 0] += 1
        agreement = Agreement(about)
        agreement.add(wrong, expected)
        assert agreement.fault().startswith("2 of 2 differ"), name


@pytest.mark.parametrize(("name", "value"), [("boxes", np.nan), ("classes", 7), ("classes", -1), ("scores", np.inf)])
def test_final_boxes_that_make_no_sense_are_dropped(name: str, value: float) -> None:
    outputs = {one: array[0] for one, array in zip(FINAL_OUTPUTS, Final().run([np.zeros(1)]), strict=True)}
    whole = Detection().decode(outputs, final_manifest(), View(), 100)
    outputs[name] = outputs[name].copy()
    outputs[name][0] = value
    assert Detection().decode(outputs, final_manifest(), View(), 100) == whole[1:] and len(whole) == 2


@pytest.mark.parametrize("change", [{"shape": [1, 99, 4]}, {"name": "box"}])
def test_manifests_of_final_boxes_that_contradict_themselves_are_refused(change: dict[str, Any]) -> None:
    content = json.loads(json.dumps(final_manifest().to_dict()))
    assert Manifest.from_dict(content) == final_manifest()
    content["outputs"][0] |= change
    if "name" in change:
        content["parity"]["outputs"]["box"] = content["parity"]["outputs"].pop("boxes")
    with pytest.raises(BundleError, match="outputs"):
        Manifest.from_dict(content)


def test_decoding_is_counted_in_latencies(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, decode = [], Detection.decode

    def counted(*args: Any) -> list[Box]:
        decoded.append(1)
        return decode(*args)

    monkeypatch.setattr(Detection, "decode", counted)
    record = bench_bundle(bundle, Fixed(), {}, threads=1, warmup=1, repetitions=3)
    assert len(decoded) >= 4
    assert record.runs[0].networks["binary"].kernel == "none, with decoding"
