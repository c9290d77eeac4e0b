"""The table in bssl_tf_converters.checks, tried against real LCE, one layer each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bssl_tf.backend import keras, lq
from bssl_tf.errors import ConversionError
from bssl_tf_converters import lce
from bssl_tf_converters.checks import INPUT_QUANTIZERS, KERNEL_QUANTIZERS, check_binary, check_convertible
from bssl_tf_converters.tflite_model import operator_histogram

BINARY = {"LceBconv2d": 1, "LceQuantize": 1}


def one_layer(input_quantizer: Any, kernel_quantizer: Any) -> keras.Model:
    image = keras.Input((8, 8, 32))
    layer = lq.layers.QuantConv2D(
        16,
        3,
        padding="same",
        pad_values=1.0,
        use_bias=False,
        input_quantizer=input_quantizer,
        kernel_quantizer=kernel_quantizer,
        kernel_initializer=keras.initializers.RandomNormal(0, 0.5, seed=1),
        name="conv",
    )
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(layer(image)))


def images() -> np.ndarray:
    drawn = np.random.default_rng(0).normal(0, 1, (6, 8, 8, 32)).astype(np.float32)
    drawn[0] *= 0.02  # inside the dead zone of a ternary quantiser
    drawn[1, ::2] = 0  # sign(0) must be the same on both sides
    return drawn


def largest_difference(model: keras.Model, converted: bytes) -> float:
    batch = images()
    return float(np.abs(lce.LceInterpreter(converted).predict(batch) - model(batch).numpy()).max())


@pytest.mark.parametrize("side", ["input", "kernel"])
@pytest.mark.parametrize("name", list(KERNEL_QUANTIZERS))
def test_every_quantizer_of_the_table_converts_to_binary_with_the_right_numbers(side: str, name: str) -> None:
    table = INPUT_QUANTIZERS if side == "input" else KERNEL_QUANTIZERS
    for quantizer in table.get(name, ()):
        # A class is made with its defaults, a function is given as it is.
        value = quantizer() if isinstance(quantizer, type) else quantizer
        model = one_layer(value, "ste_sign") if side == "input" else one_layer("ste_sign", value)
        check_convertible(model)
        converted = lce.convert(model, "arm64")
        histogram = operator_histogram(converted)
        assert {operator: histogram.get(operator) for operator in BINARY} == BINARY
        check_binary(model, converted)
        # Sums of 288 signs, scaled by up to 0.4 and averaged: exact but for the rounding of the last steps.
        assert largest_difference(model, converted) < 1e-5


@pytest.mark.parametrize(
    ("side", "quantizer"),
    [
        ("input", "magnitude_aware_sign"),
        ("input", "ste_tern"),
        ("kernel", "ste_tern"),
        ("input", "ste_heaviside"),
        ("kernel", "ste_heaviside"),
        ("input", "dorefa_quantizer"),
        ("kernel", "dorefa_quantizer"),
        ("input", lq.quantizers.NoOp(precision=1)),
    ],
    ids=str,
)
def test_the_other_quantizers_are_refused_by_name(side: str, quantizer: Any) -> None:
    model = one_layer(quantizer, "ste_sign") if side == "input" else one_layer("ste_sign", quantizer)
    with pytest.raises(ConversionError, match=f"layer conv has the {side} quantiser .*(Use one of ste_sign)"):
        check_convertible(model)


def test_a_ternary_input_converts_to_wrong_numbers_without_a_word() -> None:
    """The reason why quantisers are checked by name: after conversion nothing looks wrong."""
    model = one_layer("ste_tern", "ste_sign")
    converted = lce.convert(model, "arm64")
    check_binary(model, converted)
    assert largest_difference(model, converted) > 0.5


def test_a_ternary_kernel_is_found_after_conversion() -> None:
    model = one_layer("ste_sign", "ste_tern")
    with pytest.raises(ConversionError, match="1 of 1 binary layers did not stay binary in LCE: conv"):
        check_binary(model, lce.convert(model, "arm64"))
