"""`bssl-tf compare`."""

from __future__ import annotations

from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli._given import assigned


@click.command("compare")
@click.argument("preset", shell_complete=completion.presets)
@click.option(
    "--teacher",
    metavar="DIR",
    shell_complete=completion.folders,
    show_default="RUNS/teacher, trained first if needed",
    help="The teacher of all runs.",
)
@click.option(
    "--runs", metavar="DIR", shell_complete=completion.folders, show_default="runs/PRESET", help="Where the runs are."
)
@click.option(
    "--results",
    default="results",
    metavar="DIR",
    shell_complete=completion.folders,
    help="Where records, table and figure go.",
)
@click.option("--data-dir", metavar="DIR", shell_complete=completion.folders, help="Where TFDS keeps its data.")
@click.option("--download/--no-download", default=None, show_default="download", help="Allow TFDS to download.")
@click.option("--only", multiple=True, metavar="ROW", help="Run this row only, as in `bssl-frozen-classifier`.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of every run's config.toml.")
@click.option("--report-only", is_flag=True, help="Make table and figure again from the records, and train nothing.")
def command(preset: str, settings: tuple[str, ...], **options: Any) -> None:
    """Compare methods: run PRESET's grid of methods and seeds, and write records, a table and a figure.

    One process at a time, resumable: what RESULTS/PRESET.jsonl already has is not run again.
    """
    from bssl_tf.workflows.compare import compare

    click.echo(compare(preset, settings=assigned(settings), **options).table)
