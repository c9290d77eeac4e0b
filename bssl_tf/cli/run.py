"""`bssl-tf run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import runtime_options


@click.command("run")
@click.argument("bundle", shell_complete=completion.folders)
@click.argument("images", nargs=-1, metavar="[IMAGE|FOLDER|-]...", shell_complete=completion.files)
@click.option("--camera", type=click.IntRange(min=0), metavar="N", help="Run on a camera, 0 for the first.")
@click.option("--video", metavar="FILE", shell_complete=completion.files, help="Run on each frame of a video.")
@click.option("--picamera", is_flag=True, help="Run on a Raspberry Pi's camera module.")
@click.option("--frames", type=click.IntRange(min=1), metavar="N", help="Stop after N frames of a video or camera.")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    show_default="3 classes, 100 boxes",
    help="Number of classes or boxes to print.",
)
@click.option(
    "--head",
    "heads",
    multiple=True,
    metavar="NAME",
    help="Answer by a head that `bssl-tf-deploy learn` or `bssl-tf export --head` made; may be repeated.",
)
@click.option("--outputs", is_flag=True, help="Print the network's outputs instead of answers.")
@runtime_options
@click.option("--check", is_flag=True, help="Run each IMAGE in our runtime and in LCE's, which must agree.")
@click.option("--json", is_flag=True, help="Print one JSON list.")
@click.option("--jsonl", is_flag=True, help="Print one JSON object per image and line.")
@click.option("--csv", is_flag=True, help="Print a table for spreadsheets, one row per image.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    shell_complete=completion.files,
    help="Write --csv or --jsonl to FILE, and continue it if it is partly there.",
)
@click.option(
    "--annotate",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    shell_complete=completion.folders,
    help="Of a detector: write each image with its boxes into FOLDER.",
)
def command(
    bundle: str,
    threads: int,
    runtime: str,
    trust_bundle_library: bool,
    heads: tuple[str, ...],
    check: bool,
    json: bool,
    jsonl: bool,
    csv: bool,
    **options: Any,
) -> None:
    """Run BUNDLE on each IMAGE, on this machine: files, all images in folders, or the paths on standard input. Prints
    classes, labels, or the boxes of objects with left, top, right and bottom in pixels of the image.

    Before that, the bundle's files are checked against their hashes, and its model against its golden outputs. Images
    that cannot be read are reported and counted; the others are still answered. Videos and USB cameras need OpenCV
    (`pip install 'bssl-tf-deploy[camera]'`).
    """
    from bssl_tf_deploy.cli import prepare, with_heads
    from bssl_tf_deploy.errors import UsageError
    from bssl_tf_deploy.running import RunSettings, output_format, run

    settings = RunSettings(format=output_format(json=json, jsonl=jsonl, csv=csv), **options)
    settings.check()
    second = None
    if check and heads:
        raise UsageError("--check compares whole networks, and heads read what comes before their end", "Omit one")
    if check:
        # The one that was not asked for is the second opinion.
        first, other = ("lce", "own") if runtime == "lce" else ("own", "lce")
        _, second = prepare(bundle, threads, other, trust_bundle_library)
        runtime = first
    predictor, _ = prepare(bundle, threads, runtime, trust_bundle_library)
    if status := run(with_heads(predictor, heads, threads, runtime, trust_bundle_library), settings, second):
        # Not click's exit(), which comes to nothing where the caller handles errors itself.
        sys.exit(status)
