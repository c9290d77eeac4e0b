"""Whole networks through real LCE."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from bssl_tf.backend import keras
from bssl_tf.errors import ConversionError, RuntimeUnavailableError
from bssl_tf_converters.lce import converter as lce
from bssl_tf_converters.lce.checks import check_binary
from bssl_tf_converters.lce.deployable import with_classifier
from bssl_tf_converters.lce.export import Converted, convert_model
from bssl_tf_converters.lce.float_reference import float_twin, stock_networks
from bssl_tf_converters.tflite.model import operator_histogram, read_model
from bssl_tf_deploy.litert import LiteRtInterpreter
from bssl_tf_deploy.quiet import LibraryOutput, captured_output
from tests.converters.networks import DEPTH, backbone, embedded_images, random_probe


def test_every_binary_layer_stays_binary_and_no_float_is_added(converted: Converted) -> None:
    assert converted.report.binary_convolutions == 3 * DEPTH
    assert converted.report.float_convolutions == 1
    assert converted.report.fully_connected == 1
    assert converted.report.operators == operator_histogram(converted.model)


def test_it_says_what_keras_says(converted: Converted) -> None:
    assert converted.parity.images == 200
    assert converted.parity.agreement == 1.0
    # One image in a thousand has a flipped sign at this depth (measured: see parity); three in 200 are a fault.
    assert converted.parity.share_within_tolerance > 0.98
    assert converted.parity.outputs["logits"].median_abs_difference < 1e-4


@pytest.mark.parametrize(("image_size", "stages"), [(64, 3), (224, 4)])
def test_larger_images_stay_binary_too(image_size: int, stages: int) -> None:
    model, images = backbone(image_size, 3), embedded_images(image_size, 3, 24)
    converted = convert_model(with_classifier(model, *random_probe(model, images, 10)), images, "arm64")
    assert converted.report.binary_convolutions == stages * DEPTH
    assert (converted.report.float_convolutions, converted.report.fully_connected) == (1, 1)
    assert converted.parity.agreement >= 23 / 24  # flips grow with the number of values: see parity
    assert converted.parity.outputs["logits"].median_abs_difference < 1e-4


def test_golden_outputs_are_what_the_interpreter_gives(converted: Converted) -> None:
    assert len(converted.golden_inputs[0]) == 4
    again = lce.LceInterpreter(converted.model).run(converted.golden_inputs)
    np.testing.assert_array_equal(again[0], converted.golden_outputs[0])


def test_signature_has_the_names_that_the_bundle_says(flatbuffer: bytes) -> None:
    content = read_model(flatbuffer)
    assert content.inputs[0].shape == (1, 28, 28, 1)
    assert content.outputs[0].shape == (1, 10)
    assert content.outputs[0].dtype == "float32"


def test_the_same_weights_give_the_same_bytes(grey: Converted) -> None:
    model = backbone(28, 1)
    images = embedded_images(28, 1, 200)
    again = convert_model(with_classifier(model, *random_probe(model, images, 10)), images, "x86_64")
    assert again.model == grey.model
    assert again.parity == grey.parity


def test_results_do_not_depend_on_batch_or_threads(grey: Converted) -> None:
    images = embedded_images(28, 1, 16)
    interpreter = lce.LceInterpreter(grey.model)
    whole = interpreter.predict(images)
    np.testing.assert_array_equal(np.concatenate([interpreter.predict(images[i : i + 1]) for i in range(16)]), whole)
    assert interpreter.predict(images[:0]).shape == (0, 10)
    np.testing.assert_allclose(lce.LceInterpreter(grey.model, threads=2).predict(images), whole, atol=1e-4)


def test_images_of_another_size_are_a_mistake_of_the_caller(grey: Converted) -> None:
    with pytest.raises(ValueError, match="28"):
        lce.LceInterpreter(grey.model).predict(np.zeros((1, 32, 32, 1), np.float32))


def test_an_unknown_target_is_refused_before_any_work() -> None:
    with pytest.raises(ConversionError, match=r"no target 'riscv'.*arm64"):
        lce.convert(backbone(28, 1), "riscv")


def test_two_inputs_and_unknown_sizes_are_refused() -> None:
    image, other = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    with pytest.raises(ConversionError, match="2 inputs"):
        lce.convert(keras.Model([image, other], image + other), "arm64")
    free = keras.Input((None, None, 3))
    with pytest.raises(ConversionError, match="images of any size"):
        lce.convert(keras.Model(free, free * 2), "arm64")


def test_a_failure_inside_is_one_line_and_keeps_what_was_printed() -> None:
    """No fallback to another conversion, and the library's output in the chain that --debug prints."""

    class Refusing(keras.Model):
        def call(self, inputs: Any, training: bool = False) -> Any:
            if self.ready:
                os.write(2, b"the native library says why\n")
                raise RuntimeError("first line\nsecond line")
            return inputs

    image = keras.Input((4, 4, 1))
    model = Refusing(image, image, name="refusing")
    model.ready = True
    with pytest.raises(ConversionError, match=r"LCE cannot convert refusing \(.*--debug") as caught:
        lce.convert(model, "arm64")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, LibraryOutput)
    assert "the native library says why" in str(caught.value.__cause__)


def test_conversion_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    image = keras.Input((4, 4, 1))
    lce.convert(keras.Model(image, keras.layers.Conv2D(2, 3)(image)), "arm64")
    assert capfd.readouterr() == ("", "")


def test_output_is_given_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), captured_output() as tail:
        os.write(1, b"swallowed")
        assert tail() == "swallowed"
        raise KeyError
    os.write(1, b"seen")
    assert capfd.readouterr().out == "seen"


def test_a_missing_package_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch, flatbuffer: bytes) -> None:
    monkeypatch.setitem(sys.modules, "larq_compute_engine", None)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(ConversionError, match=r"no wheel for this platform.*x86-64 machine or a Mac"):
        lce.convert(backbone(28, 1), "arm64")
    monkeypatch.delitem(sys.modules, "larq_compute_engine.tflite.python.interpreter_wrapper_lite", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeUnavailableError, match=r"no wheel for this platform.*x86-64 machine or a Mac"):
        lce.LceInterpreter(flatbuffer)


def test_the_interpreter_loads_no_tensorflow(flatbuffer: bytes) -> None:
    code = (
        "import sys\n"
        "from bssl_tf_converters.lce.converter import LceInterpreter\n"
        "import numpy as np\n"
        "out = LceInterpreter(sys.stdin.buffer.read()).predict(np.zeros((1, 28, 28, 1), np.float32))\n"
        "assert out.shape == (1, 10), out\n"
        "assert not {'tensorflow', 'keras', 'tf_keras', 'larq'} & set(sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], input=flatbuffer, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()


def test_the_interpreter_agrees_with_the_one_that_lce_offers(grey: Converted) -> None:
    import larq_compute_engine

    images = embedded_images(28, 1, 16)
    theirs = larq_compute_engine.testing.Interpreter(grey.model, use_reference_bconv=True).predict(images)
    # Their reference kernel, and float operators without XNNPACK.
    np.testing.assert_allclose(lce.LceInterpreter(grey.model).predict(images), theirs, atol=1e-4)


def test_the_networks_beside_have_the_same_shape_and_stock_operators_only() -> None:
    models = stock_networks(backbone(28, 1), 10)
    for model in models.values():
        operators = operator_histogram(model)
        assert operators["CONV_2D"] == 1 + 3 * DEPTH
        assert not any(name.startswith("Lce") for name in operators)
        with captured_output():
            interpreter = LiteRtInterpreter(model)
        logits = interpreter.predict(embedded_images(28, 1, 2))
        assert logits.shape == (2, 10)
        assert np.all(np.isfinite(logits))
    kernels = {
        name: {
            kernel.dtype
            for operator in read_model(model).operators
            if operator.name == "CONV_2D" and (kernel := operator.inputs[1]) is not None
        }
        for name, model in models.items()
    }
    assert kernels == {"float32": {"float32"}, "int8": {"int8"}}


def test_a_float_network_is_not_taken_for_a_binary_one() -> None:
    binary = with_classifier(backbone(28, 1), *random_probe(backbone(28, 1), embedded_images(28, 1, 8), 3))
    with pytest.raises(ConversionError, match="3 of 3 binary layers"):
        check_binary(binary, lce.convert(float_twin(binary), "arm64"))
