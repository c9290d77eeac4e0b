"""Each recipe: what it trains, what it leaves alone, and that its loss falls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bssl_tf.backend import keras, tf
from bssl_tf.data.views import Batch
from bssl_tf.engine.inputs import Inputs
from bssl_tf.engine.loop import train
from bssl_tf.engine.stages import Stage, progressive_binarization
from bssl_tf.files import read_records
from bssl_tf.losses.target_statistics import target_statistics
from bssl_tf.methods import registry
from bssl_tf.methods.moco import Moco, MocoConfig
from bssl_tf.methods.s2bnn import ContrastiveS2bnn
from bssl_tf.models.binarization import binarize
from bssl_tf.models.binary_resnet import binary_resnet
from bssl_tf.models.float_resnet import float_resnet
from bssl_tf.settings import TrainingConfig
from bssl_tf.teachers.teacher import Teacher
from tests.methods.recipes import BATCH, fed, noise, recipe, run_folder, seen

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
    "guided": ("loss", 0.9, 0),
    "bssl": ("loss", 0.8, 0),
    "bssl frozen": ("loss", 0.8, 0),
    "bssl features": ("feature_similarity", 0.8, 0),
    "bssl kl only": ("loss", 0.8, 0),
}


# Every method in CI, its other variants with the slow tests.
VARIANTS = {"contrastive s2bnn", "bssl frozen", "bssl features", "bssl kl only"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in VARIANTS)) for name in FALLING]
)
def test_the_loss_falls(name: str, teacher: Teacher, inputs: Inputs, tmp_path: Path) -> None:
    part, factor, first = FALLING[name]
    epochs = 12 if first else 6
    config = TrainingConfig(epochs=epochs, batch_size=BATCH, learning_rate=3e-3, warmup_epochs=1, schedule="cosine")
    stage = Stage("only", False, config.epochs)
    train(run_folder(tmp_path / "run"), [stage], recipe(name, teacher), fed(inputs, name), config)
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert [record["epoch"] for record in records] == list(range(1, epochs + 1))
    assert records[-1][part] < factor * records[first][part]
    (method,) = (registry.find(word) for word in name.split() if word in registry.BUILT_IN)
    logged = records[-1].keys() - {"step", "stage", "epoch", "learning_rate", "images_per_s", "seconds", "loss"}
    assert logged <= method.logs.keys()
    if name not in ("s2bnn", "bssl kl only"):
        assert logged == method.logs.keys()


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
        losses = method.losses(seen(method, *views), tf.constant(0.0)).losses
    gradients = tape.gradient(losses["loss"], method.trained["teacher_classifier"].trainable_variables)
    assert all(float(tf.norm(g)) > 0 for g in gradients if g.shape.rank == 2)


def test_bssl_is_symmetric_in_its_views_and_balances_as_told(teacher: Teacher, rng: np.random.Generator) -> None:
    method = recipe("bssl", teacher)(Stage("only", True, 1))
    a, b = (tf.constant(rng.standard_normal((BATCH, 28, 28, 1)), tf.float32) for _ in range(2))
    one, other = (method.losses(seen(method, *views), tf.constant(0.0)).losses for views in ((a, b), (b, a)))
    assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-4)
    for progress, balance in ((0.0, 0.1), (0.5, 0.2), (1.0, 0.3)):
        losses = method.losses(seen(method, a, b), tf.constant(method.scheduled(progress))).losses
        assert float(losses["balance"]) == pytest.approx(balance, abs=1e-6)
        expected = (1 - balance) * float(losses["feature_similarity"]) + balance * float(losses["kl"])
        assert float(losses["loss"]) == pytest.approx(expected, rel=1e-5)


def test_moco_queue_is_first_in_first_out_and_momentum_averages(rng: np.random.Generator) -> None:
    method = recipe("moco teacher", None)(Stage("only", False, 1))  # type: ignore[arg-type]
    before = queue = method.state["queue"].numpy()
    weight, key_weight = (
        method.trained["teacher"].trainable_variables[0],
        method.companions["key_teacher"].trainable_variables[0],
    )
    weight.assign_add(tf.ones_like(weight))
    expected = 0.9 * key_weight.numpy() + 0.1 * weight.numpy()
    keys = []
    for step in range(3):
        views = [tf.constant(rng.standard_normal((BATCH, 28, 28, 1)), tf.float32) for _ in range(2)]
        updates = method.losses(seen(method, *views), tf.constant(0.0)).updates
        keys.append(updates["keys"].numpy())
        np.testing.assert_array_equal(method.state["queue"], queue)
        method.after_step(updates, tf.constant(0.0))
        queue = method.state["queue"].numpy()
        if step == 0:
            np.testing.assert_allclose(key_weight, expected, rtol=1e-5)
            np.testing.assert_array_equal(queue, np.concatenate([keys[0], before[BATCH:]]))
    # The queue holds two batches: the third has replaced the first.
    np.testing.assert_array_equal(queue, np.concatenate([keys[2], keys[1]]))


def test_a_frozen_classifier_is_left_alone(teacher: Teacher, rng: np.random.Generator) -> None:
    method = recipe("bssl frozen", teacher)(Stage("only", True, 1))
    classifier = method.companions["teacher_classifier"]
    with tf.GradientTape() as tape:
        loss = method.losses(seen(method, *noise(rng)), tf.constant(0.2)).losses["loss"]
    assert all(gradient is None for gradient in tape.gradient(loss, classifier.trainable_variables))
    assert not {id(v) for v in classifier.variables} & {id(v) for v in method.trainable_variables()}


def test_bssl_without_feature_similarity_is_kl_alone(teacher: Teacher, rng: np.random.Generator) -> None:
    method = recipe("bssl kl only", teacher)(Stage("only", True, 1))
    assert method.scheduled(0.0) == method.scheduled(1.0) == 1.0
    losses = method.losses(seen(method, *noise(rng)), tf.constant(1.0)).losses
    assert float(losses["loss"]) == float(losses["kl"])
    assert "feature_similarity" not in losses


def test_feature_similarity_on_features_adapts_widths_where_they_differ(rng: np.random.Generator) -> None:
    keras.utils.set_random_seed(1)
    for width, adapted in ((8, True), (32, False)):  # the student has 128 features, these teachers 32 and 128
        teacher = Teacher("a random one", float_resnet(28, 1, width=width), None, None)
        method = recipe("bssl features", teacher)(Stage("only", True, 1))
        assert ("adapter" in method.trained) == adapted
        batch = seen(method, *noise(rng))
        losses = method.losses(batch, tf.constant(0.0)).losses
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


def test_byol_says_when_all_embeddings_point_one_way(rng: np.random.Generator) -> None:
    method = recipe("byol teacher", None)(Stage("only", False, 1))  # type: ignore[arg-type]
    healthy = {
        "target_spread": float(method.losses(seen(method, *noise(rng)), tf.constant(0.0)).losses["target_spread"])
    }
    assert method.collapsed(healthy) is None
    last = [layer for layer in method.companions["target_head"].layers if layer.weights][-1]
    last.set_weights([0 * last.get_weights()[0], last.get_weights()[1] + 1])
    spread = float(method.losses(seen(method, *noise(rng)), tf.constant(0.0)).losses["target_spread"])
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
    method.after_step({}, tf.constant(0.75))
    np.testing.assert_allclose(target, expected, rtol=1e-5, atol=1e-6)
    method.after_step({}, tf.constant(1.0))
    np.testing.assert_allclose(target, expected, rtol=1e-5, atol=1e-6)


def test_swav_holds_its_prototypes_still_at_first_and_at_length_one(rng: np.random.Generator) -> None:
    method = recipe("swav", None)(Stage("only", True, 1))  # type: ignore[arg-type]
    assert [method.scheduled(p) for p in (0.0, 0.24, 0.25, 1.0)] == [0, 0, 1, 1]
    kernel = method.trained["prototypes"].trainable_variables[0]
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, rtol=1e-5)
    batch = seen(method, *noise(rng))
    for scheduled, moves in ((0.0, False), (1.0, True)):
        with tf.GradientTape() as tape:
            loss = method.losses(batch, tf.constant(scheduled)).losses["loss"]
        assert (float(tf.norm(tape.gradient(loss, kernel))) > 0) == moves
    kernel.assign(3 * kernel)
    method.after_step({}, tf.constant(1.0))
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, rtol=1e-5)


def test_contrastive_s2bnn_is_the_sum_of_both_losses(teacher: Teacher, rng: np.random.Generator) -> None:
    both = recipe("contrastive s2bnn", teacher)(Stage("only", True, 1))
    views = noise(rng)
    losses = both.losses(seen(both, *views), tf.constant(0.0)).losses
    keras.utils.set_random_seed(0)
    config = MocoConfig(16, temperature=0.1, momentum=0.9, queue_size=64)  # the head is s2bnn's, without batch norm
    student = binarize(binary_resnet(28, 1, depth=1), weights=True)
    alone = Moco(student, config, part="student", batch_size=BATCH, seed=0)
    contrastive = alone.losses(Batch(tuple(views)), tf.constant(0.0)).losses["loss"]
    assert isinstance(both, ContrastiveS2bnn)
    teacher_says, student_says = teacher.embed(views[0]), both.query(views[0])
    from bssl_tf.losses.guided_distillation import guided_distillation

    distillation = guided_distillation(teacher_says, student_says, 0.2)
    assert float(losses["contrastive"]) == pytest.approx(float(contrastive), rel=1e-4)
    assert float(losses["loss"]) == pytest.approx(float(contrastive) + float(distillation), rel=1e-4)


def test_guideds_queue_fills_from_nothing_and_replaces_the_oldest(teacher: Teacher, rng: np.random.Generator) -> None:
    method = recipe("guided", teacher)(Stage("only", True, 1))
    assert int(method.state["queue_filled"]) == 0
    given = []
    for _ in range(3):
        batch = seen(method, *noise(rng))
        losses, updates = method.losses(batch, tf.constant(0.0))
        assert np.isfinite(float(losses["loss"]))
        np.testing.assert_array_equal(updates["anchors"], batch.teacher[0])
        method.after_step(updates, tf.constant(0.0))
        given.append(batch.teacher[0])
    assert int(method.state["queue_filled"]) == 64 and int(method.state["queue_next"]) == BATCH
    np.testing.assert_array_equal(method.state["queue"], np.concatenate([given[2], given[1]]))


def test_guided_does_not_see_what_all_the_teachers_features_have_in_common(
    teacher: Teacher, rng: np.random.Generator
) -> None:
    method = recipe("guided", teacher)(Stage("only", True, 1))
    batch = seen(method, *noise(rng))
    shifted = batch._replace(teacher=tuple(vectors + 100.0 for vectors in batch.teacher))
    one, other = (method.losses(given, tf.constant(0.0)).losses for given in (batch, shifted))
    assert float(one["regression"]) == pytest.approx(float(other["regression"]), rel=1e-3)
    # A network in training mode gives other features each time only through its batch norms' averages.
    assert float(one["similarity"]) == pytest.approx(float(other["similarity"]), rel=1e-3)
