"""Options that `check` and `export` share."""

from __future__ import annotations

import click

from bssl_tf.cli import completion

weights_option = click.option(
    "--weights",
    metavar="FILE",
    shell_complete=completion.files,
    show_default="random ones",
    help="HDF5 file with weights for larq_zoo:NAME.",
)
allow_option = click.option(
    "--allow",
    multiple=True,
    metavar="CODE",
    shell_complete=completion.codes,
    help="Treat errors of this check as warnings.",
)
explain_option = click.option(
    "--explain", is_flag=True, help="Compare layer by layer and name the first layer that differs."
)
