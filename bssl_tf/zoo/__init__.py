"""Pretrained students that come with the package, one folder each.

    NAME/network.json, NAME/weights.safetensors   as in a run's `student/`, binary kernels packed
    NAME/entry.json                               what it is, how it was trained, what it reaches, hash of the weights
    NAME/config.toml                              the run's settings
    NAME/head/                                    of a fine-tuned one: its head, as in the run
    NAME/bundle/                                  of some: a ready bundle, without a runtime library

`bssl-tf zoo` lists them, `bssl-tf pretrain --student zoo:NAME` goes on training one, and `bssl-tf zoo NAME --out RUN`
makes a run folder of one, for `bssl-tf evaluate` on labels of one's own and `bssl-tf export`. `bssl-tf zoo NAME
--bundle DIR` copies the ready bundle out.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.resources
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.errors import NetworkError, RunFolderError
from bssl_tf.files import read_json, storage_errors, write_json

PREFIX = "zoo:"
_BUNDLE, _HEAD = "bundle", "head"


@dataclass(frozen=True)
class Entry:
    """What is known of a student of the zoo.

    Attributes:
        name: after `zoo:`.
        folder: where its files are.
        method: that trained it.
        data: the images it was trained on.
        command: that trained it.
        commit: of the code that trained it.
        protocol: of `top1`.
        top1: on the test images of `data`, percent.
        weights_sha256: of weights.safetensors, in hex.
        weights_bytes: its size.
    """

    name: str
    folder: Path
    method: str
    data: str
    command: str
    commit: str
    protocol: str
    top1: float
    weights_sha256: str
    weights_bytes: int


def zoo_folder() -> Path:
    """Where the entries are: beside this file."""
    return Path(str(importlib.resources.files(__name__)))


def names(folder: Path | None = None) -> list[str]:
    """What can follow `zoo:`."""
    return sorted(path.parent.name for path in (folder or zoo_folder()).glob("*/entry.json"))


def find(name: str, folder: Path | None = None) -> Entry:
    """The entry called `name`, with or without `zoo:`, its weights checked against their hash.

    Raises:
        NetworkError: there is none, or its files are damaged.
    """
    name, known = name.removeprefix(PREFIX), names(folder)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {PREFIX}{near[0]}? " if near else ""
        raise NetworkError(f"the zoo has no {name!r}", f"{hint}It has {', '.join(known) or 'none yet'}")
    place = (folder or zoo_folder()) / name
    try:
        entry = Entry(name=name, folder=place, **read_json(place / "entry.json"))
        content = (place / "weights.safetensors").read_bytes()
    except (OSError, TypeError, RunFolderError) as error:
        raise NetworkError(f"{place} is damaged ({error})", "Install the package again") from error
    if hashlib.sha256(content).hexdigest() != entry.weights_sha256:
        raise NetworkError(f"the weights in {place} are not those of its entry.json", "Install the package again")
    return entry


def write_entry(folder: Path, name: str, facts: dict[str, Any]) -> Entry:
    """Writes `entry.json` beside the files that are there already; `facts` are the fields that no file tells.

    Raises:
        StorageError: it cannot be written.
    """
    place = folder / name
    content = (place / "weights.safetensors").read_bytes()
    facts = facts | {"weights_sha256": hashlib.sha256(content).hexdigest(), "weights_bytes": len(content)}
    entry = Entry(name=name, folder=place, **facts)
    write_json(
        place / "entry.json", {k: v for k, v in dataclasses.asdict(entry).items() if k not in ("name", "folder")}
    )
    return entry


def bundle_of(entry: Entry) -> Path | None:
    """The folder of an entry's ready bundle, if it has one."""
    folder = entry.folder / _BUNDLE
    return folder if folder.is_dir() else None


def copy_bundle(entry: Entry, out: Path) -> None:
    """Copies an entry's ready bundle, checked against its hashes, whole or not at all.

    Raises:
        NetworkError: the entry has none.
        BundleError: it is damaged, or `out` is taken.
        StorageError: it cannot be written.
    """
    # Brings numpy, which names offered on Tab can do without.
    from bssl_tf_deploy.bundle import check_free, read_bundle

    bundle = bundle_of(entry)
    if bundle is None:
        having = [name for name in names(entry.folder.parent) if (entry.folder.parent / name / _BUNDLE).is_dir()]
        raise NetworkError(
            f"zoo:{entry.name} has no ready bundle",
            f"Take {', '.join(having) or 'another'}, or make one with --out, `bssl-tf evaluate` and `bssl-tf export`",
        )
    read_bundle(bundle)
    check_free(out, overwrite=False)
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
            shutil.copytree(bundle, Path(temporary, _BUNDLE)).replace(out)


def make_run(entry: Entry, out: Path) -> None:
    """Makes a run folder of an entry, as if it had been trained there.

    Raises:
        RunFolderError: `out` exists and is not empty.
        StorageError: it cannot be written.
    """
    with storage_errors(out):
        (out / "student").mkdir(parents=True, exist_ok=True)
        if any(path != out / "student" for path in out.iterdir()) or any((out / "student").iterdir()):
            raise RunFolderError(f"{out} is not empty", "Choose another folder with --out")
        for name in ("network.json", "weights.safetensors"):
            shutil.copyfile(entry.folder / name, out / "student" / name)
        if (entry.folder / _HEAD).is_dir():
            shutil.copytree(entry.folder / _HEAD, out / _HEAD)
        # Last, because its presence is what makes the folder a run.
        shutil.copyfile(entry.folder / "config.toml", out / "config.toml")
