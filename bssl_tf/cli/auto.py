"""`bssl-tf auto`."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli._types import Target
from bssl_tf.cli.options import json_option, prose
from bssl_tf_deploy.library import TARGETS
from bssl_tf_deploy.text import show, show_json


@click.command("auto")
@click.argument("data", metavar="PHOTOS", shell_complete=completion.folders)
@click.option(
    "--labels",
    required=True,
    metavar="DIR",
    shell_complete=completion.folders,
    help="Labelled photos, one sub-folder for each class.",
)
@click.option("--target", required=True, type=Target(TARGETS), help="Where the bundle will run.")
@click.option(
    "--budget",
    required=True,
    metavar="TIME",
    shell_complete=completion.words("10m", "30m", "1h", "8h"),
    help="How long all training may take, such as 1h.",
)
@click.option(
    "--out", default="runs/auto", metavar="DIR", shell_complete=completion.folders, help="Folder for the results."
)
@click.option("--image-size", default=96, type=int, help="Pixels per side that the student sees.")
@json_option()
def command(as_json: bool, **options: Any) -> None:
    """Go the whole way from PHOTOS, labelled or not, to a bundle and a report.

    Takes a teacher (with fewer than 50,000 photos the pretrained one, if it is installed), trains a student from it
    without labels, fits a linear probe with the labels, fine-tunes, and exports whichever of the two is better on
    held-out images. After an interruption the same command continues. To change more, use the single commands:
    `bssl-tf init` writes a preset for them.
    """
    from bssl_tf.workflows.auto import auto

    done = auto(**options)
    if as_json:
        show_json(dataclasses.asdict(done), default=str)
    else:
        show(done.sentence)
    prose(f"report: {done.report}, open it in a browser")
    prose(f"next: {done.next_step}")
