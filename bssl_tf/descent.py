"""One step of gradient descent, the same for every training in this project: pretraining, fine-tuning, probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from bssl_tf.backend import keras, tf, update_on_all_devices
from bssl_tf.replicas import mean

Outcome = TypeVar("Outcome")


def descend(
    objective: Callable[..., tuple[tf.Tensor, Outcome]],
    arguments: tuple[Any, ...],
    variables: Sequence[tf.Variable],
    optimizer: Any,
    *,
    weight_decay: float = 0.0,
) -> Outcome:
    """Moves `variables` by one step of `optimizer`, built for them, down the gradient of the loss.

    On several devices, those of the current `tf.distribute` strategy, `objective` is called on each with its rows of
    the batch, and what falls is the mean of their losses.

    Args:
        objective: computes the loss, a float32 scalar, and whatever else is wanted of the forward pass: a structure of
            tensors that are the same on all devices (`bssl_tf.replicas`).
        arguments: of `objective`; tensors, or values for each device.
        variables: all of them get a gradient.
        optimizer: of Keras; it applies the constraints of layers too. One that scales losses skips the step where a
            gradient is not finite, and lowers its scale.
        weight_decay: this share of every variable is added to its gradient (L2).

    Returns:
        The second value of `objective`, from before the step.
    """
    gradients, outcome = gradients_of(objective, arguments, variables, optimizer, weight_decay=weight_decay)
    update(optimizer, gradients, variables)
    return outcome


def gradients_of(
    objective: Callable[..., tuple[tf.Tensor, Outcome]],
    arguments: tuple[Any, ...],
    variables: Sequence[tf.Variable],
    optimizer: Any,
    *,
    weight_decay: float = 0.0,
) -> tuple[Any, Outcome]:
    """The first half of `descend`, which see: gradients for `update`, and the second value of `objective`."""
    strategy = tf.distribute.get_strategy()
    scaled = isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)

    def on_a_replica(*own: Any) -> tuple[list[tf.Tensor], Outcome]:
        with tf.GradientTape() as tape:
            loss, outcome = objective(*own)
            falling = optimizer.get_scaled_loss(loss) if scaled else loss
        # A loss that is not finite must not spoil the weights: they show where it began (engine.not_finite).
        finite = tf.math.is_finite(mean(loss))
        gradients = tape.gradient(falling, variables)
        if scaled:
            gradients = optimizer.get_unscaled_gradients(gradients)
        gradients = mean([tf.where(finite, g, tf.zeros_like(g)) for g in gradients])
        if weight_decay:
            gradients = [g + weight_decay * v for g, v in zip(gradients, variables, strict=True)]
        return gradients, outcome

    gradients, outcome = strategy.run(on_a_replica, arguments)
    return gradients, tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], outcome)


def update(optimizer: Any, gradients: Any, variables: Sequence[tf.Variable]) -> None:
    """The second half of `descend`: moves `variables` down `gradients`, which are the same on all devices."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
    else:
        update_on_all_devices(optimizer, gradients, variables)
