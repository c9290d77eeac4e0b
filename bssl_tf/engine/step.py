"""One step of training as a graph: losses, gradients, the optimiser's update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bssl_tf.backend import keras, tf
from bssl_tf.data.views import Batch
from bssl_tf.methods.recipe import Recipe
from bssl_tf.settings import TrainingConfig


def make_optimizer(config: TrainingConfig) -> Any:
    """The optimiser of a stage, fresh."""
    if config.optimizer == "sgd":
        return keras.optimizers.SGD(learning_rate=config.learning_rate, momentum=0.9)
    return keras.optimizers.Adam(learning_rate=config.learning_rate)


def make_step(recipe: Recipe, optimizer: Any, weight_decay: float) -> Callable[..., dict[str, tf.Tensor]]:
    """A graph that trains `recipe` by one batch.

    It takes the batch, the learning rate and `recipe.scheduled` of the step, the last two float32 scalars, and returns
    what `recipe.losses` returned.
    """
    variables = recipe.trainable_variables()
    slow = [
        (v, rate) for name, rate in recipe.rates.items() for v in recipe.trained[name].trainable_variables if rate != 1
    ]

    @tf.function
    def step(batch: Batch, learning_rate: tf.Tensor, scheduled: tf.Tensor) -> dict[str, tf.Tensor]:
        if recipe.teacher_outputs is not None and not batch.teacher:
            batch = batch._replace(teacher=tuple(recipe.teacher_outputs(view) for view in batch.views))
        with tf.GradientTape() as tape:
            losses = dict(recipe.losses(batch, scheduled))
        # A loss that is not finite must not spoil the weights: they show where it began (engine.not_finite).
        finite = tf.math.is_finite(losses["loss"])
        gradients = [tf.where(finite, g, tf.zeros_like(g)) for g in tape.gradient(losses["loss"], variables)]
        if weight_decay:
            gradients = [g + weight_decay * v for g, v in zip(gradients, variables, strict=True)]
        optimizer.learning_rate.assign(learning_rate)
        before = [tf.identity(variable) for variable, _ in slow]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        # Adam does not care how long a gradient is, so it is the step that is made shorter.
        for (variable, rate), old in zip(slow, before, strict=True):
            variable.assign(old + rate * (variable - old))
        recipe.after_step(scheduled)
        return losses

    return step
