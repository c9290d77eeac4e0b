"""One step of training as a graph: losses, gradients, the optimiser's update, the method's own state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bssl_tf.backend import keras, tf
from bssl_tf.data.views import Batch
from bssl_tf.descent import descend
from bssl_tf.methods.recipe import Outcome, Recipe
from bssl_tf.replicas import gather, mean
from bssl_tf.settings import TrainingConfig


def make_optimizer(config: TrainingConfig) -> Any:
    """The optimiser of a stage, fresh."""
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(learning_rate=config.learning_rate, momentum=0.9)
    else:
        optimizer = keras.optimizers.Adam(learning_rate=config.learning_rate)
    # Small gradients would vanish in float16, whose smallest number is 6e-8.
    return keras.mixed_precision.LossScaleOptimizer(optimizer) if config.precision == "float16" else optimizer


def make_step(recipe: Recipe, optimizer: Any, weight_decay: float) -> Callable[..., dict[str, tf.Tensor]]:
    """A graph that trains `recipe` by one batch, on all devices of the current `tf.distribute` strategy.

    It takes the batch, the learning rate and `recipe.scheduled` of the step, the last two float32 scalars, and returns
    the losses of `recipe.losses`, means over the batch.
    """
    variables = recipe.trainable_variables()
    slow = [
        (v, rate) for name, rate in recipe.rates.items() for v in recipe.trained[name].trainable_variables if rate != 1
    ]

    def objective(batch: Batch, scheduled: tf.Tensor) -> tuple[tf.Tensor, Outcome]:
        if recipe.teacher_outputs is not None and not batch.teacher:
            batch = batch._replace(teacher=tuple(recipe.teacher_outputs(view) for view in batch.views))
        outcome = recipe.losses(batch, scheduled)
        updates = {name: gather(rows) for name, rows in outcome.updates.items()}
        return outcome.losses["loss"], Outcome(mean(dict(outcome.losses)), updates)

    @tf.function
    def step(batch: Batch, learning_rate: tf.Tensor, scheduled: tf.Tensor) -> dict[str, tf.Tensor]:
        optimizer.learning_rate.assign(learning_rate)
        before = [tf.identity(variable) for variable, _ in slow]
        losses, updates = descend(objective, (batch, scheduled), variables, optimizer, weight_decay=weight_decay)
        # Adam does not care how long a gradient is, so it is the step that is made shorter.
        for (variable, rate), old in zip(slow, before, strict=True):
            variable.assign(old + rate * (variable - old))
        recipe.after_step(updates, scheduled)
        return dict(losses)

    return step
