"""The network that goes to the device: a backbone with the linear probe on top."""

from __future__ import annotations

import numpy as np

from bssl_tf.backend import keras
from bssl_tf.errors import ConversionError


def with_classifier(backbone: keras.Model, weights: np.ndarray, bias: np.ndarray) -> keras.Model:
    """`backbone` and a dense layer `logits` behind its features; the backbone's layers are shared, not copied.

    Args:
        backbone: from [B, S, S, C] to features [B, D].
        weights: float [D, K].
        bias: float [K].

    Raises:
        ConversionError: shapes do not fit, or a number is not finite.
    """
    width = backbone.output.shape[-1]
    if weights.ndim != 2 or bias.ndim != 1 or weights.shape != (width, len(bias)):
        raise ConversionError(
            f"the probe is {list(weights.shape)} + {list(bias.shape)}, and {backbone.name} gives {width} features",
            "Fit it again on this network with `bssl-tf evaluate`",
        )
    logits = keras.layers.Dense(len(bias), name="logits")
    model = keras.Model(backbone.input, logits(backbone.output), name=backbone.name)
    logits.set_weights([weights, bias])
    for weight in model.weights:
        if not np.all(np.isfinite(weight.numpy())):
            raise ConversionError(f"{weight.name} holds numbers that are not finite", "Train again, at a lower rate")
    return model
