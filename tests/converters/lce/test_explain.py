"""The layer at which a conversion begins to differ is found, and rounding is told from faults that were planted."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssl_tf.backend import keras, lq
from bssl_tf.errors import ConversionError
from bssl_tf.models.layers import LearnedShift
from bssl_tf.preprocessing import Preprocessing
from bssl_tf_converters.lce import converter as lce
from bssl_tf_converters.lce.deployable import with_classifier
from bssl_tf_converters.lce.explain import explain, images_to_explain, with_output_tensor
from bssl_tf_converters.lce.explanation import require_no_fault
from bssl_tf_converters.lce.export import convert_model
from bssl_tf_converters.lce.signs import hard_images, pre_activations, values_at
from bssl_tf_converters.tflite.model import operator_histogram, read_model
from bssl_tf_deploy.library import own_library
from bssl_tf_deploy.litert import LiteRtInterpreter
from tests.conftest import require_or_skip
from tests.converters.lce.test_networks_convert import settled
from tests.converters.networks import embedded_images, random_probe, settle_norms

SIZE = 8
BINARY = ("one", "two", "three")


def network(pads: tuple[float, ...] = (1.0, 0.0, 1.0)) -> keras.Model:
    """Three binary layers with shortcuts; the signs of the second are a layer of their own, behind a learned shift."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    image = layers.Input((SIZE, SIZE, 3))
    x = layers.BatchNormalization()(layers.Conv2D(32, 3, padding="same", use_bias=False, name="stem")(image))
    for name, pad in zip(BINARY, pads, strict=True):
        convolution = lq.layers.QuantConv2D(
            32,
            3,
            padding="same",
            pad_values=pad,
            use_bias=False,
            input_quantizer=None if name == "two" else "ste_sign",
            kernel_quantizer="ste_sign",
            kernel_constraint="weight_clip",
            name=name,
        )
        signed = layers.Activation(lq.quantizers.ste_sign)(LearnedShift()(x)) if name == "two" else x
        x = layers.Add()([layers.BatchNormalization()(convolution(signed)), x])
    model = keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)), name="three")
    for weight in model.weights:
        if "shift" in weight.name:
            weight.assign(np.random.default_rng(2).normal(0, 0.3, weight.shape))
    settle_norms(model, pictures(64), 3)
    return model


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (count, SIZE, SIZE, 3)).astype(np.float32)


def same_weights(model: keras.Model, pads: tuple[float, ...]) -> keras.Model:
    other = network(pads)
    other.set_weights(model.get_weights())
    return other


def with_a_wrong_bit(converted: bytes, place: int) -> bytes:
    """One sign of the kernel of LceBconv2d number `place` turned."""
    operators = [one for one in read_model(converted).operators if one.name == "LceBconv2d"]
    kernel = operators[place].inputs[1]
    assert kernel is not None and kernel.data is not None and converted.count(kernel.data) == 1
    start = converted.index(kernel.data) + len(kernel.data) // 2
    return converted[:start] + bytes([converted[start] ^ 0b100]) + converted[start + 1 :]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return network()


@pytest.fixture(scope="module")
def converted(model: keras.Model) -> bytes:
    return lce.convert(model, "arm64")


def test_a_sound_conversion_agrees_at_every_sign(model: keras.Model, converted: bytes) -> None:
    explanation = explain(model, converted, pictures(12))
    assert explanation.compared == BINARY and not explanation.left_out
    assert explanation.fault is None and not explanation.wrong_kernels
    require_no_fault(explanation)
    assert explanation.lines()[-1].startswith("the inputs of 3 binary layers and the output agree on 12 images")


def test_signs_that_rounding_turned_are_called_so(model: keras.Model, converted: bytes) -> None:
    hard = images_to_explain(model, pictures(64))
    explanation = explain(model, converted, hard)
    assert explanation.fault is None
    # Without any the images would not be hard.
    assert explanation.rounding
    for one in explanation.rounding:
        assert 0 < one.near == one.signs < 20
        assert f"layer {one.layer}: {one.signs} signs differ in {one.images} of {len(hard)} images" in "".join(
            explanation.lines()
        )


@pytest.mark.parametrize(("place", "behind", "first"), [(0, "one", "two"), (1, "two", "three")])
def test_a_wrong_bit_in_a_kernel_is_found_behind_its_layer(
    model: keras.Model, converted: bytes, place: int, behind: str, first: str
) -> None:
    explanation = explain(model, with_a_wrong_bit(converted, place), pictures(12))
    assert explanation.fault is not None
    assert (explanation.fault.layer, explanation.behind) == (first, behind)
    assert explanation.fault.near < explanation.fault.signs
    assert explanation.wrong_kernels == {behind: 1}
    with pytest.raises(ConversionError, match=f"{first} is the first .*after layer {behind}, .*1 signs of {behind}'s"):
        require_no_fault(explanation)


def test_a_wrong_bit_in_the_last_kernel_is_found_in_front_of_the_output(model: keras.Model, converted: bytes) -> None:
    explanation = explain(model, with_a_wrong_bit(converted, 2), pictures(12))
    assert explanation.fault is not None
    assert (explanation.fault.layer, explanation.behind, explanation.compared) == ("the output", "three", BINARY)
    assert explanation.wrong_kernels == {"three": 1}


@pytest.mark.parametrize(
    ("pads", "behind", "first"),
    [((0.0, 0.0, 1.0), "one", "two"), ((1.0, 1.0, 1.0), "two", "three"), ((1.0, 0.0, 0.0), "three", "the output")],
)
def test_a_wrong_padding_is_found_behind_its_layer(
    model: keras.Model, pads: tuple[float, ...], behind: str, first: str
) -> None:
    explanation = explain(model, lce.convert(same_weights(model, pads), "arm64"), pictures(12))
    assert explanation.fault is not None
    assert (explanation.fault.layer, explanation.behind) == (first, behind)
    assert not explanation.wrong_kernels


def test_a_fault_in_front_of_all_signs_is_found_there(model: keras.Model) -> None:
    other = same_weights(model, (1.0, 0.0, 1.0))
    other.get_layer("stem").set_weights([1.01 * model.get_layer("stem").get_weights()[0]])
    explanation = explain(model, lce.convert(other, "arm64"), pictures(12))
    assert explanation.fault is not None
    assert (explanation.fault.layer, explanation.behind, explanation.compared) == ("one", "", ())
    assert "before all binary layers" in explanation.fault_sentence()


def test_a_fault_is_found_behind_signs_that_rounding_turned(model: keras.Model, converted: bytes) -> None:
    """The images with turned signs are set aside; the others show the fault."""
    hard = images_to_explain(model, pictures(64))
    explanation = explain(model, with_a_wrong_bit(converted, 1), hard)
    assert explanation.fault is not None and explanation.rounding
    assert (explanation.fault.layer, explanation.behind) == ("three", "two")


def test_a_network_that_takes_pixels_is_compared_on_whole_pixels(model: keras.Model) -> None:
    preprocessing = Preprocessing(SIZE, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    pixels = lce.convert(model, "arm64", preprocessing=preprocessing)
    assert explain(model, pixels, images_to_explain(model, pictures(64)), preprocessing).fault is None
    other = dataclasses.replace(preprocessing, mean=(0.5, 0.4, 0.31))
    fault = explain(model, pixels, pictures(12), other).fault
    assert fault is not None and fault.layer == "one"


def test_any_tensor_can_be_the_output(converted: bytes) -> None:
    content = read_model(converted)
    images = pictures(2)
    for operator in content.operators:
        [tensor] = operator.outputs
        made = with_output_tensor(converted, tensor.index)
        assert len(made) == len(converted)
        assert read_model(made).outputs == (tensor,)
        assert lce.LceInterpreter(made).predict(images).shape == (2, *tensor.shape[1:])
    # The last operator writes what was the output before.
    np.testing.assert_array_equal(
        lce.LceInterpreter(made).predict(images), lce.LceInterpreter(converted).predict(images)
    )


def test_where_rounding_turns_a_sign_in_every_image_nothing_is_claimed_of_the_rest(
    model: keras.Model, converted: bytes
) -> None:
    hard = images_to_explain(model, pictures(64))
    alone = [image[np.newaxis] for image in hard]
    turned = [image for image in alone if explain(model, converted, image).rounding]
    assert turned
    assert "nothing is known" in "".join(explain(model, converted, turned[0]).lines())
    # Nor is a fault seen there.
    assert explain(model, with_a_wrong_bit(converted, 2), turned[0]).fault is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "layers"),
    [("reactnet_a", {}, 31), ("quicknet_small", {}, 16), ("bireal_net18", {"width": 32}, 16), ("xnor_net", {}, 6)],
)
def test_nothing_but_rounding_is_found_in_the_networks(name: str, arguments: dict[str, int], layers: int) -> None:
    real = embedded_images(32, 3, 64)
    backbone = settled(name, 32, arguments)
    network = with_classifier(backbone, *random_probe(backbone, real, 10))
    explanation = explain(network, lce.convert(network, "arm64"), images_to_explain(network, real))
    assert len(explanation.compared) == layers and not explanation.left_out
    assert explanation.fault is None
    # XNOR-Net has no shortcuts: behind binary convolutions no sign can be missed.
    assert explanation.rounding or name == "xnor_net"


def test_no_images_are_refused(model: keras.Model, converted: bytes) -> None:
    with pytest.raises(ConversionError, match="no images"):
        explain(model, converted, pictures(0))


def test_export_explains_and_refuses_a_fault(
    model: keras.Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bssl_tf_converters")
    convert_model(model, pictures(32), "arm64", explaining=True)
    assert any("3 binary layers and the output agree" in line for line in caplog.messages)
    caplog.clear()
    convert_model(model, pictures(32), "arm64")
    [line] = [line for line in caplog.messages if "at signs' thresholds" in line]
    assert line.startswith("4 even images and 12 at")
    wrong = lce.convert(same_weights(model, (1.0, 1.0, 1.0)), "arm64")
    monkeypatch.setattr(lce, "convert_graph", lambda *arguments, **options: wrong)
    with pytest.raises(ConversionError, match=r"does not match the Keras network.*--explain"):
        convert_model(model, pictures(32), "arm64")
    with pytest.raises(ConversionError, match="layer three is the first whose input differs"):
        convert_model(model, pictures(32), "arm64", explaining=True)


def test_images_around_a_threshold_differ_by_rounding_and_in_a_sign(model: keras.Model) -> None:
    made = hard_images(model, pictures(32))
    hard = made.images
    assert hard.dtype == np.float32 and hard.shape == (16, SIZE, SIZE, 3)
    even, pairs = made.even, made.at_thresholds.reshape(3, 2, 2, SIZE, SIZE, 3)
    np.testing.assert_array_equal(even, np.broadcast_to(even[:, :1, :1], even.shape))
    for sign, (low, high) in zip(pre_activations(model), pairs, strict=True):
        np.testing.assert_allclose(low, high, atol=1e-5)
        turned = sign.bits(values_at(model, sign, low)) != sign.bits(values_at(model, sign, high))
        assert np.all(np.any(turned, axis=(1, 2, 3)))


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_tie_is_plus_one_at_every_place(zero: float) -> None:
    """Keras and LCE, to the last bit, and both against sums made here: each place of the map and channel once."""
    size, channels = 3, 32
    image = keras.Input((size, size, channels))
    settings: dict[str, Any] = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    layer = lq.layers.QuantConv2D(1, size, kernel_constraint="weight_clip", name="binary", **settings)
    model = keras.Model(image, keras.layers.Flatten()(layer(image)))
    rng = np.random.default_rng(4)
    images = rng.uniform(0.1, 1, (size * size * channels, size, size, channels)) * rng.choice([-1, 1], channels)
    np.einsum("ii->i", images.reshape(len(images), -1))[:] = zero
    images = images.astype(np.float32)
    kernel = np.where(layer.kernel.numpy() >= 0, 1.0, -1.0)[..., 0]
    expected = np.sum(np.where(images < 0, -1.0, 1.0) * kernel, axis=(1, 2, 3))[:, np.newaxis]
    np.testing.assert_array_equal(model(images, training=False).numpy(), expected)
    np.testing.assert_array_equal(lce.LceInterpreter(lce.convert(model, "arm64")).predict(images), expected)


def tied(pad: float) -> keras.Model:
    """Behind a batch norm without shift, every sum that is its channel's mean, a whole number, is exactly 0."""
    keras.utils.set_random_seed(3)
    image = keras.Input((SIZE, SIZE, 32))
    settings: dict[str, Any] = {"padding": "same", "pad_values": pad, "use_bias": False}
    settings |= {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    x = lq.layers.QuantConv2D(64, 3, name="first", **settings)(image)
    norm = keras.layers.BatchNormalization()
    x = lq.layers.QuantConv2D(32, 3, name="second", **settings)(norm(x))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    rng = np.random.default_rng(3)
    gamma, mean = rng.uniform(0.3, 2, 64) * rng.choice([-1, 1], 64), 2.0 * rng.integers(-6, 7, 64)
    norm.set_weights([gamma, np.zeros(64), mean, rng.uniform(20, 400, 64)])
    return model


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("pad", [1.0, 0.0])
def test_ties_behind_a_batch_norm(pad: float, fold: bool) -> None:
    """Folded, no tie is left, whatever computes. Not folded, LCE misses none where it writes bits and compares whole
    numbers; where it writes floats its kernel for x86-64 does, which must be called rounding; our runtime does not."""
    model = tied(pad)
    images = np.random.default_rng(0).choice([-1.0, 1.0], (12, SIZE, SIZE, 32)).astype(np.float32)
    sign = {one.layer.name: one for one in pre_activations(model)}["second"]
    values = values_at(model, sign, images)
    assert np.count_nonzero(values == 0) > 1000
    converted = lce.convert(model, "arm64", fold=fold)
    explanation = explain(model, converted, images)
    assert explanation.fault is None
    assert bool(explanation.rounding) == (pad == 0 and not fold)
    library = own_library()
    require_or_skip(library is not None, "`make setup` builds the runtime")
    second = [one for one in read_model(converted).operators if one.name == "LceBconv2d"][1]
    assert second.inputs[0] is not None
    made = LiteRtInterpreter(with_output_tensor(converted, second.inputs[0].index), 1, library).predict(images)
    bits = np.unpackbits(np.ascontiguousarray(made).view(np.uint8), axis=-1, bitorder="little") == 0
    np.testing.assert_array_equal(bits, values >= 0)


def dense(pad: float) -> keras.Model:
    """Two layers of BinaryDenseNet's kind: batch norms of both signs in front of signs, of what others read too."""
    keras.utils.set_random_seed(5)
    layers = keras.layers
    image = layers.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(32, 3, padding="same", use_bias=False)(image)
    for name in ("one", "two"):
        convolution = lq.layers.QuantConv2D(
            32,
            3,
            padding="same",
            pad_values=pad,
            use_bias=False,
            input_quantizer="ste_sign",
            kernel_quantizer="ste_sign",
            kernel_constraint="weight_clip",
            name=name,
        )
        x = layers.Concatenate()([x, convolution(layers.BatchNormalization()(x))])
    model = keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)), name="dense")
    settle_norms(model, pictures(64), 5)
    return model


@pytest.mark.parametrize(("pad", "products"), [(0.0, 0), (1.0, 2)])
def test_channels_that_were_turned_around_are_compared_as_keras_has_them(pad: float, products: int) -> None:
    model = dense(pad)
    converted = lce.convert(model, "arm64")
    assert operator_histogram(converted).get("MUL", 0) == products
    explanation = explain(model, converted, pictures(12))
    assert explanation.compared == ("one", "two") and not explanation.left_out
    assert explanation.fault is None and not explanation.rounding and not explanation.wrong_kernels
    # Single wrong bits do not hide the turned channels.
    broken = with_a_wrong_bit(converted, 0)
    explanation = explain(model, broken, pictures(12))
    assert explanation.wrong_kernels == {"one": 1}
    assert explanation.fault is not None and (explanation.fault.layer, explanation.behind) == ("two", "one")
    assert explanation.fault.share < 0.05


def test_check_explains(model: keras.Model, tmp_path: Path, bssl_tf: Callable[..., Any]) -> None:
    model.save(tmp_path / "three.h5")
    done: subprocess.CompletedProcess[str] = bssl_tf("check", tmp_path / "three.h5", "--explain", "--json")
    assert done.returncode == 0, done.stderr
    assert "comparing the input of two" in done.stderr
    explanation = json.loads(done.stdout)["explanation"]
    assert explanation["compared"] == list(BINARY) and explanation["fault"] is None
    done = bssl_tf("check", tmp_path / "three.h5", "--explain", "--no-convert")
    assert done.returncode == 2 and "does not go with --no-convert" in done.stderr
