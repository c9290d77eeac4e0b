"""Refusals: each names the layer, and says what to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bssl_tf.backend import keras, lq, tf
from bssl_tf.errors import ConversionError
from bssl_tf_converters import lce
from bssl_tf_converters.checks import check_binary, check_convertible
from bssl_tf_converters.deployable import with_classifier
from tests.converters.networks import settle_norms

layers = keras.layers


def conv(**changes: Any) -> Any:
    settings = {
        "padding": "same",
        "pad_values": 1.0,
        "use_bias": False,
        "input_quantizer": "approx_sign",
        "kernel_quantizer": "magnitude_aware_sign",
        "name": "block_conv",
    }
    return lq.layers.QuantConv2D(32, 3, **(settings | changes))


def network(layer: Callable[[Any], Any], channels: int = 32) -> keras.Model:
    image = keras.Input((8, 8, channels))
    return keras.Model(image, layers.GlobalAveragePooling2D()(layer(image)), name="network")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (conv(input_quantizer=None), "block_conv has a kernel quantiser and no input quantiser.*Set input_quantizer"),
        (conv(kernel_quantizer=None), "block_conv has a input quantiser and no kernel quantiser.*Set kernel_quantizer"),
        (conv(pad_values=-1.0), "block_conv pads with -1.*Set pad_values to 1"),
        (conv(input_quantizer=tf.sign), "block_conv has the input quantiser sign.*Use one of"),
        (
            lq.layers.QuantDense(8, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="dense"),
            r"layer dense is a QuantDense.*Reshape\(\(1, 1, C\)\), QuantConv2D",
        ),
        (
            lq.layers.QuantDepthwiseConv2D(3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign", name="dw"),
            "layer dw is a QuantDepthwiseConv2D.*Use QuantConv2D",
        ),
    ],
    ids=["no input quantiser", "no kernel quantiser", "pad -1", "tf.sign", "dense", "depthwise"],
)
def test_what_lce_would_turn_to_float_is_refused_before_conversion(layer: Any, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        check_convertible(network(layer))


def test_a_plain_float_layer_is_no_matter() -> None:
    check_convertible(network(lambda x: layers.Conv2D(8, 3)(conv()(x))))


def test_a_layer_that_fell_back_is_named() -> None:
    """pad_values=-1 after all: the kernel is nowhere in the flatbuffer, and the other layer's is."""
    model = network(lambda x: conv(name="second_conv", pad_values=-1.0)(conv(name="first_conv")(x)))
    with pytest.raises(ConversionError, match=r"1 of 2 binary layers .* in LCE: second_conv"):
        check_binary(model, lce.convert(model, "arm64"))


def test_a_kernel_of_zeros_is_told() -> None:
    layer = conv()
    model = network(layer)
    kernel = layer.get_weights()[0]
    kernel[..., 0] = 0
    layer.set_weights([kernel])
    with pytest.raises(ConversionError, match=r"block_conv \(a kernel of zeros\)"):
        check_binary(model, lce.convert(model, "arm64"))


def test_bits_turned_back_into_floats_are_refused() -> None:
    def pooled_sign(x: Any) -> Any:
        return conv()(layers.MaxPool2D(name="pool")(layers.Activation(lq.quantizers.approx_sign)(x)))

    model = network(pooled_sign)
    with pytest.raises(ConversionError, match="1 operators that turn bits back into floats"):
        check_binary(model, lce.convert(model, "arm64"))


def test_operators_that_no_device_has_are_refused() -> None:
    model = network(lambda x: layers.Lambda(lambda t: tf.linalg.svd(t)[1])(conv()(x)))
    with pytest.raises(ConversionError, match="operator Svd exists in TensorFlow only"):
        check_binary(model, lce.convert(model, "arm64"))


def test_a_flatbuffer_of_another_network_is_not_taken() -> None:
    """A kernel with one sign changed is another kernel."""
    layer = conv()
    model = network(layer)
    converted = lce.convert(model, "arm64")
    check_binary(model, converted)
    kernel = layer.get_weights()[0]
    kernel[1, 1, 5, 7] *= -1
    layer.set_weights([kernel])
    with pytest.raises(ConversionError, match="block_conv"):
        check_binary(model, converted)


def test_layers_are_found_in_a_chain_of_bits() -> None:
    """Batch norm between two signs: LCE writes bits, names the operator after the next layer, and where the batch
    norm's scale is negative turns the kernel's signs around. 40 channels leave the last word part empty."""

    def chain(x: Any) -> Any:
        for number in range(3):
            x = layers.BatchNormalization(name=f"norm{number}")(
                lq.layers.QuantConv2D(
                    40,
                    3,
                    padding="same",
                    pad_values=1.0,
                    use_bias=False,
                    input_quantizer="approx_sign",
                    kernel_quantizer="magnitude_aware_sign",
                    name=f"conv{number}",
                )(x)
            )
        return x

    model = network(chain, channels=40)
    images = np.random.default_rng(0).normal(0, 1, (32, 8, 8, 40)).astype(np.float32)
    settle_norms(model, images, seed=0)
    converted = lce.convert(model, "arm64")
    report = check_binary(model, converted)
    assert report.operators["LceQuantize"] == 1
    assert report.binary_convolutions == 3
    difference = np.abs(lce.LceInterpreter(converted).predict(images) - model(images).numpy())
    assert np.median(difference) < 1e-5


def test_a_probe_that_does_not_fit_is_refused() -> None:
    model = network(conv())
    with pytest.raises(ConversionError, match="gives 32 features"):
        with_classifier(model, np.zeros((16, 10), np.float32), np.zeros(10, np.float32))
    with pytest.raises(ConversionError, match="logits/bias:0 holds numbers that are not finite"):
        with_classifier(model, np.zeros((32, 2), np.float32), np.array([0, np.nan], np.float32))
