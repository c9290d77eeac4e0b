"""Export of networks that were not trained here, and of networks that take pixels."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf.backend import keras, lq
from bssl_tf.cli.export import command as cli_export
from bssl_tf.data.open import open_data
from bssl_tf.data.preprocessing import evaluation_views
from bssl_tf.errors import BsslError, ConfigError, ConversionError, UsageError
from bssl_tf.files import read_json, write_json
from bssl_tf.keras_files.models import zoo_networks
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import DataConfig
from bssl_tf.workflows.export import export as export_anywhere
from bssl_tf.workflows.exported import Exported
from bssl_tf_deploy import load
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.library import host_target
from tests.conftest import require_or_skip
from tests.converters.networks import settle_norms, write_run_folder

SIZE = 16
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
Export = Callable[..., Exported]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """For this machine, into `tmp_path / "bundle"` unless `out` is given."""

    def call(model: str | Path, **options: Any) -> Exported:
        usual: dict[str, Any] = {"target": host_target(), "out": tmp_path / "bundle"}
        return export_anywhere(model, **usual | options)

    return call


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What a user of the command line reads on the way."""
    caplog.set_level(logging.INFO)
    return caplog


def refused(call: Callable[[], Any], *words: str, kind: type[BsslError] = BsslError) -> None:
    with pytest.raises(kind) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twelve pictures; their pixels are the network's own size."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(5)
    for name in ("ant", "bee", "cat"):
        (folder / name).mkdir()
        for number in range(12):
            pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def network(classes: int) -> keras.Model:
    """Two binary layers, and a softmax at the end as larq-zoo's networks have it."""
    keras.utils.set_random_seed(7)
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(32, 3, padding="same", use_bias=False)(image))
    for pad in (1.0, 0.0):
        # Keras numbers names anew for each process, not for each test.
        settings: dict[str, Any] = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "pad_values": pad}
        settings["name"] = f"padded_with_{pad:.0f}"
        y = lq.layers.QuantConv2D(32, 3, padding="same", use_bias=False, kernel_constraint="weight_clip", **settings)(x)
        x = keras.layers.Add()([keras.layers.BatchNormalization()(y), x])
    x = keras.layers.Dense(classes)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, keras.layers.Activation("softmax")(x), name="stranger")
    settle_norms(model, np.random.default_rng(1).normal(0, 1, (64, SIZE, SIZE, 3)).astype(np.float32), 7)
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network in every form."""
    folder, model = tmp_path_factory.mktemp("models"), network(3)
    made = {"h5": folder / "stranger.h5", "keras": folder / "stranger.keras", "saved": folder / "stranger.v1"}
    model.save(made["h5"])
    model.save(made["keras"])
    model.save(made["saved"], save_format="tf")
    return made


def options(pictures: Path) -> dict[str, Any]:
    return {"data": pictures, "mean": MEAN, "std": STD, "images": 24}


def test_a_strangers_h5_becomes_a_bundle_that_says_what_is_known(
    models: dict[str, Path], pictures: Path, export: Export, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    done = export(models["h5"], **options(pictures))
    bundle = read_bundle(tmp_path / "bundle")
    manifest = bundle.manifest
    assert done.path == tmp_path / "bundle" and done.manifest == manifest
    assert manifest.training is None
    assert manifest.table.labels == ("ant", "bee", "cat")
    assert (manifest.network.backbone, manifest.network.arguments) == ("stranger", {})
    assert (manifest.preprocessing.mean, manifest.preprocessing.std) == (MEAN, STD)
    assert manifest.binary.binary_convolutions == 2
    assert "SOFTMAX" not in manifest.operators and "omitting activation" in said.text
    names = {file.name.partition("-")[2].removesuffix(".png") for file in (bundle.path / "examples").iterdir()}
    assert names <= set(manifest.table.labels)
    # An independent way: Keras from the file, on the examples.
    model = keras.models.load_model(models["h5"])
    predictor = load(bundle)
    predictor.verify_golden()
    for file in sorted((bundle.path / "examples").iterdir()):
        image = (np.asarray(Image.open(file)) / 255 - MEAN) / STD
        scores = model(image[np.newaxis].astype(np.float32), training=False).numpy()[0]
        [best] = predictor.classify([file])
        assert dict(best) == pytest.approx(dict(zip(manifest.table.labels, scores.tolist(), strict=True)), rel=1e-3)


def test_every_form_of_a_network_gives_the_same_network(
    models: dict[str, Path], pictures: Path, export: Export, tmp_path: Path
) -> None:
    for form, path in models.items():
        export(path, **options(pictures), out=tmp_path / form)
    found = {form: read_bundle(tmp_path / form) for form in models}
    for form in ("keras", "saved"):
        np.testing.assert_allclose(found[form].golden_outputs[0], found["h5"].golden_outputs[0], rtol=1e-4, atol=1e-5)
        assert found[form].manifest.operators == found["h5"].manifest.operators
    export(models["h5"], **options(pictures), out=tmp_path / "again")
    for file in (file for file in (tmp_path / "h5").rglob("*") if file.is_file()):
        content = file.read_bytes()
        assert (tmp_path / "again" / file.relative_to(tmp_path / "h5")).read_bytes() == content
        assert str(tmp_path).encode() not in content


def test_a_network_that_takes_pixels_says_the_same_as_the_one_that_takes_floats(
    models: dict[str, Path], pictures: Path, export: Export, tmp_path: Path
) -> None:
    for dtype in ("float32", "uint8"):
        export(models["h5"], **options(pictures), input=dtype, out=tmp_path / dtype)
    floats, pixels = read_bundle(tmp_path / "float32"), read_bundle(tmp_path / "uint8")
    assert pixels.manifest.inputs[0].dtype == "uint8"
    assert pixels.golden_inputs[0].dtype == np.uint8
    assert pixels.manifest.parity.agreement == 1.0
    assert pixels.manifest.parity.share_within_tolerance >= 0.9
    files = sorted(pictures.rglob("*.png"))[::6]
    expected = load(floats, runtime="lce").outputs(files)["logits"]
    predictor = load(pixels, runtime="lce")
    predictor.verify_golden()
    np.testing.assert_allclose(predictor.outputs(files)["logits"], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("ends", ["float32", "uint8", "int8"])
def test_int8_is_told_with_its_accuracy_and_runs_everywhere_alike(
    models: dict[str, Path], pictures: Path, export: Export, tmp_path: Path, ends: str
) -> None:
    calibration = {"int8": True, "calibrate": 30, "record": tmp_path / "x.jsonl"}
    done = export(models["h5"], **options(pictures), input=ends, **calibration)
    made = done.converted.report
    assert (made.float_convolutions, made.fully_connected, made.int8_operators) == (0, 0, 2)
    bundle = read_bundle(tmp_path / "bundle")
    [taken], [given], accuracy = bundle.manifest.inputs, bundle.manifest.outputs, bundle.manifest.table.accuracy
    assert (taken.dtype, given.dtype) == (ends, "int8" if ends == "int8" else "float32")
    assert bundle.manifest.binary.int8_operators == 2
    assert accuracy is not None and accuracy.images == 6
    [record] = map(json.loads, (tmp_path / "x.jsonl").read_text().splitlines())
    assert record["table"]["accuracy"] == dataclasses.asdict(accuracy) and record["calibration_images"] == 30
    assert (record["input"], record["int8_operators"]) == (ends, 2) and record["versions"]
    # Not what this program was started with.
    words = shlex.split(record["command"])
    assert words[:5] == ["bssl-tf", "export", str(models["h5"]), "--target", host_target()]
    context = cli_export.make_context("export", words[2:])
    assert (context.params["input"], context.params["int8"]) == (ends, ends != "int8")
    assert (context.params["calibrate"], context.params["mean"]) == (30, MEAN)
    own, lce = (load(bundle, runtime=runtime) for runtime in ("own", "lce"))
    own.verify_golden()
    lce.verify_golden()
    files = sorted(pictures.rglob("*.png"))[::3]
    np.testing.assert_allclose(own.outputs(files)["logits"], lce.outputs(files)["logits"], atol=1e-5)


def test_accuracy_is_that_of_keras_on_the_same_pictures(
    models: dict[str, Path], pictures: Path, export: Export, tmp_path: Path
) -> None:
    export(models["h5"], **options(pictures))
    accuracy = read_bundle(tmp_path / "bundle").manifest.table.accuracy
    assert accuracy is not None
    assert accuracy.top1_percent == accuracy.keras_top1_percent
    # The labels are random, and the network is not: any share is right, but this one.
    data = open_data(DataConfig(str(pictures), "", image_size=SIZE, channels=3), labels_needed=True)
    assert data.test is not None and data.test.labels is not None
    images = evaluation_views(data.test, Preprocessing(SIZE, 3, MEAN, STD), np.arange(len(data.test)))
    scores = keras.models.load_model(models["h5"])(images, training=False).numpy()
    expected = 100 * np.mean(scores.argmax(axis=1) == data.test.labels)
    assert accuracy.keras_top1_percent == pytest.approx(expected)
    # In another order the same network answers with other names.
    (tmp_path / "labels.txt").write_text("cat\nant\nbee\n")
    export(models["h5"], **options(pictures), labels=tmp_path / "labels.txt", out=tmp_path / "turned")
    accuracy = read_bundle(tmp_path / "turned").manifest.table.accuracy
    turned = np.array([1, 2, 0])[data.test.labels]
    assert accuracy is not None and accuracy.images == len(turned)
    assert accuracy.keras_top1_percent == pytest.approx(100 * np.mean(scores.argmax(axis=1) == turned))
    # Other names say nothing of this network's classes.
    (tmp_path / "labels.txt").write_text("x\ny\nz\n")
    export(models["h5"], **options(pictures), labels=tmp_path / "labels.txt", out=tmp_path / "other")
    assert read_bundle(tmp_path / "other").manifest.table.accuracy is None


def test_accuracy_is_on_all_test_images_unless_their_number_is_given(
    models: dict[str, Path], pictures: Path, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bssl_tf.workflows.export.COMPARED_IMAGES", 4)
    data = open_data(DataConfig(str(pictures), "", image_size=SIZE, channels=3), labels_needed=True)
    assert data.test is not None and data.test.labels is not None
    images = evaluation_views(data.test, Preprocessing(SIZE, 3, MEAN, STD), np.arange(len(data.test)))
    right = keras.models.load_model(models["h5"])(images, training=False).numpy().argmax(axis=1) == data.test.labels
    given = {"data": pictures, "mean": MEAN, "std": STD}
    for dtype in ("float32", "uint8", "int8"):
        done = export(models["h5"], **given, input=dtype, overwrite=True).manifest
        assert done.table.accuracy is not None
        assert (done.parity.images, done.table.accuracy.images) == (4, len(data.test))
        assert done.table.accuracy.keras_top1_percent == pytest.approx(100 * np.mean(right))
    fewer = export(models["h5"], **given, images=3, overwrite=True).manifest
    assert fewer.table.accuracy is not None and (fewer.parity.images, fewer.table.accuracy.images) == (3, 3)


def test_accuracy_comes_from_an_interpreter_that_is_right(pictures: Path, export: Export, tmp_path: Path) -> None:
    """XNNPACK in LCE's interpreter gives zeros for a stride larger than the kernel: always the first class."""
    keras.utils.set_random_seed(2)
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, strides=4, padding="same")(image))
    keras.Model(image, keras.layers.Dense(3, use_bias=False)(x), name="strided").save(tmp_path / "strided.h5")
    accuracy = export(tmp_path / "strided.h5", data=pictures, mean=MEAN, std=STD).manifest.table.accuracy
    data = open_data(DataConfig(str(pictures), "", image_size=SIZE, channels=3), labels_needed=True)
    assert data.test is not None and data.test.labels is not None
    assert accuracy.top1_percent == accuracy.keras_top1_percent != 100 * np.mean(data.test.labels == 0)


def test_images_without_a_label_and_labels_without_an_image_are_named(
    models: dict[str, Path], pictures: Path, export: Export, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "labels.txt").write_text("wasp\ncat\nant\n")
    export(models["h5"], **options(pictures), labels=tmp_path / "labels.txt")
    accuracy = read_bundle(tmp_path / "bundle").manifest.table.accuracy
    data = open_data(DataConfig(str(pictures), "", image_size=SIZE, channels=3), labels_needed=True)
    assert accuracy is not None and data.test is not None and data.test.labels is not None
    bees = int((data.test.labels == 1).sum())
    assert accuracy.images == len(data.test) - bees
    assert f"{bees} test images are of a class that is not among the labels" in said.text
    assert f"excluded from the accuracy: bee ({bees} images)" in said.text
    assert "1 of 3 labels have no test image: wasp" in said.text


def test_int8_has_a_place_of_its_own_and_nothing_to_explain(
    models: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    call = options(pictures) | {"target": host_target(), "input": "int8"}
    message = "--explain compares with Keras to the last bit"
    refused(lambda: export_anywhere(models["h5"], **call, explain=True), message, kind=UsageError)
    done = export_anywhere(models["h5"], **call)
    assert done.path == models["h5"].parent / f"stranger-bundle-{host_target()}-int8"
    assert (done.path / "manifest.json").exists()


def test_a_softmax_is_taken_off_at_the_end_of_a_nested_model_and_told_elsewhere(
    pictures: Path, export: Export, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    whole = tmp_path / "whole.h5"
    network(3).save(whole)
    export(whole, **options(pictures), out=tmp_path / "other")
    assert "probabilities" not in said.text
    nested = keras.Sequential([network(3)], name="nested")
    nested.build((None, SIZE, SIZE, 3))
    nested.save(tmp_path / "nested.h5")
    export(tmp_path / "nested.h5", **options(pictures), out=tmp_path / "nested")
    assert "probabilities" not in said.text
    outer = keras.Sequential([network(3), keras.layers.Activation("linear")], name="outer")
    outer.build((None, SIZE, SIZE, 3))
    outer.save(tmp_path / "outer.h5")
    # Saturated, these shares differ by next to nothing, which parity may refuse.
    with contextlib.suppress(ConversionError):
        export(tmp_path / "outer.h5", **options(pictures))
    assert "outer gives probabilities" in said.text


def test_our_runtime_and_lces_agree_on_pixels(
    models: dict[str, Path], pictures: Path, export: Export, tmp_path: Path
) -> None:
    export(models["h5"], **options(pictures), input="uint8")
    own = load(tmp_path / "bundle", runtime="own")
    own.verify_golden()
    lce = load(tmp_path / "bundle", runtime="lce")
    assert own.check_against(lce._interpreter, sorted(pictures.rglob("*.png"))[::6]) < 1e-3


def test_a_run_folder_takes_pixels_too(export: Export, tmp_path: Path) -> None:
    run = write_run_folder(tmp_path / "run")
    export(run, images=24, input="uint8")
    manifest = read_bundle(tmp_path / "bundle").manifest
    assert manifest.training is not None and manifest.training.method == "s2bnn"
    assert manifest.inputs[0].dtype == "uint8"
    load(tmp_path / "bundle", runtime="lce").verify_golden()
    for option, value in (("data", "embedded"), ("mean", (0.5,)), ("std", (1.0,)), ("labels", "x"), ("weights", "x")):
        call = functools.partial(export, run, out=tmp_path / "b", **{option: value})
        refused(call, f"--{option} does not go with a run folder", kind=UsageError)


def test_labels_behind_a_student_are_in_its_bundle_and_nothing_claims_the_contrary(
    export: Export, tmp_path: Path
) -> None:
    run = write_run_folder(tmp_path / "run")
    unlabelled = export(run, images=8, out=tmp_path / "unlabelled")
    assert unlabelled.manifest.training is not None and unlabelled.manifest.training.labels_used is None
    assert "trained without labels" in (tmp_path / "unlabelled" / "README.md").read_text()
    about = run / "student" / "network.json"
    write_json(about, read_json(about) | {"labels_used": "ImageNet's labels (x)"})
    done = export(run, images=8, record=tmp_path / "record.jsonl")
    assert done.manifest.training is not None and done.manifest.training.labels_used == "ImageNet's labels (x)"
    assert json.loads((tmp_path / "record.jsonl").read_text())["training"]["labels_used"] == "ImageNet's labels (x)"
    text = " ".join((tmp_path / "bundle" / "README.md").read_text().split())
    assert "The backbone was trained with the help of ImageNet's labels (x) (method s2bnn" in text
    assert "without labels" not in text


def test_export_explains_on_demand(
    models: dict[str, Path], pictures: Path, export: Export, said: pytest.LogCaptureFixture
) -> None:
    export(models["h5"], **options(pictures), explain=True)
    assert "comparing the input of padded_with_0" in said.text
    assert "the inputs of 2 binary layers and the output agree on" in said.text


@pytest.mark.slow
def test_a_network_of_larq_zoo_becomes_a_bundle(export: Export, tmp_path: Path) -> None:
    require_or_skip(bool(zoo_networks()), "needs larq-zoo")
    export("larq_zoo:QuickNetSmall", data="embedded", images=16)
    manifest = read_bundle(tmp_path / "bundle").manifest
    assert manifest.binary.binary_convolutions == 16
    assert manifest.table.labels == tuple(map(str, range(1000)))
    assert manifest.inputs[0].shape == (1, 224, 224, 3)
    load(tmp_path / "bundle").verify_golden()


@pytest.mark.slow
def test_a_fresh_network_full_of_ties_is_refused_and_the_ties_are_named(
    export: Export, said: pytest.LogCaptureFixture
) -> None:
    """It pads with 0, and its batch norms have mean 0: see `bssl_tf_converters.lce.parity`."""
    require_or_skip(bool(zoo_networks()), "needs larq-zoo")
    call = {"data": "embedded", "images": 4, "explain": True}
    refused(lambda: export("larq_zoo:BinaryResNetE18", **call), "does not match the Keras network")
    assert "within 0.0001 of their threshold: rounding, not a fault" in said.text


def test_labels_come_from_a_file_or_are_numbers(
    models: dict[str, Path], pictures: Path, export: Export, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("Ameise\nBiene\n\nKatze\n", encoding="utf-8")
    export(models["h5"], **options(pictures), labels=tmp_path / "labels.txt")
    assert read_bundle(tmp_path / "bundle").manifest.table.labels == ("Ameise", "Biene", "Katze")
    export(models["h5"], data="embedded", images=8, out=tmp_path / "other")
    # Ten classes of pictures say nothing of a network with three.
    manifest = json.loads((tmp_path / "other" / "manifest.json").read_text())
    assert manifest["table"]["labels"] == ["0", "1", "2"]
    assert manifest["preprocessing"] == {
        **{"height": SIZE, "width": SIZE, "channels": 3},
        **{"mean": [0.0] * 3, "std": [1.0] * 3},
    }


def test_what_is_missing_or_does_not_fit_is_told_in_one_line(
    models: dict[str, Path], pictures: Path, export: Export, tmp_path: Path
) -> None:
    def fails(model: str | Path, *words: str, **given: Any) -> None:
        refused(lambda: export(model, **{"data": pictures} | given), *words)

    h5 = models["h5"]
    fails(h5, "does not state what images it is for", "--data", data=None)
    fails(tmp_path / "none.h5", "there is no model at", "none.h5")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "neither a run folder nor a SavedModel")
    fails("larq_zoo:NoNet", "larq")
    fails(h5, "one number for each channel", "--mean", mean=(0.1, 0.2))
    fails(h5, "above zero", std=(0.0,))
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    fails(h5, "2 labels", "3 classes", labels=tmp_path / "labels.txt")
    fails(h5, "no.txt", "No such file", labels=tmp_path / "no.txt")
    image = keras.Input((SIZE, 8, 3))
    keras.Model(image, keras.layers.Flatten()(image)).save(tmp_path / "wide.h5")
    fails(tmp_path / "wide.h5", "[None, 16, 8, 3]", "square")
    image = keras.Input((SIZE, SIZE, 3))
    keras.Model(image, keras.layers.Conv2D(4, 3)(image)).save(tmp_path / "map.h5")
    fails(tmp_path / "map.h5", "not a classifier")
    keras.Model(image, keras.layers.Dense(1, "sigmoid")(keras.layers.Flatten()(image))).save(tmp_path / "yes.h5")
    fails(tmp_path / "yes.h5", "not a classifier", "two for yes and no")
    fails(h5, "--calibrate needs --int8", calibrate=5)
    assert not (tmp_path / "bundle").exists()


def test_targets_and_inputs_are_those_of_the_command(models: dict[str, Path], pictures: Path, export: Export) -> None:
    refused(lambda: export(models["h5"], data=pictures, target="armv7l"), "no runtime for armv7l", "for arm64")
    refused(lambda: export(models["h5"], data=pictures, target="riscv"), "target is 'riscv'", "arm64", kind=ConfigError)
    refused(lambda: export(models["h5"], data=pictures, input="float16"), "'float16'", "uint8", kind=ConfigError)
