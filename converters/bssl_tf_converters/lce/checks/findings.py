"""What a check finds, the list of all checks, and what becomes of findings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from bssl_tf.errors import ConfigError, ConversionError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Note:
    """What one check has to say.

    Attributes:
        layer: the Keras layer's name; empty for the whole model.
        message: what LCE does with it, a clause without a final full stop.
        hint: what to change, an imperative without a final full stop.
    """

    layer: str
    message: str
    hint: str


@dataclass(frozen=True)
class Finding(Note):
    """A note with its check's code, and how bad it is: an error stops the export, a warning is printed."""

    code: str
    severity: Severity


@dataclass(frozen=True)
class Check:
    """A registered check.

    Attributes:
        code: stable, in kebab case.
        severity: of what it finds.
        allowable: whether `--allow CODE` may turn its errors into warnings: not where wrong numbers would come out,
            or nothing at all.
        line: its line of documentation.
        run: yields notes; what it takes depends on the list it is in.
    """

    code: str
    severity: Severity
    allowable: bool
    line: str
    run: Callable[[Any], Iterator[Note]]


# In the order in which they run: before.py fills the first with checks of the Keras model, after.py the second with
# checks of a `Conversion`, running.py the third with checks of `Answers` of interpreters.
BEFORE: list[Check] = []
AFTER: list[Check] = []
RUNNING: list[Check] = []
_ALL = (BEFORE, AFTER, RUNNING)

Function = TypeVar("Function", bound=Callable[..., Iterator[Note]])


def all_checks() -> list[Check]:
    """Every check, in the order in which they run."""
    return [check for checks in _ALL for check in checks]


def register(
    checks: list[Check], code: str, severity: Severity, *, allowable: bool | None = None
) -> Callable[[Function], Function]:
    """Adds a function to `checks`; its docstring's one line is the check's."""

    def add(function: Function) -> Function:
        assert function.__doc__ is not None and code not in {check.code for check in all_checks()}
        may = severity == "error" if allowable is None else allowable
        checks.append(Check(code, severity, may, function.__doc__.strip(), function))
        return function

    return add


def run(checks: Sequence[Check], subject: Any) -> list[Finding]:
    """What `checks` find about `subject`, in their order."""
    return [
        Finding(note.layer, note.message, note.hint, check.code, check.severity)
        for check in checks
        for note in check.run(subject)
    ]


def allow(findings: Iterable[Finding], codes: Collection[str]) -> list[Finding]:
    """`findings` with errors of the given codes turned into warnings.

    Raises:
        ConfigError: a code is unknown, or cannot be allowed.
    """
    known = {check.code: check for check in all_checks()}
    for code in codes:
        if code not in known:
            may = [check.code for check in known.values() if check.allowable]
            raise ConfigError(f"--allow {code}: no check is called that", f"Choose from {', '.join(may)}")
        if known[code].severity == "error" and not known[code].allowable:
            raise ConfigError(
                f"--allow {code}: this cannot be allowed, because the result would be wrong or could not run",
                "Change the network; see `bssl-tf check --list`",
            )
    return [
        dataclasses.replace(finding, severity="warning") if finding.code in codes else finding for finding in findings
    ]


def refuse(findings: Iterable[Finding]) -> None:
    """Raises `ConversionError` for the first error, with the codes and layers of all others."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    first, others = errors[0], errors[1:]
    more = f"; and {len(others)} more: {', '.join(map(_named, others[:20]))}" if others else ""
    may = {check.code for check in all_checks() if check.allowable}
    hint = f"{first.hint}, or accept it with --allow {first.code}" if first.code in may else first.hint
    raise ConversionError(f"{sentence(first)} [{first.code}]{more}", hint)


def sentence(finding: Finding) -> str:
    """What was found and where, in one clause."""
    return f"layer {finding.layer} {finding.message}" if finding.layer else finding.message


def _named(finding: Finding) -> str:
    return f"{finding.code} in {finding.layer}" if finding.layer else finding.code
