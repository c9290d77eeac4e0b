"""One step of training as a graph: losses, gradients, the optimiser's update, the method's own state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from bssl_tf.backend import keras, tf
from bssl_tf.data.views import Batch
from bssl_tf.descent import descend, gradients_of, update
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


def objective_of(recipe: Recipe) -> Callable[[Batch, tf.Tensor], tuple[tf.Tensor, Outcome]]:
    """What a device computes of its batch and `recipe.scheduled`: its loss, and the outcome of all devices."""

    def objective(batch: Batch, scheduled: tf.Tensor) -> tuple[tf.Tensor, Outcome]:
        if recipe.teacher_outputs is not None and not batch.teacher:
            batch = batch._replace(teacher=tuple(recipe.teacher_outputs(view) for view in batch.views))
        outcome = recipe.losses(batch, scheduled)
        updates = {name: gather(rows) for name, rows in outcome.updates.items()}
        return outcome.losses["loss"], Outcome(mean(dict(outcome.losses)), updates)

    return objective


def graph_maker(xla: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The decorator that makes a function of tensors a graph, compiled by XLA if so wished."""
    decorator: Callable[[Callable[..., Any]], Callable[..., Any]] = tf.function(jit_compile=True if xla else None)
    return decorator


def make_step(
    recipe: Recipe, optimizer: Any, weight_decay: float, *, parts: int = 1, xla: bool = False
) -> Callable[[Batch, tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """What trains `recipe` by one batch, on all devices of the current `tf.distribute` strategy.

    It takes the batch, the learning rate and `recipe.scheduled` of the step, the last two float32 scalars, and returns
    the losses of `recipe.losses`, means over the batch.

    Args:
        recipe: what to train.
        optimizer: built for its variables.
        weight_decay: see `descend`.
        parts: in how many equal parts a batch is computed, one after another, on a single device: with their mean
            gradient, and memory for one. What a recipe compares within a batch, it then compares within a part.
        xla: whether XLA compiles it, for a single device.
    """
    graph = graph_maker(xla)
    variables = recipe.trainable_variables()
    rated = recipe.rated()

    objective = objective_of(recipe)

    def finish(
        descent: Callable[[], tuple[Any, Any]], learning_rate: tf.Tensor, scheduled: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        optimizer.learning_rate.assign(learning_rate)
        before = [tf.identity(variable) for variable, _ in rated]
        losses, updates = descent()
        # Adam does not care how long a gradient is, so it is the step that is made shorter, or longer.
        for (variable, rate), old in zip(rated, before, strict=True):
            variable.assign(old + rate * (variable - old))
        recipe.after_step(updates, scheduled)
        return dict(losses)

    @graph
    def step(batch: Batch, learning_rate: tf.Tensor, scheduled: tf.Tensor) -> dict[str, tf.Tensor]:
        def descent() -> Outcome:
            return descend(objective, (batch, scheduled), variables, optimizer, weight_decay=weight_decay)

        return finish(descent, learning_rate, scheduled)

    if parts == 1:
        return step

    @graph
    def one_part(batch: Batch, scheduled: tf.Tensor) -> tuple[Any, Outcome]:
        return gradients_of(objective, (batch, scheduled), variables, optimizer, weight_decay=weight_decay)

    @graph
    def last(
        sums: Any, outcomes: list[Outcome], learning_rate: tf.Tensor, scheduled: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        losses = {name: tf.add_n([one.losses[name] for one in outcomes]) / parts for name in outcomes[0].losses}
        updates = {name: tf.concat([one.updates[name] for one in outcomes], 0) for name in outcomes[0].updates}
        finite = tf.math.is_finite(losses["loss"])

        def descent() -> tuple[Any, Any]:
            update(optimizer, [tf.where(finite, g / parts, tf.zeros_like(g)) for g in sums], variables)
            return losses, updates

        return finish(descent, learning_rate, scheduled)

    def step_in_parts(batch: Batch, learning_rate: tf.Tensor, scheduled: tf.Tensor) -> dict[str, tf.Tensor]:
        sums, outcomes = None, []
        for part in split(batch, parts):
            gradients, outcome = one_part(part, scheduled)
            sums = gradients if sums is None else [a + b for a, b in zip(sums, gradients, strict=True)]
            outcomes.append(outcome)
        return last(sums, outcomes, learning_rate, scheduled)

    return step_in_parts


def split(batch: Batch, parts: int) -> Iterator[Batch]:
    """A batch in so many equal parts."""

    def rows(part: int, whole: tf.Tensor | None) -> tf.Tensor | None:
        # Not the same count for all: of images without labels there may be more.
        count = 0 if whole is None else int(whole.shape[0]) // parts
        return None if whole is None else whole[part * count : (part + 1) * count]

    for part in range(parts):
        yield tf.nest.map_structure(partial(rows, part), batch)
