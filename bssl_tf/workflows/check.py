"""What `bssl-tf check` does: whether LCE will keep a Keras 2 model binary, layer by layer, and what to change."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.backend import keras
from bssl_tf.errors import UsageError
from bssl_tf.workflows.networks import open_network
from bssl_tf_converters.lce import checks
from bssl_tf_converters.lce import explain as lce_explain
from bssl_tf_converters.lce.converter import convert as lce_convert
from bssl_tf_converters.lce.explanation import Explanation, require_no_fault
from bssl_tf_deploy.system_errors import system_errors

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checked:
    """What was found out about a model.

    Attributes:
        model: as it was named.
        findings: errors and warnings, in the order in which they were found.
        binary: what the converted network is made of; None where it was not converted.
        explanation: how it compares with Keras layer by layer; None where that was not wanted.
    """

    model: str
    findings: tuple[checks.Finding, ...]
    binary: checks.BinaryReport | None
    explanation: Explanation | None

    @property
    def sound(self) -> bool:
        """Whether an export would accept the model."""
        wrong = self.explanation is not None and (self.explanation.fault or self.explanation.wrong_kernels)
        return not wrong and all(finding.severity != "error" for finding in self.findings)

    def require_sound(self) -> None:
        """Raises `ConversionError` for the first error, as the export does."""
        checks.refuse(self.findings)
        if self.explanation is not None:
            require_no_fault(self.explanation)

    def in_short(self) -> list[str]:
        """What LCE keeps, and a line for each finding."""
        lines = []
        if self.binary is not None:
            kept, other = self.binary.binary_convolutions, self.binary.float_convolutions
            lines.append(
                f"of {self.model} LCE keeps {kept} convolution{'s' * (kept != 1)} binary, and computes {other} in float"
            )
        return [*lines, *(f"{self.model}: {checks.sentence(found)}. {found.hint}" for found in self.findings)]

    def to_dict(self) -> dict[str, Any]:
        """All of it, as `bssl-tf check --json` prints it."""
        record: dict[str, Any] = {
            "model": self.model,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "binary": self.binary and dataclasses.asdict(self.binary),
        }
        return record | ({"explanation": dataclasses.asdict(self.explanation)} if self.explanation else {})


@system_errors()
def check(
    model: str | os.PathLike[str],
    *,
    weights: str | Path | None = None,
    allow: Sequence[str] = (),
    convert: bool = True,
    explain: bool = False,
) -> Checked:
    """Checks before an export whether LCE will keep a model binary.

    Args:
        model: a run folder, a folder of `import_teacher`, FILE.h5, FILE.keras, a SavedModel folder, or larq_zoo:NAME;
            no code in it is run.
        weights: a weights file for larq_zoo:NAME; None for random weights.
        allow: codes of checks whose errors count as warnings.
        convert: also convert the model and check the result; False is quick and needs no LCE.
        explain: compare the converted network with Keras on noise, at the input of each binary layer.

    Raises:
        UsageError: `explain` without `convert`.
        ConfigError: a code in `allow` is unknown or cannot be allowed.
        ConversionError: there is no such model, or it cannot be loaded. Findings are returned, not raised.
    """
    if explain and not convert:
        raise UsageError(
            "--explain compares with the converted network, and does not go with --no-convert", "Omit one of them"
        )
    # Before all the work, not after.
    checks.allow((), allow)
    source = os.fspath(model)
    network = open_network(source, Path(weights) if weights else None)
    return check_network(network, source, allow=allow, convert=convert, explain=explain)


def check_network(
    network: keras.Model, source: str, *, allow: Sequence[str] = (), convert: bool = True, explain: bool = False
) -> Checked:
    """See `check`; of a model that was opened before, which is called `source`."""
    findings = checks.allow(checks.find_before(network), allow)
    if not convert or any(finding.severity == "error" for finding in findings):
        return Checked(source, tuple(findings), None, None)
    _log.info(f"converting {network.name} with LCE")
    converted = lce_convert(network, "arm64")
    conversion, more = checks.find_after(network, converted, findings)
    findings += checks.allow(more, allow)
    explanation = None
    if explain:
        images = lce_explain.images_to_explain(network)
        explanation = lce_explain.explain(network, converted, images)
    return Checked(source, tuple(findings), conversion.report, explanation)


def known_checks() -> list[tuple[str, str, str]]:
    """Code, severity and one line of every check, in the order in which they run."""
    return checks.table()
