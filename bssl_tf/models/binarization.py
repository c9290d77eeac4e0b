"""The same network with quantisers on or off, for multi-stage training."""

from __future__ import annotations

from typing import Any

from bssl_tf.backend import keras


def binary_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of `model` meant to be 1-bit: those with both an input and a kernel quantiser."""
    return [
        layer
        for layer in model.submodules
        if getattr(layer, "input_quantizer", None) is not None and getattr(layer, "kernel_quantizer", None) is not None
    ]


def binarize(model: keras.Model, *, weights: bool) -> keras.Model:
    """A copy of a binary network with its weights still binary, or back in float (activations stay 1-bit).

    This is the step of multi-stage training (S2-BNN, section 3.1, "progressive binarisation"): stage 1 binarises
    activations only, stage 2 starts from its weights and binarises them too. Weights are copied.

    Args:
        model: a functional model of larq layers with all quantisers in place.
        weights: False takes the kernel quantisers (and the clipping that belongs to them) away.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if not weights and getattr(layer, "kernel_quantizer", None) is not None:
            config.update(kernel_quantizer=None, kernel_constraint=None)
        return type(layer).from_config(config)

    return copy_of(model, clone)


def copy_of(model: keras.Model, clone: Any = None) -> keras.Model:
    """A second network with the weights of `model` in variables of its own; `clone` makes each layer's counterpart."""
    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy
