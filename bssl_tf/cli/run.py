"""`bssl-tf run`."""

from __future__ import annotations

import sys

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import runtime_options


@click.command("run")
@click.argument("bundle", shell_complete=completion.folders)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", shell_complete=completion.files)
@click.option("--top", default=3, type=click.IntRange(min=1), help="Number of classes to print.")
@click.option("--outputs", is_flag=True, help="Print the network's outputs instead of classes.")
@runtime_options
@click.option("--check", is_flag=True, help="Run each IMAGE in our runtime and in LCE's, which must agree.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def command(
    bundle: str,
    images: tuple[str, ...],
    top: int,
    outputs: bool,
    threads: int,
    runtime: str,
    trust_bundle_library: bool,
    check: bool,
    as_json: bool,
) -> None:
    """Classify each IMAGE with BUNDLE, on this machine.

    Before that, the bundle's files are checked against their hashes, and its model against its golden outputs. Images
    that cannot be read are reported; the others are still classified.
    """
    from bssl_tf_deploy.cli import prepare, run_images

    second = None
    if check:
        # The one that was not asked for is the second opinion.
        first, other = ("lce", "own") if runtime == "lce" else ("own", "lce")
        _, second = prepare(bundle, threads, other, trust_bundle_library)
        runtime = first
    predictor, _ = prepare(bundle, threads, runtime, trust_bundle_library)
    status = run_images(predictor, images, top, outputs=outputs, as_json=as_json, check=second)
    if status:
        # Not click's exit(), which comes to nothing where the caller handles errors itself.
        sys.exit(status)
