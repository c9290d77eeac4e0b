"""Detection goes the whole way: a folder of Pascal VOC, a detector, its evaluation, a bundle, boxes on a picture."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf.checkpoints import read_tensors, write_tensors
from bssl_tf.engine.run_folder import RunFolder
from bssl_tf.errors import BsslError, DataError
from bssl_tf.evaluation.detection import read_detection
from bssl_tf.files import read_records
from bssl_tf.models.binarization import binary_layers, named_weights
from bssl_tf.settings import FinetuneConfig
from bssl_tf.tasks.detection.open import open_boxes
from bssl_tf.tasks.detection.task import Detection
from bssl_tf.tasks.fine_tuned import load_fine_tuned
from bssl_tf.workflows.early import before_evaluating, before_training
from bssl_tf.workflows.export import export
from bssl_tf.workflows.finetune import finetune
from bssl_tf_deploy import load
from bssl_tf_deploy.library import host_target
from bssl_tf_deploy.predictor import Predictor, Prepared
from bssl_tf_deploy.tasks.detection import FINAL_OUTPUTS, Box
from tests.native import ROOT, require_rig

BCCD = Path(__file__).parents[1] / "tasks" / "detection" / "bccd"
NAMES = ("Platelets", "RBC", "WBC")


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow has started in this process already, so that threads cannot be set any more."""
    for place in ("engine.preparation", "workflows.tested"):
        monkeypatch.setattr(f"bssl_tf.{place}.configure", lambda *_, **__: None)


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of BCCD to learn from and three to test on. One box has no area."""
    root = tmp_path_factory.mktemp("voc") / "cells"
    shutil.copytree(BCCD, root)
    for name in ("train", "val"):
        (root / "ImageSets" / "Main" / f"{name}.txt").unlink()
    return root


def settings(voc: Path, **others: Any) -> dict[str, Any]:
    return {
        "task": "detection",
        "validation": "always",
        "data": {"source": str(voc), "image_size": 64, "max_unreadable_share": 0.3},
        "backbone": {"name": "binary_resnet", "depth": 1},
        "training": {"epochs": 2, "batch_size": 2, "threads": 1},
        **others,
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone": {"name": "binary_resent"}}, "binary_resnet"),
        ({"backbone": {}}, "no network is named to start from"),
        ({"teacher": "runs/teacher"}, "the task detection does not learn from a teacher"),
        ({"data": {"source": "no-such-folder", "image_size": 64}}, "no-such-folder does not exist"),
        (
            {
                "data": {"source": str(BCCD), "image_size": 100, "max_unreadable_share": 0.3},
                "training": {"batch_size": 1, "threads": 1},
            },
            "multiple of 32",
        ),
        (
            {
                "data": {"source": str(BCCD), "image_size": 64, "image_width": 100, "max_unreadable_share": 0.3},
                "training": {"batch_size": 1, "threads": 1},
            },
            "width .*multiple of 32",
        ),
        ({"training": {"batch_size": 8}}, "fewer than one batch of 8"),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_no_run(
    voc: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(BsslError, match=words) as error:
        finetune(settings(voc) | change, tmp_path / "run", resume=False)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_a_file_of_boxes_is_not_refused_as_a_folder_of_images(tmp_path: Path) -> None:
    """COCO's annotations, before TensorFlow is loaded."""
    file = tmp_path / "boxes.json"
    file.write_text("{}")
    options = {"task": "detection", "data": {"source": str(file)}, "backbone": {"name": "binary_resnet"}}
    before_training(FinetuneConfig, options, tmp_path / "run", resume=False)
    (tmp_path / "done" / "student").mkdir(parents=True)
    (tmp_path / "done" / "student" / "network.json").touch()
    for task in ("detection", "classification"):
        (tmp_path / "done" / "config.toml").write_text(f'command = "finetune"\ntask = "{task}"\n')
        with pytest.raises(DataError) if task == "classification" else contextlib.nullcontext():
            before_evaluating(tmp_path / "done", {"source": str(file)}, ())


@pytest.fixture(scope="module")
def tuned(voc: Path, tmp_path_factory: pytest.TempPathFactory, bssl_tf: Callable[..., Any]) -> Path:
    """A run folder of the real command, whose detector, of wide images, finds something."""
    out = tmp_path_factory.mktemp("detector") / "run"
    options = ["--student", "binary_resnet", "--set", "backbone.depth=1", "--image-size", 64, "--task", "detection"]
    options += ["--image-width", 96]
    options += ["--epochs", 2, "--batch-size", 2, "--threads", 1, "--max-unreadable-share", 0.3]
    options += ["--set", "validation=always"]
    done = bssl_tf("finetune", "--data", voc, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    # Hours of training, in place of which the least of the scores that its cells give is raised.
    found, data = load_fine_tuned(out), open_boxes(str(voc), image_size=96, max_unreadable_share=0.3)
    outputs = found.model(Detection().views(data.test, found.preprocessing, range(3)), training=False)
    tensors, _ = read_tensors(out / "head" / "weights.safetensors")
    for name, logits in zip(("scores_8", "scores_16"), outputs[::2], strict=True):
        highest = np.sort(logits.numpy().reshape(-1, 3), axis=0)[-30]
        tensors[f"{name}/bias"] = (tensors[f"{name}/bias"] - highest).astype(np.float32)
    write_tensors(out / "head" / "weights.safetensors", tensors, {})
    return out


@pytest.mark.slow
def test_it_is_trained_in_two_stages_measured_and_reported(tuned: Path, voc: Path, bssl_tf: Callable[..., Any]) -> None:
    records = read_records(tuned / "metrics.jsonl")
    assert [one["stage"] for one in records if "probe" not in one] == ["binary_activations"] * 2 + [
        "binary_weights"
    ] * 2
    assert all({"loss", "class_loss", "box_loss"} <= one.keys() for one in records if "probe" not in one)
    assert all(one["metric"] == "ap50" and "ap" in one for one in records if "probe" in one)
    done = bssl_tf("evaluate", tuned)
    assert done.returncode == 0, done.stderr
    found, model = read_detection(tuned), load_fine_tuned(tuned)
    assert found is not None and found.sentence in done.stdout and found.input_size == "64 x 96 px"
    assert [one.name for one in found.classes] == list(NAMES) and found.test_images == 3
    test = open_boxes(str(voc), image_size=96, max_unreadable_share=0.3).test
    measured = Detection().metrics(model.model, test, model.preprocessing)
    assert found.ap50 == pytest.approx(measured["ap50"]) and found.ap == pytest.approx(measured["ap"])
    assert [one.objects for one in found.classes] == test.class_counts().tolist()
    for command in ("summary", "report"):
        done = bssl_tf(command, tuned)
        assert done.returncode == 0, done.stderr
        text = done.stdout if command == "summary" else (tuned / "report.html").read_text()
        assert f"AP50 {found.ap50:.1f} %" in text and "top-1 accuracy" not in text


@pytest.mark.slow
def test_a_float_twin_is_trained_for_as_long_evaluated_and_not_exported(
    voc: Path, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    out = tmp_path / "twin"
    options = ["--student", "binary_resnet", "--set", "backbone.depth=1", "--image-size", 64, "--task", "detection"]
    options += ["--epochs", 1, "--batch-size", 2, "--threads", 1, "--max-unreadable-share", 0.3, "--float-twin"]
    done = bssl_tf("finetune", "--data", voc, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    # The binary network would have two stages of an epoch each.
    epochs = [one for one in read_records(out / "metrics.jsonl") if "probe" not in one]
    assert [(one["stage"], one["epoch"]) for one in epochs] == [("float", 1), ("float", 2)]
    assert load_fine_tuned(out).float_twin and not binary_layers(load_fine_tuned(out).model)
    done = bssl_tf("evaluate", out)
    assert done.returncode == 0 and "of a float twin" in done.stdout, done.stderr
    found = read_detection(out)
    assert found is not None and found.float_twin
    with pytest.raises(BsslError, match="is a float twin"):
        export(out, target="arm64", out=tmp_path / "bundle")


def boxes_of_keras(run: Path, predictor: Predictor, prepared: Sequence[Prepared]) -> list[list[Box]]:
    """What the network before conversion gives for the same tensors, decoded alike."""
    model = load_fine_tuned(run).model
    found = []
    for one in prepared:
        outputs = [tensor.numpy()[0] for tensor in model(one.tensor, training=False)]
        named = dict(zip(Detection().outputs(model), outputs, strict=True))
        found.append(predictor.task.decode(named, predictor.bundle.manifest, one.view, 100))
    return found


@pytest.mark.slow
def test_the_bundle_finds_the_boxes_of_keras_on_our_runtime(
    tuned: Path, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    done = bssl_tf("export", tuned, "--target", host_target(), "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    assert "agreement of boxes" in done.stdout and "AP50 on 3 test images" in done.stdout
    shutil.copytree(tmp_path / "bundle", tuned / "bundle")
    done = bssl_tf("summary", tuned)
    assert done.returncode == 0 and "  AP50 of this model" in done.stdout, done.stderr
    predictor = load(tmp_path / "bundle", runtime="own")
    predictor.verify_golden()
    manifest = predictor.bundle.manifest
    assert (manifest.task, manifest.table.labels, manifest.table.strides) == ("detection", NAMES, (8, 16))
    assert manifest.parity.agreement == 1 and set(manifest.parity.outputs) == {one.name for one in manifest.outputs}
    files = sorted((BCCD / "JPEGImages").glob("*.jpg"))
    answers = predictor.detect(files)
    assert sum(map(len, answers)) > 20
    wanted = boxes_of_keras(tuned, predictor, [predictor.prepare(file) for file in files])
    for boxes, expected in zip(answers, wanted, strict=True):
        assert [one.label for one in boxes] == [one.label for one in expected]
        # Rounding of float32 in another order, on a picture of 640 px.
        np.testing.assert_allclose([one[1:] for one in boxes], [one[1:] for one in expected], atol=0.05)
        assert all(0 <= one.left < one.right <= 640 and 0 <= one.top < one.bottom <= 480 for one in boxes)
    done = bssl_tf("run", tmp_path / "bundle", files[0], "--json", "--annotate", tmp_path / "drawn")
    assert done.returncode == 0, done.stderr
    [record] = json.loads(done.stdout)
    assert [tuple(one["box"]) for one in record["boxes"]] == [one[2:] for one in answers[0]]
    assert Image.open(tmp_path / "drawn" / f"{files[0].stem}.jpg").size == (640, 480)


@pytest.mark.slow
def test_a_bundle_with_tflites_operator_finds_the_same_boxes(tuned: Path, tmp_path: Path) -> None:
    bundles = [
        export(tuned, target=host_target(), out=tmp_path / kind, postprocess=kind).path for kind in ("none", "tflite")
    ]
    for runtime in ("own", "lce"):
        plain, final = (load(bundle, runtime=runtime) for bundle in bundles)
        final.verify_golden()
        files = sorted((BCCD / "JPEGImages").glob("*.jpg"))
        answers = [sorted(boxes) for boxes in final.detect(files)]
        expected = [sorted(boxes) for boxes in plain.detect(files)]
        assert sum(map(len, answers)) > 20
        for boxes, wanted in zip(answers, expected, strict=True):
            assert [one.label for one in boxes] == [one.label for one in wanted]
            np.testing.assert_allclose([one[1:] for one in boxes], [one[1:] for one in wanted], atol=0.05)
    manifest = final.bundle.manifest
    assert tuple(one.name for one in manifest.outputs) == FINAL_OUTPUTS
    assert manifest.operators["TFLite_Detection_PostProcess"] == 1 and manifest.parity.agreement == 1


def test_only_a_detector_has_boxes_to_process(tiny_student: Path, tmp_path: Path) -> None:
    for postprocess, words in (("tflite", "is for detectors, and .* is for classification"), ("other", "none, tflite")):
        with pytest.raises(BsslError, match=words):
            export(tiny_student, target="arm64", out=tmp_path / "bundle", postprocess=postprocess)


# On the emulated processor: numpy and LiteRT alone, so that pictures come as tensors.
ON_ARM = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from bssl_tf_deploy import load
from bssl_tf_deploy.predictor import Prepared
from bssl_tf_deploy.tasks.task import View
predictor = load(sys.argv[2], runtime="own", trust_bundle_library=True)
predictor.verify_golden()
with np.load(sys.argv[3]) as given:
    rows = zip(given["tensors"], given["views"])
    answers = [predictor.answer(Prepared(one[np.newaxis], View(*view.tolist())), 100)[0] for one, view in rows]
json.dump(answers, open(sys.argv[4], "w"))
"""


@pytest.mark.slow
def test_emulated_arm_finds_the_boxes_of_keras(tuned: Path, tmp_path: Path) -> None:
    rig = require_rig()
    bundle = export(tuned, target="arm64", out=tmp_path / "bundle").path
    predictor = load(bundle, runtime="lce")
    prepared = [predictor.prepare(file) for file in sorted((BCCD / "JPEGImages").glob("*.jpg"))]
    views = [dataclasses.astuple(one.view) for one in prepared]
    np.savez(tmp_path / "given.npz", tensors=np.concatenate([one.tensor for one in prepared]), views=views)
    # Without the library of this machine, so that the bundle's is loaded.
    package = tmp_path / "site" / "bssl_tf_deploy"
    shutil.copytree(ROOT / "deploy" / "bssl_tf_deploy", package, ignore=shutil.ignore_patterns("lib", "__pycache__"))
    files = [str(path) for path in (package.parent, bundle, tmp_path / "given.npz", tmp_path / "answers.json")]
    command = rig.python("cortex-a72", "ai-edge-litert-2.3", ["-c", ON_ARM, *files])
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert sum(map(len, answers)) > 20
    expected = boxes_of_keras(tuned, predictor, prepared)
    for found, wanted in zip(answers, expected, strict=True):
        assert [one[0] for one in found] == [one.label for one in wanted]
        np.testing.assert_allclose([one[1:] for one in found], [one[1:] for one in wanted], atol=0.05)


@pytest.mark.slow
def test_a_pretrained_student_of_another_size_is_taken_and_a_stopped_run_ends_in_the_same_weights(
    tiny_student: Path, voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {**settings(voc), "student": str(tiny_student)}
    del wanted["backbone"]
    finetune(wanted, tmp_path / "whole", resume=False)
    whole = load_fine_tuned(tmp_path / "whole")
    assert whole.network.preprocessing.image_size == 28 and whole.preprocessing.image_size == 64
    assert whole.model.input_shape == (None, 64, 64, 1)
    write = RunFolder.save_checkpoint

    def killed(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "save_checkpoint", killed)
        finetune(wanted, tmp_path / "run", resume=False)
    finetune({}, tmp_path / "run", resume=True)
    one, other = (named_weights(load_fine_tuned(run).model) for run in (tmp_path / "run", tmp_path / "whole"))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name].numpy(), other[name].numpy(), err_msg=name)
