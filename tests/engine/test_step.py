"""A batch that is computed in parts: the same step, but for what is compared within a part."""

from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.backend import keras, tf
from bssl_tf.data.views import Batch
from bssl_tf.engine.configuration import _check as check
from bssl_tf.engine.configuration import settled
from bssl_tf.engine.stages import Stage
from bssl_tf.engine.step import make_optimizer, make_step
from bssl_tf.errors import ConfigError
from bssl_tf.methods.moco import Moco, MocoConfig
from bssl_tf.methods.recipe import Recipe
from bssl_tf.methods.supervised import Supervised
from bssl_tf.settings import PretrainConfig, TrainingConfig
from bssl_tf.teachers.teacher import Teacher
from tests.methods.recipes import BATCH as LARGER_BATCH
from tests.methods.recipes import noise, recipe

BATCH = 8


def network() -> keras.Model:
    """Without batch norm, which would see one part at a time."""
    images = keras.layers.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, activation="relu")(images)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


def build(name: str) -> Recipe:
    keras.utils.set_random_seed(0)
    if name == "supervised":
        return Supervised(network(), 4)
    config = MocoConfig(8, momentum=0.9, queue_size=2 * BATCH, head_batch_norm=False)
    return Moco(network(), config, part="student", batch_size=BATCH, seed=0)


def trained(
    name: str, parts: int, batches: list[Batch], precision: str = "float32", *, xla: bool = False
) -> tuple[Recipe, list[float]]:
    recipe = build(name)
    config = TrainingConfig(optimizer="sgd", precision=precision)  # type: ignore[arg-type]
    optimizer = make_optimizer(config)
    optimizer.build(recipe.trainable_variables())
    step = make_step(recipe, optimizer, 0.01, parts=parts, xla=xla)
    losses = [float(step(batch, tf.constant(0.1), tf.constant(0.0))["loss"]) for batch in batches]
    return recipe, losses


@pytest.fixture
def batches(rng: np.random.Generator) -> list[Batch]:
    def views() -> tuple[tf.Tensor, ...]:
        return tuple(tf.constant(rng.standard_normal((BATCH, 8, 8, 1)), tf.float32) for _ in range(2))

    return [Batch(views(), tf.constant(rng.integers(0, 4, BATCH), tf.int32)) for _ in range(3)]


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("name", ["supervised", "moco"])
def test_parts_add_up_to_the_step_of_the_whole(name: str, precision: str, batches: list[Batch]) -> None:
    """`float16` here is about the scale of losses: there is no half precision in this network."""
    whole, expected = trained(name, 1, batches)
    parts, found = trained(name, 4, batches, precision)
    # The same sums in another order.
    assert found == pytest.approx(expected, rel=1e-5)
    for a, b in zip(whole.trainable_variables(), parts.trainable_variables(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
    for key, variable in whole.state.items():  # the queue, in the order of the batch
        np.testing.assert_allclose(parts.state[key], variable, rtol=1e-4, atol=1e-5)


def test_a_part_that_is_not_finite_spoils_no_weight(batches: list[Batch]) -> None:
    bad = batches[0]._replace(views=tuple(tf.concat([v[:-1], v[-1:] * np.inf], 0) for v in batches[0].views))
    recipe = build("supervised")
    before = [w.numpy() for w in recipe.trainable_variables()]
    optimizer = make_optimizer(TrainingConfig(optimizer="sgd"))
    optimizer.build(recipe.trainable_variables())
    loss = make_step(recipe, optimizer, 0.0, parts=4)(bad, tf.constant(0.1), tf.constant(0.0))["loss"]
    assert not np.isfinite(loss)
    for a, b in zip(before, recipe.trainable_variables(), strict=True):
        np.testing.assert_array_equal(b, a)


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("name", ["supervised", "moco"])
def test_xla_computes_the_same_step(name: str, parts: int, batches: list[Batch]) -> None:
    plain, expected = trained(name, parts, batches)
    compiled, found = trained(name, parts, batches, xla=True)
    assert found == pytest.approx(expected, rel=1e-5)
    for a, b in zip(plain.trainable_variables(), compiled.trainable_variables(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
    for key, variable in plain.state.items():
        np.testing.assert_allclose(compiled.state[key], variable, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["moco", "byol", "swav", "supervised", "s2bnn", "contrastive s2bnn", "guided", "bssl", "bssl features"],
)
def test_xla_computes_the_losses_of_every_method(name: str, teacher: Teacher, rng: np.random.Generator) -> None:
    found = []
    batch = Batch(tuple(noise(rng)), tf.constant(rng.integers(0, 10, LARGER_BATCH), tf.int32))
    for xla in (False, True):
        method = recipe(name, teacher)(Stage("only", True, 1))
        optimizer = make_optimizer(TrainingConfig(optimizer="sgd"))
        optimizer.build(method.trainable_variables())
        step = make_step(method, optimizer, 0.0, xla=xla)
        found.append(step(batch, tf.constant(0.01), tf.constant(0.0)))
    # Of a binary network, in which a sign within rounding of zero may differ.
    plain, compiled = found
    for part, value in plain.items():
        assert float(compiled[part]) == pytest.approx(float(value), rel=1e-2, abs=1e-2), part


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"xla": True, "distribute": "mirrored"}, "training.xla is True, which is for one device"),
        ({"batch_size": 100, "accumulate": 16}, "does not split evenly into .* 16 parts.*--batch-size 112"),
        ({"batch_size": 64, "accumulate": 2, "distribute": "mirrored"}, "training.accumulate is 2, which is for one"),
    ],
)
def test_what_is_for_one_device_or_does_not_split_is_refused(training: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(settled(PretrainConfig, {"method": "supervised", "training": training}))
