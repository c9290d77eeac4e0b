"""`bssl-tf check`."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import allow_option, explain_option, prose, weights_option

if TYPE_CHECKING:
    from bssl_tf_converters.lce.checks import BinaryReport, Finding
    from bssl_tf_converters.lce.explain import Explanation


@click.command("check")
@click.argument("model", required=False, shell_complete=completion.models)
@weights_option
@allow_option
@click.option("--no-convert", is_flag=True, help="Look at the Keras model only; needs no LCE, and takes a moment.")
@explain_option
@click.option("--list", "as_list", is_flag=True, help="Print every check with its code, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(
    model: str | None,
    weights: str | None,
    allowed: tuple[str, ...],
    no_convert: bool,
    explaining: bool,
    as_list: bool,
    as_json: bool,
) -> None:
    """Say before export whether LCE will keep MODEL binary, layer by layer, and what to change.

    MODEL is a run folder, FILE.h5, FILE.keras, a SavedModel folder, or larq_zoo:NAME; all of Keras 2. No code in it is
    run. The status is 0 without errors, and 6 with some.

    With --explain the converted network is compared with Keras on noise, at the input of each binary layer.
    """
    if as_list:
        _print_list(as_json)
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL': name a run folder, a file or larq_zoo:NAME.")
    if explaining and no_convert:
        raise click.UsageError(
            "--explain compares with the converted network, and does not go with --no-convert; leave one of them out"
        )

    from bssl_tf_converters.lce.checks import allow, find_after, find_before, refuse

    # Before all the work, not after.
    allow((), allowed)
    from bssl_tf.workflows.networks import open_network

    network = open_network(model, Path(weights) if weights else None)
    findings = allow(find_before(network), allowed)
    report: BinaryReport | None = None
    explanation: Explanation | None = None
    if not no_convert and all(finding.severity != "error" for finding in findings):
        from bssl_tf_converters.lce.converter import convert

        prose(f"converting {network.name} with LCE")
        converted = convert(network, "arm64")
        conversion, more = find_after(network, converted, findings)
        report = conversion.report
        findings += allow(more, allowed)
        if explaining:
            from bssl_tf_converters.lce.explain import explain, images_to_explain

            explanation = explain(network, converted, images_to_explain(network), report=prose)
    if as_json:
        found = [dataclasses.asdict(finding) for finding in findings]
        binary = None if report is None else dataclasses.asdict(report)
        record: dict[str, Any] = {"model": model, "findings": found, "binary": binary}
        if explanation is not None:
            record["explanation"] = dataclasses.asdict(explanation)
        click.echo(json.dumps(record, indent=2, sort_keys=True))
    else:
        compared = [] if explanation is None else explanation.lines()
        click.echo("\n".join([*_grouped(findings), *_made(report), *compared]))
    refuse(findings)
    if explanation is not None:
        from bssl_tf_converters.lce.explain import require_no_fault

        require_no_fault(explanation)


def _print_list(as_json: bool) -> None:
    from bssl_tf_converters.lce.checks import table

    if as_json:
        click.echo(json.dumps([{"code": c, "severity": s, "line": line} for c, s, line in table()], indent=2))
        return
    for code, severity, line in table():
        click.echo(f"{code:30}{severity:15}{line}")


def _grouped(findings: list[Finding]) -> list[str]:
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
