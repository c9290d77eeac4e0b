"""Fine-tuning goes from a pretrained run to a bundle, repeats bit for bit, keeps the best weights and stops early."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bssl_tf as bt
from bssl_tf.backend import keras, tf
from bssl_tf.checkpoints import read_tensors
from bssl_tf.data.augmentation import WEAK
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.load import load_data
from bssl_tf.data.preprocessing import evaluation_views
from bssl_tf.data.views import Batch
from bssl_tf.engine.inputs import LabelledInputs
from bssl_tf.engine.run_folder import RunFolder
from bssl_tf.engine.step import split
from bssl_tf.engine.teacher_cache import with_teacher_cache
from bssl_tf.errors import BsslError, RunFolderError
from bssl_tf.evaluation import label_spreading
from bssl_tf.evaluation.predictions import read_predictions
from bssl_tf.evaluation.records import BEFORE, RAW_PIXELS, STUDENT, read_evaluation, untrained
from bssl_tf.files import read_json, read_records
from bssl_tf.methods.finetune import FineTuned, FinetuneSettings
from bssl_tf.models.binarization import named_weights
from bssl_tf.models.saved import load_weights, read_network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.reports.classes import headline_answers
from bssl_tf.reports.runs import read_runs
from bssl_tf.seeding import named_seed
from bssl_tf.settings import DataConfig, FinetuneConfig, TrainingConfig, merge
from bssl_tf.tasks import find_task
from bssl_tf.tasks.classification import Classification
from bssl_tf.tasks.fine_tuned import load_fine_tuned
from bssl_tf.tasks.task import Purpose
from bssl_tf.workflows import distilling
from bssl_tf.workflows.evaluate import evaluate
from bssl_tf.workflows.export import export
from bssl_tf.workflows.finetune import _unlabelled, finetune, ready_to_finetune
from bssl_tf_deploy import load
from bssl_tf_deploy.library import host_target
from tests.edited import edited
from tests.tasks.toy import OUTPUTS, HostSpot

# 107 images to learn from, 21 to stop by.
DATA = {"source": "embedded", "limit": 128}
TRAINING = {"epochs": 4, "batch_size": 32, "threads": 1}


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow has started in this process already, so that threads cannot be set any more."""
    for place in ("engine.preparation", "workflows.evaluate"):
        monkeypatch.setattr(f"bssl_tf.{place}.configure", lambda *_, **__: None)


@pytest.fixture(scope="module")
def tuned(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory, bssl_tf: Callable[..., Any]) -> Path:
    """A run folder of the real command."""
    out = tmp_path_factory.mktemp("tuned") / "run"
    options = ["--data", "embedded", "--limit", 128, "--epochs", 4, "--threads", 1, "--set", "validation=always"]
    done = bssl_tf("finetune", tiny_student, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out / 'student'}\n" and f"next: bssl-tf evaluate {out}" in done.stderr
    return out


def settings(student: Path, **others: Any) -> dict[str, Any]:
    return {"student": str(student), "data": DATA, "training": TRAINING, "validation": "always", **others}


def weights_of(run: Path) -> dict[str, np.ndarray]:
    return {name: weight.numpy() for name, weight in named_weights(load_fine_tuned(run).model).items()}


def test_everything_is_trained_from_the_pretrained_weights_and_the_start_is_kept(
    tuned: Path, tiny_student: Path
) -> None:
    network = read_network(tuned / "start")
    before, after = network.build(), load_fine_tuned(tuned)
    load_weights(tuned / "start", {"student": before})
    pretrained = network.build()
    load_weights(tiny_student / "student", {"student": pretrained})
    for old, kept, new in zip(
        pretrained.get_weights(), before.get_weights(), after.backbone.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(old, kept)
        assert np.any(old != new) and np.all(np.isfinite(new))
    assert after.class_names == load_data("embedded", image_size=28).train.class_names
    assert np.any(weights_of(tuned)["classifier/kernel"] != 0)
    assert read_network(tuned / "student").labels_used == "the labels of embedded"
    # Latent weights stay where the straight-through estimator has a gradient.
    kernels = [w for name, w in weights_of(tuned).items() if "block" in name and name.endswith("/kernel")]
    assert kernels and max(float(np.abs(kernel).max()) for kernel in kernels) <= 1


def test_the_best_weights_on_the_held_out_images_are_the_result(tuned: Path) -> None:
    scores = [one["score"] for one in read_records(tuned / "metrics.jsonl") if one.get("probe") == "validation"]
    assert len(scores) == 4
    images = load_data("embedded", image_size=28, limit=128).train
    found, task = load_fine_tuned(tuned), Classification()
    learned, kept = task.held_out(images, named_seed(0, "validation"))
    assert (len(learned), len(kept)) == (107, 21) and read_json(tuned / "environment.json")["training_images"] == 107
    measured = task.metrics(found.model, kept, found.network.preprocessing)["top1"]
    assert measured == pytest.approx(max(scores), abs=1e-4)


def test_evaluate_says_which_of_probe_and_fine_tuned_network_is_better(tuned: Path) -> None:
    found = evaluate(tuned, {})
    assert [row.features for row in found.rows] == [STUDENT, untrained(STUDENT), BEFORE, RAW_PIXELS]
    assert list(found.rows[0].scores) == ["fine-tuned", "linear-probe", "knn-20"]
    assert "fine-tuned" not in found.rows[2].scores
    heads, answers = found.heads, read_predictions(tuned)
    assert heads is not None
    own, probe = answers[STUDENT]["fine-tuned"], answers[BEFORE]["linear-probe"]
    assert heads.points == pytest.approx(own.accuracies[0] - probe.accuracies[0], abs=1e-4)
    assert sum(one.images for one in heads.classes) == found.test_images == own.images
    assert sum(one.images * one.fine_tuned for one in heads.classes) / own.images == pytest.approx(own.accuracies[0])
    assert f"{own.accuracies[0]:.1f} % fine-tuned, {probe.accuracies[0]:.1f} % by the probe" in heads.sentence
    # The head's answers are those of the network that is exported.
    test = load_data("embedded", image_size=28, limit=128).test
    assert test is not None
    model = load_fine_tuned(tuned)
    logits = model.model(evaluation_views(test, model.network.preprocessing, range(len(test))), training=False)
    np.testing.assert_array_equal(own.predicted[0], np.argmax(logits, axis=1))
    # A later evaluation by another protocol keeps the comparison.
    assert evaluate(tuned, {}, protocols=["knn-200"], controls=False).heads == heads
    [run] = read_runs([tuned])
    headline = headline_answers(run)
    assert headline is not None and headline[0] == "fine-tuned"
    assert not (tuned / "probe").exists()


def test_the_commands_take_it_as_any_other_run(tuned: Path, bssl_tf: Callable[..., Any]) -> None:
    if read_evaluation(tuned) is None:
        evaluate(tuned, {})
    summary = bssl_tf("summary", tuned)
    assert summary.returncode == 0 and " by the probe (" in summary.stdout and BEFORE in summary.stdout
    assert "Trained with the help of the labels of embedded." in summary.stdout
    done = bssl_tf("report", tuned)
    assert done.returncode == 0, done.stderr
    page = (tuned / "report.html").read_text()
    assert "fine-tuned binary student" in page and " by the probe (" in page
    assert "Linear probe before and fine-tuned network, by class" in page
    assert "Most confident mistakes" in page and "fine-tuned on embedded" in page
    done = bssl_tf("evaluate", tuned, "--protocol", "fine-tuned", "--no-controls", "--no-save", "--json")
    assert list(json.loads(done.stdout)["rows"][0]["scores"]) == ["fine-tuned"]


def test_the_exported_network_gives_what_the_fine_tuned_one_gives(tuned: Path, tmp_path: Path) -> None:
    done = export(tuned, target=host_target(), out=tmp_path / "bundle")
    table = done.manifest.table
    test = load_data("embedded", image_size=28, limit=128).test
    assert test is not None and table.labels == test.class_names and table.probe is None
    assert done.manifest.training is not None
    assert (done.manifest.training.method, done.manifest.training.labels_used) == ("finetune", "the labels of embedded")
    found = load_fine_tuned(tuned)
    views = evaluation_views(test, found.network.preprocessing, range(len(test)))
    expected = found.model(views, training=False).numpy()
    predictor = load(tmp_path / "bundle", runtime="own")
    predictor.verify_golden()
    outputs = predictor.run_tensor(views)["logits"]
    # A sign within rounding of zero may flip in an image.
    within = np.max(np.abs(outputs - expected), axis=1) <= 1e-3 * np.max(np.abs(expected))
    assert np.count_nonzero(~within) <= 1
    assert table.accuracy.images == len(test)
    own = 100 * float(np.mean(np.argmax(outputs, axis=1) == test.require_labels()))
    assert table.accuracy.top1_percent == pytest.approx(own)


@pytest.mark.slow
def test_a_run_that_is_stopped_anywhere_ends_in_the_same_weights(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the best weights and the checkpoint after them, and in the middle of an epoch."""
    tf.config.experimental.enable_op_determinism()
    write, run, whole = RunFolder.save_checkpoint, tmp_path / "run", tmp_path / "whole"
    written = 0
    wanted = settings(tiny_student) | {"training": TRAINING | {"epochs": 3}}
    finetune(wanted, whole, resume=False)

    def killed(*arguments: Any) -> None:
        nonlocal written
        written += 1
        if written in (3, 5):
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(RunFolder, "save_checkpoint", killed)
    frequent = {"training": {"checkpoint_every_s": 1e-9}}
    for given in (merge(wanted, frequent), frequent):
        with pytest.raises(KeyboardInterrupt):
            finetune(given, run, resume=given is frequent)
        assert not (run / "student").exists()
    # The other run is not needed any more.
    moved = shutil.move(tiny_student, tiny_student.with_name("moved"))
    try:
        finetune({}, run, resume=True)
    finally:
        shutil.move(moved, tiny_student)
    one, other = weights_of(run), weights_of(whole)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.slow
def test_training_stops_early_and_goes_on_without_validation(
    tiny_student: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    slow = TRAINING | {"learning_rate": 1e-9, "epochs": 9, "patience": 2}
    still = {"head_learning_rate": 1e-9}
    finetune(settings(tiny_student) | {"training": slow, "finetune": still}, tmp_path / "stopped", resume=False)
    # Batch norm's statistics may move a score once or twice, but not for nine epochs.
    epochs = [one for one in read_records(tmp_path / "stopped/metrics.jsonl") if "probe" not in one]
    assert len(epochs) < 9 and "no better than before" in caplog.text
    without = settings(tiny_student, validation="never") | {"training": TRAINING | {"epochs": 1}}
    finetune(without, tmp_path / "without", resume=False)
    records = read_records(tmp_path / "without/metrics.jsonl")
    assert len(records) == 1 and read_json(tmp_path / "without/environment.json")["training_images"] == 128
    assert not list((tmp_path / "without/checkpoints").glob("best-*"))


@pytest.mark.parametrize(("images", "held"), [(590, 0), (650, 108)])
def test_few_labels_are_all_learned_from(tiny_student: Path, tmp_path: Path, images: int, held: int) -> None:
    """One in six of them would not tell epochs apart."""
    wanted = settings(tiny_student, validation="auto") | {"data": DATA | {"limit": images}}
    ready = ready_to_finetune(wanted, tmp_path / "run", resume=False)
    assert len(ready.prepared.data.train) == images - held
    assert (ready.probe is None) == (not held)


@pytest.mark.slow
def test_a_teacher_with_a_classifier_of_its_own_is_learned_from(
    tiny_student: Path, tiny_teacher: Path, tmp_path: Path
) -> None:
    run, one = tmp_path / "run", TRAINING | {"epochs": 1}
    bt.finetune(
        bt.Run(tiny_student, tiny_student / "student"),
        "embedded",
        out=run,
        teacher=tiny_teacher,
        limit=128,
        epochs=1,
        threads=1,
        settings={"finetune.distillation": 1.0, "validation": "always"},
    )
    [record] = [one for one in read_records(run / "metrics.jsonl") if "probe" not in one]
    assert record["loss"] == pytest.approx(record["distillation"]) and record["distillation"] > 0
    classifier = read_json(run / "teacher_head" / "probe.json")
    assert classifier["class_names"] == list(load_fine_tuned(run).class_names) and classifier["top1"] > 20
    assert read_json(run / "teacher.json")["path"] == str(tiny_teacher)
    # A longer run takes the same classifier.
    before = (run / "teacher_head" / "probe.safetensors").read_bytes()
    finetune({"training": {"epochs": 2}}, run, resume=True)
    assert (run / "teacher_head" / "probe.safetensors").read_bytes() == before
    assert one["epochs"] == 1 and len(read_records(run / "metrics.jsonl")) == 4


def test_a_teachers_classifier_is_fitted_once_for_the_plan_and_the_run(
    tiny_student: Path, tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    fit = label_spreading.fit_to_few_labels
    monkeypatch.setattr(distilling, "_fitted", {})

    def counted(*given: Any) -> Any:
        calls.append(len(given[1]))
        return fit(*given)

    monkeypatch.setattr(distilling, "fit_to_few_labels", counted)
    wanted = settings(tiny_student, teacher=str(tiny_teacher))
    first, second = (ready_to_finetune(wanted, tmp_path / "run", resume=False).taught for _ in range(2))
    assert first and second and first.classifier is second.classifier and len(calls) == 1
    fewer = wanted | {"data": wanted["data"] | {"limit": calls[0] // 2}}
    other = ready_to_finetune(fewer, tmp_path / "run", resume=False).taught
    assert other and len(calls) == 2 and other.fingerprint() != first.fingerprint()


@pytest.mark.slow
def test_a_teacher_whose_outputs_are_kept_teaches_what_it_would_have_taught(
    tiny_student: Path, tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the rounding of float16, as long as the views are the same; and it is asked once."""
    monkeypatch.setenv("BSSL_TF_CACHE", str(tmp_path / "cache"))
    wanted = settings(tiny_student, teacher=str(tiny_teacher), finetune={"distillation": 1.0})
    losses = []
    for epochs in (0, 4, 1):
        run = tmp_path / str(epochs)
        finetune(wanted | {"teacher_cache_epochs": epochs}, run, resume=False)
        losses.append([one["distillation"] for one in read_records(run / "metrics.jsonl") if "probe" not in one])
    assert losses[1] == pytest.approx(losses[0], rel=1e-2) and losses[2][1:] != pytest.approx(losses[0][1:], rel=1e-2)
    assert read_json(tmp_path / "4" / "teacher_cache.json")["seconds"] > 0
    assert (
        len(list((tmp_path / "cache").glob("*.teacher.npy"))) == 2 and not (tmp_path / "0/teacher_cache.json").exists()
    )


class Taught:
    """Logits that can be told from the images."""

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        means = tf.reduce_mean(images, axis=(1, 2, 3))
        return tf.stack([means, -means, 2 * means], axis=1)


def test_images_without_labels_are_for_the_teacher_alone() -> None:
    """Their rows are in its term, and not in that of the labels."""
    backbone = keras.Sequential([keras.layers.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(5)])
    purpose = Purpose(find_task("classification"), ("a", "b", "c"), np.array([2, 2, 2]), Taught())
    recipe = FineTuned(backbone, purpose, FinetuneSettings(distillation=0.25, temperature=2.0), 1e-3)
    recipe.trained["student"].layers[-1].kernel.assign(np.random.default_rng(0).normal(size=(5, 3)))
    views = [np.random.default_rng(seed).normal(size=(4, 4, 4, 1)).astype(np.float32) for seed in (1, 2)]
    labels = np.array([0, 1, 2, 1], np.int32)
    outputs = [recipe.trained["student"](view).numpy().astype(np.float64) for view in views]
    taught = [Taught()(view).numpy().astype(np.float64) for view in views]

    def log_softmax(rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows - np.log(np.exp(rows).sum(axis=1, keepdims=True)))

    of_labels = -log_softmax(outputs[0])[np.arange(4), labels].mean()
    theirs, ours = log_softmax(np.concatenate(taught) / 2), log_softmax(np.concatenate(outputs) / 2)
    of_teacher = 4 * (np.exp(theirs) * (theirs - ours)).sum(axis=1).mean()
    batch = Batch(tuple(map(tf.constant, views)), None, tuple(map(Taught(), views)), {"labels": tf.constant(labels)})
    found = recipe.losses(batch, tf.constant(0.0)).losses
    assert float(found["distillation"]) == pytest.approx(of_teacher, rel=1e-5)
    assert float(found["loss"]) == pytest.approx(0.75 * of_labels + 0.25 * of_teacher, rel=1e-5)


@pytest.fixture(scope="module")
def fed() -> tuple[LabelledInputs, FineTuned]:
    """Labelled images whose pixels are below 20, others whose are 100 or more, and a recipe with a teacher."""

    def coloured(values: range) -> ImageSet:
        images = np.repeat(np.array(values, np.uint8), 64).reshape(-1, 8, 8, 1)
        ones, labels = np.ones(len(values), np.float32), np.zeros(len(values), np.int64)
        return ImageSet("", images, ones, labels, ("a", "b"))

    labelled, unlabelled = coloured(range(20)), coloured(range(100, 150))
    preprocessing, task = Preprocessing(8, 1, (0.0,), (1.0,)), find_task("classification")
    backbone = keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Flatten()])
    purpose = Purpose(task, labelled.class_names, np.array([20, 0]), Taught())
    recipe = FineTuned(backbone, purpose, FinetuneSettings(), 1e-3)
    return LabelledInputs(labelled, preprocessing, WEAK, task, unlabelled, 3), recipe


def test_a_batch_has_more_images_without_labels_and_an_epoch_goes_through_those(
    fed: tuple[LabelledInputs, FineTuned],
) -> None:
    (inputs, recipe), config = fed, TrainingConfig(batch_size=4)
    assert (len(inputs), inputs.total, inputs.per_row) == (16, 70, 4)
    batches = list(inputs.batches(recipe, config, 3, 9))
    assert len(batches) == 6
    for batch in batches:
        known, others = (255 * view.numpy() for view in batch.views)
        assert known.shape == (4, 8, 8, 1) and others.shape == (12, 8, 8, 1)
        assert known.max() < 20 and others.min() > 99 and others.max() < 151
        assert batch.targets is not None and batch.targets["labels"].shape == (4,)
    # A run that goes on sees what it would have seen.
    [again] = inputs.batches(recipe, config, 5, 6)
    for one, other in zip(again.views, batches[2].views, strict=True):
        np.testing.assert_array_equal(one, other)
    parts = list(split(again, 2))
    assert [[len(view) for view in part.views] for part in parts] == [[2, 6], [2, 6]]
    np.testing.assert_array_equal(parts[1].views[1], again.views[1][6:])


@pytest.mark.slow
def test_outputs_of_a_teacher_that_are_kept_come_with_their_views_again_and_again(
    fed: tuple[LabelledInputs, FineTuned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BSSL_TF_CACHE", str(tmp_path))
    (inputs, recipe), config = fed, TrainingConfig(batch_size=4)
    kept, _ = with_teacher_cache(inputs, recipe, config, 2, "a teacher")
    # Two epochs of four batches, each of 4 labelled images and 12 without labels.
    assert kept.teacher is not None and kept.teacher.shape == (8, 16, 3)
    first = list(inputs.batches(recipe, config, 0, 8))
    found = list(kept.batches(recipe, config, 3, 25))
    assert len(found) == 22
    for step, batch in enumerate(found, 3):
        for view, expected, outputs in zip(batch.views, first[step % 8].views, batch.teacher, strict=True):
            np.testing.assert_array_equal(view, expected)
            np.testing.assert_allclose(outputs, Taught()(view), rtol=1e-3)
        assert batch.targets is not None
        np.testing.assert_array_equal(batch.targets["labels"], first[step % 8].targets["labels"])  # type: ignore[index]
    shares = [list(kept.batches(recipe, config, 3, 25, (part, 2))) for part in range(2)]
    for whole, *parts in zip(found, *shares, strict=True):
        for number, outputs in enumerate(whole.teacher):
            np.testing.assert_array_equal(np.concatenate([part.teacher[number] for part in parts]), outputs)
    # Nothing of it is known of other images, nor of another share of them.
    assert len({one.fingerprint() for one in (inputs, replace(inputs, ratio=2), replace(inputs, unlabelled=None))}) == 3


def test_streamed_test_images_are_not_decoded_to_look_for_them(tmp_path: Path) -> None:
    for number in range(4):
        Image.fromarray(np.full((28, 28), number, np.uint8)).save(tmp_path / f"{number}.png")
    config = FinetuneConfig(data=DataConfig(image_size=28, channels=1), unlabelled=str(tmp_path))
    streamed: Any = SimpleNamespace(images=object())
    found = _unlabelled(config, [streamed, None])
    assert found is not None and len(found) == 4


@pytest.mark.slow
def test_images_without_labels_make_the_epoch_longer_and_can_move(
    tiny_student: Path, tiny_teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (160, 28, 28), np.uint8)):
        Image.fromarray(pixels).save(photos / f"{number}.png")
    # A test image among them is not learned from.
    test = load_data("embedded", image_size=28, limit=128).test
    assert test is not None
    Image.fromarray(test.images[5, :, :, 0]).save(photos / "0.png")
    wanted = settings(tiny_student, teacher=str(tiny_teacher), unlabelled=str(photos), unlabelled_ratio=1)
    finetune(wanted | {"training": TRAINING | {"epochs": 1}}, tmp_path / "run", resume=False)
    assert "left out 1 image that the network is tested on" in caplog.text
    assert "127 images without labels" in caplog.text
    moved = photos.rename(tmp_path / "moved")
    with pytest.raises(BsslError, match="photos"):
        finetune({"training": {"epochs": 2}}, tmp_path / "run", resume=True)
    finetune({"training": {"epochs": 2}, "unlabelled": str(moved)}, tmp_path / "run", resume=True)
    steps = [one["step"] for one in read_records(tmp_path / "run" / "metrics.jsonl") if "probe" not in one]
    # 127 of them.
    assert steps == [3, 6]
    assert read_json(tmp_path / "run" / "environment.json")["fingerprints"]["unlabelled"]


@pytest.mark.slow
def test_a_fine_tuned_run_is_fine_tuned_on(tuned: Path, tmp_path: Path) -> None:
    run = bt.Run(tuned, tuned / "student").finetune("embedded", out=tmp_path / "run", limit=64, epochs=1, threads=1)
    network, start = read_network(tuned / "student"), read_network(run.path / "start")
    one, other = network.build(), start.build()
    load_weights(tuned / "student", {"student": one})
    load_weights(run.path / "start", {"student": other})
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"student": ""}, "no network is named to start from. Give the run folder"),
        ({"student": "docs"}, "docs is not a run folder"),
        ({"student": "zoo:nothing"}, "the zoo has no 'nothing'"),
        ({"student": 3}, "student is 3, which is not a str"),
        ({"data": DATA | {"image_size": 32}}, "is for image_size 28, not 32. Omit data.image_size"),
        ({"backbone": {"width": 64}}, "has a width of its own"),
        ({"method": "moco"}, "method is 'moco'. Choose one of finetune"),
        ({"unlabelled": "photos"}, "unlabelled images are named, and no teacher.*Name one with --teacher"),
        ({"task": "telepathy"}, "no task is called 'telepathy'"),
        ({"training": TRAINING | {"probe_data": "embedded"}}, "training.probe_data is set, and fine-tuning validates"),
        ({"finetune": {"class_weights": "even"}}, "finetune.class_weights is 'even'"),
        ({"training": TRAINING | {"batch_size": 200}}, "fewer than one batch of 200. Pass --batch-size 107 or less"),
    ],
)
def test_a_wrong_setting_is_one_line_and_leaves_no_run(
    changed: dict[str, Any], message: str, tiny_student: Path, tmp_path: Path
) -> None:
    with pytest.raises(BsslError, match=message):
        finetune(settings(tiny_student) | changed, tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()


def test_pretrain_does_not_take_the_method(tmp_path: Path) -> None:
    with pytest.raises(BsslError, match=r"method is 'finetune'\. Choose one of bssl, byol, guided, moco, s2bnn"):
        bt.pretrain("embedded", out=tmp_path / "run", method="finetune")


def test_a_task_that_does_not_distil_refuses_a_teacher(
    tiny_student: Path, tiny_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bssl_tf.workflows.finetune.find_task", lambda name: HostSpot())
    wanted = settings(tiny_student, teacher=str(tiny_teacher))
    with pytest.raises(BsslError, match=r"the task brightest-place does not learn from a teacher\. Omit --teacher"):
        finetune(wanted, tmp_path / "run", resume=False)


@pytest.mark.slow
def test_the_workflow_takes_any_task(tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with two outputs, of which one comes from a feature map, and without classes."""
    for place in ("workflows.finetune", "tasks.fine_tuned"):
        monkeypatch.setattr(f"bssl_tf.{place}.find_task", lambda name: HostSpot())
    run, wanted = tmp_path / "run", settings(tiny_student, task="brightest-place")
    finetune(wanted | {"training": TRAINING | {"epochs": 3}}, run, resume=False)
    records = read_records(run / "metrics.jsonl")
    assert {one["metric"] for one in records if "probe" in one} == {"nearness"}
    losses = [one["loss"] for one in records if "probe" not in one]
    assert losses[-1] < losses[0]
    found = load_fine_tuned(run)
    assert found.task.outputs(found.model) == OUTPUTS
    names = {name for name in read_tensors(run / "head" / "weights.safetensors")[0] if name.endswith("kernel")}
    assert names == {"spot_conv/kernel", "spot_place/kernel", "spot_brightness/kernel"}
    with pytest.raises(BsslError, match="is fine-tuned for brightest-place, which is not measured by classification"):
        evaluate(run, {})


def test_a_damaged_head_is_one_line(tuned: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tuned, tmp_path / "run")
    (run / "head" / "head.json").write_text(edited({"task": "classification", "class_names": [1]}))
    with pytest.raises(RunFolderError, match=r"head\.json is damaged .* Restore it, or fine-tune again"):
        load_fine_tuned(run)
    names = load_fine_tuned(tuned).class_names
    (run / "head" / "head.json").write_text(edited({"task": "classification", "class_names": names[:-1]}))
    with pytest.raises(RunFolderError, match="head"):
        load_fine_tuned(run)


def test_held_out_images_are_a_share_of_every_class_and_the_same_for_a_seed() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), (30, 12, 2)).astype(np.int64)
    images = rng.integers(0, 255, (44, 8, 8, 1), np.uint8)
    labelled = ImageSet("x", images, np.ones(44, np.float32), labels, ("a", "b", "c"))
    task = find_task("classification")
    learned, kept = task.held_out(labelled, 5)
    assert np.bincount(kept.labels).tolist() == [5, 2, 1] and np.bincount(learned.labels).tolist() == [25, 10, 1]
    both = {image.tobytes() for part in (learned, kept) for image in part.images}
    assert both == {image.tobytes() for image in images} and len(both) == 44
    again, other = task.held_out(labelled, 5)[1], task.held_out(labelled, 6)[1]
    np.testing.assert_array_equal(kept.images, again.images)
    assert np.any(kept.images != other.images)
