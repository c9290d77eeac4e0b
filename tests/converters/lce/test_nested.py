"""Models called as layers, to any depth, and shared layers are looked at as if they were written out."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from bssl_tf.backend import keras, lq
from bssl_tf_converters.lce import converter as lce
from bssl_tf_converters.lce.checks import find_after, find_before
from bssl_tf_converters.lce.checks.layers import binary_layers, leaves, way_from_sign
from bssl_tf_converters.lce.explain import explain
from bssl_tf_converters.lce.explanation import Difference, Explanation, require_no_fault
from bssl_tf_converters.lce.export import convert_model, without_softmax
from bssl_tf_converters.lce.float_reference import float_twin
from bssl_tf_converters.lce.signs import hard_images, pre_activations, run
from tests.converters.lce.test_explain import with_a_wrong_bit

layers = keras.layers
SIZE = 8


def conv(name: str, **changes: Any) -> keras.layers.Layer:
    settings = {
        "padding": "same",
        "pad_values": 1.0,
        "use_bias": False,
        "input_quantizer": "ste_sign",
        "kernel_quantizer": "ste_sign",
        "kernel_constraint": "weight_clip",
        "name": name,
    }
    return lq.layers.QuantConv2D(32, 3, **(settings | changes))


def norm(seed: int) -> keras.layers.Layer:
    """A batch norm that looks trained: scales of both signs, and sums that spread around its mean."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(0.8, 0.6, 32), rng.normal(0, 0.5, 32), rng.normal(0, 3, 32), rng.uniform(100, 400, 32)]
    return layers.BatchNormalization(weights=weights)


def called(name: str, *within: Any) -> keras.Model:
    """A model of these layers one after the other."""
    features = x = layers.Input((SIZE, SIZE, 32))
    for layer in within:
        x = layer(x)
    return keras.Model(features, x, name=name)


def parts(seed: int = 0) -> list[Any]:
    """A stem, three binary layers with batch norms, and a classifier."""
    keras.utils.set_random_seed(seed)
    return [
        layers.Conv2D(32, 3, padding="same", name="stem"),
        *(layer for number in range(3) for layer in (conv(f"binary{number}"), norm(number))),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5, name="logits"),
    ]


def chained(*within: Any) -> keras.Model:
    image = x = layers.Input((SIZE, SIZE, 3))
    for layer in within:
        x = layer(x)
    return keras.Model(image, x, name="outer")


def nested() -> keras.Model:
    """The second and third binary layer two and one models deep."""
    stem, first, norm1, second, norm2, third, norm3, *rest = parts()
    return chained(stem, first, called("deep", norm1, called("deeper", second), norm2, third), norm3, *rest)


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (count, SIZE, SIZE, 3)).astype(np.float32)


def test_nested_layers_enter_with_the_values_of_the_flat_form() -> None:
    flat, deep, images = chained(*parts()), nested(), pictures(4)
    for layer in leaves(deep):
        if layer.name in ("stem", "binary0", "binary1", "binary2", "logits"):
            layer.set_weights(flat.get_layer(layer.name).get_weights())
    names = [f"binary{number}" for number in range(3)]
    assert [one.name for one in pre_activations(deep)] == [one.name for one in pre_activations(flat)] == names
    found, expected = (run(model, pre_activations(model), images) for model in (deep, flat))
    for ours, theirs in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for one, other in zip(
        vars(hard_images(deep, images)).values(), vars(hard_images(flat, images)).values(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_nested_network_converts_and_every_layer_is_compared(caplog: pytest.LogCaptureFixture) -> None:
    model = nested()
    with caplog.at_level(logging.INFO, "bssl_tf_converters"):
        converted = convert_model(model, pictures(12), "x86_64", explaining=True)
    lines = caplog.messages
    assert converted.report.binary_convolutions == 3 and converted.parity.share_within_tolerance == 1
    assert any(line.startswith("the inputs of 3 binary layers and the output agree") for line in lines)
    assert not any("not compared" in line for line in lines)
    wrong = explain(model, with_a_wrong_bit(converted.model, 1), pictures(8))
    assert wrong.fault is not None and (wrong.fault.layer, wrong.behind) == ("binary2", "binary1")


def test_a_sign_outside_of_a_nested_model_makes_its_layer_binary() -> None:
    inner = called("inner", conv("first", input_quantizer=None))
    model = chained(layers.Conv2D(32, 1), lq.quantizers.SteSign(), inner, layers.GlobalAveragePooling2D())
    [binary] = binary_layers(model)
    assert (binary.name, way_from_sign(model, binary)) == ("first", [])
    assert find_before(model) == []
    assert [one.name for one in pre_activations(model)] == ["first"]
    through = called("through", layers.ReLU(name="relu"), conv("second", input_quantizer=None))
    between = chained(layers.Conv2D(32, 1), lq.quantizers.SteSign(), through, layers.GlobalAveragePooling2D())
    assert [(one.code, one.layer) for one in find_before(between)] == [("between-sign-and-convolution", "second")]
    fed_by_floats = called("floats", layers.Conv2D(32, 1), conv("third", input_quantizer=None))
    assert binary_layers(chained(layers.Conv2D(32, 1), fed_by_floats)) == []


def test_a_shared_layer_is_compared_at_each_of_its_calls() -> None:
    keras.utils.set_random_seed(1)
    shared = conv("shared")
    block = called("block", shared, norm(0))
    model = chained(layers.Conv2D(32, 3, padding="same"), block, block, norm(5), layers.GlobalAveragePooling2D())
    converted = lce.convert(model, "x86_64")
    conversion, findings = find_after(model, converted)
    assert conversion.report.binary_convolutions == 2 and findings == []
    explanation = explain(model, converted, pictures(8))
    assert explanation.compared == ("shared (call 1)", "shared (call 2)")
    assert (explanation.fault, explanation.left_out) == (None, {})


def test_a_nested_softmax_is_taken_off_too() -> None:
    for last in (layers.Dense(5, activation="softmax"), layers.Activation("softmax"), layers.Softmax()):
        head = called("head", layers.GlobalAveragePooling2D(), last)
        model = without_softmax(chained(layers.Conv2D(32, 1), head))
        assert np.abs(model(pictures(8)).numpy().sum(axis=1) - 1).max() > 1e-3


def test_the_float_twin_of_a_nested_model_has_no_quantisers() -> None:
    twin = float_twin(nested())
    assert binary_layers(twin) == [] and len(twin.get_weights()) == len(nested().get_weights())


def explanation(**changes: Any) -> Explanation:
    nothing: dict[str, Any] = {
        "images": 8,
        "compared": (),
        "left_out": {},
        "rounding": (),
        "fault": None,
        "unexplained": None,
        "behind": "",
        "output_images": 8,
        "wrong_kernels": {},
    }
    return Explanation(**(nothing | changes))


def test_what_was_not_compared_is_never_said_to_agree() -> None:
    off = Difference("the output", 3, 9, 0.1, 0)
    left_out = {"one": "no LceBconv2d has the kernel", "two": "no LceBconv2d has the kernel"}
    not_compared = "not compared, because no LceBconv2d has the kernel: one, two"
    assert explanation(left_out=left_out).lines() == [
        "the output agrees on 8 images; no binary layer was compared",
        not_compared,
    ]
    cannot_tell = "Whether that is rounding is unknown, because not every binary layer was compared"
    unexplained = explanation(left_out=left_out, unexplained=off)
    assert unexplained.lines() == [
        f"the output differs in 3 of 8 images; no binary layer was compared. {cannot_tell}",
        not_compared,
    ]
    require_no_fault(unexplained)
    assert explanation(compared=("zero",), left_out=left_out, unexplained=off).lines()[0] == (
        f"the output differs in 3 of 8 images; the input of 1 binary layer agrees. {cannot_tell}"
    )
    assert "there is no binary layer" in explanation(fault=off).lines()[0]
    assert explanation(output_images=0, compared=("zero",)).lines() == [
        "rounding flipped a sign in every image, so nothing is known about what comes after it"
    ]


def test_a_layer_whose_signs_cannot_be_reached_is_named_with_the_reason() -> None:
    """A sign that is a function and not a layer of its own."""
    image = layers.Input((SIZE, SIZE, 32))
    x = layers.Activation(lq.quantizers.ste_sign)(image)
    joined = conv("joined", input_quantizer=None)(layers.Concatenate()([x[..., :16], x[..., 16:]]))
    model = keras.Model(image, layers.GlobalAveragePooling2D()(joined))
    converted = lce.convert(model, "x86_64")
    found = explain(model, converted, np.random.default_rng(0).normal(0, 1, (4, SIZE, SIZE, 32)).astype(np.float32))
    assert found.compared == () and set(found.left_out) <= {"joined"}
    assert not any("agree" in line and "binary layers and" in line for line in found.lines())


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    "layer",
    [
        layers.SeparableConv2D(32, 3),
        lq.layers.QuantSeparableConv2D(32, 3),
        layers.DepthwiseConv2D(3),
        layers.Conv2DTranspose(32, 3),
        layers.LocallyConnected2D(32, 7),
        keras.Sequential([layers.Reshape((64, 32)), layers.SeparableConv1D(32, 3), layers.Reshape((62, 1, 32))]),
        keras.Sequential([layers.Reshape((64, 32)), layers.Conv1D(32, 3), layers.Reshape((62, 1, 32))]),
        keras.Sequential([layers.Reshape((1, 8, 8, 32)), layers.Conv3D(32, (1, 3, 3)), layers.Reshape((6, 6, 32))]),
        layers.EinsumDense("bhwc,cd->bhwd", (8, 8, 32)),
        layers.Dense(32),
        layers.Conv2D(32, 3, groups=4),
        lambda x: keras.backend.conv2d(x, np.ones((3, 3, 32, 32), np.float32)),
        lambda x: layers.MultiHeadAttention(2, 16)(x, x),
    ],
    ids=[
        *("SeparableConv2D", "QuantSeparableConv2D", "DepthwiseConv2D", "Conv2DTranspose", "LocallyConnected2D"),
        *("SeparableConv1D", "Conv1D", "Conv3D", "EinsumDense", "Dense", "groups", "a function", "attention"),
    ],
)
def test_float_layers_of_every_kind_are_not_taken_for_lost_binary_ones(layer: Any, binary: bool) -> None:
    image = layers.Input((SIZE, SIZE, 32))
    x = layer(image)
    x = conv("binary")(x) if binary else x
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    conversion, findings = find_after(model, lce.convert(model, "x86_64"))
    assert [one.code for one in findings if one.severity == "error"] == []
    assert conversion.report.binary_convolutions == binary
