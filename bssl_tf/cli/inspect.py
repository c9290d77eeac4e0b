"""`bssl-tf inspect`."""

from __future__ import annotations

import dataclasses

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import json_option
from bssl_tf_deploy.text import show, show_json


@click.command("inspect")
@click.argument("file", shell_complete=completion.files)
@json_option("Print everything as JSON, with exact numbers.")
def command(file: str, as_json: bool) -> None:
    """Show what FILE, a .tflite model or a bundle, consists of and costs.

    Lists for each operator, and in total: shape, binary and other multiply-accumulates (MACs), bytes of constants, and
    bytes of activations held while it runs. A shared constant counts once in the total. The peak of the activations
    excludes the interpreter's scratch memory.
    """
    from bssl_tf.reports.inspection import table
    from bssl_tf.workflows.inspect import inspect

    found = inspect(file)
    if as_json:
        show_json({"file": file} | dataclasses.asdict(found), sort_keys=True)
    else:
        show(*table(file, found))
