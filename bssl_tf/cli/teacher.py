"""`bssl-tf teacher`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bssl_tf.cli import completion
from bssl_tf.cli._given import methods_help, settle
from bssl_tf.cli._training_options import BY_BUDGET, budget_option, probe_option, show_plan, training_options
from bssl_tf.cli.options import data_options, prose, show_trained
from bssl_tf.methods.registry import names_for
from bssl_tf.settings import TeacherConfig

_IMAGENET_SIZE = 224


@click.command("teacher")
@click.option(
    "--method",
    metavar="NAME",
    shell_complete=lambda context, parameter, typed: completion.fitting(names_for("teacher"), typed),
    show_default="moco",
    help=methods_help(("", lambda method: method.trains_teachers)),
)
@click.option(
    "--pretrained",
    is_flag=False,
    flag_value="efficientnet_lite0",
    metavar="[NAME]",
    shell_complete=completion.words("efficientnet_lite0"),
    help="Skip training and use EfficientNet-Lite0, trained with ImageNet's labels, at --image-size. Recommended below"
    " 50,000 photos.",
)
@data_options
@training_options
@budget_option(BY_BUDGET)
@probe_option
@click.option(
    "--backbone",
    "backbone__name",
    metavar="NAME",
    shell_complete=completion.words(*completion.FLOAT_NETWORKS),
    show_default="float_resnet",
    help="The network.",
)
@click.option(
    "--width", "backbone__width", type=int, show_default="the network's own", help="Channels of its first stage."
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
    pretrained: str | None,
    **options: Any,
) -> None:
    """Train a float teacher on unlabelled images (MoCo v2 or BYOL), or use a pretrained one.

    Writes a folder for `bssl-tf pretrain --teacher`.
    """
    if pretrained is not None:
        _take(click.get_current_context(), pretrained, out, options["data__image_size"], as_json)
        return
    from bssl_tf.workflows.early import before_training

    wanted = settle("teacher", preset, settings, options)
    before_training(TeacherConfig, wanted, Path(out), resume=resume)
    from bssl_tf.workflows.train_teacher import ready_to_train_teacher, train_teacher

    if dry_run or profile:
        show_plan(
            ready_to_train_teacher(wanted, Path(out), resume=resume, budget=budget),
            None if dry_run else profile,
            as_json,
        )
        return
    saved = train_teacher(wanted, Path(out), resume=resume, budget=budget)
    also = f"--preset {shlex.quote(preset)} " if preset else ""
    prose(f"next: bssl-tf pretrain {also}--teacher {shlex.quote(out)} --data ... --out ...")
    show_trained(out, saved, as_json)


def _take(context: click.Context, name: str, out: str, image_size: int | None, as_json: bool) -> None:
    """Makes a teacher folder of published weights; raises `click.UsageError` for options that would do nothing."""
    kept = ("pretrained", "out", "data__image_size", "as_json")
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if given and parameter.name not in kept:
            raise click.UsageError(f"{parameter.opts[0]} is for training; omit it with --pretrained")
    from bssl_tf.workflows.import_options import settle_options

    size = image_size or _IMAGENET_SIZE
    settle_options(name.replace("-", "_"), Path(out), size)
    from bssl_tf.workflows.import_teacher import import_teacher

    made = import_teacher(name, out=out, image_size=size)
    prose(f"next: bssl-tf evaluate {shlex.quote(out)} --data LABELLED, to see how well it separates your classes; then")
    fitting = f"--teacher {shlex.quote(out)} --image-size {size} --channels 3"
    prose(f"bssl-tf pretrain --preset demo {fitting} --data ... --out ...")
    show_trained(out, made.network, as_json)
