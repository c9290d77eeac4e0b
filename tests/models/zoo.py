"""larq-zoo's networks as references: same weights in, same features out."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np

from bssl_tf.backend import keras, lq
from tests.conftest import require_or_skip


def zoo_network(module: str, name: str) -> keras.Model:
    """larq-zoo's network at 224 px, with random weights and batch norms that are not at rest."""
    require_or_skip(importlib.util.find_spec("larq_zoo") is not None, "larq-zoo is not installed (extra `zoo`)")
    keras.utils.set_random_seed(3)
    model = getattr(importlib.import_module(f"larq_zoo.{module}"), name)(weights=None, input_shape=(224, 224, 3))
    rng = np.random.default_rng(3)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for weight in layer.weights:
                low = 0.5 if "gamma" in weight.name or "variance" in weight.name else -0.5
                weight.assign(rng.uniform(low, low + 1, weight.shape))
    return model


def features(model: keras.Model) -> keras.Model:
    """What goes into the zoo's classifier, which is its last layer but one."""
    return keras.Model(model.input, model.layers[-2].input)


def kernel_shapes(model: keras.Model) -> list[tuple[int, ...]]:
    """Shapes of all kernels, in the order of the layers."""
    return [tuple(w.shape) for layer in model.layers for w in layer.weights if "kernel" in w.name]


def with_the_zoo_s_numbers(ours: keras.Model, theirs: keras.Model) -> keras.Model:
    """A copy of `ours` with the weights, quantisers, padding and batch norm constants of `theirs`.

    Layers with weights are paired in order. What stays ours is how they are joined, their strides, and constants.
    """
    partners = dict(zip([x.name for x in _weighted(ours)], _weighted(theirs), strict=False))

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        keys: tuple[str, ...] = ()
        if isinstance(layer, lq.layers.QuantConv2D):
            keys = ("input_quantizer", "kernel_quantizer", "kernel_constraint", "pad_values")
        elif isinstance(layer, keras.layers.BatchNormalization):
            keys = ("epsilon",)
        config.update({key: partners[layer.name].get_config()[key] for key in keys})
        return type(layer).from_config(config)

    copy = keras.models.clone_model(ours, clone_function=clone)
    copy.set_weights(ours.get_weights())
    for layer in _weighted(copy):
        if not layer.trainable_weights:  # QuickNet's blur: a constant that ours has to get right by itself
            continue
        given = {_kind(weight): weight for weight in partners[layer.name].weights}
        for weight in layer.weights:
            # Some of the zoo's batch norms have no scale or no shift.
            rest = np.full(weight.shape, _kind(weight) == "gamma", np.float32)
            weight.assign(given.get(_kind(weight), rest))
    return copy


def _weighted(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in model.layers if layer.weights]


def _kind(weight: object) -> str:
    return str(weight.name).rsplit("/", 1)[-1].removesuffix(":0")  # type: ignore[attr-defined]
