"""`bssl-tf zoo`."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import json_option, prose
from bssl_tf_deploy.text import show, show_json


def students(context: click.Context, parameter: click.Parameter, typed: str) -> completion.Offers:
    """Completes a student's name: binary networks, pretrained ones as `zoo:NAME`, and files where none fits."""
    from bssl_tf import zoo
    from bssl_tf.models.registry import of_packages

    known = (*completion.STUDENTS, *of_packages(), *map(zoo.PREFIX.__add__, zoo.names()))
    return completion.fitting(known, typed) or completion.files(context, parameter, typed)


def feature_networks(context: click.Context, parameter: click.Parameter, typed: str) -> completion.Offers:
    """Completes what features come from: files and folders, and pretrained students as `zoo:NAME`."""
    from bssl_tf import zoo

    found = completion.fitting(map(zoo.PREFIX.__add__, zoo.names()), typed) if typed else []
    return found or completion.files(context, parameter, typed)


def _names(context: click.Context, parameter: click.Parameter, typed: str) -> completion.Offers:
    from bssl_tf import zoo

    return completion.fitting(zoo.names(), typed)


@click.command("zoo")
@click.argument("name", required=False, shell_complete=_names)
@click.option("--out", metavar="DIR", shell_complete=completion.folders, help="Make a run folder from NAME here.")
@click.option(
    "--bundle", metavar="DIR", shell_complete=completion.folders, help="Copy the ready-made bundle of NAME here."
)
@json_option("Print JSON, with the folders that were made.")
def command(name: str | None, out: str | None, bundle: str | None, as_json: bool) -> None:
    """List pretrained students, or make a run folder or a bundle from the one called NAME.

    Continue with `bssl-tf evaluate RUN --data YOUR-LABELLED-PHOTOS` and `bssl-tf export RUN`.
    """
    from bssl_tf import zoo

    entries = [zoo.find(name)] if name else [zoo.find(known) for known in zoo.names()]
    if (out or bundle) and name is None:
        raise click.UsageError("--out and --bundle need a NAME; `bssl-tf zoo` lists them")
    if bundle:
        zoo.copy_bundle(entries[0], Path(bundle))
        prose(f"next: bssl-tf run {shlex.quote(bundle)} IMAGE..., or copy it to a device")
    if out:
        zoo.make_run(entries[0], Path(out))
        prose(f"next: bssl-tf evaluate {shlex.quote(out)} --data FOLDER, then bssl-tf export {shlex.quote(out)}")
    made = {key: path for key, path in (("bundle", bundle), ("out", out)) if path}
    if as_json:
        show_json([dataclasses.asdict(entry) | {"folder": str(entry.folder)} | made for entry in entries])
        return
    if made:
        for path in made.values():
            show(path)
        return
    for entry in entries:
        show(
            f"zoo:{entry.name:28} {entry.weights_bytes / 1000:6.1f} kB  {entry.protocol} {entry.top1:.1f} %"
            f"  {entry.method} on {entry.data}"
        )
        if zoo.bundle_of(entry):
            show(f"{'':33}with a ready-made bundle (--bundle DIR)")
        if name:
            show(f"  trained by: {entry.command} (commit {entry.commit})", f"  sha256: {entry.weights_sha256}")
