"""`bssl-tf embed`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli._model_options import feature_options
from bssl_tf.cli.options import json_option, prose
from bssl_tf.cli.zoo import feature_networks
from bssl_tf_deploy.text import show, show_json


@click.command("embed")
@click.argument("model", metavar="MODEL", shell_complete=feature_networks)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|FOLDER|-...", shell_complete=completion.files)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    shell_complete=completion.files,
    help="The file to write: FILE.npz, or FILE.parquet with the extra parquet.",
)
@click.option("--packed", is_flag=True, help="One bit per feature instead of a float32.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@feature_options
@json_option("Print what was written as JSON.")
def command(model: str, images: tuple[str, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Write the features of images to a file, for search, selection or programs of your own.

    MODEL is a folder of `bssl-tf pretrain`, `finetune`, `teacher` or `import-teacher`; a bundle of `bssl-tf export`,
    whose own model computes the features; zoo:NAME; or a model that was saved elsewhere and gives one vector per image:
    a .keras, .h5 or .onnx file or a SavedModel folder, whose code is not run. A row of the file is one image, named
    relative to the folder if one folder is given alone. With --packed a bit states whether a feature is above its mean
    over these images. Images that cannot be read are reported, counted and left out, and make the exit status 9.
    """
    from bssl_tf.errors import ImageError
    from bssl_tf.workflows.embed import embed
    from bssl_tf_deploy.embedding import lines, summary

    found = embed(model, images, out=out, **options)
    for line in found.unreadable:
        prose(line)
    if as_json:
        show_json(summary(found, out))
    else:
        show(*lines(found, out))
    if found.unreadable:
        sys.exit(ImageError.exit_status)
