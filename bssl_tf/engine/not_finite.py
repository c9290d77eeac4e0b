"""Where numbers stopped being finite, for the message that ends a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from bssl_tf.backend import keras, tf
from bssl_tf.data.views import Batch
from bssl_tf.methods.recipe import Recipe


def is_finite(tensor: np.ndarray) -> bool:
    """Whether every number is; of types that know no others, True."""
    return not np.issubdtype(tensor.dtype, np.inexact) or bool(np.isfinite(tensor).all())


def first_not_finite(
    recipe: Recipe, variables: Mapping[str, tf.Variable], batch: Batch, losses: Mapping[str, float]
) -> str:
    """The first tensor that is not finite, in the order in which a step reads and computes them: a clause.

    Args:
        recipe: of a step whose loss was not finite.
        variables: by name; the trainable ones were finite after that step if they were before (`descent`).
        batch: of that step.
        losses: what the step returned.
    """
    for name, tensor in _tensors(recipe, variables, batch):
        if not is_finite(tensor):
            return f"the first tensor that is not finite is {name}"
    part = next((name for name, value in losses.items() if not np.isfinite(value)), "loss")
    return f"weights and features are finite, and its part {part} is not"


def _tensors(recipe: Recipe, variables: Mapping[str, tf.Variable], batch: Batch) -> Iterator[tuple[str, np.ndarray]]:
    for number, view in enumerate(batch.views):
        yield f"view {number} of the images", np.asarray(view)
    for number, output in enumerate(batch.teacher):
        yield f"the teacher's output for view {number}", np.asarray(output)
    trained = {id(variable) for variable in recipe.trainable_variables()}
    for name, variable in variables.items():
        if id(variable) in trained:
            yield f"the variable {name}", variable.numpy()
    shape = tuple(batch.views[0].shape[1:])
    for part, model in (recipe.trained | recipe.companions).items():
        # Those that look at images; heads get the output of one of them.
        if isinstance(model.input_shape, tuple) and tuple(model.input_shape[1:]) == shape:
            layers = [layer for layer in model.layers if keras.backend.is_keras_tensor(getattr(layer, "output", None))]
            outputs = keras.Model(model.input, [layer.output for layer in layers])(batch.views[0], training=True)
            for layer, output in zip(layers, outputs, strict=True):
                yield f"the output of layer {part}/{layer.name}", np.asarray(tf.cast(output, tf.float32))
    # Statistics and queues, into which the step may have written already.
    for name, variable in variables.items():
        yield f"the variable {name}", variable.numpy()
