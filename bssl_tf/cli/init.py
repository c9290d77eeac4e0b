"""`bssl-tf init`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli._types import Target
from bssl_tf.cli.options import json_option, prose
from bssl_tf.errors import ConfigError, UsageError
from bssl_tf_deploy.library import TARGETS
from bssl_tf_deploy.text import show, show_json


def _interactive() -> bool:
    return sys.stdin.isatty()


@click.command("init")
@click.option("--data", metavar="DIR", shell_complete=completion.folders, help="The folder with all your photos.")
@click.option("--target", type=Target(TARGETS), help="Where the network will run.")
@click.option(
    "--budget",
    metavar="TIME",
    shell_complete=completion.words("10m", "30m", "1h", "8h"),
    help="How long training may take in all, such as 1h.",
)
@click.option(
    "--out", default="bssl-tf.toml", metavar="FILE", shell_complete=completion.files, help="The preset to write."
)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@json_option()
def command(data: str | None, target: str | None, budget: str | None, as_json: bool, **options: Any) -> None:
    """Write a commented preset for your own photos, and print the commands that use it.

    Prompts for what --data, --target and --budget do not state: where the photos are, which board the network is for,
    and how long training may take. Without a terminal all three are needed.
    """
    from bssl_tf.workflows.init import BOARDS, init

    missing = [name for name, value in (("data", data), ("target", target), ("budget", budget)) if value is None]
    if missing and not _interactive():
        raise UsageError(f"there is no terminal to prompt for --{missing[0]}", "Pass --data, --target and --budget")
    if data is None:
        data = click.prompt("Where are your photos (a folder)?", value_proc=_folder, err=True)
    if target is None:
        for name, board in BOARDS.items():
            prose(f"  {name:14} {board}")
        target = click.prompt("Which board?", type=Target(TARGETS), default=TARGETS[0], err=True)
    if budget is None:
        budget = click.prompt("How long may training take?", default="1h", value_proc=_duration, err=True)
    assert data is not None and target is not None and budget is not None
    made = init(data, target=target, budget=budget, **options)
    if made.advice:
        prose(f"hint: {made.advice}")
    prose(f"{made.path}: a preset for {made.photos:,} images; next:")
    if as_json:
        show_json({"preset": str(made.path), "commands": made.commands, "later": made.later})
    else:
        show(*made.commands)
    prose(f"and then: {', '.join(made.later)}")


def _folder(given: str) -> str:
    if not Path(given).expanduser().is_dir():
        raise click.BadParameter(f"{given} is not a folder")
    return given


def _duration(given: str) -> str:
    from bssl_tf.settings.durations import seconds_of

    try:
        seconds_of(given)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error
    return given
