"""The recipe of fine-tuning: two learning rates, class weights, a teacher's soft targets."""

from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.backend import keras, tf
from bssl_tf.data.views import Batch
from bssl_tf.engine.step import make_optimizer, make_step
from bssl_tf.methods.finetune import FineTuned, FinetuneSettings
from bssl_tf.settings import TrainingConfig
from bssl_tf.tasks.classification import LOGITS, Classification
from bssl_tf.tasks.task import Purpose

NAMES = ("a", "b", "c")
COUNTS = np.array([60, 30, 10])


def backbone() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()])


def batch(rng: np.random.Generator, count: int = 16) -> Batch:
    images = tf.constant(rng.standard_normal((count, 8, 8, 1)), tf.float32)
    return Batch((images,), targets={"labels": tf.constant(rng.integers(0, 3, count), tf.int32)})


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def test_backbone_and_head_learn_at_rates_of_their_own(rng: np.random.Generator) -> None:
    """Adam's first step is the learning rate, whatever the gradient."""
    purpose = Purpose(Classification(), NAMES, COUNTS)
    recipe = FineTuned(backbone(), purpose, FinetuneSettings(head_learning_rate=0.02), 0.001)
    config = TrainingConfig(learning_rate=0.001)
    optimizer = make_optimizer(config)
    optimizer.build(recipe.trainable_variables())
    step = make_step(recipe, optimizer, 0.0)
    network = recipe.trained["student"]
    before = {variable.name: variable.numpy() for variable in network.trainable_variables}
    # From zero the head gives the backbone no gradient in the first step.
    head = network.layers[-1]
    head.kernel.assign(rng.standard_normal(head.kernel.shape))
    before[head.kernel.name] = head.kernel.numpy()
    step(batch(rng), tf.constant(0.001), tf.constant(0.0))
    moved = {v.name: np.abs(v.numpy() - before[v.name]) for v in network.trainable_variables}
    assert len(moved) == 4
    for name, distance in moved.items():
        np.testing.assert_allclose(distance, 0.02 if "classifier" in name else 0.001, rtol=0.01, err_msg=name)


def test_the_loss_is_weighted_cross_entropy(rng: np.random.Generator) -> None:
    purpose = Purpose(Classification(), NAMES, COUNTS)
    weights = purpose.balanced_weights()
    np.testing.assert_allclose(weights, 100 / 3 / COUNTS, rtol=1e-6)
    # An image counts 1 on average, and so does every class.
    assert float(weights @ COUNTS) == pytest.approx(COUNTS.sum())
    for kind in ("none", "balanced"):
        recipe = FineTuned(backbone(), purpose, FinetuneSettings(class_weights=kind), 0.001)
        head = recipe.trained["student"].layers[-1]
        head.kernel.assign(rng.standard_normal(head.kernel.shape))
        given = batch(rng)
        losses = recipe.losses(given, tf.constant(0.0)).losses
        logits = recipe.trained["student"](given.views[0], training=True).numpy().astype(np.float64)
        labels = given.targets["labels"].numpy() if given.targets else np.zeros(0)
        entropy = -np.log(softmax(logits)[np.arange(16), labels])
        expected = np.mean((weights[labels] if kind == "balanced" else 1) * entropy)
        assert float(losses["loss"]) == pytest.approx(expected, rel=1e-5)
        assert set(losses) == {"loss", "train_top1"}


def test_a_class_without_images_has_no_weight() -> None:
    weights = Purpose(Classification(), NAMES, np.array([30, 0, 10])).balanced_weights()
    np.testing.assert_allclose(weights, [20 / 30, 0, 20 / 10], rtol=1e-6)


def test_soft_targets_are_hintons(rng: np.random.Generator) -> None:
    taught = rng.standard_normal((16, 3)).astype(np.float32) * 3
    purpose = Purpose(Classification(), NAMES, COUNTS, lambda images: tf.constant(taught))
    recipe = FineTuned(backbone(), purpose, FinetuneSettings(distillation=0.3, temperature=4.0), 0.001)
    head = recipe.trained["student"].layers[-1]
    head.kernel.assign(rng.standard_normal(head.kernel.shape))
    given = batch(rng)._replace(teacher=(tf.constant(taught),))
    losses = recipe.losses(given, tf.constant(0.0)).losses
    logits = recipe.trained["student"](given.views[0], training=True).numpy().astype(np.float64)
    target, own = softmax(taught / 4), softmax(logits / 4)
    distillation = 16 * np.mean(np.sum(target * np.log(target / own), axis=1))
    assert given.targets is not None
    entropy = np.mean(-np.log(softmax(logits)[np.arange(16), given.targets["labels"].numpy()]))
    assert float(losses["distillation"]) == pytest.approx(distillation, rel=1e-4)
    assert float(losses["loss"]) == pytest.approx(0.7 * entropy + 0.3 * distillation, rel=1e-4)
    # The gradient of the soft part does not shrink with the temperature: T^2 keeps its size.
    for temperature in (1.0, 50.0):
        outputs = tf.constant(rng.standard_normal((16, 3)), tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = Classification().distillation({LOGITS: outputs}, tf.constant(taught), temperature)
        assert 0.05 < float(tf.norm(tape.gradient(loss, outputs))) < 5
