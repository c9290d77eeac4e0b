"""`bssl-tf pretrain`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import data_options, prose, settle, training_options
from bssl_tf.cli.zoo import students
from bssl_tf.methods.registry import names


@click.command("pretrain")
@click.option(
    "--method",
    metavar="NAME",
    shell_complete=lambda context, parameter, typed: completion.fitting(names(), typed),
    help="s2bnn (guided distillation) or bssl (joint classifier); baselines without a teacher: moco, byol, swav,"
    " supervised; or one that an installed package brings. [s2bnn]",
)
@click.option(
    "--classifier",
    "bssl__classifier",
    metavar="KIND",
    shell_complete=completion.words("joint", "frozen"),
    help="bssl: joint or frozen. [joint]",
)
@click.option(
    "--feature-similarity",
    "bssl__feature_similarity",
    metavar="OF",
    shell_complete=completion.words("outputs", "features", "off"),
    help="bssl: outputs, features or off. [outputs]",
)
@click.option(
    "--teacher",
    metavar="PATH",
    shell_complete=completion.files,
    help="A run folder of `bssl-tf teacher`, or a .keras or .h5 model.",
)
@data_options
@training_options
@click.option(
    "--student",
    "backbone__name",
    metavar="NAME",
    shell_complete=students,
    help="The binary network, or zoo:NAME. [binary_resnet]",
)
@click.option("--width", "backbone__width", type=int, help="Channels of its first stage. [the network's own]")
@click.option("--depth", "backbone__depth", type=int, help="Binary convolutions per stage. [the network's own]")
def command(out: str, resume: bool, preset: str | None, settings: tuple[str, ...], **options: Any) -> None:
    """Train a binary student from a teacher, without labels.

    Two stages: binary activations, then binary weights too. Ctrl-C and kill -9 lose nothing but the steps since the
    last checkpoint; the same command with --resume ends in the same weights, bit for bit.
    """
    wanted = settle("pretrain", preset, settings, options)
    from bssl_tf.workflows.pretrain import pretrain

    saved = pretrain(wanted, Path(out), resume=resume, report=prose)
    prose(f"next: bssl-tf evaluate {shlex.quote(out)} (and --data FOLDER, if these images have no labels)")
    click.echo(saved)
