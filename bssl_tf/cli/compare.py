"""`bssl-tf compare`."""

from __future__ import annotations

from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import assigned


@click.command("compare")
@click.argument("preset", shell_complete=completion.presets)
@click.option(
    "--teacher",
    metavar="DIR",
    shell_complete=completion.folders,
    help="The teacher of all runs. [RUNS/teacher, trained first if need be]",
)
@click.option("--runs", metavar="DIR", shell_complete=completion.folders, help="Where the runs are. [runs/PRESET]")
@click.option(
    "--results",
    default="results",
    metavar="DIR",
    shell_complete=completion.folders,
    help="Where records, table and figure go. [results]",
)
@click.option("--data-dir", metavar="DIR", shell_complete=completion.folders, help="Where TFDS keeps its data.")
@click.option("--download/--no-download", default=None, help="Allow TFDS to download. [yes]")
@click.option("--only", multiple=True, metavar="ROW", help="Run this row only, as in `bssl-frozen-classifier`.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of every run's config.toml.")
@click.option("--report-only", is_flag=True, help="Make table and figure again from the records, train nothing.")
def command(preset: str, settings: tuple[str, ...], **options: Any) -> None:
    """Compare methods: run PRESET's grid of methods and seeds, and write records, a table and a figure.

    One process at a time, resumable: what RESULTS/PRESET.jsonl has already is not run again.
    """
    from bssl_tf.workflows.compare import compare

    click.echo(compare(preset, settings=assigned(settings), **options).table)
