"""What cannot be converted or run is refused in one line."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from bssl_tf.backend import keras, tf
from bssl_tf.errors import BundleError, ConversionError
from bssl_tf_converters.lce.converter import LceInterpreter, convert
from bssl_tf_converters.lce.deployable import with_classifier
from bssl_tf_converters.lce.export import convert_model
from bssl_tf_converters.lce.float_reference import convert_float
from tests.converters.networks import backbone, random_probe


def with_foreign_operator() -> keras.Model:
    """A network with an operator that only TensorFlow has."""
    image = keras.Input((8, 8, 1))
    x = keras.layers.Lambda(lambda t: tf.linalg.svd(t[..., 0], compute_uv=False))(image)
    return keras.Model(image, x, name="foreign")


def test_no_images_to_compare_on() -> None:
    model, images = backbone(28, 1), np.zeros((4, 28, 28, 1), np.float32)
    with pytest.raises(ConversionError, match=r"no images to compare the networks on\. Pass --images 1 or more"):
        convert_model(with_classifier(model, *random_probe(model, images, 10)), images[:0], "arm64")


def test_an_operator_that_tflite_lacks_in_the_float_network() -> None:
    with pytest.raises(ConversionError, match="the float network of foreign's shape cannot be converted"):
        convert_float(with_foreign_operator())


def test_a_model_that_lce_has_no_operator_for() -> None:
    with pytest.raises(BundleError, match=r"LCE's interpreter does not take this model .*Export it again"):
        LceInterpreter(convert(with_foreign_operator(), "arm64"))


def test_a_failure_inside_lce_is_not_hidden_by_its_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    """LCE's entry for Keras models tries another conversion when the first fails, and says only that it did."""
    from larq_compute_engine.mlir.python import converter

    def fail(*arguments: object) -> bytes:
        raise RuntimeError("the first conversion failed")

    def fall_back(*arguments: object) -> bytes:
        pytest.fail("the other conversion was tried")

    monkeypatch.setattr(converter, "convert_saved_model_to_tflite_flatbuffer", fail)
    monkeypatch.setattr(converter, "convert_graphdef_to_tflite_flatbuffer", fall_back)
    image = keras.Input((4, 4, 1))
    with pytest.raises(ConversionError, match=r"LCE cannot convert small \(the first conversion failed\)"):
        convert(keras.Model(image, keras.layers.Conv2D(2, 3)(image), name="small"), "arm64")


def test_threads_set_too_late() -> None:
    program = (
        "from bssl_tf.backend import configure, tf\n"
        "tf.constant(1.0) + 1.0\n"
        "try:\n    configure(7)\nexcept Exception as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "error[backend]: the number of threads was set after TensorFlow had started" in done.stdout
