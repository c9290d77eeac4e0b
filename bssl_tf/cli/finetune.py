"""`bssl-tf finetune`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli._given import settle
from bssl_tf.cli._model_options import network_options
from bssl_tf.cli._training_options import budget_option, show_plan, training_options
from bssl_tf.cli.options import prose, show_trained, source_options
from bssl_tf.cli.zoo import students
from bssl_tf.models.registry import names
from bssl_tf.settings import FinetuneConfig


@click.command("finetune")
@click.argument("student", metavar="RUN", required=False, shell_complete=students)
@source_options
@training_options
@budget_option("as many epochs as fit on this machine, 60 at most")
@click.option(
    "--head-learning-rate",
    "finetune__head_learning_rate",
    type=float,
    show_default="0.01",
    help="Peak learning rate of the head; --learning-rate is the backbone's.",
)
@click.option(
    "--class-weights",
    "finetune__class_weights",
    metavar="KIND",
    shell_complete=completion.words("none", "balanced"),
    show_default="none",
    help="none, or balanced: rare classes count as much as common ones.",
)
@click.option(
    "--task",
    metavar="NAME",
    shell_complete=completion.words("classification", "multilabel", "detection"),
    show_default="classification",
    help="What to train for: classification, multilabel (any number of labels per image, from a .csv or .jsonl file), "
    "detection (boxes of Pascal VOC, COCO, YOLO or TFDS), or a task provided by an installed package.",
)
@click.option(
    "--student",
    "backbone__name",
    metavar="NAME",
    shell_complete=completion.words(*names()),
    help="In place of RUN: train this network from random weights.",
)
@click.option(
    "--width", "backbone__width", type=int, show_default="the network's own", help="With --student: as in pretrain."
)
@click.option(
    "--depth", "backbone__depth", type=int, show_default="the network's own", help="With --student: as in pretrain."
)
@click.option(
    "--image-size",
    "data__image_size",
    type=int,
    show_default="the student's; 224 from random weights",
    help="Pixels per side, another number than the student's for detection alone.",
)
@click.option(
    "--image-width",
    "data__image_width",
    type=int,
    show_default="the same",
    help="Of detection, where the input is not a square: its width. --image-size is then its height.",
)
@click.option(
    "--teacher",
    metavar="PATH",
    shell_complete=completion.files,
    help="Also distil from this float network, with a classifier fitted on its features: a run folder of `bssl-tf "
    "teacher` or `bssl-tf finetune`, or a .keras, .h5 or .onnx model.",
)
@click.option(
    "--unlabelled",
    metavar="SOURCE",
    shell_complete=completion.sources,
    help="More images of the same kind, without labels, for which the teacher gives soft labels.",
)
@click.option(
    "--float-twin",
    is_flag=True,
    default=None,
    help="Train the same layers with nothing quantised, for as many epochs, to compare with. It cannot be exported.",
)
@network_options
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
    """Train the whole network of a pretrained student with labels.

    RUN is a run folder of `bssl-tf pretrain` or `bssl-tf finetune`, or zoo:NAME; it is omitted with --resume, and with
    --student, which trains from random weights. The run folder of a `bssl-tf teacher` is taken too; the result can
    then be the --teacher of a student.

    Backbone and head learn at rates of their own, from views that keep labels. Some images are held out (those in val/,
    or, from 600 labels on, one training image in six): training ends when they show no more progress, and the best
    weights are kept. The result is a run that evaluate, export, report and summary take. Ctrl-C and kill -9 lose at
    most the steps since the last checkpoint; `bssl-tf finetune --out DIR --resume` ends with the same weights, bit for
    bit.
    """
    from bssl_tf.workflows.early import before_training

    wanted = settle("finetune", preset, settings, options)
    before_training(FinetuneConfig, wanted, Path(out), resume=resume)
    from bssl_tf.workflows.finetune import finetune, ready_to_finetune

    if dry_run or profile:
        ready = ready_to_finetune(wanted, Path(out), resume=resume, budget=budget)
        show_plan(ready, None if dry_run else profile, as_json)
        return
    saved = finetune(wanted, Path(out), resume=resume, budget=budget)
    run = shlex.quote(out)
    prose(f"next: bssl-tf evaluate {run}, and bssl-tf export {run} --target arm64")
    show_trained(out, saved, as_json)
