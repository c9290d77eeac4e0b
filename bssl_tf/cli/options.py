"""Options that several commands share, and how they become settings."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from bssl_tf.cli import completion
from bssl_tf_deploy.text import show, show_json

Function = TypeVar("Function", bound=Callable[..., Any])


def data_options(function: Function) -> Function:
    """--data and what belongs to it."""
    return source_options(_size_options(function))


def _size_options(function: Function) -> Function:
    for option in reversed(
        [
            click.option(
                "--image-size",
                "data__image_size",
                type=int,
                show_default="28 for embedded, else 224",
                help="Pixels per side.",
            ),
            click.option("--channels", "data__channels", type=int, show_default="as in the data", help="1 or 3."),
        ]
    ):
        function = option(function)
    return function


def source_options(function: Function) -> Function:
    """--data and what belongs to it, for a network whose images have a size."""
    for option in reversed(
        [
            click.option(
                "--data",
                "data__source",
                metavar="SOURCE",
                shell_complete=completion.sources,
                help="embedded, tfds:NAME, or a folder of images or shards.",
            ),
            click.option(
                "--data-dir",
                "data__data_dir",
                metavar="DIR",
                shell_complete=completion.folders,
                help="Where TFDS keeps its data.",
            ),
            click.option(
                "--download/--no-download",
                "data__download",
                default=None,
                show_default="download",
                help="Allow TFDS to download.",
            ),
            click.option(
                "--max-unreadable-share",
                "data__max_unreadable_share",
                type=float,
                show_default="0.05",
                help="Skip unreadable files up to this share of all files, 0 to 1.",
            ),
            click.option(
                "--limit",
                "data__limit",
                type=int,
                show_default="all",
                metavar="N",
                help="Use at most N images of each split.",
            ),
            loading_option("data__loading", "auto"),
        ]
    ):
        function = option(function)
    return function


def loading_option(name: str, show_default: str) -> Callable[[Function], Function]:
    """--loading, as the parameter `name`."""
    return click.option(
        "--loading",
        name,
        type=click.Choice(("auto", "mapped", "streaming")),
        show_default=show_default,
        help="Decode images once, to disk, or whenever they are read; auto: by their number.",
    )


def runtime_options(function: Function) -> Function:
    """What runs a bundle."""
    for option in reversed(
        [
            click.option("--threads", default=1, type=click.IntRange(1, 64), help="Threads for one image."),
            click.option(
                "--runtime",
                default="auto",
                type=click.Choice(("auto", "own", "lce")),
                help="own: our library in a stock interpreter; lce: LCE's interpreter; auto: own if available.",
            ),
            click.option(
                "--trust-bundle-library",
                is_flag=True,
                help="If our library is not installed here, load the one in BUNDLE, which is its author's code.",
            ),
        ]
    ):
        function = option(function)
    return function


def record_option(help_text: str) -> Callable[[Function], Function]:
    """--record, where records may be kept."""
    return click.option("--record", "record_file", metavar="FILE", shell_complete=completion.files, help=help_text)


def json_option(help_text: str = "Print the result as JSON.") -> Callable[[Function], Function]:
    """--json: one value of JSON on stdout, and nothing else there."""
    return click.option("--json", "as_json", is_flag=True, help=help_text)


def prose(line: str) -> None:
    """Prints a line for a person, on stderr; stdout is for results."""
    show(line, file=sys.stderr)


def show_trained(run: str, network: Path, as_json: bool) -> None:
    """Prints where the result of a training is."""
    if as_json:
        show_json({"run": run, "network": str(network)})
    else:
        show(network)
