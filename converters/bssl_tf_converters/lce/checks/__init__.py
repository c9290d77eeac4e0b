"""Is what comes out of LCE still binary? LCE turns what it does not recognise into float convolutions, with no message.

`before` looks at the Keras model, `after` at the flatbuffer, `running` at what interpreters make of that; each check
there is one function with a stable code. To add one, write the function there and its row in README.md beside this
file.

    findings = find_before(model)
    refuse(allow(findings, ("pad-value",)))     # raises for an error whose code is not allowed
    converted = lce.convert(model, "arm64")
    conversion, more = find_after(model, converted, findings)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from bssl_tf.backend import keras
from bssl_tf_converters.lce.checks import after, before
from bssl_tf_converters.lce.checks.conversion import BinaryReport, Conversion, look_up
from bssl_tf_converters.lce.checks.findings import (
    AFTER,
    BEFORE,
    RUNNING,
    Check,
    Finding,
    all_checks,
    allow,
    refuse,
    run,
    sentence,
)
from bssl_tf_converters.lce.checks.running import Answers

__all__ = [
    "AFTER",
    "BEFORE",
    "RUNNING",
    "Answers",
    "BinaryReport",
    "Check",
    "Conversion",
    "Finding",
    "after",
    "allow",
    "before",
    "check_binary",
    "check_convertible",
    "find_after",
    "find_before",
    "find_running",
    "refuse",
    "sentence",
    "table",
]


def table() -> list[tuple[str, str, str]]:
    """Code, severity (`error, always` where it cannot be allowed) and line of every check, in the order they run."""
    return [
        (
            check.code,
            "error, always" if check.severity == "error" and not check.allowable else check.severity,
            check.line,
        )
        for check in all_checks()
    ]


def find_before(model: keras.Model) -> list[Finding]:
    """What the checks before conversion find."""
    findings: list[Finding] = []
    for check in BEFORE:
        findings += run([check], model)
        # Nothing sensible can be said of the layers of what is not a model for LCE.
        if any(not finding.layer and finding.severity == "error" for finding in findings):
            break
    return findings


def find_after(
    model: keras.Model, converted: bytes, found: Iterable[Finding] = (), *, int8: bool = False
) -> tuple[Conversion, list[Finding]]:
    """What the checks after conversion find.

    Args:
        model: as given to the converter.
        converted: what it returned.
        found: what was found before; layers with errors there are known to be float and not reported again.
        int8: whether it was asked for int8.

    Raises:
        ConversionError: `converted` is not a valid flatbuffer.
    """
    codes = {check.code for check in BEFORE if check.severity == "error"}
    accepted = tuple(finding.layer for finding in found if finding.layer and finding.code in codes)
    conversion = look_up(model, converted, accepted, int8=int8)
    return conversion, run(AFTER, conversion)


def find_running(answers: Answers) -> list[Finding]:
    """What the checks of interpreters' answers find."""
    return run(RUNNING, answers)


def check_convertible(model: keras.Model, allowed: Collection[str] = ()) -> list[Finding]:
    """Refuses layers that LCE is known to convert to float, or to wrong numbers.

    Args:
        model: to be converted.
        allowed: codes whose errors count as warnings.

    Returns:
        The warnings.

    Raises:
        ConversionError: names the layer, the code, and what to change.
        ConfigError: a code in `allowed` is unknown or cannot be allowed.
    """
    findings = allow(find_before(model), allowed)
    refuse(findings)
    return findings


def check_binary(model: keras.Model, converted: bytes) -> BinaryReport:
    """Refuses a flatbuffer in which a binary layer of `model` is not binary, or which has more float than `model`.

    Raises:
        ConversionError: names the layer, the code, and what to change.
    """
    conversion, findings = find_after(model, converted)
    refuse(findings)
    return conversion.report
