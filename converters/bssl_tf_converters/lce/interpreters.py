"""Asks several interpreters, because one may have a fault of its own.

TFLite's XNNPACK of the version in LCE 0.16 gives zeros for a float convolution with padding "same" whose stride is
larger than its kernel. What an interpreter makes of a network is therefore compared with Keras in LCE's interpreter
with XNNPACK and without, and in the one that runs bundles where it can run here: LiteRT with our runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bssl_tf_converters.lce.checks.running import Answer, Answers
from bssl_tf_converters.lce.converter import LceInterpreter, output_names
from bssl_tf_converters.lce.parity import TOLERANCE
from bssl_tf_converters.tflite.model import operator_histogram
from bssl_tf_deploy.errors import RuntimeUnavailableError
from bssl_tf_deploy.golden import typical_magnitude
from bssl_tf_deploy.library import own_library
from bssl_tf_deploy.litert import LiteRtInterpreter
from bssl_tf_deploy.quiet import captured_output

WITH_XNNPACK, WITHOUT_XNNPACK = "LCE's interpreter with XNNPACK", "LCE's interpreter without XNNPACK"
_OWN = "LiteRT with our runtime"
_ASKED = 8


def ask(name: str, converted: bytes, inputs: np.ndarray, expected: Mapping[str, np.ndarray]) -> Answers:
    """Shows some images to each interpreter that is here.

    Args:
        name: of the model.
        converted: its flatbuffer.
        inputs: [N, H, W, C] as it takes them, N at least 1.
        expected: by name of the output, float32 [N, ...], what it should make of them.

    Raises:
        BundleError: LCE's interpreter refuses it.
    """
    count = min(len(inputs), _ASKED)
    chosen = np.arange(count) * len(inputs) // count
    inputs = inputs[chosen]
    # In the order in which interpreters give them.
    outputs = [expected[name] for name in output_names(converted)]
    wanted = [(output[chosen], TOLERANCE * typical_magnitude(output)) for output in outputs]
    answers = []
    for interpreter, xnnpack in ((WITH_XNNPACK, True), (WITHOUT_XNNPACK, False)):
        made = LceInterpreter(converted, xnnpack=xnnpack).run([inputs])
        answers.append(Answer(interpreter, False, _share_within(wanted, made)))
    own = _own(converted, inputs)
    if own is not None:
        answers.append(Answer(_OWN, True, _share_within(wanted, own)))
    return Answers(name, count, tuple(answers))


def uses_xnnpack(answers: Answers) -> bool:
    """Whether LCE's interpreter with XNNPACK is to be believed, rather than the one without."""
    by_name = {one.interpreter: one for one in answers.answers}
    return not answers.is_off(by_name[WITH_XNNPACK]) or answers.is_off(by_name[WITHOUT_XNNPACK])


def _own(converted: bytes, inputs: np.ndarray) -> list[np.ndarray] | None:
    """What the interpreter of bundles makes of `inputs`; None where it cannot run here."""
    library = own_library()
    if library is None and any(operator.startswith("Lce") for operator in operator_histogram(converted)):
        return None
    try:
        # It reports which delegates it has made.
        with captured_output():
            return LiteRtInterpreter(converted, 1, library).run([inputs])
    except RuntimeUnavailableError:
        return None


def _share_within(wanted: Sequence[tuple[np.ndarray, float]], made: Sequence[np.ndarray]) -> float:
    """The share of images all of whose outputs are within their tolerance."""
    if [expected.shape for expected, _ in wanted] != [output.shape for output in made]:
        return 0.0
    within = np.ones(len(made[0]), bool)
    for (expected, tolerance), output in zip(wanted, made, strict=True):
        within &= np.max(np.abs(expected - output).reshape(len(output), -1), axis=1) <= tolerance
    return float(np.mean(within))
