"""`bssl-tf select`."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli._model_options import feature_options
from bssl_tf.cli.options import json_option, prose
from bssl_tf.cli.zoo import feature_networks
from bssl_tf_deploy.text import show, show_json


@click.command("select")
@click.argument("images", metavar="FOLDER", shell_complete=completion.folders)
@click.option("--count", default=200, type=click.IntRange(min=1), help="How many photos to choose.")
@click.option(
    "--network",
    metavar="MODEL",
    shell_complete=feature_networks,
    show_default="16x16 pixels, without a network",
    help="Whose features to compare, as for `bssl-tf embed`, and whose classifier to use, if it has one.",
)
@click.option(
    "--labelled",
    metavar="DIR",
    shell_complete=completion.folders,
    help="Photos that have labels already, from which the new ones should differ.",
)
@click.option("--seed", default=0, type=click.IntRange(min=0), help="Seed of the first photo.")
@click.option(
    "--out",
    default="select.txt",
    metavar="FILE",
    shell_complete=completion.files,
    help="The list to write, one path per line; the page has the same name with .html.",
)
@feature_options
@json_option("Print what was chosen as JSON.")
def command(images: str, as_json: bool, **options: Any) -> None:
    """Choose the photos in FOLDER that are worth labelling first.

    The chosen ones differ as much as possible from each other and from labelled ones (greedy k-center); with a network
    that has a classifier, those that it is unsure of come first. Near-duplicates are never both chosen, so there may be
    fewer than --count. The same seed gives the same list.
    """
    from bssl_tf.errors import ImageError
    from bssl_tf.workflows.select import select

    found = select(images, **options)
    for line in found.unreadable:
        prose(line)
    if as_json:
        show_json(dataclasses.asdict(found) | {"out": str(found.out), "page": str(found.page)})
    else:
        show(f"{found.out}: {len(found.chosen)} of {found.among} photos, by {found.network}")
    if len(found.chosen) < options["count"]:
        prose("all other photos are near-duplicates of these or of labelled ones")
    prose(f"{found.page} shows them; to copy them: xargs -d '\\n' cp -t to-label/ < {shlex.quote(str(found.out))}")
    if found.unreadable:
        sys.exit(ImageError.exit_status)
