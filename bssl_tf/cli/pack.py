"""`bssl-tf pack`."""

from __future__ import annotations

import dataclasses
import shlex

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import json_option, prose
from bssl_tf_deploy.text import show, show_json


@click.command("pack")
@click.argument("folder", shell_complete=completion.folders)
@click.option("--out", required=True, metavar="DIR", shell_complete=completion.folders, help="Where the shards go.")
@click.option(
    "--shard-format",
    type=click.Choice(("tar", "tfrecord", "array_record")),
    default="tar",
    help="tar is WebDataset's; array_record needs the extra arrayrecord.",
)
@click.option("--shard-mb", type=float, default=256, help="Size of a shard, in MB.")
@click.option(
    "--max-unreadable-share",
    type=float,
    default=0.05,
    help="Skip unreadable files up to this share of all files, 0 to 1.",
)
@json_option("Print JSON.")
def command(
    folder: str, out: str, shard_format: str, shard_mb: float, max_unreadable_share: float, as_json: bool
) -> None:
    """Pack the images of FOLDER into shards: a few large files in place of many small ones.

    The files are not changed, and held-out images get shards of their own, so training on the shards is training on the
    folder. If it is stopped, the same command continues.
    """
    from bssl_tf.workflows.pack import pack

    packed = pack(folder, out, shard_format=shard_format, shard_mb=shard_mb, max_unreadable_share=max_unreadable_share)
    images = ", ".join(f"{count} {split} images" for split, count in packed.images.items())
    prose(f"{packed.shards} shards, {packed.size_bytes / 1e6:.1f} MB: {images}")
    prose(f"next: bssl-tf teacher --data {shlex.quote(out)} --out runs/teacher")
    if as_json:
        show_json(dataclasses.asdict(packed) | {"folder": str(packed.folder)})
    else:
        show(packed.folder)
