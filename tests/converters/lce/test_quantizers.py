"""Ways to write a sign that are not larq's, tried against LCE: what `sign_of` says of each is what LCE makes of it.

Without our folding, which is another matter. larq's own quantisers are in test_conversion_matrix.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bssl_tf.backend import keras, lq, tf
from bssl_tf_converters.lce import converter as lce
from bssl_tf_converters.lce.checks import find_after
from bssl_tf_converters.lce.checks.layers import is_binary_kernel, sign_of

CHANNELS = 32
THRESHOLDS = tf.constant(np.linspace(-1, 1, CHANNELS), tf.float32)

SIGNS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "larq.math.sign": (lq.math.sign, "sign"),
    "where >=": (lambda x: tf.where(x >= 0, 1.0, -1.0), "sign"),
    "where >": (lambda x: tf.where(x > 0, 1.0, -1.0), "sign"),
    "where, the other way": (lambda x: tf.where(x < 0, 1.0, -1.0), "sign"),
    "where, of tensors": (lambda x: tf.where(x >= 0, tf.ones_like(x), -tf.ones_like(x)), "sign"),
    "a threshold for each channel": (lambda x: tf.where(x >= THRESHOLDS, 1.0, -1.0), "sign"),
    "no gradient through": (lambda x: tf.stop_gradient(lq.math.sign(x)), "sign"),
    "straight through by hand": (lambda x: x + tf.stop_gradient(lq.math.sign(x) - x), "unknown sign"),
    "cast": (lambda x: 2 * tf.cast(x >= 0, tf.float32) - 1, "unknown sign"),
    "tf.sign": (tf.sign, "other"),
    "scaled": (lambda x: 0.5 * lq.math.sign(x), "other"),
    "three values": (lambda x: tf.sign(tf.sign(x - 0.5) + tf.sign(x + 0.5)), "ternary"),
    "where, to other numbers": (lambda x: tf.where(x >= 0, 1.0, 0.0), "other"),
    "nothing": (lambda x: x, "other"),
}


@pytest.mark.parametrize("name", SIGNS)
def test_what_is_said_of_a_function(name: str) -> None:
    function, kind = SIGNS[name]
    sign = sign_of(function, (None, 8, 8, CHANNELS))
    assert sign is not None
    assert (sign.kind, sign.depends_on_batch) == (kind, False)


def test_lce_makes_bits_of_those_it_is_said_to_and_of_no_other() -> None:
    image = keras.Input((4, 4, CHANNELS))
    branches = [
        lq.layers.QuantConv2D(
            8,
            3,
            use_bias=False,
            input_quantizer=function,
            kernel_quantizer="ste_sign",
            kernel_initializer=keras.initializers.RandomNormal(seed=number),
            name=f"conv{number}",
        )(image)
        for number, (function, _) in enumerate(SIGNS.values())
    ]
    model = keras.Model(image, keras.layers.Flatten()(keras.layers.Concatenate()(branches)), name="signs")
    converted = lce.convert(model, "arm64", fold=False)
    binary = {layer.name for layer in find_after(model, converted)[0].layers.values()}
    assert binary == {f"conv{number}" for number, (_, kind) in enumerate(SIGNS.values()) if kind in ("sign", "ternary")}
    images = np.random.default_rng(0).normal(0, 0.5, (8, 4, 4, CHANNELS)).astype(np.float32)
    images[0] = 0
    difference = np.abs(lce.LceInterpreter(converted).predict(images) - model(images).numpy())
    wrong = difference.reshape(-1, len(SIGNS), 8).max(axis=(0, 2)) > 1e-3
    assert [name for name, one in zip(SIGNS, wrong, strict=True) if one] == ["three values"]


def test_functions_that_cannot_be_tried_are_left_to_the_checks_after_conversion() -> None:
    def fails(x: Any) -> Any:
        raise ValueError("only for other shapes")

    assert sign_of(fails, (None, 8, 8, 4)) is None
    assert sign_of(lq.math.sign, (None, 8, 8, None)) is None


@pytest.mark.parametrize(
    ("change", "binary"),
    [
        (lambda k: k, True),
        (lambda k: k * np.linspace(0.1, 3, 8), True),
        (lambda k: k * 1.004, True),
        (lambda k: k * np.linspace(0.1, 3, CHANNELS)[:, np.newaxis], False),
        (lambda k: np.where(np.arange(8) == 3, 0, k), False),
        (lambda k: k * np.where(np.arange(8) == 3, 1e-8, 1), False),
        (lambda k: k + np.eye(CHANNELS, 8) * 0.02, False),
    ],
    ids=["signs", "scaled outputs", "scaled", "scaled inputs", "a zero", "next to zero", "uneven"],
)
def test_a_kernel_is_binary_where_lce_says_so(change: Callable[[Any], Any], binary: bool) -> None:
    signs = np.random.default_rng(1).choice([-1.0, 1.0], (3, 3, CHANNELS, 8))
    kernel = change(signs).astype(np.float32)
    assert is_binary_kernel(kernel) == binary
    image = keras.Input((4, 4, CHANNELS))
    layer = keras.layers.Conv2D(8, 3, use_bias=False)
    model = keras.Model(image, keras.layers.Flatten()(layer(lq.quantizers.SteSign()(image))))
    layer.set_weights([kernel])
    assert ("LceBconv2d" in find_after(model, lce.convert(model, "arm64", fold=False))[0].report.operators) == binary


# A 256th is within LCE's tolerance, a 64th is not; 2 ** -27 counts as zero.
NUMBERS = [-2.0, -1.0, -0.99609375, 0.0, 2.0**-27, 1.0, 1.00390625, 1.015625]


@given(arrays(np.float32, (1, 1, 2, 1), elements=st.sampled_from(NUMBERS)))
def test_a_kernel_is_binary_as_in_lces_own_loop(kernel: np.ndarray) -> None:
    """Number by number, as IsBinaryFilter of LCE's prepare_tf.cc has it."""
    binary = True
    for (_, _, _, channel), value in np.ndenumerate(kernel):
        scale = kernel[0, 0, 0, channel]
        if abs(scale) <= np.finfo(np.float32).eps or abs(abs(value / scale) - 1) > 0.005:
            binary = False
    assert is_binary_kernel(kernel) == binary
