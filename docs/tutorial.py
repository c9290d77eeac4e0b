"""Runs the tutorial's commands on photos made from the embedded images, and records what they print.

    make tutorial        # some ten minutes on two cores; `make tables` then shows the records in docs/pages/tutorial.md

The device of its last steps is this machine behind a real ssh server; without one these steps keep their old record.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf.data.embedded import CLASS_NAMES, load_embedded
from bssl_tf.environment import environment
from bssl_tf.files import write_text
from tests.devices.sshd import running

RECORDS = Path(__file__).resolve().parents[1] / "results" / "tutorial.jsonl"
_CLASSES = ("sandal", "sneaker", "bag", "ankle boot")
_PHOTOS, _LABELLED, _NEW = 600, 60, 2  # of each class
_BAR = re.compile(r"\d+%\|")
_DEVICE = "ssh://pi@raspberrypi.local"


@dataclass(frozen=True)
class Step:
    """A command as the tutorial shows it, and what its transcript is called there."""

    name: str
    command: str

    @property
    def on_device(self) -> bool:
        return _DEVICE in self.command


STEPS = (
    Step("doctor", "bssl-tf doctor"),
    Step("teacher", "bssl-tf teacher --preset demo --data photos/ --image-size 32 --out runs/teacher"),
    Step(
        "pretrain",
        "bssl-tf pretrain --preset demo --data photos/ --image-size 32 --teacher runs/teacher --out runs/student",
    ),
    Step("evaluate", "bssl-tf evaluate runs/student --data labelled/"),
    Step("few-shot", "bssl-tf evaluate runs/student --data labelled/ --protocol few-shot-svm --no-save"),
    Step("check", "bssl-tf check runs/student"),
    Step("export", "bssl-tf export runs/student --target arm64"),
    Step("run", "bssl-tf run runs/student/bundle-arm64 new/bag-0.png new/sandal-0.png"),
    Step("bench", "bssl-tf bench runs/student/bundle-arm64"),
    Step("report", "bssl-tf report runs/student"),
    Step("emulated", "bssl-tf bench runs/student/bundle-arm64 --device qemu-arm64"),
    Step("devices", f"bssl-tf devices {_DEVICE}"),
    Step(
        "bench-device",
        f"bssl-tf bench runs/student/bundle-arm64 --device {_DEVICE} --all-threads --sustained 60",
    ),
    Step("clean-device", f"bssl-tf devices {_DEVICE} --clean"),
)


def make_photos(folder: Path) -> None:
    """Writes photos/, labelled/ and new/: four classes, PNG and JPEG in turn, and one file that is cut off."""
    train, test = load_embedded()
    (folder / "photos").mkdir()
    (folder / "new").mkdir()
    number = 0
    for name in _CLASSES:
        short = name.replace(" ", "-")
        (folder / "labelled" / short).mkdir(parents=True)
        images = train.images[train.require_labels() == CLASS_NAMES.index(name)]
        for image in images[:_PHOTOS]:
            _save(image, folder / "photos" / f"IMG_{number:04d}.{('jpg', 'png')[number % 2]}")
            number += 1
        for place, image in enumerate(images[_PHOTOS : _PHOTOS + _LABELLED]):
            _save(image, folder / "labelled" / short / f"{place:02d}.png")
        for place, image in enumerate(test.images[test.require_labels() == CLASS_NAMES.index(name)][:_NEW]):
            _save(image, folder / "new" / f"{short}-{place}.png")
    whole = (folder / "photos" / "IMG_0000.jpg").read_bytes()
    (folder / "photos" / f"IMG_{number:04d}.jpg").write_bytes(whole[:40])


def _save(image: np.ndarray, path: Path) -> None:
    Image.fromarray(image[..., 0]).save(path)


def perform(steps: Iterable[Step], folder: Path, variables: dict[str, str], address: str) -> Iterator[dict[str, Any]]:
    """Runs the commands in `folder` and yields their records."""
    facts = environment(0)
    for step in steps:
        sys.stdout.write(f"{step.name}: {step.command}\n")
        words = [address if word == _DEVICE else word for word in shlex.split(step.command)]
        done = subprocess.run(
            [str(Path(sys.executable).with_name(words[0])), *words[1:]],
            cwd=folder,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"status {done.returncode}:\n{done.stdout}")
        lines = shown(done.stdout, {address: _DEVICE, f"{folder}/": "", sys.prefix: ".venv", str(Path.home()): "~"})
        yield {"step": step.name, "command": step.command, "output": lines, **facts}


def shown(printed: str, names: dict[str, str]) -> list[str]:
    """The lines of a transcript: without progress bars, and with `names` in place of this machine's."""
    for own, name in names.items():
        printed = printed.replace(own, name)
    return [line for line in printed.rstrip().splitlines() if not _BAR.search(line)]


def main() -> None:
    """Runs every step and replaces its record."""
    records = {}
    with contextlib.suppress(FileNotFoundError):
        records = {one["step"]: one for one in map(json.loads, RECORDS.read_text(encoding="utf-8").splitlines())}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photos(folder)
        for record in perform((step for step in STEPS if not step.on_device), folder, {}, _DEVICE):
            records[record["step"]] = record
        (folder / "sshd").mkdir()
        try:
            with running(folder / "sshd") as device:
                variables = {"PATH": device.path}
                for record in perform((s for s in STEPS if s.on_device), folder, variables, device.address):
                    records[record["step"]] = record
        except pytest.skip.Exception as error:
            sys.stdout.write(f"the steps on a device keep their records: {error}\n")
    write_text(RECORDS, "".join(json.dumps(records[step.name]) + "\n" for step in STEPS if step.name in records))


if __name__ == "__main__":
    main()
