"""`bssl-tf evaluate`."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import click

from bssl_tf.cli.options import collect, prose
from bssl_tf.files import append_record


@click.command("evaluate")
@click.argument("run")
@click.option("--data", "source", metavar="SOURCE", help="A labelled data set. [the one it was trained on]")
@click.option("--data-dir", metavar="DIR", help="Where TFDS keeps its data.")
@click.option("--download/--no-download", default=None, help="May TFDS download? [yes]")
@click.option("--limit", type=int, help="Use so many images of each split. [all]")
@click.option("--max-unreadable-share", type=float, help="Skip unreadable files up to this share. [the run's]")
@click.option("--record", "record_file", metavar="FILE", help="Append the record to FILE, a line of JSON each.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def command(run: str, record_file: str | None, as_json: bool, **options: Any) -> None:
    """Probe the student of RUN, a folder of `bssl-tf pretrain`, beside two controls.

    k-nearest neighbours and a linear probe, each for the student, for the same student untrained, and for raw pixels
    (averaged down to 32 px a side or less).
    Saves the table and the student's probe, which `bssl-tf export` puts on top of the network.
    """
    overrides = collect(options)
    from bssl_tf.evaluation.commands import NEIGHBOURS, evaluate

    result = evaluate(Path(run), overrides, report=prose)
    if record_file:
        append_record(Path(record_file), dataclasses.asdict(result))
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(result), indent=2))
        return
    click.echo(
        f"{result.data}: {result.train_images} training and {result.test_images} test images, "
        f"{result.classes} classes; top-1 accuracy in percent, seed {result.seed}"
    )
    click.echo(f"{'features':28} {'width':>6} {f'{NEIGHBOURS}-NN':>8} {'linear probe':>14}")
    for row in result.rows:
        click.echo(f"{row.features:28} {row.width:6d} {row.knn_top1:8.1f} {row.linear_probe_top1:14.1f}")
    prose(f"next: bssl-tf export {shlex.quote(run)} --target arm64")
