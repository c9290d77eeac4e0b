"""`bssl-tf compare`."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli._given import assigned
from bssl_tf.cli.options import json_option
from bssl_tf_deploy.text import show, show_json


@click.command("compare")
@click.argument("preset", shell_complete=completion.presets)
@click.option(
    "--teacher",
    metavar="DIR",
    shell_complete=completion.folders,
    show_default="RUNS/teacher, trained first if needed",
    help="The teacher for all runs.",
)
@click.option(
    "--runs", metavar="DIR", shell_complete=completion.folders, show_default="runs/PRESET", help="Folder of the runs."
)
@click.option(
    "--results",
    default="results",
    metavar="DIR",
    shell_complete=completion.folders,
    help="Folder for the records, table and figure.",
)
@click.option("--data-dir", metavar="DIR", shell_complete=completion.folders, help="Where TFDS keeps its data.")
@click.option("--download/--no-download", default=None, show_default="download", help="Allow TFDS to download.")
@click.option("--only", multiple=True, metavar="ROW", help="Run only this row, for example `bssl-frozen-classifier`.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a setting in every run's config.toml."
)
@click.option("--report-only", is_flag=True, help="Redraw the table and figure from the records without training.")
@json_option("Print the files as JSON.")
def command(preset: str, settings: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Compare methods: run PRESET's grid of methods and seeds, and write records, a table and a figure.

    Rows run one at a time. The comparison can be resumed: rows already in RESULTS/PRESET.jsonl are not run again.
    """
    from bssl_tf.workflows.compare import compare

    done = compare(preset, settings=assigned(settings), **options)
    if as_json:
        show_json({name: str(path) for name, path in dataclasses.asdict(done).items()})
    else:
        show(done.table)
