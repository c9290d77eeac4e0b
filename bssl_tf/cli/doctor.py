"""`bssl-tf doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bssl_tf import __version__
from bssl_tf_deploy.text import show, show_json

if TYPE_CHECKING:
    from bssl_tf.doctor.diagnosis import Diagnosis

_MARKS = {"ready": "✓", "limited": "~", "missing": "✗"}


@click.command("doctor")
@click.option("--deep", is_flag=True, help="Also import TensorFlow, LCE and others, each in its own process.")
@click.option("--json", "as_json", is_flag=True, help="Print the diagnosis as JSON.")
@click.pass_context
def command(context: click.Context, deep: bool, as_json: bool) -> None:
    """Show what is installed, what is missing, which commands need it, and the exact command that installs it.

    The exit status is 0 if every command can run, and 1 if something is missing. Without --deep, only the small runtime
    library is loaded.
    """
    from bssl_tf.doctor.diagnosis import examine

    diagnosis = examine(deep=deep)
    if as_json:
        show_json(_plain(diagnosis))
    else:
        show(*_lines(diagnosis))
    context.exit(0 if diagnosis.healthy else 1)


def _lines(diagnosis: Diagnosis) -> list[str]:
    lines = [f"bssl-tf {__version__}", ""]
    for command in diagnosis.commands:
        said = f"needs {', '.join(command.missing)}" if command.missing else "; ".join(command.limited)
        lines.append(f"{_MARKS[command.state]} {command.name:15} {command.state:8} {said}".rstrip())
    needed = {name for command in diagnosis.commands for name in command.missing}
    lines.append("")
    steps: dict[bool, dict[str, list[str]]] = {True: {}, False: {}}
    for finding in diagnosis.findings:
        mark = "✓" if finding.there else "✗" if finding.name in needed else "~"
        lines.append(f"{mark} {finding.name:21} {finding.found}")
        if not finding.there:
            steps[finding.name in needed].setdefault(finding.next_step, []).append(finding.name)
    # Nobody has to have a phone: what only limits a command is no next step.
    for title, wanted in (("next:", steps[True]), ("optional:", steps[False])):
        lines += ["", title] if wanted else []
        lines += [f"  {step}    # for {', '.join(names)}" for step, names in wanted.items()]
    return lines


def _plain(diagnosis: Diagnosis) -> dict[str, Any]:
    commands = {
        one.name: {"state": one.state, "missing": one.missing, "limited": one.limited} for one in diagnosis.commands
    }
    findings = {
        one.name: {"there": one.there, "found": one.found, "next_step": one.next_step} for one in diagnosis.findings
    }
    return {"healthy": diagnosis.healthy, "commands": commands, "findings": findings}
