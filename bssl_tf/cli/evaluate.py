"""`bssl-tf evaluate`."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import collect, prose, record_option
from bssl_tf.files import append_record
from bssl_tf.settings import PROTOCOLS


@click.command("evaluate")
@click.argument("run", shell_complete=completion.folders)
@click.option(
    "--data",
    "source",
    metavar="SOURCE",
    shell_complete=completion.sources,
    help="A labelled data set. [the one it was trained on]",
)
@click.option("--data-dir", metavar="DIR", shell_complete=completion.folders, help="Where TFDS keeps its data.")
@click.option("--download/--no-download", default=None, help="Allow TFDS to download. [yes]")
@click.option("--limit", type=int, help="Use so many images of each split. [all]")
@click.option("--max-unreadable-share", type=float, help="Skip unreadable files up to this share. [the run's]")
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    metavar="NAME",
    shell_complete=completion.words(*PROTOCOLS),
    help="knn-20, knn-200, linear-probe, linear-probe-sgd, linear-probe-held-out, few-shot-svm, finetune-1% or"
    " finetune-10%; may be repeated. [linear-probe and knn-20]",
)
@click.option("--controls/--no-controls", default=True, help="Measure the three controls too? [yes]")
@click.option("--save/--no-save", default=True, help="Replace table and probe in RUN? [yes]")
@record_option("Append the record to FILE, a line of JSON each.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def command(
    run: str,
    protocols: tuple[str, ...],
    controls: bool,
    save: bool,
    record_file: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Probe the student of RUN, a folder of `bssl-tf pretrain`, beside its controls.

    Each protocol for the student, for the same student untrained, for raw pixels (averaged down to 32 px a side or
    less), and for the teacher. Fine-tuning is for the student, trained and untrained.
    Saves the table and the student's linear probe, which `bssl-tf export` puts on top of the network.
    """
    overrides = collect(options)
    from bssl_tf.evaluation.protocols import DEFAULT_PROTOCOLS
    from bssl_tf.workflows.evaluate import evaluate

    result = evaluate(
        Path(run),
        overrides,
        report=prose,
        protocols=protocols or DEFAULT_PROTOCOLS,
        controls=controls,
        save=save,
        command=shlex.join(["bssl-tf", *sys.argv[1:]]),
    )
    if record_file:
        append_record(Path(record_file), dataclasses.asdict(result))
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(result), indent=2))
        return
    click.echo(
        f"{result.data}: {result.train_images} training and {result.test_images} test images, "
        f"{result.classes} classes; top-1 accuracy in percent, seed {result.seed}"
    )
    names = list(dict.fromkeys(name for row in result.rows for name in row.scores))
    click.echo(f"{'features':28} {'width':>6} " + " ".join(f"{name:>16}" for name in names))
    for row in result.rows:
        means = {name: f"{sum(draws) / len(draws):.1f}" for name, draws in row.scores.items()}
        click.echo(f"{row.features:28} {row.width:6d} " + " ".join(f"{means.get(name, '-'):>16}" for name in names))
    if not save:
        return
    prose(f"next: bssl-tf export {shlex.quote(run)} --target arm64")
