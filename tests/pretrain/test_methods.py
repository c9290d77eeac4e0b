"""Each recipe: what it trains, what it leaves alone, and that its loss falls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bssl_tf.backend import keras, tf
from bssl_tf.config import BsslConfig, MocoConfig, PretrainConfig, S2bnnConfig, TrainingConfig
from bssl_tf.data.augmentation import LITE
from bssl_tf.data.load import load_data
from bssl_tf.data.preprocessing import Preprocessing
from bssl_tf.errors import ConfigError, TrainingError
from bssl_tf.files import read_records
from bssl_tf.models.binarization import binarize
from bssl_tf.models.binary_resnet import binary_resnet
from bssl_tf.models.float_resnet import float_resnet
from bssl_tf.models.heads import mlp_head
from bssl_tf.pretrain.bssl import Bssl
from bssl_tf.pretrain.loop import Inputs, train
from bssl_tf.pretrain.method import Method
from bssl_tf.pretrain.moco import Moco
from bssl_tf.pretrain.run_folder import RunFolder
from bssl_tf.pretrain.s2bnn import S2bnn
from bssl_tf.pretrain.stages import Stage, progressive_binarization
from bssl_tf.teachers.teacher import Teacher

BATCH = 32


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    data = load_data("embedded", image_size=28, limit=256)
    return Inputs(data.train, Preprocessing.fit(data.train, 28), LITE)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    keras.utils.set_random_seed(1)
    backbone = float_resnet(28, 1, width=8)
    return Teacher("a random one", backbone, mlp_head("head", 32, (16,), use_batch_norm=False), None)


Build = Callable[[Stage], Method]


def recipe(name: str, teacher: Teacher) -> Build:
    def build(stage: Stage) -> Method:
        keras.utils.set_random_seed(0)
        if name == "moco":
            config = MocoConfig(16, temperature=0.1, momentum=0.9, queue_size=64, head_batch_norm=True)
            return Moco(float_resnet(28, 1, width=8), config, batch_size=BATCH, seed=0)
        student = binarize(binary_resnet(28, 1, depth=1), weights=stage.binary_weights)
        if name == "s2bnn":
            return S2bnn(student, teacher, S2bnnConfig())
        return Bssl(student, teacher, BsslConfig(hidden_width=32, output_width=32))

    return build


def run_folder(path: Path) -> RunFolder:
    return RunFolder.create(path, TrainingConfig(), {})


@pytest.mark.parametrize("name", ["moco", "s2bnn", "bssl"])
def test_the_loss_falls(name: str, teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    epochs = 12 if name == "moco" else 6
    config = TrainingConfig(epochs=epochs, batch_size=BATCH, learning_rate=3e-3, warmup_epochs=1, schedule="cosine")
    stage = Stage("only", False, config.epochs)
    train(run_folder(tmp_path / "run"), [stage], recipe(name, teacher), inputs, config)
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert [record["epoch"] for record in records] == list(range(1, epochs + 1))
    part = "gap_to_teacher" if name == "s2bnn" else "loss"
    # MoCo's queue begins with noise, which is easy to tell apart: its loss is judged from the third epoch on.
    first = records[2 if name == "moco" else 0][part]
    assert records[-1][part] < (0.97 if name == "moco" else 0.8) * first


def test_stage_two_begins_with_the_weights_of_stage_one(teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    """With a learning rate of zero the second stage must end with what the first one ended with."""
    built: list[Method] = []

    def build(stage: Stage) -> Method:
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


def test_s2bnn_and_bssl_leave_the_teacher_alone(teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    before = [w.copy() for w in teacher.backbone.get_weights()]
    for name in ("s2bnn", "bssl"):
        config = TrainingConfig(epochs=1, batch_size=BATCH)
        train(run_folder(tmp_path / name), progressive_binarization(1), recipe(name, teacher), inputs, config)
    for a, b in zip(before, teacher.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bssl_trains_the_teachers_classifier(teacher: Teacher, rng: np.random.Generator) -> None:
    method = recipe("bssl", teacher)(Stage("only", True, 1))
    views = [tf.constant(rng.standard_normal((BATCH, 28, 28, 1)), tf.float32) for _ in range(2)]
    with tf.GradientTape() as tape:
        losses = method.losses(views, tf.constant(0.0))
    gradients = tape.gradient(losses["loss"], method.trained["teacher_classifier"].trainable_variables)
    assert all(float(tf.norm(g)) > 0 for g in gradients if g.shape.rank == 2)


def test_bssl_is_symmetric_in_its_views_and_balances_as_told(teacher: Teacher, rng: np.random.Generator) -> None:
    method = recipe("bssl", teacher)(Stage("only", True, 1))
    a, b = (tf.constant(rng.standard_normal((BATCH, 28, 28, 1)), tf.float32) for _ in range(2))
    one, other = method.losses([a, b], tf.constant(0.0)), method.losses([b, a], tf.constant(0.0))
    assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-4)
    for progress, balance in ((0.0, 0.1), (0.5, 0.2), (1.0, 0.3)):
        losses = method.losses([a, b], tf.constant(method.balance(progress)))
        assert float(losses["balance"]) == pytest.approx(balance, abs=1e-6)
        expected = (1 - balance) * float(losses["feature_similarity"]) + balance * float(losses["kl"])
        assert float(losses["loss"]) == pytest.approx(expected, rel=1e-5)


def test_moco_queue_is_first_in_first_out_and_momentum_averages(rng: np.random.Generator) -> None:
    method = recipe("moco", None)(Stage("only", False, 1))  # type: ignore[arg-type]
    before = method.state["queue"].numpy()
    weight, key_weight = (
        method.trained["teacher"].trainable_variables[0],
        method.companions["key_teacher"].trainable_variables[0],
    )
    weight.assign_add(tf.ones_like(weight))
    expected = 0.9 * key_weight.numpy() + 0.1 * weight.numpy()
    keys = []
    for step in range(3):
        views = [tf.constant(rng.standard_normal((BATCH, 28, 28, 1)), tf.float32) for _ in range(2)]
        method.losses(views, tf.constant(0.0))
        keys.append(method.state["keys"].numpy())
        method.after_step()
        queue = method.state["queue"].numpy()
        if step == 0:
            np.testing.assert_allclose(key_weight, expected, rtol=1e-5)
            np.testing.assert_array_equal(queue, np.concatenate([keys[0], before[BATCH:]]))
    # The queue holds two batches: the third has replaced the first.
    np.testing.assert_array_equal(queue, np.concatenate([keys[2], keys[1]]))


def test_moco_refuses_a_queue_that_is_no_whole_number_of_batches() -> None:
    with pytest.raises(ConfigError, match=r"Try --set moco\.queue_size=96"):
        Moco(float_resnet(28, 1, width=8), MocoConfig(16, queue_size=100), batch_size=BATCH, seed=0)


def test_a_loss_that_is_not_finite_stops_the_run(teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    class Broken(S2bnn):
        def losses(self, views: object, balance: object) -> dict[str, tf.Tensor]:
            losses = super().losses(views, balance)  # type: ignore[arg-type]
            return {name: value * float("nan") for name, value in losses.items()}

    def build(stage: Stage) -> Method:
        return Broken(binary_resnet(28, 1, depth=1), teacher, S2bnnConfig())

    config = TrainingConfig(epochs=1, batch_size=BATCH)
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        train(run_folder(tmp_path / "run"), [Stage("only", True, 1)], build, inputs, config)


def test_every_setting_of_the_recipes_has_a_default_from_its_paper() -> None:
    assert dataclasses.asdict(BsslConfig()) == {
        "temperature": 0.2,
        "hidden_width": 2000,
        "output_width": 2000,
        "balance_start": 0.1,
        "balance_end": 0.3,
    }
    assert S2bnnConfig().temperature == MocoConfig().temperature == 0.2
    assert (TrainingConfig().schedule, TrainingConfig().learning_rate, TrainingConfig().epochs) == ("linear", 3e-4, 200)
    assert (MocoConfig().queue_size, MocoConfig().momentum, MocoConfig().embedding_width) == (65536, 0.999, 128)


@pytest.mark.parametrize(
    ("settings", "schedule", "warmup"),
    [
        ({"method": "bssl"}, "cosine", 10),
        ({"method": "bssl", "training": {"epochs": 20}}, "cosine", 1),
        ({"method": "bssl", "training": {"schedule": "linear"}}, "linear", 0),
        ({"method": "bssl", "training": {"warmup_epochs": 3.0}}, "cosine", 3),
        ({"method": "s2bnn"}, "linear", 0),
        ({}, "linear", 0),
    ],
)
def test_each_method_has_its_papers_schedule(
    settings: dict[str, object], schedule: str, warmup: float, tmp_path: Path
) -> None:
    from bssl_tf.pretrain.commands import settled

    config = settled(PretrainConfig, settings)
    assert (config.training.schedule, config.training.warmup_epochs) == (schedule, warmup)
