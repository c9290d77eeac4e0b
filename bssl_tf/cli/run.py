"""`bssl-tf run`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click


@click.command("run")
@click.argument("bundle")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--top", default=3, show_default=True, type=click.IntRange(min=1), help="Classes to print.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Threads for one image.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def command(bundle: str, images: tuple[str, ...], top: int, threads: int, as_json: bool) -> None:
    """Classify each IMAGE with BUNDLE, on this machine.

    The bundle's files are checked against their hashes, and its model against its golden outputs, first. An image that
    cannot be read is reported; the others are classified.
    """
    from bssl_tf.errors import ImageError
    from bssl_tf_converters.lce import LceInterpreter
    from bssl_tf_deploy.bundle import read_bundle
    from bssl_tf_deploy.predictor import Predictor

    content = read_bundle(Path(bundle))
    predictor = Predictor(content, LceInterpreter(content.model, threads))
    predictor.verify_golden()
    records: list[dict[str, Any]] = []
    for image in images:
        try:
            [classes] = predictor.classify([Path(image)], top)
        except ImageError as error:
            click.echo(str(error), err=True)
            records.append({"image": image, "error": str(error)})
            continue
        records.append({"image": image, "classes": [{"label": label, "score": score} for label, score in classes]})
        if not as_json:
            for label, score in classes:
                click.echo(f"{image}  {label}  {score:.4f}")
    if as_json:
        click.echo(json.dumps(records, indent=2))
    if any("error" in record for record in records):
        # Not click's exit(), which comes to nothing where the caller handles errors itself.
        sys.exit(ImageError.exit_status)
