"""`bssl-tf data`."""

from __future__ import annotations

import dataclasses
import shlex

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import json_option, prose
from bssl_tf_deploy.text import show, show_json


def _names(context: click.Context, parameter: click.Parameter, typed: str) -> completion.Offers:
    from bssl_tf.workflows.make_data import NAMES

    return completion.fitting(NAMES, typed)


@click.command("data")
@click.argument("action", type=click.Choice(("make",)), metavar="make")
@click.argument("name", shell_complete=_names)
@click.option("--data-dir", metavar="DIR", shell_complete=completion.folders, help="Where TFDS keeps its data.")
@click.option("--download/--no-download", default=True, help="Allow TFDS to download.")
@json_option("Print JSON.")
def command(action: str, name: str, data_dir: str | None, download: bool, as_json: bool) -> None:
    """Make the data set NAME, on which this project's figures were measured, from a public one.

    cifar10_jpeg75: CIFAR-10 re-encoded as JPEG at quality 75. Its hash is compared with that of the data set that was
    used. Continue with `bssl-tf compare cifar10`.
    """
    from bssl_tf.workflows.make_data import make_data

    made = make_data(name, data_dir=data_dir, download=download)
    if made.identical:
        prose("bit for bit the data set of this project's figures")
    prose(f"next: bssl-tf compare cifar10{f' --data-dir {shlex.quote(data_dir)}' if data_dir else ''}")
    if as_json:
        show_json(dataclasses.asdict(made) | {"folder": str(made.folder)})
    else:
        show(made.folder)
