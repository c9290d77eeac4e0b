"""The quantisers of the networks here, all from larq and all turned into 1-bit ops by Larq Compute Engine (LCE).

- `activation_quantizer()`: sign forward (sign(0) = +1), piecewise-polynomial gradient 2 - 2|x| on [-1, 1]
  (ApproxSign; Liu et al., Bi-Real Net, ECCV 2018, section 3.2).
- `kernel_quantizer()`: sign(w) * mean |w| per output channel, clipped straight-through gradient
  (MagnitudeAwareSign; same paper, section 3.3). LCE folds the scale into the output transform.

Signs that LCE does not recognise become float convolutions without a message;
`bssl_tf_converters.lce.checks` looks for them.
"""

from __future__ import annotations

from typing import Any

from bssl_tf.backend import keras, lq, tf


@keras.utils.register_keras_serializable(package="bssl_tf")
class Rectifier(lq.quantizers.Quantizer):
    """max(x, 0): what float twins have in place of a sign. Nothing is quantised."""

    precision = 32

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(inputs)


def activation_quantizer() -> Any:
    """A fresh 1-bit activation quantiser."""
    return lq.quantizers.ApproxSign()


def kernel_quantizer() -> Any:
    """A fresh 1-bit weight quantiser with one scale for each output channel."""
    return lq.quantizers.MagnitudeAwareSign()
