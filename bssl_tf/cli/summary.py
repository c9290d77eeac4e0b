"""`bssl-tf summary`."""

from __future__ import annotations

from pathlib import Path

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import json_option, prose
from bssl_tf_deploy.text import show, show_json


@click.command("summary")
@click.argument("run", shell_complete=completion.folders)
@json_option("Print the records as JSON.")
def command(run: str, as_json: bool) -> None:
    """Summarise RUN, or an imported teacher: its accuracy with the verdict, its bundles, and the newest benchmark."""
    from bssl_tf.workflows.summary import summarise
    from bssl_tf_deploy.record import Record

    known = summarise(Path(run))
    if as_json:
        show_json(known.records, default=Record.to_dict)
        return
    show(*known.lines)
    if known.next_step:
        prose(f"next: {known.next_step}")
