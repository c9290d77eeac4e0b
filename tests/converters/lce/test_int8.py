"""int8 for what stays float: against the same rounding in TensorFlow, in LCE's interpreter and in ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssl_tf.backend import keras, lq, tf
from bssl_tf.data.preprocessing import evaluation_views, fit_preprocessing
from bssl_tf.errors import ConversionError
from bssl_tf_converters.lce import converter as lce
from bssl_tf_converters.lce import int8
from bssl_tf_converters.lce.checks import find_after
from bssl_tf_converters.lce.deployable import with_classifier
from bssl_tf_converters.lce.export import Converted, convert_model
from bssl_tf_converters.lce.parity import compare, require_rounded
from bssl_tf_converters.tflite.model import TfliteModel, read_model
from bssl_tf_deploy.manifest import ParityFigures, Quantization
from bssl_tf_deploy.tasks.classification import same_top1
from tests.converters.networks import backbone, embedded_images, image_set, random_probe

SIZE = 12
Layers = Callable[[Any], Any]
_L = keras.layers


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, SIZE, SIZE, 4)).astype(np.float32)


def model_of(layers: Layers) -> keras.Model:
    keras.utils.set_random_seed(3)
    image = keras.Input((SIZE, SIZE, 4))
    model = keras.Model(image, layers(image), name="network")
    rng = np.random.default_rng(4)
    for weight in model.weights:
        if "bias" in weight.name or "beta" in weight.name or "moving_mean" in weight.name:
            weight.assign(rng.normal(0, 0.3, weight.shape))
        if "gamma" in weight.name or "moving_variance" in weight.name:
            weight.assign(rng.uniform(0.5, 2, weight.shape))
    return model


def computed_in(content: TfliteModel) -> dict[str, set[str]]:
    """Types of the kernels by operator."""
    found: dict[str, set[str]] = {}
    for operator in content.operators:
        if len(operator.inputs) > 1 and (kernel := operator.inputs[1]) is not None and kernel.data is not None:
            found.setdefault(operator.name, set()).add(kernel.dtype)
    return found


def _binary(x: Any) -> Any:
    return lq.layers.QuantConv2D(4, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign")(x)


NETWORKS: dict[str, tuple[Layers, tuple[str, ...]]] = {
    "batch norm and ReLU behind": (
        lambda x: _L.Flatten()(_L.ReLU()(_L.BatchNormalization()(_L.Conv2D(8, 3, use_bias=False)(x)))),
        ("CONV_2D",),
    ),
    "ReLU6, padded, stride 2": (
        lambda x: _L.Flatten()(_L.ReLU(6.0)(_L.Conv2D(8, 3, strides=2, padding="same")(x))),
        ("CONV_2D",),
    ),
    "one after another through a pool": (
        lambda x: _L.Flatten()(_L.Conv2D(5, 1)(_L.MaxPool2D()(_L.Conv2D(8, 3, activation="relu")(x)))),
        ("CONV_2D",),
    ),
    "depthwise": (
        lambda x: _L.Flatten()(_L.BatchNormalization()(_L.DepthwiseConv2D(3, depth_multiplier=2)(x))),
        ("DEPTHWISE_CONV_2D",),
    ),
    "dense": (
        lambda x: _L.Dense(5)(_L.Dense(9, activation="relu")(_L.GlobalAveragePooling2D()(x))),
        ("FULLY_CONNECTED",),
    ),
    "two readers": (
        lambda x: _L.Flatten()(_L.Add()([_L.Conv2D(4, 1)(y := _L.Conv2D(4, 3, padding="same")(x)), y])),
        ("CONV_2D",),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kernel_is_int8_and_rounds_as_the_graph_does(name: str) -> None:
    layers, operators = NETWORKS[name]
    model = model_of(layers)
    graph = lce.inference_graph(model, calibration=images(20))
    converted = lce.convert_graph(graph, "network", "arm64")
    assert {kind: {"int8"} for kind in operators}.items() <= computed_in(read_model(converted)).items()
    taken = images(16, seed=1)
    expected = int8.simulate(graph, lce.OUTPUT_NAME, taken)
    given_back = lce.LceInterpreter(converted).predict(taken)
    # Outputs are rounded too; a value halfway between two steps may go to either.
    step = np.ptp(expected) / 200
    assert np.mean(np.abs(given_back - expected) > step / 4) < 0.01
    assert np.max(np.abs(given_back - expected)) < 2 * step
    # And int8 is near float: a few steps, over the range of 255.
    floats = model(taken, training=False).numpy()
    assert np.percentile(np.abs(given_back - floats), 99) < 6 * step


@pytest.mark.parametrize("name", ["dense", "two readers"])
def test_ends_in_int8_say_the_same_as_ends_in_float(name: str) -> None:
    """Also where a pool stands in front of the first kernel, or a sum behind the last."""
    model = model_of(NETWORKS[name][0])
    graph = lce.inference_graph(model, calibration=images(20), int8_ends=True)
    floats = lce.LceInterpreter(lce.convert_graph(graph, "network", "arm64"))
    whole = lce.LceInterpreter(lce.convert_graph(graph, "network", "arm64", int8_ends=True))
    [taken], [given_back] = whole.input_quantizations, whole.output_quantizations
    assert taken is not None and given_back is not None
    assert floats.input_quantizations == floats.output_quantizations == (None,)
    batch = images(8, seed=1)
    np.testing.assert_array_equal(whole.predict(taken.integers(batch)), floats.predict(batch))
    with pytest.raises(ValueError, match=r"float32 \[8.*, the network takes int8"):
        whole.predict(batch)


def test_outliers_do_not_coarsen_the_rest() -> None:
    model = model_of(lambda x: _L.Flatten()(_L.Conv2D(1, 1, use_bias=False, kernel_initializer="ones")(x)))
    calibration = images(20)
    calibration[:, 0, 0] = 1000
    graph = lce.inference_graph(model, calibration=calibration)
    levels = np.unique(int8.simulate(graph, lce.OUTPUT_NAME, images(16, seed=1)))
    # With the outlier the step would be 4000 / 255.
    assert np.min(np.diff(levels)) < 16


@pytest.mark.parametrize("part", ["convolution", "dense"])
def test_what_cannot_be_int8_is_named(part: str) -> None:
    def layers(x: Any) -> Any:
        x = _L.Conv2D(8, 3)(x)
        if part == "convolution":
            return _L.Flatten()(_L.Conv2DTranspose(3, 3)(x))
        return _L.Flatten()(_L.Dot((2, 2))([_L.Reshape((100, 8))(x)] * 2))

    model = model_of(layers)
    converted = lce.convert(model, "arm64", calibration=images(4))
    [finding] = [one for one in find_after(model, converted, int8=True)[1] if one.code == "int8-left-float"]
    assert "1 operators" in finding.message
    assert not any(one.code == "int8-left-float" for one in find_after(model, converted)[1])
    with pytest.raises(ConversionError, match="int8-left-float"):
        convert_model(model, images(4), "arm64", allowed=("extra-float",), calibration=images(4))


def test_nothing_to_quantise_and_nothing_to_calibrate_on() -> None:
    binary = model_of(lambda x: _L.Flatten()(_binary(x)))
    with pytest.raises(ConversionError, match="no float operator"):
        lce.convert(binary, "arm64", calibration=images(4))
    model = model_of(NETWORKS["dense"][0])
    with pytest.raises(ConversionError, match="no images to calibrate"):
        lce.convert(model, "arm64", calibration=images(0))
    with pytest.raises(ConversionError, match="not finite"):
        lce.convert(model, "arm64", calibration=np.full((1, SIZE, SIZE, 4), np.nan, np.float32))


@pytest.fixture(scope="module")
def student() -> keras.Model:
    body = backbone(28, 1)
    return with_classifier(body, *random_probe(body, embedded_images(28, 1, 64), 10))


@pytest.mark.parametrize("ends", ["float32", "uint8", "int8"])
def test_a_student_keeps_its_bits_and_loses_its_floats(student: keras.Model, ends: str) -> None:
    preprocessing = fit_preprocessing(image_set(), 28)
    pictures = evaluation_views(image_set(), preprocessing, np.arange(80))
    found: Converted = convert_model(
        student,
        pictures[:40],
        "x86_64",
        preprocessing=preprocessing if ends == "uint8" else None,
        calibration=pictures[40:],
        int8_ends=ends == "int8",
    )
    report = found.report
    assert (report.binary_convolutions, report.float_convolutions, report.fully_connected) == (3, 0, 0)
    assert report.int8_operators == 2
    content = read_model(found.model)
    assert content.inputs[0].dtype == ends
    assert content.outputs[0].dtype == ("int8" if ends == "int8" else "float32")
    assert found.golden_inputs[0].dtype == ends
    # Parity is measured against the same rounding: most images to the last bit.
    assert found.parity.share_within_tolerance > 0.9
    assert np.mean(same_top1(found.expected, found.found)) > 0.5


def test_the_same_weights_and_images_give_the_same_bytes(student: keras.Model) -> None:
    pictures = embedded_images(28, 1, 16)
    first, second = (lce.convert(student, "arm64", calibration=pictures, int8_ends=True) for _ in range(2))
    assert first == second


@given(
    st.floats(1e-6, 1e3),
    st.integers(-128, 127),
    st.lists(st.integers(-128, 127), min_size=1, max_size=20),
)
def test_integers_come_back(scale: float, zero_point: int, numbers: list[int]) -> None:
    quantization, whole = Quantization(scale, zero_point), np.array(numbers, np.int8)
    np.testing.assert_array_equal(quantization.integers(quantization.floats(whole)), whole)


@given(st.floats(1e-3, 10), st.integers(-128, 127), st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20))
def test_what_is_within_the_range_moves_by_half_a_step_at_most(
    scale: float, zero_point: int, values: list[float]
) -> None:
    quantization = Quantization(scale, zero_point)
    low, high = quantization.floats(np.array([-128, 127], np.int8))
    clipped = np.clip(np.array(values, np.float32), low, high)
    back = quantization.floats(quantization.integers(clipped))
    assert np.max(np.abs(back - clipped)) <= scale * 0.5001


def test_tensorflow_rounds_constants_as_these_tests_think() -> None:
    """FakeQuantWithMinMaxVars moves a range so that 0 is one of its numbers."""
    fake = tf.quantization.fake_quant_with_min_max_vars
    assert 0.0 in fake(np.linspace(-0.7, 1.3, 999).astype(np.float32), -0.7, 1.3).numpy()


def test_what_int8_does_not_explain_is_refused() -> None:
    rng = np.random.default_rng(0)
    floats = rng.normal(0, 1, (20, 10))
    rounded = floats + rng.normal(0, 0.3, floats.shape)
    unsteady = rounded + rng.normal(0, 0.4, floats.shape)

    def check(floats: np.ndarray, rounded: np.ndarray, converted: np.ndarray) -> ParityFigures:
        # Another output that agrees hides nothing.
        steady = {"steady": np.arange(len(floats), dtype=np.float64)[:, np.newaxis]}
        expected, simulated, found = ({**steady, "logits": array} for array in (floats, rounded, converted))
        parity = compare(simulated, found, lambda *_: np.argmax(rounded, axis=1) == np.argmax(converted, axis=1))
        require_rounded(parity, expected, simulated, found)
        return parity

    assert check(floats, rounded, unsteady).share_within_tolerance < 0.5
    wrong = rng.permutation(rounded)
    with pytest.raises(ConversionError, match=r"does not match the Keras network.*Export it without int8"):
        check(floats, rounded, wrong)
    # Where nothing varies, only equality will do.
    same = np.ones((4, 3))
    check(same, same, same)
    with pytest.raises(ConversionError):
        check(same, same, 2 * same)
