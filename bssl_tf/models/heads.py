"""Multi-layer perceptrons behind a backbone; dropped after pretraining."""

from __future__ import annotations

from collections.abc import Sequence

from bssl_tf.backend import keras
from bssl_tf.models.layers import batch_norm

layers = keras.layers


def mlp_head(name: str, input_width: int, widths: Sequence[int], *, use_batch_norm: bool) -> keras.Model:
    """Dense layers with ReLU between them and nothing behind the last.

    With (d, 128) and no batch norm it is MoCo v2's projection head (S2-BNN, section 3.1); with (2000, 2000) and
    batch norm it is the classifier of joint classifier training (BSSL, section 4).

    Args:
        name: the model's name, the prefix of its layers' names.
        input_width: features that come in.
        widths: units of each layer, at least one.
        use_batch_norm: batch norm behind every layer but the last.

    Returns:
        A model from [B, input_width] float32 to [B, widths[-1]] float32.
    """
    features = layers.Input((input_width,), name=f"{name}_input")
    x = features
    for number, units in enumerate(widths, start=1):
        last = number == len(widths)
        x = layers.Dense(units, use_bias=last or not use_batch_norm, name=f"{name}_dense{number}")(x)
        if not last:
            if use_batch_norm:
                x = batch_norm(f"{name}_norm{number}")(x)
            x = layers.ReLU(name=f"{name}_relu{number}")(x)
    return keras.Model(features, x, name=name)
