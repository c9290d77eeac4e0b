"""From a Keras network to a checked flatbuffer, with everything that a bundle states about it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

import numpy as np

from bssl_tf.backend import keras, tf
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
from bssl_tf_converters.lce.interpreters import ask, uses_xnnpack
from bssl_tf_converters.lce.parity import (
    MIN_AGREEMENT,
    Agree,
    compare,
    least_share_of_a_place,
    require,
    require_rounded,
)
from bssl_tf_converters.lce.signs import hard_images
from bssl_tf_deploy.manifest import ParityFigures, TensorSignature
from bssl_tf_deploy.preprocess import whole_pixels
from bssl_tf_deploy.tasks.classification import same_top1

_log = logging.getLogger(__name__)
GOLDEN_IMAGES = 4
_BATCH = 64
_TINY = 1e-30
# Less than any trained student here has kept.
_FEW_SAME = 0.9
_PACKAGES = ("bssl-tf", "larq", "larq-compute-engine", "numpy", "tensorflow", "tf-keras")


@dataclass(frozen=True, eq=False)
class Converted:
    """A converted network and what was found out about it.

    Attributes:
        model: TFLite flatbuffer, batches of one.
        target: a key of `lce.TARGETS`.
        inputs: of the converted network, in its order; the only one is called `lce.INPUT_NAME`.
        outputs: of the converted network, in its order.
        report: what the flatbuffer is made of.
        parity: agreement with Keras; with int8, with the Keras network rounded in the same way.
        expected: of the Keras network, in float32: by name of the output, float32 [N, ...].
        found: of the converted one: by name of the output, float32 [N, ...].
        golden_indices: which of the images were taken as golden, int64 [G]; those on which both agree.
        golden_inputs: for each input [G, ...], these images as the network takes them: float32, uint8 or int8.
        golden_outputs: for each output float32 [G, ...], what LCE's interpreter makes of them, with the
            kernels that agree with Keras.
        created_by: versions of the packages that made it.
        xnnpack: whether LCE's interpreter gave all this with XNNPACK; without, where only that is right.
    """

    model: bytes
    target: str
    inputs: tuple[TensorSignature, ...]
    outputs: tuple[TensorSignature, ...]
    report: BinaryReport
    parity: ParityFigures
    expected: dict[str, np.ndarray]
    found: dict[str, np.ndarray]
    golden_indices: np.ndarray
    golden_inputs: tuple[np.ndarray, ...]
    golden_outputs: tuple[np.ndarray, ...]
    created_by: dict[str, str]
    xnnpack: bool


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
    outputs: Sequence[str] | None = None,
    agree: Agree = same_top1,
    least_agreement: float = MIN_AGREEMENT,
) -> Converted:
    """Converts a network, and checks that it is binary and gives the same as in Keras.

    Args:
        model: from images [B, H, W, C] to one or several outputs [B, ...].
        images: float32 [N, H, W, C], preprocessed, N at least 1.
        target: a key of `lce.TARGETS`.
        allowed: codes of checks whose errors count as warnings.
        preprocessing: that of `images`; given, the converted network takes pixels (uint8) and normalises them itself.
        calibration: float32 [M, S, S, C], preprocessed, of the training data; given, float operators become int8.
        int8_ends: with `calibration`, the converted network takes and gives int8; not with `preprocessing`.
        explaining: compare layer by layer too, and report what that finds, before anything is refused; not with
            `calibration`, whose rounding differs from Keras everywhere.
        outputs: names for the outputs of `model`, in its order; None for `lce.default_names`.
        agree: for each image whether two networks give the same answer, or how much of it, by their outputs; top-1
            unless told otherwise.
        least_agreement: below this mean of `agree` the conversion is refused.

    Raises:
        ConversionError: see `lce.convert`, `checks`, `parity.require`, `parity.require_rounded` and
            `explain.require_no_fault`.
        ConfigError: a code in `allowed` is unknown or cannot be allowed.
    """
    _require_images(images)
    if calibration is not None:
        # What int8 rounds would hide a fault, and does not touch what LCE makes of the rest.
        convert_model(
            model,
            images,
            target,
            allowed,
            preprocessing,
            outputs=outputs,
            agree=agree,
            least_agreement=least_agreement,
        )
    before = check_convertible(model, allowed)
    outputs = outputs or lce.default_names(model)
    if calibration is None:
        _warn(before)
    if calibration is None:
        _log.info(f"converting {model.name} with LCE for {target}")
    else:
        _log.info(f"the same with int8, calibrated on {len(calibration)} images")
        calibration = _as_taken(calibration, preprocessing)
    graph = lce.inference_graph(
        model, preprocessing=preprocessing, calibration=calibration, int8_ends=int8_ends, outputs=outputs
    )
    converted = lce.convert_graph(graph, model.name, target, int8_ends=int8_ends)
    conversion, findings = find_after(model, converted, before, int8=calibration is not None)
    after = allow(findings, allowed)
    refuse(after)
    _warn([one for one in after if calibration is None or one.code == "int8-left-float"])
    _log.info(f"comparing it with Keras on {len(images)} images")
    interpreter = lce.LceInterpreter(converted)
    inputs = _as_taken(images, preprocessing)
    keras_outputs = expected = _keras_outputs(model, images, outputs)
    if calibration is None and len(outputs) == 1 and _are_shares(keras_outputs[outputs[0]]):
        _log.warning(
            f"{model.name} gives probabilities, but devices compute scores from logits: they will be too even. "
            "Remove the softmax from its end"
        )
    if calibration is not None:
        expected = {name: int8.simulate(graph, name, inputs) for name in outputs}
    [taken] = interpreter.input_quantizations
    if taken is not None:
        inputs = taken.integers(inputs)
    answers = ask(model.name, converted, inputs, expected)
    running = allow(find_running(answers), allowed)
    refuse(running)
    if calibration is None:
        _warn(running)
    xnnpack = uses_xnnpack(answers)
    interpreter = lce.LceInterpreter(converted, xnnpack=xnnpack)
    names = lce.output_names(converted)
    made = dict(zip(names, interpreter.run([inputs]), strict=True))
    found = {name: made[name] for name in outputs}
    parity = compare(expected, found, agree)
    if calibration is not None:
        _say_what_int8_changes(float(np.mean(agree(keras_outputs, found))))
    if explaining:
        shown = images_to_explain(model, images)
        explanation = explain(model, converted, shown, preprocessing, names=outputs, xnnpack=xnnpack)
        require_no_fault(explanation)
        for line in explanation.lines():
            _log.info(line)
    if calibration is not None:
        require_rounded(parity, keras_outputs, expected, found)
    else:
        places = least_share_of_a_place(parity, expected, found)
        require(parity, least_agreement=least_agreement, share_of_places=places)
    if not explaining and calibration is None:
        _compare_at_thresholds(model, converted, xnnpack, images, preprocessing, outputs, parity)
    # Images with a flipped sign would make golden outputs that another machine may rightly miss.
    off = _off(expected, found, parity)
    steady = np.flatnonzero(off <= 1)
    if not len(steady) or (calibration is not None and len(steady) < GOLDEN_IMAGES):
        # With int8 at 224 px, and in large maps, there may be none; those nearest to it then.
        steady = np.sort(np.argsort(off, kind="stable")[:GOLDEN_IMAGES])
    chosen = steady[:: max(len(steady) // GOLDEN_IMAGES, 1)][:GOLDEN_IMAGES]
    return Converted(
        converted,
        target,
        (TensorSignature(lce.INPUT_NAME, (1, *images.shape[1:]), inputs.dtype.name, taken),),
        tuple(
            TensorSignature(name, (1, *made[name].shape[1:]), "int8" if given else "float32", given)
            for name, given in zip(names, interpreter.output_quantizations, strict=True)
        ),
        conversion.report,
        parity,
        keras_outputs,
        found,
        chosen,
        (np.ascontiguousarray(inputs[chosen]),),
        tuple(np.ascontiguousarray(made[name][chosen], np.float32) for name in names),
        {name: metadata.version(name) for name in _PACKAGES},
        xnnpack,
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
    _log.info(f"omitting {last.name}'s softmax: devices compute scores from the logits")
    if isinstance(last, (keras.layers.Activation, keras.layers.Softmax)):
        return keras.Model(model.input, last.input, name=model.name)
    last.activation = keras.activations.linear
    return model


def _are_shares(outputs: np.ndarray) -> bool:
    """Do they look like a softmax's, which may stand where `without_softmax` does not look, in a nested model?"""
    return bool(np.all(outputs >= 0) and np.allclose(outputs.sum(axis=1), 1, atol=1e-4))


def _say_what_int8_changes(same: float) -> None:
    if same < _FEW_SAME:
        _log.warning(
            f"in int8 {100 * same:.1f} % of images keep their answer; look at the accuracy, and try more "
            "--calibrate images, or no int8"
        )


def _as_taken(images: np.ndarray, preprocessing: Preprocessing | None) -> np.ndarray:
    """Preprocessed images as a network takes them: pixels where it normalises itself."""
    floats: np.ndarray = np.asarray(images, np.float32)
    return floats if preprocessing is None else whole_pixels(floats, preprocessing.mean, preprocessing.std)


def _keras_outputs(model: keras.Model, images: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    batches = [tf.nest.flatten(model(images[i : i + _BATCH], training=False)) for i in range(0, len(images), _BATCH)]
    columns = zip(*batches, strict=True)
    return {name: np.concatenate([one.numpy() for one in column]) for name, column in zip(names, columns, strict=True)}


def _off(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], parity: ParityFigures) -> np.ndarray:
    """How far each image's outputs differ at most, in units of their tolerances: float64 [N]."""
    rows = [
        np.max(np.abs(array - found[name]).reshape(len(array), -1), axis=1) / max(parity.outputs[name].tolerance, _TINY)
        for name, array in expected.items()
    ]
    # Not a number is as far off as can be.
    return np.nan_to_num(np.max(np.asarray(rows, np.float64), axis=0), nan=np.inf)


def _compare_at_thresholds(
    model: keras.Model,
    converted: bytes,
    xnnpack: bool,
    images: np.ndarray,
    preprocessing: Preprocessing | None,
    outputs: Sequence[str],
    parity: ParityFigures,
) -> None:
    """Raises `ConversionError` where an image made to be hard gives other outputs, and rounding does not explain it."""
    made = hard_images(model, images)
    hard = pixels = made.images
    if preprocessing is not None:
        pixels = whole_pixels(hard, preprocessing.mean, preprocessing.std)
        hard = preprocessing.normalise(pixels)
    made_of_hard = lce.LceInterpreter(converted, xnnpack=xnnpack).run([pixels])
    given = dict(zip(lce.output_names(converted), made_of_hard, strict=True))
    off = _off(_keras_outputs(model, hard, outputs), given, parity) > 1
    found = f"{len(made.even)} even images and {len(made.at_thresholds)} at signs' thresholds: {np.count_nonzero(off)}"
    if not np.any(off):
        _log.info(f"{found} with other outputs")
        return
    # On these no interpreter gives what Keras does, so that they do not show which one is faulty.
    explanation = explain(model, converted, hard[off], preprocessing, names=outputs, xnnpack=xnnpack)
    require_no_fault(explanation)
    if explanation.unexplained is None:
        _log.info(f"{found} with other outputs, all of them by rounding")
        return
    _log.warning(f"{found} with other outputs, perhaps only by rounding. {explanation.lines()[-1]}")


def _require_images(images: np.ndarray) -> None:
    if not len(images):
        raise ConversionError("there are no images to compare the networks on", "Pass --images 1 or more")


def _warn(findings: list[Finding]) -> None:
    for finding in findings:
        _log.warning(f"{sentence(finding)} [{finding.code}]. {finding.hint}.")
