"""Where interpreters differ, the one that is off is named, and the numbers of one that is right are taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bssl_tf.backend import keras
from bssl_tf.errors import ConversionError
from bssl_tf_converters.lce import converter as lce
from bssl_tf_converters.lce import interpreters
from bssl_tf_converters.lce.answers import both_outputs
from bssl_tf_converters.lce.checks import find_running, refuse
from bssl_tf_converters.lce.checks.running import Answer, Answers
from bssl_tf_converters.lce.explain import explain
from bssl_tf_converters.lce.export import convert_model


def strided(stride: int) -> keras.Model:
    """A float convolution with padding "same" and a 3 x 3 kernel."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 4))
    convolution = keras.layers.Conv2D(2, 3, strides=stride, padding="same")
    return keras.Model(image, keras.layers.Flatten()(convolution(image)), name="strided")


def pictures() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(12, 8, 8, 4)).astype(np.float32)


def test_a_stride_larger_than_the_kernel_is_compared_without_xnnpack(caplog: pytest.LogCaptureFixture) -> None:
    model = strided(4)
    expected = model(pictures()).numpy()
    converted = convert_model(model, pictures(), "x86_64")
    # XNNPACK in LCE's interpreter, and nothing else, gives zeros.
    assert not np.any(lce.LceInterpreter(converted.model).predict(pictures())) and np.all(expected)
    np.testing.assert_allclose(converted.found["logits"], expected, atol=1e-5)
    np.testing.assert_allclose(converted.golden_outputs[0], expected[converted.golden_indices], atol=1e-5)
    [line] = [line for line in caplog.messages if "[other-interpreter]" in line]
    assert line.startswith(
        "LCE's interpreter with XNNPACK gives different numbers for strided from Keras, in 100 % of 8 images, and "
        "LCE's interpreter without XNNPACK gives Keras's"
    )
    assert explain(model, converted.model, pictures()).fault is None
    # What accuracy is made of.
    batches = (pictures()[:8], pictures()[8:])
    both = list(both_outputs(model, converted.model, batches, ("logits",), xnnpack=converted.xnnpack))
    np.testing.assert_allclose(np.concatenate([found["logits"] for _, found in both]), expected, atol=1e-5)


def test_where_all_agree_nothing_is_found_and_xnnpack_is_taken() -> None:
    model = strided(2)
    converted = lce.convert(model, "x86_64")
    answers = interpreters.ask("strided", converted, pictures(), {"logits": model(pictures()).numpy()})
    assert {one.share_within for one in answers.answers} == {1.0}
    assert find_running(answers) == [] and interpreters.uses_xnnpack(answers)
    assert convert_model(model, pictures(), "x86_64").xnnpack


def test_only_a_fault_of_the_interpreter_that_runs_bundles_is_an_error() -> None:
    def answers(*shares: float) -> Answers:
        names = (interpreters.WITH_XNNPACK, interpreters.WITHOUT_XNNPACK, "LiteRT with our runtime")
        made = [Answer(name, name.startswith("LiteRT"), share) for name, share in zip(names, shares, strict=False)]
        return Answers("net", 8, tuple(made))

    def codes(*shares: float) -> list[tuple[str, str]]:
        return [(one.code, one.severity) for one in find_running(answers(*shares))]

    assert codes(1.0, 1.0, 1.0) == codes(0.75, 1.0) == codes(0.5, 0.25, 0.125) == []
    assert codes(0.0, 1.0, 1.0) == [("other-interpreter", "warning")]
    assert codes(1.0, 1.0, 0.25) == [("own-interpreter", "error")]
    assert codes(0.0, 1.0, 0.0) == [("own-interpreter", "error"), ("other-interpreter", "warning")]
    # Where nobody is right, the conversion is at fault, which parity finds.
    assert codes(0.0, 0.0, 0.0) == []
    message = r"LiteRT with our runtime gives .* 75 % of 8 images.*\[own-interpreter\].*--allow own-interpreter"
    with pytest.raises(ConversionError, match=message):
        refuse(find_running(answers(1.0, 1.0, 0.25)))


def test_a_wrong_interpreter_of_bundles_stops_the_export_unless_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Zeros:
        def __init__(self, *arguments: object) -> None:
            pass

        def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
            return [np.zeros((len(inputs[0]), 8), np.float32)]

    monkeypatch.setattr(interpreters, "LiteRtInterpreter", Zeros)
    with pytest.raises(ConversionError, match="own-interpreter"):
        convert_model(strided(4), pictures(), "x86_64")
    assert convert_model(strided(4), pictures(), "x86_64", ("own-interpreter",)).parity.share_within_tolerance == 1
