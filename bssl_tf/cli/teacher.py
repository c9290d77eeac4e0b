"""`bssl-tf teacher`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import data_options, prose, settle, training_options


@click.command("teacher")
@click.option(
    "--method", metavar="NAME", shell_complete=completion.words("moco", "byol"), help="moco (MoCo v2) or byol. [moco]"
)
@data_options
@training_options
@click.option(
    "--backbone",
    "backbone__name",
    metavar="NAME",
    shell_complete=completion.words(*completion.FLOAT_NETWORKS),
    help="The network. [float_resnet]",
)
@click.option("--width", "backbone__width", type=int, help="Channels of its first stage. [the network's own]")
def command(out: str, resume: bool, preset: str | None, settings: tuple[str, ...], **options: Any) -> None:
    """Train a float teacher on unlabelled images (MoCo v2 or BYOL).

    Leaves a run folder; its teacher/ goes to `bssl-tf pretrain --teacher`.
    """
    wanted = settle("teacher", preset, settings, options)
    from bssl_tf.workflows.pretrain import train_teacher

    saved = train_teacher(wanted, Path(out), resume=resume, report=prose)
    prose(f"next: bssl-tf pretrain --teacher {shlex.quote(out)} --data ... --out ...")
    click.echo(saved)
