"""`bssl-tf similar`."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli._model_options import feature_options
from bssl_tf.cli.options import json_option, prose
from bssl_tf.cli.zoo import feature_networks
from bssl_tf_deploy.text import show, show_json


@click.command("similar")
@click.argument("model", metavar="MODEL", shell_complete=feature_networks)
@click.argument("image", metavar="IMAGE", shell_complete=completion.files)
@click.argument("images", metavar="FOLDER|VECTORS", shell_complete=completion.files)
@click.option("--count", default=12, type=click.IntRange(min=1), help="How many images to find.")
@click.option(
    "--out", default="similar.html", metavar="FILE", shell_complete=completion.files, help="The contact sheet to write."
)
@click.option(
    "--folder",
    metavar="DIR",
    shell_complete=completion.folders,
    help="Where the images of VECTORS are; only those below DIR are opened for the page.",
)
@feature_options
@json_option("Print what was found as JSON.")
def command(model: str, image: str, images: str, as_json: bool, **options: Any) -> None:
    """Find the images in FOLDER that a network finds most similar to IMAGE, and show them on a page.

    MODEL is as for `bssl-tf embed`. VECTORS is a file that it wrote with the same network, .npz or .parquet, which
    saves the time of computing the features of all images again; the page shows those of its images that are below
    --folder, and the names of others. Prints path and cosine similarity, the most similar first.
    """
    from bssl_tf.errors import ImageError
    from bssl_tf.workflows.similar import similar

    found = similar(model, image, images=images, **options)
    for line in found.unreadable:
        prose(line)
    if as_json:
        show_json(dataclasses.asdict(found) | {"page": str(found.page)})
    else:
        show(*(f"{match.similarity:7.4f}  {match.image}" for match in found.matches))
    prose(f"{found.page}: the {len(found.matches)} most similar of {found.searched} images, open it in a browser")
    if found.unopened:
        prose(
            f"{found.unopened} of them are on the page by name only, because files of vectors may name any file: "
            "--folder DIR opens those below DIR"
        )
    if found.unreadable:
        sys.exit(ImageError.exit_status)
