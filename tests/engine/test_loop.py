"""The loop: what a stage takes over, what a cut changes (nothing), what stops a run, what a step does."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssl_tf.backend import keras, tf
from bssl_tf.checkpoints import read_tensors
from bssl_tf.data.load import load_data
from bssl_tf.data.views import Batch
from bssl_tf.engine.inputs import Inputs
from bssl_tf.engine.loop import train
from bssl_tf.engine.not_finite import first_not_finite
from bssl_tf.engine.run_folder import RunFolder
from bssl_tf.engine.stages import Plan, Stage, progressive_binarization
from bssl_tf.engine.teacher_cache import with_teacher_cache
from bssl_tf.errors import TrainingError
from bssl_tf.files import read_records
from bssl_tf.methods.bssl import Bssl, BsslConfig
from bssl_tf.methods.recipe import Outcome, Recipe
from bssl_tf.methods.s2bnn import S2bnn, S2bnnConfig
from bssl_tf.methods.supervised import Supervised
from bssl_tf.models.binarization import binarize, named_weights
from bssl_tf.models.binary_resnet import binary_resnet
from bssl_tf.models.precision import in_precision
from bssl_tf.settings import TrainingConfig
from bssl_tf.teachers.teacher import Teacher
from tests.methods.recipes import BATCH, fed, recipe, run_folder


def test_stage_two_begins_with_the_weights_of_stage_one(teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    """With a learning rate of zero the second stage must end with what the first one ended with."""
    built: list[Recipe] = []

    def build(stage: Stage) -> Recipe:
        built.append(recipe("bssl", teacher)(stage))
        if stage.binary_weights:
            for model in built[-1].trained.values():
                model.set_weights([0 * w + 7 for w in model.get_weights()])
        return built[-1]

    config = TrainingConfig(epochs=1, batch_size=BATCH, learning_rate=1e-9)
    train(run_folder(tmp_path / "run"), progressive_binarization(1), build, inputs, config)
    first, second = built
    assert list(first.trained) == ["student", "head", "teacher_classifier"]
    for name in first.trained:
        for a, b in zip(first.trained[name].trainable_variables, second.trained[name].trainable_variables, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_stage_two_takes_over_the_momentum_encoder(teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    """With a learning rate of nearly zero and momentum, what stage one ended with is what stage two goes on from."""
    built: list[Recipe] = []

    def build(stage: Stage) -> Recipe:
        built.append(recipe("moco", teacher)(stage))
        if stage.binary_weights:
            for model in built[-1].companions.values():
                model.set_weights([0 * w + 7 for w in model.get_weights()])
        return built[-1]

    config = TrainingConfig(epochs=1, batch_size=BATCH, learning_rate=1e-9)
    train(run_folder(tmp_path / "run"), progressive_binarization(1), build, inputs, config)
    first, second = built
    for a, b in zip(
        first.companions["key_student"].trainable_variables,
        second.companions["key_student"].trainable_variables,
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_stage_two_takes_over_the_queue(teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    built: list[Recipe] = []
    config = TrainingConfig(epochs=1, batch_size=BATCH, learning_rate=1e-9)
    few = dataclasses.replace(inputs, images=load_data("embedded", image_size=28, limit=BATCH).train)

    def build(stage: Stage) -> Recipe:
        built.append(recipe("moco", teacher)(stage))
        return built[-1]

    train(run_folder(tmp_path / "run"), progressive_binarization(1), build, few, config)
    first, second = (method.state["queue"].numpy() for method in built)
    # One batch a stage into a queue of two: the second stage overwrites the half that the first one left.
    np.testing.assert_array_equal(second[:BATCH], first[:BATCH])
    assert np.abs(second[BATCH:] - first[BATCH:]).max() > 0.01


@pytest.mark.parametrize(("name", "same"), [("bssl", True), ("bssl frozen", True), ("bssl fresh", False)])
def test_stage_two_goes_on_with_the_classifier_only_in_modified_multi_stage_training(
    name: str, same: bool, teacher: Teacher, inputs: Inputs, tmp_path: Path
) -> None:
    built: list[Recipe] = []
    begun: list[np.ndarray] = []

    def kernel(method: Recipe) -> np.ndarray:
        models = method.trained | method.companions
        weights: np.ndarray = models["teacher_classifier"].get_weights()[0]
        return weights

    def build(stage: Stage) -> Recipe:
        method = recipe(name, teacher)(stage)
        if stage.binary_weights:
            models = method.trained | method.companions
            models["teacher_classifier"].set_weights([-w for w in models["teacher_classifier"].get_weights()])
        built.append(method)
        begun.append(kernel(method))
        return method

    config = TrainingConfig(epochs=1, batch_size=BATCH, learning_rate=1e-9)
    train(run_folder(tmp_path / "run"), progressive_binarization(1), build, inputs, config)
    ended = kernel(built[1])
    np.testing.assert_allclose(ended, kernel(built[0]) if same else begun[1], atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        *("moco", "guided"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("byol", "swav", "supervised", "bssl frozen", "contrastive s2bnn")
        ),
    ],
)
def test_a_run_that_was_cut_ends_bit_for_bit_like_one_that_was_not(
    name: str, teacher: Teacher, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut after the first checkpoint, on the border of the stages, and in the second stage."""
    tf.config.experimental.enable_op_determinism()
    few = dataclasses.replace(fed(inputs, name), images=load_data("embedded", image_size=28, limit=64).train)
    config, stages, build = (
        TrainingConfig(epochs=2, batch_size=BATCH),
        progressive_binarization(2),
        recipe(name, teacher),
    )
    whole = train(run_folder(tmp_path / "whole"), stages, build, few, config)
    save, left = RunFolder.save_checkpoint, 0

    def save_and_die(self: RunFolder, *arguments: object) -> None:
        nonlocal left
        save(self, *arguments)  # type: ignore[arg-type]
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "save_checkpoint", save_and_die)
    for cut in (1, 2, 3):
        left = cut
        with pytest.raises(KeyboardInterrupt):
            train(run_folder(tmp_path / f"cut {cut}"), stages, build, few, config)
        resumed = train(RunFolder(tmp_path / f"cut {cut}"), stages, build, few, config)
        for models in ("trained", "companions"):
            for part, model in getattr(whole, models).items():
                for a, b in zip(model.weights, getattr(resumed, models)[part].weights, strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=f"cut {cut}: {part} {a.name}")
        for key, variable in whole.state.items():
            np.testing.assert_array_equal(variable, resumed.state[key], err_msg=f"cut {cut}: {key}")


def test_a_run_that_was_made_longer_repeats_its_first_part_by_the_schedule_of_then(
    inputs: Inputs, teacher: Teacher, tmp_path: Path
) -> None:
    """Also where the checkpoint from which it was made longer is lost."""
    tf.config.experimental.enable_op_determinism()
    few = dataclasses.replace(inputs, images=load_data("embedded", image_size=28, limit=64).train)
    short, long = TrainingConfig(epochs=2, batch_size=BATCH), TrainingConfig(epochs=4, batch_size=BATCH)
    plans = [Plan(0, (Stage("only", True, 2),)), Plan(4, (Stage("only", True, 4),))]
    build = recipe("s2bnn", teacher)
    run, lost = run_folder(tmp_path / "run"), RunFolder(tmp_path / "lost")
    train(run, plans[0].stages, build, few, short)
    shutil.copytree(run.path, lost.path)
    lost.checkpoints()[-1].unlink()
    for one in (run, lost):
        train(one, plans[1].stages, build, few, long, plans=plans)
    (expected, _), (found, _) = (read_tensors(one.checkpoints()[-1]) for one in (run, lost))
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
    # Of the last step in each epoch of two: as planned for two epochs, then as for four.
    rates = [record["learning_rate"] / long.learning_rate for record in read_records(lost.metrics_path)]
    assert rates == pytest.approx([3 / 4, 1 / 4, 3 / 8, 1 / 8])


class Scripted:
    """A probe that measures what it is told."""

    part, every = "student", 1

    keeps_best = False

    def __init__(self, *accuracies: float | None) -> None:
        self.accuracies = list(accuracies)

    def measure(self, network: keras.Model) -> dict[str, Any]:
        return {"probe": "knn-20", "top1": self.accuracies.pop(0)}


def test_a_run_ends_when_its_patience_does_and_goes_no_further_when_resumed(
    inputs: Inputs, teacher: Teacher, tmp_path: Path
) -> None:
    tf.config.experimental.enable_op_determinism()
    few = dataclasses.replace(inputs, images=load_data("embedded", image_size=28, limit=32).train)
    config = TrainingConfig(epochs=5, batch_size=BATCH, patience=2)
    stages, build, run = [Stage("only", True, 5)], recipe("s2bnn", teacher), run_folder(tmp_path / "run")

    def steps(folder: RunFolder, *accuracies: float | None, plans: Sequence[Plan] = ()) -> int:
        probe: Any = Scripted(*accuracies)
        train(folder, plans[-1].stages if plans else stages, build, few, config, probe, plans=plans)
        assert probe.accuracies == []
        return folder.newest_step()

    assert steps(run, 10.0, 30.0, None, 30.0) == 4
    lost, longer = RunFolder(tmp_path / "lost"), RunFolder(tmp_path / "longer")
    for copy in (lost, longer):
        shutil.copytree(run.path, copy.path)
    assert steps(run) == 4
    lost.checkpoints()[-1].unlink()
    assert steps(lost, 30.0) == 4
    (expected, _), (found, _) = (read_tensors(one.checkpoints()[-1]) for one in (run, lost))
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
    # Made longer, it is patient anew.
    plans = [Plan(0, tuple(stages)), Plan(4, (Stage("only", True, 8),))]
    assert steps(longer, 1.0, 2.0, 1.0, 1.0, plans=plans) == 8


class Keeping(Scripted):
    """It also wants the best weights kept."""

    keeps_best = True


def test_the_best_weights_are_kept_whatever_happens_to_a_checkpoint(
    inputs: Inputs, teacher: Teacher, tmp_path: Path
) -> None:
    tf.config.experimental.enable_op_determinism()
    few = dataclasses.replace(inputs, images=load_data("embedded", image_size=28, limit=32).train)
    config, stages = TrainingConfig(epochs=4, batch_size=BATCH), [Stage("only", True, 4)]

    def trained(folder: RunFolder, *scores: float | None) -> tuple[int, dict[str, np.ndarray]]:
        probe: Any = Keeping(*scores)
        train(folder, stages, recipe("s2bnn", teacher), few, config, probe)
        assert probe.accuracies == []
        best = folder.best()
        assert best is not None
        return best

    run = run_folder(tmp_path / "run")
    step, weights = trained(run, 10.0, 30.0, None, 30.0)
    # Of equal ones the first.
    assert step == 2 and weights.keys() == {name for name in weights if name.startswith(("student/", "head/"))}
    # The newest checkpoint, and the best at its step, are of a time that is trained again.
    late = RunFolder(tmp_path / "late")
    assert trained(run_folder(late.path), 10.0, 30.0, 20.0, 40.0)[0] == 4
    late.checkpoints()[-1].unlink()
    step, found = trained(late, 20.0)
    assert step == 2
    for name, tensor in weights.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_the_scale_of_losses_continues_where_a_run_was_cut(
    inputs: Inputs, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tf.config.experimental.enable_op_determinism()
    few = dataclasses.replace(inputs, images=load_data("embedded", image_size=28, limit=64).train, labels=True)
    config = TrainingConfig(epochs=2, batch_size=BATCH, precision="float16")
    stages = [Stage("only", True, 2)]

    def build(stage: Stage) -> Recipe:
        keras.utils.set_random_seed(0)
        return Supervised(in_precision(binary_resnet(28, 1, depth=1), "float16"), 10)

    whole, cut = run_folder(tmp_path / "whole"), run_folder(tmp_path / "cut")
    train(whole, stages, build, few, config)
    first = whole.checkpoints()[0]
    (cut.path / "checkpoints").mkdir()
    shutil.copy(first, cut.path / "checkpoints")
    train(cut, stages, build, few, config)
    (expected, _), (found, _) = (read_tensors(run.checkpoints()[-1]) for run in (whole, cut))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
    counts = [int(tensor) for tensor in found.values() if tensor.dtype == np.int64 and not tensor.shape]
    assert counts == [4, 4], "Adam's steps, and those since the scale changed"


class Spoilt(S2bnn):
    """Goes wrong after `finite_steps`, in its loss or in a weight of the head (a student's signs would hide it)."""

    finite_steps = 2
    spoil = "loss"

    def __init__(self, teacher: Teacher) -> None:
        super().__init__(binary_resnet(28, 1, depth=1), teacher, S2bnnConfig())
        self.state["count"] = tf.Variable(0.0)

    def losses(self, batch: Batch, scheduled: tf.Tensor) -> Outcome:
        factor = tf.where(self.state["count"] >= self.finite_steps, float("nan"), 1.0)
        losses = super().losses(batch, scheduled).losses
        return Outcome({name: value * factor for name, value in losses.items()} if self.spoil == "loss" else losses)

    def after_step(self, updates: Mapping[str, tf.Tensor], scheduled: tf.Tensor) -> None:
        self.state["count"].assign_add(1.0)
        if self.spoil == "weights":
            kernel = self.trained["head"].trainable_variables[-1]
            kernel.assign(tf.where(self.state["count"] >= self.finite_steps, float("nan"), 1.0) * kernel)


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        ("loss", "weights and features are finite, and its part loss is not"),
        ("weights", "the first tensor that is not finite is the variable head/"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    spoil: str, cause: str, teacher: Teacher, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spoilt, "spoil", spoil)
    built: list[Spoilt] = []

    def build(stage: Stage) -> Recipe:
        built.append(Spoilt(teacher))
        return built[-1]

    run = run_folder(tmp_path / "run")
    # A checkpoint after each step.
    config = TrainingConfig(epochs=1, batch_size=BATCH, checkpoint_every_s=1e-9)
    with pytest.raises(TrainingError, match=r"is not finite|the loss is nan at step 3") as caught:
        train(run, [Stage("only", True, 1)], build, inputs, config)
    newest = run.latest_checkpoint()
    assert newest is not None
    if spoil == "loss":
        assert cause in str(caught.value)
        assert newest.step == 2
    else:
        # What the second step spoilt is found before it is written over the first.
        name = built[0].trained["head"].trainable_variables[-1].name.removesuffix(":0")
        assert f"head/{name} is not finite after step 2" in str(caught.value)
        assert newest.step == 1
    assert all(np.isfinite(tensor).all() for tensor in newest.tensors.values())


def test_the_first_tensor_that_went_bad_is_named(
    teacher: Teacher, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a checkpoint in between, the loss is the first to show it."""
    monkeypatch.setattr(Spoilt, "spoil", "weights")
    built: list[Spoilt] = []

    def build(stage: Stage) -> Recipe:
        built.append(Spoilt(teacher))
        return built[-1]

    with pytest.raises(TrainingError) as caught:
        config = TrainingConfig(epochs=1, batch_size=BATCH)
        train(run_folder(tmp_path / "run"), [Stage("only", True, 1)], build, inputs, config)
    name = built[0].trained["head"].trainable_variables[-1].name.removesuffix(":0")
    assert f"the loss is nan at step 3: the first tensor that is not finite is the variable head/{name}." in str(
        caught.value
    )


def test_the_first_layer_that_went_bad_is_named(teacher: Teacher, inputs: Inputs) -> None:
    """Of weights whose product alone is beyond float32."""
    method = Spoilt(teacher)
    student = method.trained["student"]
    stem = next(layer for layer in student.layers if isinstance(layer, keras.layers.Conv2D))
    stem.set_weights([np.full_like(stem.get_weights()[0], 3e38)])
    batch = Batch((tf.fill((2, 28, 28, 1), 100.0),) * method.views)
    named = {f"student/{name}": variable for name, variable in named_weights(student).items()}
    said = first_not_finite(method, named, batch, {"loss": float("nan")})
    assert said == f"the first tensor that is not finite is the output of layer student/{stem.name}"


def test_a_collapsed_target_stops_the_run(teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    def build(stage: Stage) -> Recipe:
        method = recipe("bssl", teacher)(stage)
        # A last layer of zeros says the same of every image, and a learning rate of nearly zero leaves it so.
        last = [w for w in method.trained["teacher_classifier"].layers if w.weights][-1]
        last.set_weights([0 * w for w in last.get_weights()])
        return method

    config = TrainingConfig(epochs=1, batch_size=BATCH, learning_rate=1e-9)
    with pytest.raises(TrainingError, match=r"has collapsed.*Restart with"):
        train(run_folder(tmp_path / "run"), [Stage("only", True, 1)], build, inputs, config)
    # What was learned until then is on disk, the record that shows the collapse too.
    assert read_records(tmp_path / "run" / "metrics.jsonl")[-1]["target_information"] < 0.01


def test_sgd_and_weight_decay_do_what_their_formula_says(teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    """One step of plain descent: w - rate * (gradient + decay * w); a huge decay drowns the gradient."""
    built: list[Recipe] = []
    begun: list[np.ndarray] = []

    def build(stage: Stage) -> Recipe:
        built.append(recipe("s2bnn", teacher)(stage))
        begun.extend(built[-1].trained["head"].get_weights())
        return built[-1]

    few = dataclasses.replace(inputs, images=load_data("embedded", image_size=28, limit=BATCH).train)
    config = TrainingConfig(epochs=1, batch_size=BATCH, optimizer="sgd", learning_rate=1e-6, weight_decay=1e5)
    train(run_folder(tmp_path / "run"), [Stage("only", False, 1)], build, few, config)
    for before, after in zip(begun, built[0].trained["head"].get_weights(), strict=True):
        np.testing.assert_allclose(after, 0.9 * before, atol=1e-4)


def test_a_slow_classifier_takes_steps_of_that_share(teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    """After one step of Adam every weight has moved by the learning rate, and the slow ones by their share of it."""
    few = dataclasses.replace(inputs, images=load_data("embedded", image_size=28, limit=BATCH).train)
    moved = {}
    for rate in (1.0, 0.25):
        built: list[Recipe] = []
        begun: dict[str, np.ndarray] = {}

        def build(
            stage: Stage, rate: float = rate, built: list[Recipe] = built, begun: dict[str, np.ndarray] = begun
        ) -> Recipe:
            keras.utils.set_random_seed(0)
            student = binarize(binary_resnet(28, 1, depth=1), weights=False)
            config = BsslConfig(hidden_width=32, output_width=32, classifier_rate=rate)
            built.append(Bssl(student, teacher, config))
            begun.update({name: model.get_weights()[0] for name, model in built[0].trained.items()})
            return built[0]

        config = TrainingConfig(epochs=1, batch_size=BATCH, learning_rate=1e-3)
        train(run_folder(tmp_path / str(rate)), [Stage("only", False, 1)], build, few, config)
        moved[rate] = {
            name: float(np.median(np.abs(model.get_weights()[0] - begun[name])))
            for name, model in built[0].trained.items()
        }
    assert moved[1.0]["head"] == pytest.approx(moved[0.25]["head"], rel=1e-3) == pytest.approx(1e-3, rel=0.05)
    assert moved[0.25]["teacher_classifier"] == pytest.approx(moved[1.0]["teacher_classifier"] / 4, rel=1e-3)


def test_a_kept_teacher_gives_the_run_that_a_present_one_gives(
    teacher: Teacher, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bssl_tf.engine.teacher_cache")
    monkeypatch.setenv("BSSL_TF_CACHE", str(tmp_path / "cache"))
    config = TrainingConfig(epochs=3, batch_size=BATCH, learning_rate=1e-3)
    stage, build = Stage("only", False, 3), recipe("bssl", teacher)
    kept, seconds = with_teacher_cache(inputs, build(stage), config, 2, teacher.fingerprint())
    again, less = with_teacher_cache(inputs, build(stage), config, 2, teacher.fingerprint())
    assert 0 <= less < seconds
    assert len(caplog.records) == 1, "the second run reads what the first one wrote"
    assert kept.teacher is not None and again.teacher is not None and kept.teacher.dtype == np.float16
    for name, given in (("kept", kept), ("present", dataclasses.replace(kept, teacher=None))):
        train(run_folder(tmp_path / name), [stage], build, given, config)
    one, other = (read_records(tmp_path / name / "metrics.jsonl") for name in ("kept", "present"))
    # float16 keeps three digits of each output; from the first step on a flipped sign makes the runs drift apart.
    assert [r["loss"] for r in one] == pytest.approx([r["loss"] for r in other], rel=1e-2)
    with_teacher_cache(inputs, build(stage), config, 2, "another teacher")
    assert len(caplog.records) == 2
