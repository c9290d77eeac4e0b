"""`bssl-tf pretrain`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli._given import methods_help, settle
from bssl_tf.cli._model_options import network_options
from bssl_tf.cli._training_options import BY_BUDGET, budget_option, probe_option, show_plan, training_options
from bssl_tf.cli.options import data_options, prose, show_trained
from bssl_tf.cli.zoo import students
from bssl_tf.methods.registry import names_for
from bssl_tf.settings import PretrainConfig


@click.command("pretrain")
@click.option(
    "--method",
    metavar="NAME",
    shell_complete=lambda context, parameter, typed: completion.fitting(names_for("pretrain"), typed),
    show_default="s2bnn",
    help=methods_help(
        ("", lambda method: method.needs_teacher),
        ("baselines without a teacher: ", lambda method: not method.needs_teacher and not method.fine_tunes),
    ),
)
@click.option(
    "--classifier",
    "bssl__classifier",
    metavar="KIND",
    shell_complete=completion.words("joint", "frozen"),
    show_default="joint",
    help="bssl: joint or frozen.",
)
@click.option(
    "--feature-similarity",
    "bssl__feature_similarity",
    metavar="OF",
    shell_complete=completion.words("outputs", "features", "off"),
    show_default="outputs",
    help="bssl: outputs, features or off.",
)
@click.option(
    "--teacher",
    metavar="PATH",
    shell_complete=completion.files,
    help="A run folder of `bssl-tf teacher`, or a .keras, .h5 or .onnx model.",
)
@network_options
@data_options
@training_options
@budget_option(BY_BUDGET)
@probe_option
@click.option(
    "--student",
    "backbone__name",
    metavar="NAME",
    shell_complete=students,
    show_default="binary_resnet",
    help="The binary network, zoo:NAME, FILE.py:FUNCTION (runs your code), or a .keras or .h5 model.",
)
@click.option(
    "--width", "backbone__width", type=int, show_default="the network's own", help="Channels of its first stage."
)
@click.option(
    "--depth", "backbone__depth", type=int, show_default="the network's own", help="Binary convolutions per stage."
)
def command(
    out: str,
    resume: bool,
    dry_run: bool,
    profile: int | None,
    budget: str | None,
    preset: str | None,
    settings: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Train a binary student from a teacher, without labels.

    Training has two stages: binary activations, then binary weights as well. Ctrl-C and kill -9 lose at most the steps
    since the last checkpoint; the same command with --resume ends with the same weights, bit for bit.
    """
    from bssl_tf.workflows.early import before_training

    wanted = settle("pretrain", preset, settings, options)
    before_training(PretrainConfig, wanted, Path(out), resume=resume)
    from bssl_tf.workflows.pretrain import pretrain, ready_to_pretrain

    if dry_run or profile:
        show_plan(
            ready_to_pretrain(wanted, Path(out), resume=resume, budget=budget), None if dry_run else profile, as_json
        )
        return
    saved = pretrain(wanted, Path(out), resume=resume, budget=budget)
    prose(f"next: bssl-tf evaluate {shlex.quote(out)} (and --data FOLDER, if these images have no labels)")
    show_trained(out, saved, as_json)
