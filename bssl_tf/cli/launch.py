"""`bssl-tf launch`."""

from __future__ import annotations

import sys

import click

from bssl_tf.cli import completion


@click.command("launch", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--workers", type=click.IntRange(2), required=True, metavar="N", help="How many processes, 2 or more.")
@click.argument(
    "program", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED, shell_complete=completion.files
)
def command(workers: int, program: tuple[str, ...]) -> None:
    """Run COMMAND as N workers on this machine that train together.

    COMMAND is a program with its arguments, such as `bssl-tf pretrain --distribute multiworker ...`; each process gets
    the TF_CONFIG of its worker. If one fails, the others are stopped, and its exit status is returned.
    """
    from bssl_tf.workflows.launch import launch

    sys.exit(launch(program, workers))
