"""Each recipe: what it trains, what it leaves alone, and that its loss falls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bssl_tf.backend import keras, tf
from bssl_tf.data.augmentation import LITE
from bssl_tf.data.load import load_data
from bssl_tf.data.preprocessing import fit_preprocessing
from bssl_tf.data.views import Batch
from bssl_tf.engine.loop import Inputs, train
from bssl_tf.engine.run_folder import RunFolder
from bssl_tf.engine.stages import STAGES, Stage, progressive_binarization
from bssl_tf.engine.teacher_cache import with_teacher_cache
from bssl_tf.errors import BsslError, ConfigError, TrainingError
from bssl_tf.files import read_records
from bssl_tf.methods.bssl import Bssl, target_statistics
from bssl_tf.methods.byol import Byol
from bssl_tf.methods.method import Method
from bssl_tf.methods.moco import Moco
from bssl_tf.methods.s2bnn import ContrastiveS2bnn, S2bnn
from bssl_tf.methods.supervised import Supervised
from bssl_tf.methods.swav import Swav
from bssl_tf.models.binarization import binarize
from bssl_tf.models.binary_resnet import binary_resnet
from bssl_tf.models.float_resnet import float_resnet
from bssl_tf.models.heads import mlp_head
from bssl_tf.settings import (
    BsslConfig,
    ByolConfig,
    MocoConfig,
    PretrainConfig,
    S2bnnConfig,
    SwavConfig,
    TrainingConfig,
)
from bssl_tf.teachers.teacher import Teacher

BATCH = 32


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    data = load_data("embedded", image_size=28, limit=256)
    return Inputs(data.train, fit_preprocessing(data.train, 28), LITE)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    keras.utils.set_random_seed(1)
    backbone = float_resnet(28, 1, width=8)
    return Teacher("a random one", backbone, mlp_head("head", 32, (16,), use_batch_norm=False), None)


Build = Callable[[Stage], Method]


def recipe(name: str, teacher: Teacher) -> Build:
    def build(stage: Stage) -> Method:
        keras.utils.set_random_seed(0)
        moco = MocoConfig(16, temperature=0.1, momentum=0.9, queue_size=64, head_batch_norm=True)
        if name == "moco teacher":
            return Moco(float_resnet(28, 1, width=8), moco, part="teacher", batch_size=BATCH, seed=0)
        if name == "byol teacher":
            return Byol(float_resnet(28, 1, width=8), ByolConfig(32, 16, momentum=0.9), part="teacher")
        student = binarize(binary_resnet(28, 1, depth=1), weights=stage.binary_weights)
        small = BsslConfig(hidden_width=32, output_width=32)
        recipes: dict[str, Callable[[], Method]] = {
            "moco": lambda: Moco(student, moco, part="student", batch_size=BATCH, seed=0),
            "byol": lambda: Byol(student, ByolConfig(32, 16, momentum=0.9), part="student"),
            "swav": lambda: Swav(student, SwavConfig(32, 16, prototypes=12), frozen_share=0.25),
            "supervised": lambda: Supervised(student, 10),
            "s2bnn": lambda: S2bnn(student, teacher, S2bnnConfig()),
            "contrastive s2bnn": lambda: ContrastiveS2bnn(
                student, teacher, S2bnnConfig(contrastive=True), moco, batch_size=BATCH, seed=0
            ),
            "bssl": lambda: Bssl(student, teacher, small),
            "bssl frozen": lambda: Bssl(student, teacher, dataclasses.replace(small, classifier="frozen")),
            "bssl features": lambda: Bssl(student, teacher, dataclasses.replace(small, feature_similarity="features")),
            "bssl kl only": lambda: Bssl(student, teacher, dataclasses.replace(small, feature_similarity="off")),
            "bssl fresh": lambda: Bssl(student, teacher, dataclasses.replace(small, carry_classifier=False)),
        }
        return recipes[name]()

    return build


def seen(method: Method, *views: tf.Tensor) -> Batch:
    """A batch as the loop makes it."""
    assert method.teacher_outputs is None or callable(method.teacher_outputs)
    said = () if method.teacher_outputs is None else tuple(method.teacher_outputs(view) for view in views)
    return Batch(views, None, said)


def noise(rng: np.random.Generator, count: int = 2) -> list[tf.Tensor]:
    return [tf.constant(rng.standard_normal((BATCH, 28, 28, 1)), tf.float32) for _ in range(count)]


def run_folder(path: Path) -> RunFolder:
    return RunFolder.create(path, TrainingConfig(), {})


# What falls, and how far in a dozen epochs of eight steps. MoCo's queue begins with noise, which is easy to tell apart,
# and BYOL's target moves: those are judged from the third epoch on.
FALLING = {
    "moco teacher": ("loss", 0.97, 2),
    "byol teacher": ("loss", 0.9, 2),
    "moco": ("loss", 0.99, 2),
    "byol": ("loss", 0.9, 0),
    "swav": ("loss", 0.995, 0),
    "supervised": ("loss", 0.8, 0),
    "s2bnn": ("gap_to_teacher", 0.8, 0),
    "contrastive s2bnn": ("gap_to_teacher", 0.8, 0),
    "bssl": ("loss", 0.8, 0),
    "bssl frozen": ("loss", 0.8, 0),
    "bssl features": ("feature_similarity", 0.8, 0),
    "bssl kl only": ("loss", 0.8, 0),
}


@pytest.mark.parametrize("name", FALLING)
def test_the_loss_falls(name: str, teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    part, factor, first = FALLING[name]
    epochs = 12 if first else 6
    config = TrainingConfig(epochs=epochs, batch_size=BATCH, learning_rate=3e-3, warmup_epochs=1, schedule="cosine")
    stage = Stage("only", False, config.epochs)
    train(run_folder(tmp_path / "run"), [stage], recipe(name, teacher), inputs, config)
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert [record["epoch"] for record in records] == list(range(1, epochs + 1))
    assert records[-1][part] < factor * records[first][part]


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
        losses = method.losses(seen(method, *views), tf.constant(0.0))
    gradients = tape.gradient(losses["loss"], method.trained["teacher_classifier"].trainable_variables)
    assert all(float(tf.norm(g)) > 0 for g in gradients if g.shape.rank == 2)


def test_bssl_is_symmetric_in_its_views_and_balances_as_told(teacher: Teacher, rng: np.random.Generator) -> None:
    method = recipe("bssl", teacher)(Stage("only", True, 1))
    a, b = (tf.constant(rng.standard_normal((BATCH, 28, 28, 1)), tf.float32) for _ in range(2))
    one, other = (method.losses(seen(method, *views), tf.constant(0.0)) for views in ((a, b), (b, a)))
    assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-4)
    for progress, balance in ((0.0, 0.1), (0.5, 0.2), (1.0, 0.3)):
        losses = method.losses(seen(method, a, b), tf.constant(method.scheduled(progress)))
        assert float(losses["balance"]) == pytest.approx(balance, abs=1e-6)
        expected = (1 - balance) * float(losses["feature_similarity"]) + balance * float(losses["kl"])
        assert float(losses["loss"]) == pytest.approx(expected, rel=1e-5)


def test_moco_queue_is_first_in_first_out_and_momentum_averages(rng: np.random.Generator) -> None:
    method = recipe("moco teacher", None)(Stage("only", False, 1))  # type: ignore[arg-type]
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
        method.losses(seen(method, *views), tf.constant(0.0))
        keys.append(method.state["keys"].numpy())
        method.after_step(tf.constant(0.0))
        queue = method.state["queue"].numpy()
        if step == 0:
            np.testing.assert_allclose(key_weight, expected, rtol=1e-5)
            np.testing.assert_array_equal(queue, np.concatenate([keys[0], before[BATCH:]]))
    # The queue holds two batches: the third has replaced the first.
    np.testing.assert_array_equal(queue, np.concatenate([keys[2], keys[1]]))


def test_moco_refuses_a_queue_that_is_no_whole_number_of_batches() -> None:
    with pytest.raises(ConfigError, match=r"Try --set moco\.queue_size=96"):
        Moco(float_resnet(28, 1, width=8), MocoConfig(16, queue_size=100), part="teacher", batch_size=BATCH, seed=0)


def test_a_loss_that_is_not_finite_stops_the_run(teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    class Broken(S2bnn):
        def losses(self, batch: Batch, scheduled: tf.Tensor) -> dict[str, tf.Tensor]:
            losses = super().losses(batch, scheduled)
            return {name: value * float("nan") for name, value in losses.items()}

    def build(stage: Stage) -> Method:
        return Broken(binary_resnet(28, 1, depth=1), teacher, S2bnnConfig())

    config = TrainingConfig(epochs=1, batch_size=BATCH)
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        train(run_folder(tmp_path / "run"), [Stage("only", True, 1)], build, inputs, config)


def test_every_setting_of_the_recipes_has_a_default_from_its_paper() -> None:
    assert dataclasses.asdict(BsslConfig()) == {
        "classifier": "joint",
        "classifier_rate": 1.0,
        "feature_similarity": "outputs",
        "balance_start": 0.1,
        "balance_end": 0.3,
        "carry_classifier": True,
        "temperature": 0.2,
        "hidden_width": 2000,
        "output_width": 2000,
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
    from bssl_tf.workflows.pretrain import settled

    config = settled(PretrainConfig, settings)
    assert (config.training.schedule, config.training.warmup_epochs) == (schedule, warmup)


def test_stage_two_takes_over_the_momentum_encoder(teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    """With a learning rate of nearly zero and momentum, what stage one ended with is what stage two goes on from."""
    built: list[Method] = []

    def build(stage: Stage) -> Method:
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
    built: list[Method] = []
    config = TrainingConfig(epochs=1, batch_size=BATCH, learning_rate=1e-9)
    few = dataclasses.replace(inputs, images=load_data("embedded", image_size=28, limit=BATCH).train)

    def build(stage: Stage) -> Method:
        built.append(recipe("moco", teacher)(stage))
        return built[-1]

    train(run_folder(tmp_path / "run"), progressive_binarization(1), build, few, config)
    first, second = (method.state["queue"].numpy() for method in built)
    # One batch a stage into a queue of two: the second stage overwrites the half that the first one left.
    np.testing.assert_array_equal(second[:BATCH], first[:BATCH])
    assert np.abs(second[BATCH:] - first[BATCH:]).max() > 0.01


@pytest.mark.parametrize("name", ["moco", "byol", "swav", "supervised", "contrastive s2bnn", "bssl frozen"])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_run_that_was_cut_ends_bit_for_bit_like_one_that_was_not(
    name: str, cut: int, teacher: Teacher, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut behind the first checkpoint, on the border of the stages, and in the second stage."""
    tf.config.experimental.enable_op_determinism()
    few = dataclasses.replace(inputs, images=load_data("embedded", image_size=28, limit=64).train)
    config, stages, build = (
        TrainingConfig(epochs=2, batch_size=BATCH),
        progressive_binarization(2),
        recipe(name, teacher),
    )
    whole = train(run_folder(tmp_path / "whole"), stages, build, few, config)

    save, saved = RunFolder.save_checkpoint, []

    def save_and_die(self: RunFolder, *arguments: object) -> None:
        save(self, *arguments)  # type: ignore[arg-type]
        saved.append(1)
        if len(saved) == cut:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        train(run_folder(tmp_path / "cut"), stages, build, few, config)
    resumed = train(RunFolder(tmp_path / "cut"), stages, build, few, config)
    for models in ("trained", "companions"):
        for part, model in getattr(whole, models).items():
            for a, b in zip(model.weights, getattr(resumed, models)[part].weights, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"{part} {a.name}")
    for key, variable in whole.state.items():
        np.testing.assert_array_equal(variable, resumed.state[key])


@pytest.mark.parametrize(("name", "same"), [("bssl", True), ("bssl frozen", True), ("bssl fresh", False)])
def test_stage_two_goes_on_with_the_classifier_only_in_modified_multi_stage_training(
    name: str, same: bool, teacher: Teacher, inputs: Inputs, tmp_path: Path
) -> None:
    built: list[Method] = []
    begun: list[np.ndarray] = []

    def kernel(method: Method) -> np.ndarray:
        models = method.trained | method.companions
        weights: np.ndarray = models["teacher_classifier"].get_weights()[0]
        return weights

    def build(stage: Stage) -> Method:
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


def test_a_frozen_classifier_is_left_alone(teacher: Teacher, rng: np.random.Generator) -> None:
    method = recipe("bssl frozen", teacher)(Stage("only", True, 1))
    classifier = method.companions["teacher_classifier"]
    with tf.GradientTape() as tape:
        loss = method.losses(seen(method, *noise(rng)), tf.constant(0.2))["loss"]
    assert all(gradient is None for gradient in tape.gradient(loss, classifier.trainable_variables))
    assert not {id(v) for v in classifier.variables} & {id(v) for v in method.trainable_variables()}


def test_bssl_without_feature_similarity_is_kl_alone(teacher: Teacher, rng: np.random.Generator) -> None:
    method = recipe("bssl kl only", teacher)(Stage("only", True, 1))
    assert method.scheduled(0.0) == method.scheduled(1.0) == 1.0
    losses = method.losses(seen(method, *noise(rng)), tf.constant(1.0))
    assert float(losses["loss"]) == float(losses["kl"])
    assert "feature_similarity" not in losses


def test_feature_similarity_on_features_adapts_widths_where_they_differ(rng: np.random.Generator) -> None:
    keras.utils.set_random_seed(1)
    for width, adapted in ((8, True), (32, False)):  # the student has 128 features, these teachers 32 and 128
        teacher = Teacher("a random one", float_resnet(28, 1, width=width), None, None)
        method = recipe("bssl features", teacher)(Stage("only", True, 1))
        assert ("adapter" in method.trained) == adapted
        batch = seen(method, *noise(rng))
        losses = method.losses(batch, tf.constant(0.0))
        features = [method.trained["student"](view, training=True) for view in batch.views]
        ours = [method.trained["adapter"](x) if adapted else x for x in features]
        expected = 0.0
        for one, other in ((0, 1), (1, 0)):
            a, b = ours[one].numpy(), batch.teacher[other].numpy()
            cosine = np.sum(a * b, -1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
            expected += float(np.mean(2 - 2 * cosine))
        assert float(losses["feature_similarity"]) == pytest.approx(expected, rel=1e-4)


def test_target_statistics_tell_a_collapsed_target_from_a_useful_one() -> None:
    useful = tf.constant(10 * np.eye(8, dtype=np.float32))  # each image its own class
    uniform = tf.zeros((8, 8))
    one_class = tf.constant(np.tile(10 * np.eye(8, dtype=np.float32)[:1], (8, 1)))
    found = {name: target_statistics(x, 0.2) for name, x in (("u", useful), ("flat", uniform), ("one", one_class))}
    assert float(found["u"]["target_information"]) == pytest.approx(np.log(8), abs=1e-4)
    assert float(found["flat"]["target_information"]) == pytest.approx(0, abs=1e-5)
    assert float(found["one"]["target_information"]) == pytest.approx(0, abs=1e-5)
    assert float(found["flat"]["target_entropy"]) == pytest.approx(np.log(8), abs=1e-4)
    assert float(found["flat"]["target_spread"]) == 0


def test_a_collapsed_target_stops_the_run(teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    def build(stage: Stage) -> Method:
        method = recipe("bssl", teacher)(stage)
        # A last layer of zeros says the same of every image, and a learning rate of nearly zero leaves it so.
        last = [w for w in method.trained["teacher_classifier"].layers if w.weights][-1]
        last.set_weights([0 * w for w in last.get_weights()])
        return method

    config = TrainingConfig(epochs=1, batch_size=BATCH, learning_rate=1e-9)
    with pytest.raises(TrainingError, match=r"has collapsed.*Start anew with"):
        train(run_folder(tmp_path / "run"), [Stage("only", True, 1)], build, inputs, config)
    # What was learned until then is on disk, the record that shows the collapse too.
    assert read_records(tmp_path / "run" / "metrics.jsonl")[-1]["target_information"] < 0.01


def test_byol_says_when_all_embeddings_point_one_way(rng: np.random.Generator) -> None:
    method = recipe("byol teacher", None)(Stage("only", False, 1))  # type: ignore[arg-type]
    healthy = {"target_spread": float(method.losses(seen(method, *noise(rng)), tf.constant(0.0))["target_spread"])}
    assert method.collapsed(healthy) is None
    last = [layer for layer in method.companions["target_head"].layers if layer.weights][-1]
    last.set_weights([0 * last.get_weights()[0], last.get_weights()[1] + 1])
    spread = float(method.losses(seen(method, *noise(rng)), tf.constant(0.0))["target_spread"])
    assert "collapsed to one direction" in (method.collapsed({"target_spread": spread}) or "")


def test_byol_momentum_rises_to_one_and_the_target_follows(rng: np.random.Generator) -> None:
    method = recipe("byol teacher", None)(Stage("only", False, 1))  # type: ignore[arg-type]
    assert [method.scheduled(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.9, 0.95, 1.0])
    online, target = (
        method.trained["head"].trainable_variables[0],
        method.companions["target_head"].trainable_variables[0],
    )
    online.assign_add(tf.ones_like(online))
    expected = 0.75 * target.numpy() + 0.25 * online.numpy()
    method.after_step(tf.constant(0.75))
    np.testing.assert_allclose(target, expected, rtol=1e-5, atol=1e-6)
    method.after_step(tf.constant(1.0))
    np.testing.assert_allclose(target, expected, rtol=1e-5, atol=1e-6)


def test_swav_holds_its_prototypes_still_at_first_and_at_length_one(rng: np.random.Generator) -> None:
    method = recipe("swav", None)(Stage("only", True, 1))  # type: ignore[arg-type]
    assert [method.scheduled(p) for p in (0.0, 0.24, 0.25, 1.0)] == [0, 0, 1, 1]
    kernel = method.trained["prototypes"].trainable_variables[0]
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, rtol=1e-5)
    batch = seen(method, *noise(rng))
    for scheduled, moves in ((0.0, False), (1.0, True)):
        with tf.GradientTape() as tape:
            loss = method.losses(batch, tf.constant(scheduled))["loss"]
        assert (float(tf.norm(tape.gradient(loss, kernel))) > 0) == moves
    kernel.assign(3 * kernel)
    method.after_step(tf.constant(1.0))
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, rtol=1e-5)


def test_contrastive_s2bnn_is_the_sum_of_both_losses(teacher: Teacher, rng: np.random.Generator) -> None:
    both = recipe("contrastive s2bnn", teacher)(Stage("only", True, 1))
    views = noise(rng)
    losses = both.losses(seen(both, *views), tf.constant(0.0))
    keras.utils.set_random_seed(0)
    config = MocoConfig(16, temperature=0.1, momentum=0.9, queue_size=64)  # the head is s2bnn's, without batch norm
    student = binarize(binary_resnet(28, 1, depth=1), weights=True)
    alone = Moco(student, config, part="student", batch_size=BATCH, seed=0)
    contrastive = alone.losses(Batch(tuple(views)), tf.constant(0.0))["loss"]
    assert isinstance(both, ContrastiveS2bnn)
    teacher_says, student_says = teacher.embed(views[0]), both.query(views[0])
    from bssl_tf.losses.guided_distillation import guided_distillation

    distillation = guided_distillation(teacher_says, student_says, 0.2)
    assert float(losses["contrastive"]) == pytest.approx(float(contrastive), rel=1e-4)
    assert float(losses["loss"]) == pytest.approx(float(contrastive) + float(distillation), rel=1e-4)


def test_sgd_and_weight_decay_do_what_their_formula_says(teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    """One step of plain descent: w - rate * (gradient + decay * w); a huge decay drowns the gradient."""
    built: list[Method] = []
    begun: list[np.ndarray] = []

    def build(stage: Stage) -> Method:
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
        built: list[Method] = []
        begun: dict[str, np.ndarray] = {}

        def build(
            stage: Stage, rate: float = rate, built: list[Method] = built, begun: dict[str, np.ndarray] = begun
        ) -> Method:
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


def test_direct_stages_last_as_long_as_progressive_ones() -> None:
    for epochs in (1, 7):
        assert {sum(stage.epochs for stage in stages(epochs)) for stages in STAGES.values()} == {2 * epochs}
    assert [stage.binary_weights for stage in STAGES["direct"](3)] == [True]


def test_a_kept_teacher_gives_the_run_that_a_present_one_gives(
    teacher: Teacher, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BSSL_TF_CACHE", str(tmp_path / "cache"))
    config = TrainingConfig(epochs=3, batch_size=BATCH, learning_rate=1e-3)
    stage, build = Stage("only", False, 3), recipe("bssl", teacher)
    asked: list[str] = []
    kept, seconds = with_teacher_cache(inputs, build(stage), config, 2, teacher.fingerprint(), asked.append)
    again, less = with_teacher_cache(inputs, build(stage), config, 2, teacher.fingerprint(), asked.append)
    assert 0 <= less < seconds
    assert len(asked) == 1, "the second run reads what the first one wrote"
    assert kept.teacher is not None and again.teacher is not None and kept.teacher.dtype == np.float16
    for name, given in (("kept", kept), ("present", dataclasses.replace(kept, teacher=None))):
        train(run_folder(tmp_path / name), [stage], build, given, config)
    one, other = (read_records(tmp_path / name / "metrics.jsonl") for name in ("kept", "present"))
    # float16 keeps three digits of each output; from the first step on a flipped sign makes the runs drift apart.
    assert [r["loss"] for r in one] == pytest.approx([r["loss"] for r in other], rel=1e-2)
    with_teacher_cache(inputs, build(stage), config, 2, "another teacher", asked.append)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "mocco"}, "Did you mean 'moco'"),
        ({"method": "moco", "stages": "two"}, "stages is 'two'"),
        ({"method": "moco", "teacher_cache_epochs": 2}, "moco has no teacher"),
        ({"method": "bssl", "bssl": {"classifier": "fixed"}}, "bssl.classifier is 'fixed'"),
        ({"method": "bssl", "bssl": {"feature_similarity": "none"}}, "bssl.feature_similarity is 'none'"),
        ({"method": "moco", "moco": {"queue_size": 100}}, "not a multiple"),
        ({"method": "moco", "training": {"optimizer": "lion"}}, "optimizer is 'lion'"),
        ({"method": "moco", "training": {"precision": "float8"}}, "precision is 'float8'"),
        ({"method": "moco", "training": {"probe_every": -1}}, "training.probe_every is -1"),
        ({"method": "moco", "teacher": "/somewhere"}, "teacher is set, and moco has no teacher"),
        ({"method": "moco", "moco": {"temperature": 0.0}}, "moco.temperature is 0.0"),
        ({"method": "byol", "byol": {"momentum": 1.5}}, "byol.momentum is 1.5"),
        ({"method": "byol", "byol": {"hidden_width": 0}}, "byol.hidden_width is 0"),
        ({"method": "swav", "swav": {"iterations": 0}}, "swav.iterations is 0"),
        ({"method": "swav", "swav": {"frozen_epochs": 5.0}, "training": {"epochs": 5}}, "swav.frozen_epochs is 5.0"),
        ({"method": "bssl", "bssl": {"balance_end": 2.0}}, "bssl.balance_end is 2.0"),
        ({"method": "s2bnn", "teacher_cache_epochs": 9, "training": {"epochs": 4}}, "there are 8 epochs"),
        ({"method": "moco", "backbone": "quicknet"}, "backbone is 'quicknet', not a table"),
        ({"method": "moco", "backbone": {"name": "zoo:nothing"}}, "the zoo has no 'nothing'"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_loaded(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    from bssl_tf.workflows.pretrain import pretrain

    with pytest.raises(BsslError, match=message):
        pretrain({"data": {"source": "/nowhere"}, **settings}, tmp_path / "run", resume=False, report=print)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("images", "settings", "told"),
    [
        (302, {}, ["an epoch has 1 step (302 images in batches of 256)", "moco.queue_size=256"]),
        (302, {"training": {"batch_size": 16}, "moco": {"queue_size": 256}}, []),
        (2400, {"training": {"batch_size": 128}, "moco": {"queue_size": 2048}}, []),
        (
            2400,
            {"method": "byol"},
            ["9 steps (2400 images in batches of 256), and little is learnt in so few; pass --batch-size 128"],
        ),
        (10_000, {}, ["queue of 65536 is longer than the 10000 images"]),
        (9, {"training": {"batch_size": 3}, "method": "byol"}, ["3 steps"]),
        (9, {"method": "byol"}, []),  # an error anyway
    ],
)
def test_too_few_images_for_the_settings_are_told(images: int, settings: dict[str, object], told: list[str]) -> None:
    from bssl_tf.settings import TeacherConfig, from_dict
    from bssl_tf.workflows.pretrain import _warn_of_few_images

    lines: list[str] = []
    _warn_of_few_images(from_dict(TeacherConfig, settings), images, lines.append)
    assert len(lines) == len(told)
    for line, part in zip(lines, told, strict=True):
        assert line.startswith("warning: ") and part in line
