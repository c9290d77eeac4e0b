"""`bssl-tf export`."""

from __future__ import annotations

import shlex
from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli._model_options import allow_option, explain_option, postprocess_option, weights_option
from bssl_tf.cli._types import Numbers, Target, named
from bssl_tf.cli.options import json_option, prose, record_option
from bssl_tf_deploy.library import TARGETS
from bssl_tf_deploy.text import show, show_json


@click.command("export")
@click.argument("model", metavar="RUN|MODEL", shell_complete=completion.models)
@click.option("--target", required=True, type=Target(TARGETS), help="Where the bundle will run.")
@click.option(
    "--out",
    metavar="DIR",
    shell_complete=completion.folders,
    show_default="RUN/bundle-TARGET or MODEL-bundle-TARGET",
    help="The bundle's folder.",
)
@click.option("--overwrite", is_flag=True, help="Replace a bundle in --out.")
@click.option(
    "--input",
    default="float32",
    type=click.Choice(("float32", "uint8", "int8")),
    help="The network's input: normalised images, pixels that it normalises itself, or int8 (with int8 output too).",
)
@click.option(
    "--int8", is_flag=True, help="Convert float convolutions and dense layers to int8; implied by --input int8."
)
@click.option(
    "--calibrate", show_default="200", type=click.IntRange(min=1), help="Training images to calibrate int8 on."
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    show_default="500 for the comparison, all for the accuracy",
    help="Test images for the comparison with Keras and for the accuracy.",
)
@postprocess_option
@allow_option
@explain_option
@click.option(
    "--data",
    metavar="SOURCE",
    shell_complete=completion.sources,
    help="MODEL's images: embedded, tfds:NAME, or a folder of images.",
)
@click.option(
    "--data-dir",
    metavar="DIR",
    shell_complete=completion.folders,
    show_default="as in the evaluation",
    help="Where TFDS keeps its data.",
)
@click.option(
    "--labels",
    metavar="FILE",
    shell_complete=completion.files,
    show_default="the data's, if there are as many",
    help="MODEL's classes, one per line.",
)
@weights_option
@click.option(
    "--mean",
    type=Numbers(),
    show_default="0; 0.485,0.456,0.406 for larq_zoo:NAME",
    help="MODEL's inputs are (pixel / 255 - mean) / std; one number, or one per channel.",
)
@click.option("--std", type=Numbers(), show_default="1; 0.229,0.224,0.225 for larq_zoo:NAME", help="See --mean.")
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="NAME=FOLDER",
    help="Also learn a head NAME, from one folder of photos for each class, as `bssl-tf-deploy learn` does; may be "
    "repeated.",
)
@record_option("Append accuracy, parity and size to FILE, as a line of JSON.")
@json_option("Print the manifest as JSON.")
def command(model: str, record_file: str | None, as_json: bool, heads: tuple[str, ...], **options: Any) -> None:
    """Convert a student and its linear probe or head, or any Keras 2 classifier, into a bundle for a device.

    RUN is a folder of `bssl-tf finetune`, or of `bssl-tf pretrain` on which `bssl-tf evaluate` has been run. MODEL is
    FILE.h5, FILE.keras, a SavedModel folder, or larq_zoo:NAME with --weights, a file that load_weights accepts. No code
    in it is run. MODEL needs --data, and the same --mean and --std as in its training.

    The converted network is checked: every binary layer must still be binary (see `bssl-tf check`), and its outputs on
    test images must match those of the Keras network. In int8, whose rounding errors exceed that tolerance, both
    accuracies are shown. The bundle also contains the runtime library for its target, compiled here if needed (`pip
    install ziglang` provides a compiler for every target).
    """
    from bssl_tf.workflows.early import before_exporting

    folders = named("--head", heads, "FOLDER")
    before_exporting(model, heads=folders, **options)
    from bssl_tf.workflows.export import export

    done = export(model, record=record_file, heads=folders, **options)
    if as_json:
        show_json({"bundle": str(done.path), "manifest": done.manifest.to_dict()}, sort_keys=True)
        return
    show(*done.text_lines())
    quoted = shlex.quote(str(done.path))
    if getattr(done.manifest.table, "accuracy", None) is None:
        prose("accuracy is not measured: there are no labelled test images of these classes")
    prose(f"next: bssl-tf run {quoted} IMAGE, or bssl-tf bench {quoted}")
