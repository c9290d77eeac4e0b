"""From a Keras classifier to a checked flatbuffer, with everything that a bundle states about it."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from importlib import metadata

import numpy as np

from bssl_tf.backend import keras
from bssl_tf.errors import ConversionError
from bssl_tf.preprocessing import Preprocessing
from bssl_tf_converters.lce import converter as lce
from bssl_tf_converters.lce import int8
from bssl_tf_converters.lce.checks import (
    BinaryReport,
    Finding,
    allow,
    check_convertible,
    find_after,
    find_running,
    refuse,
    sentence,
)
from bssl_tf_converters.lce.explain import explain, images_to_explain
from bssl_tf_converters.lce.explanation import require_no_fault
from bssl_tf_converters.lce.interpreters import ask, right_interpreter
from bssl_tf_converters.lce.parity import Parity, compare, require, require_rounded
from bssl_tf_converters.lce.signs import hard_images
from bssl_tf_deploy.manifest import Quantization
from bssl_tf_deploy.preprocess import whole_pixels

_log = logging.getLogger(__name__)
GOLDEN_IMAGES = 4
_BATCH = 64
# Less than any trained student here has kept.
_FEW_SAME = 0.9
_PACKAGES = ("bssl-tf", "larq", "larq-compute-engine", "numpy", "tensorflow", "tf-keras")


@dataclass(frozen=True, eq=False)
class Converted:
    """A converted network and what was found out about it.

    Attributes:
        model: TFLite flatbuffer, batches of one.
        target: a key of `lce.TARGETS`.
        input_shape: (1, S, S, C), of the type of `golden_inputs`, called `lce.INPUT_NAME`.
        input_quantization: of an int8 input.
        output_shape: (1, K), float32 or int8, called `lce.OUTPUT_NAME`.
        output_quantization: of an int8 output.
        report: what the flatbuffer is made of.
        parity: agreement with Keras; with int8, with the Keras network rounded in the same way.
        keras_logits: float32 [N, K], of the Keras network.
        logits: float32 [N, K], of the converted one.
        golden_indices: which of the images were taken as golden, int64 [G]; those on which both agree.
        golden_inputs: [G, S, S, C], these images as the network takes them: float32, uint8 or int8.
        golden_outputs: float32 [G, K], what LCE's interpreter makes of them, with the kernels that agree with Keras.
        created_by: versions of the packages that made it.
    """

    model: bytes
    target: str
    input_shape: tuple[int, ...]
    input_quantization: Quantization | None
    output_shape: tuple[int, ...]
    output_quantization: Quantization | None
    report: BinaryReport
    parity: Parity
    keras_logits: np.ndarray
    logits: np.ndarray
    golden_indices: np.ndarray
    golden_inputs: np.ndarray
    golden_outputs: np.ndarray
    created_by: dict[str, str]


def convert_model(
    model: keras.Model,
    images: np.ndarray,
    target: str,
    allowed: Collection[str] = (),
    preprocessing: Preprocessing | None = None,
    *,
    calibration: np.ndarray | None = None,
    int8_ends: bool = False,
    explaining: bool = False,
) -> Converted:
    """Converts a classifier, and checks that it is binary and says the same as in Keras.

    Args:
        model: from [B, S, S, C] to logits, or anything else one number a class, [B, K].
        images: float32 [N, S, S, C], preprocessed, N at least 1.
        target: a key of `lce.TARGETS`.
        allowed: codes of checks whose errors count as warnings.
        preprocessing: that of `images`; given, the converted network takes pixels (uint8) and normalises them itself.
        calibration: float32 [M, S, S, C], preprocessed, of the training data; given, float operators become int8.
        int8_ends: with `calibration`, the converted network takes and gives int8; not with `preprocessing`.
        explaining: compare layer by layer too, and report what that finds, before anything is refused; not with
            `calibration`, whose rounding differs from Keras everywhere.

    Raises:
        ConversionError: see `lce.convert`, `checks`, `parity.require`, `parity.require_rounded` and
            `explain.require_no_fault`.
        ConfigError: a code in `allowed` is unknown or cannot be allowed.
    """
    _require_images(images)
    if calibration is not None:
        # What int8 rounds would hide a fault, and does not touch what LCE makes of the rest.
        convert_model(model, images, target, allowed, preprocessing)
    before = check_convertible(model, allowed)
    if calibration is None:
        _warn(before)
    if model.output.shape.rank != 2:
        raise ConversionError(
            f"{model.name} gives {list(model.output.shape)}, and a classifier gives one number a class",
            "Put Flatten or GlobalAveragePooling2D at its end",
        )
    if calibration is None:
        _log.info(f"converting {model.name} with LCE for {target}")
    else:
        _log.info(f"the same with int8, calibrated on {len(calibration)} images")
        calibration = _as_taken(calibration, preprocessing)
    graph = lce.inference_graph(model, preprocessing=preprocessing, calibration=calibration, int8_ends=int8_ends)
    converted = lce.convert_graph(graph, model.name, target, int8_ends=int8_ends)
    conversion, found = find_after(model, converted, before, int8=calibration is not None)
    after = allow(found, allowed)
    refuse(after)
    _warn([one for one in after if calibration is None or one.code == "int8-left-float"])
    _log.info(f"comparing it with Keras on {len(images)} images")
    interpreter = lce.LceInterpreter(converted)
    inputs = _as_taken(images, preprocessing)
    keras_logits = expected = _keras_logits(model, images)
    if calibration is None and _are_shares(keras_logits):
        _log.warning(
            f"{model.name} gives probabilities, and devices make scores of logits: they will be too even. "
            "Take the softmax off its end"
        )
    if calibration is not None:
        expected = int8.simulate(graph, lce.OUTPUT_NAME, inputs)
    taken, given = interpreter.ends
    if taken is not None:
        inputs = taken.integers(inputs)
    answers = ask(model.name, converted, inputs, expected)
    running = allow(find_running(answers), allowed)
    refuse(running)
    if calibration is None:
        _warn(running)
    interpreter = right_interpreter(converted, answers)
    logits = interpreter.predict(inputs)
    parity = compare(expected, logits)
    if calibration is not None:
        _say_what_int8_changes(keras_logits, logits)
    if explaining:
        explanation = explain(model, converted, images_to_explain(model, images), preprocessing)
        require_no_fault(explanation)
        for line in explanation.lines():
            _log.info(line)
    if calibration is not None:
        require_rounded(parity, keras_logits, expected, logits)
    else:
        require(parity)
    if not explaining and calibration is None:
        _compare_at_thresholds(model, converted, interpreter, images, preprocessing, parity.tolerance)
    # Images with a flipped sign would make golden outputs that another machine may rightly miss.
    off = np.max(np.abs(expected - logits), axis=1)
    steady = np.flatnonzero(off <= parity.tolerance)
    if calibration is not None and len(steady) < GOLDEN_IMAGES:
        # With int8 at 224 px there may be none; those nearest to it then.
        steady = np.sort(np.argsort(off, kind="stable")[:GOLDEN_IMAGES])
    chosen = steady[:: max(len(steady) // GOLDEN_IMAGES, 1)][:GOLDEN_IMAGES]
    return Converted(
        converted,
        target,
        (1, *images.shape[1:]),
        taken,
        (1, logits.shape[1]),
        given,
        conversion.report,
        parity,
        keras_logits,
        logits,
        chosen,
        np.ascontiguousarray(inputs[chosen]),
        np.ascontiguousarray(logits[chosen], np.float32),
        {name: metadata.version(name) for name in _PACKAGES},
    )


def without_softmax(model: keras.Model) -> keras.Model:
    """`model` up to its logits: parity and scores are made of these, and a softmax of a softmax would level the scores.

    Args:
        model: a softmax that is its last layer, or the activation of its last layer, is taken off, in nested models
            too; what feeds it must have one output.
    """
    last = model.layers[-1]
    if getattr(last, "output", None) is not model.output and not isinstance(last, keras.Model):
        return model
    if isinstance(last, keras.Model):
        # Called as a layer, it has other outputs than its own.
        node = next((one for one in last.inbound_nodes if one.outputs is model.output), None)
        inner = without_softmax(last) if last.outputs and node is not None else last
        if node is None or inner is last:
            return model
        return keras.Model(model.input, inner(node.keras_inputs[0]), name=model.name)
    softmax = getattr(last, "activation", None) is keras.activations.softmax or isinstance(last, keras.layers.Softmax)
    if not softmax:
        return model
    _log.info(f"leaving out {last.name}'s softmax: devices make scores of the logits")
    if isinstance(last, (keras.layers.Activation, keras.layers.Softmax)):
        return keras.Model(model.input, last.input, name=model.name)
    last.activation = keras.activations.linear
    return model


def _are_shares(outputs: np.ndarray) -> bool:
    """Do they look like a softmax's, which may stand where `without_softmax` does not look, in a nested model?"""
    return bool(np.all(outputs >= 0) and np.allclose(outputs.sum(axis=1), 1, atol=1e-4))


def _say_what_int8_changes(keras_logits: np.ndarray, logits: np.ndarray) -> None:
    same = float(np.mean(keras_logits.argmax(axis=1) == logits.argmax(axis=1)))
    if same < _FEW_SAME:
        _log.warning(
            f"in int8 {100 * same:.1f} % of images keep their best class; look at the accuracy, and try more "
            "--calibrate images, or no int8"
        )


def _as_taken(images: np.ndarray, preprocessing: Preprocessing | None) -> np.ndarray:
    """Preprocessed images as a network takes them: pixels where it normalises itself."""
    floats: np.ndarray = np.asarray(images, np.float32)
    return floats if preprocessing is None else whole_pixels(floats, preprocessing.mean, preprocessing.std)


def _keras_logits(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [model(images[i : i + _BATCH], training=False).numpy() for i in range(0, len(images), _BATCH)]
    )


def _compare_at_thresholds(
    model: keras.Model,
    converted: bytes,
    interpreter: lce.LceInterpreter,
    images: np.ndarray,
    preprocessing: Preprocessing | None,
    tolerance: float,
) -> None:
    """Raises `ConversionError` where an image made to be hard gives other logits, and rounding does not explain it."""
    made = hard_images(model, images)
    hard = pixels = made.images
    if preprocessing is not None:
        pixels = whole_pixels(hard, preprocessing.mean, preprocessing.std)
        hard = preprocessing.normalise(pixels)
    difference = np.abs(_keras_logits(model, hard) - interpreter.predict(pixels))
    off = np.max(difference, axis=1) > tolerance
    found = f"{len(made.even)} even images and {len(made.at_thresholds)} at signs' thresholds: {np.count_nonzero(off)}"
    if not np.any(off):
        _log.info(f"{found} with other logits")
        return
    explanation = explain(model, converted, hard[off], preprocessing)
    require_no_fault(explanation)
    if explanation.unexplained is None:
        _log.info(f"{found} with other logits, all of them by rounding")
        return
    _log.warning(f"{found} with other logits, and whether by rounding cannot be told. {explanation.lines()[-1]}")


def _require_images(images: np.ndarray) -> None:
    if not len(images):
        raise ConversionError("there are no images to compare the networks on", "Pass --images 1 or more")


def _warn(findings: list[Finding]) -> None:
    for finding in findings:
        _log.warning(f"{sentence(finding)} [{finding.code}]. {finding.hint}.")
