"""`bssl-tf check`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from bssl_tf.cli import completion
from bssl_tf.cli._model_options import allow_option, explain_option, weights_option
from bssl_tf.cli.options import json_option
from bssl_tf_deploy.text import show, show_json

if TYPE_CHECKING:
    from bssl_tf_converters.lce.checks import BinaryReport, Finding


@click.command("check")
@click.argument("model", required=False, shell_complete=completion.models)
@weights_option
@allow_option
@click.option("--no-convert", is_flag=True, help="Inspect the Keras model only: quick, and needs no LCE.")
@explain_option
@click.option("--list", "as_list", is_flag=True, help="List all checks with their codes and exit.")
@json_option("Print the findings as JSON.")
def command(
    model: str | None,
    weights: str | None,
    allow: tuple[str, ...],
    no_convert: bool,
    explain: bool,
    as_list: bool,
    as_json: bool,
) -> None:
    """Check layer by layer, before exporting, whether LCE will keep MODEL binary, and what to change if not.

    MODEL is a run folder, an imported teacher, FILE.h5, FILE.keras, a SavedModel folder, or larq_zoo:NAME; it must be
    from Keras 2. No code in it is run. The exit status is 0 if there are no errors, and 6 if there are.

    With --explain, the converted network is compared with Keras on noise, at the input of each binary layer.
    """
    if model is not None and not as_list:
        from bssl_tf.workflows.early import before_checking

        before_checking(model)
    from bssl_tf.workflows import check as workflow

    if as_list:
        _print_list(workflow.known_checks(), as_json)
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL': name a run folder, a file or larq_zoo:NAME.")
    found = workflow.check(model, weights=weights, allow=allow, convert=not no_convert, explain=explain)
    if as_json:
        show_json(found.to_dict(), sort_keys=True)
    else:
        compared = [] if found.explanation is None else found.explanation.lines()
        show(*_grouped(found.findings), *_made(found.binary), *compared)
    found.require_sound()


def _print_list(checks: list[tuple[str, str, str]], as_json: bool) -> None:
    if as_json:
        show_json([{"code": c, "severity": s, "line": line} for c, s, line in checks])
        return
    for code, severity, line in checks:
        show(f"{code:30}{severity:15}{line}")


def _grouped(findings: Sequence[Finding]) -> list[str]:
    """Each layer with what was found about it, in the order in which the layers came up."""
    by_layer: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_layer[finding.layer].append(finding)
    lines = []
    for layer, found in by_layer.items():
        lines.append(f"layer {layer}" if layer else "the model")
        for finding in found:
            lines += [f"  {finding.severity} {finding.code}: {finding.message}", f"    {finding.hint}"]
    counts = {severity: sum(one.severity == severity for one in findings) for severity in ("error", "warning")}
    return [*lines, ", ".join(f"{count} {severity}{'s' * (count != 1)}" for severity, count in counts.items())]


def _made(report: BinaryReport | None) -> list[str]:
    if report is None:
        return []
    return [
        f"{report.binary_convolutions} binary convolutions (LceBconv2d), {report.float_convolutions} float, "
        f"{report.fully_connected} float dense; {report.weight_bytes / 1024:.1f} KiB of weights",
        "operators: " + ", ".join(f"{count} {name}" for name, count in report.operators.items()),
    ]
