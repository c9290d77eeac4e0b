"""`bssl-tf evaluate`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli._given import collect
from bssl_tf.cli._model_options import network_options
from bssl_tf.cli.options import json_option, loading_option, prose, record_option
from bssl_tf.files import append_record
from bssl_tf.settings import PROTOCOLS
from bssl_tf_deploy.text import show, show_json

if TYPE_CHECKING:
    from bssl_tf.evaluation.records import Evaluation


@click.command("evaluate")
@click.argument("run", shell_complete=completion.folders)
@click.option(
    "--data",
    "source",
    metavar="SOURCE",
    shell_complete=completion.sources,
    show_default="the one used in training",
    help="A labelled data set.",
)
@click.option("--data-dir", metavar="DIR", shell_complete=completion.folders, help="Where TFDS keeps its data.")
@click.option("--download/--no-download", default=None, show_default="download", help="Allow TFDS to download.")
@click.option("--limit", type=int, metavar="N", show_default="all", help="Use at most N images of each split.")
@click.option("--max-unreadable-share", type=float, show_default="the run's", help="Skip unreadable files up to it.")
@loading_option("loading", "the run's, or auto for other data")
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    metavar="NAME",
    shell_complete=completion.words(*PROTOCOLS),
    show_default="linear-probe and knn-20; of a fine-tuned network, its head too",
    help="knn-20, knn-200, linear-probe, linear-probe-sgd, linear-probe-held-out, few-shot-svm, finetune-1%,"
    " finetune-10%, or fine-tuned for the network's own head; may be repeated.",
)
@click.option(
    "--image-size",
    type=int,
    metavar="PX",
    show_default="the model's own, or 224",
    help="Size of the images for a saved model, pixels per side.",
)
@network_options
@click.option("--controls/--no-controls", default=True, help="Also measure the controls.")
@click.option("--save/--no-save", default=True, help="Replace the table, the predictions and the probe in RUN.")
@record_option("Append the record to FILE as a line of JSON.")
@json_option("Print the record as JSON.")
def command(
    run: str,
    protocols: tuple[str, ...],
    teacher_pixels: str | None,
    teacher_layout: str | None,
    teacher_output: str | None,
    controls: bool,
    save: bool,
    record_file: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure the accuracy of RUN, with controls: a student's, a fine-tuned student's or a teacher's run, an imported
    teacher, or a .keras or .h5 file.

    Applies each protocol to the network, to the same network untrained, to raw pixels (averaged down to at most 32 px
    per side) and, for a student, to its teacher. Fine-tuning works only for bssl-tf's own networks. Ends with a
    verdict: whether paired tests on the same test images show the network to be above its controls, and what to do if
    not. Saves the table, the prediction for each test image, and a student's linear probe, which `bssl-tf export`
    adds to the network. For a fine-tuned student it also states, class by class, whether that or a linear probe on the
    network before is better; for a detector, COCO's average precision alone.
    """
    overrides = collect(options)
    from bssl_tf.workflows.early import before_evaluating

    before_evaluating(Path(run), overrides, protocols)
    command = shlex.join(["bssl-tf", *sys.argv[1:]])
    from bssl_tf.evaluation.protocols import DEFAULT_PROTOCOLS
    from bssl_tf.evaluation.records import as_record
    from bssl_tf.teachers.inputs import TeacherOptions
    from bssl_tf.workflows.evaluate import evaluate
    from bssl_tf.workflows.evaluate_task import evaluate_task

    if (found := evaluate_task(Path(run), overrides, save=save, command=command)) is not None:
        if not _kept(as_record(found), record_file, as_json):
            show(*found.text_lines())
            prose(f"next: bssl-tf export {shlex.quote(run)} --target arm64")
        return
    result = evaluate(
        Path(run),
        overrides,
        protocols=protocols or DEFAULT_PROTOCOLS,
        teacher=TeacherOptions(teacher_pixels or "auto", 0, teacher_layout or "auto", teacher_output or ""),
        controls=controls,
        save=save,
        command=command,
    )
    if _kept(as_record(result), record_file, as_json):
        return
    show(*result.text_lines())
    _advise(result, save)


def _kept(record: dict[str, Any], record_file: str | None, as_json: bool) -> bool:
    """Appends the record where it is wanted, and prints it as JSON, if that is all that is to be printed."""
    if record_file:
        append_record(Path(record_file), record)
    if as_json:
        show_json(record)
    return as_json


def _advise(result: Evaluation, saved: bool) -> None:
    """What to know about a close verdict, and what to do next."""
    from bssl_tf.evaluation.records import STUDENT

    if unfinished := result.unfinished_probes:
        prose(
            f"the verdict is close, and {unfinished} of the linear probes were still improving at their limit of "
            "iterations: their accuracies may be a few tenths of a point off (evaluation.json has the details)"
        )
    export = f"bssl-tf export {shlex.quote(result.run)} --target arm64"
    if result.verdict.next_step:
        prose(f"next: {result.verdict.next_step}")
        if saved and result.subject == STUDENT:
            prose(f"to export it as it is: {export}")
    elif result.subject != STUDENT:
        prose(f"next: bssl-tf pretrain --teacher {shlex.quote(result.run)} --data ... --out ...")
    elif saved:
        prose(f"next: {export}")
    else:
        prose("next: the same without --no-save, which keeps the probe that bssl-tf export adds to the network")
