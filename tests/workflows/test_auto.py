"""`bssl_tf.auto`: which steps it takes, in which order, with what time, and from where it continues.

The steps have tests of their own, so most tests here put something in their place that only leaves the files.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bssl_tf.workflows.auto as auto_file
import bssl_tf.workflows.plan as planning
from bssl_tf.errors import BsslError, ConfigError, DataError
from bssl_tf.settings.durations import seconds_of
from bssl_tf.workflows.auto import Auto, auto
from bssl_tf.workflows.run import Run
from tests.converters.networks import image_set

Command = Callable[..., "subprocess.CompletedProcess[str]"]


class Steps:
    """Stand-ins that note their calls and leave what the real ones leave.

    Attributes:
        calls: name and options, in order.
        stops_at: the step that an interruption hits.
        points: how much better the fine-tuned network is.
        epoch_s: seconds of an epoch of fine-tuning.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.stops_at, self.points, self.epoch_s = "", 1.0, 1.0
        monkeypatch.setattr(planning, "_installed", lambda: True)
        monkeypatch.setattr(auto_file, "library_for", lambda target: None)
        monkeypatch.setattr("bssl_tf.workflows.python.pretrain", self.training("pretrain", "student"))
        monkeypatch.setattr("bssl_tf.workflows.python.train_teacher", self.training("train_teacher", "teacher"))
        monkeypatch.setattr(Run, "finetune", self.training("finetune", "student"))
        monkeypatch.setattr(Run, "evaluate", self.evaluate)
        monkeypatch.setattr(auto_file, "import_teacher", self.import_teacher)
        monkeypatch.setattr(auto_file, "export", self.export)
        monkeypatch.setattr(auto_file, "report", self.report)
        monkeypatch.setattr("bssl_tf.workflows.finetune.ready_to_finetune", self.ready)

    def note(self, name: str, options: dict[str, Any]) -> None:
        self.calls.append((name, options))
        if name == self.stops_at:
            raise KeyboardInterrupt

    def training(self, name: str, part: str) -> Callable[..., Run]:
        def train(*where: Any, out: Path, **options: Any) -> Run:
            out.mkdir(parents=True, exist_ok=True)
            (out / "config.toml").touch()
            self.note(name, options)
            return Run(out, out / part)

        return train

    def import_teacher(self, name: str, *, out: Path, image_size: int) -> None:
        (out / "teacher").mkdir(parents=True)
        self.note("import_teacher", {"image_size": image_size})
        (out / "import.json").touch()

    def evaluate(self, **options: Any) -> Any:
        self.note("evaluate", options)
        return SimpleNamespace(heads=None if "data" in options else SimpleNamespace(points=self.points))

    def ready(self, settings: dict[str, Any], out: Path, *, resume: bool) -> Any:
        return SimpleNamespace(forecast=lambda: SimpleNamespace(graphs_s=5.0, epoch_s=self.epoch_s))

    def export(self, model: Path, **options: Any) -> Any:
        self.note("export", options)
        accuracy = SimpleNamespace(top1_percent=87.5, images=40)
        return SimpleNamespace(path=options["out"], manifest=SimpleNamespace(table=SimpleNamespace(accuracy=accuracy)))

    def report(self, runs: list[Path], **options: Any) -> Any:
        self.note("report", options)
        return SimpleNamespace(path=options["out"])

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Photos, and labelled ones."""
    for name in ("photos", "labelled/a", "labelled/b"):
        (tmp_path / name).mkdir(parents=True)
        for place in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{place}.png")
    return tmp_path / "photos", tmp_path / "labelled"


def go(folders: tuple[Path, Path], **options: Any) -> Auto:
    photos, labelled = folders
    settings: dict[str, Any] = {
        "labels": labelled,
        "target": "arm64",
        "budget": "1h",
        "out": photos.parent / "out",
    } | options
    return auto(photos, **settings)


ALL = ["import_teacher", "pretrain", "evaluate", "finetune", "evaluate", "export", "report"]


def test_it_goes_the_whole_way(steps: Steps, folders: tuple[Path, Path]) -> None:
    done = go(folders)
    assert steps.names() == ALL
    calls = dict(steps.calls)
    # All of the time is shared out, and a probe is not preferred to a better network.
    assert seconds_of(calls["pretrain"]["budget"]) == 0.5 * 3600
    assert calls["pretrain"]["channels"] == 3
    assert calls["finetune"]["epochs"] == 60
    assert calls["finetune"]["unlabelled"] == str(folders[0]) and calls["finetune"]["teacher"]
    out = folders[0].parent / "out"
    assert (done.run, done.bundle, done.report) == (out / "tuned", out / "bundle", out / "report.html")
    assert done.sentence == (
        f"{out / 'bundle'} is ready for arm64: 87.5 % of 40 held-out images are classified correctly (fine-tuned)."
    )


def test_the_better_one_is_exported(steps: Steps, folders: tuple[Path, Path]) -> None:
    steps.points = -0.5
    done = go(folders)
    assert done.run == folders[0].parent / "out/student" and "(linear probe)" in done.sentence


def test_without_the_pretrained_teacher_one_is_trained_in_the_same_time(
    steps: Steps, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_installed", lambda: False)
    go(folders)
    assert steps.names() == ["train_teacher", *ALL[1:]]
    calls = dict(steps.calls)
    assert sum(seconds_of(calls[name]["budget"]) for name in ("train_teacher", "pretrain")) == 0.5 * 3600
    assert calls["pretrain"]["channels"] is None


@pytest.mark.parametrize("stop", ALL)
def test_the_same_call_continues_where_it_stopped(steps: Steps, folders: tuple[Path, Path], stop: str) -> None:
    steps.stops_at = stop
    with pytest.raises(KeyboardInterrupt):
        go(folders)
    tuning = "finetune" in steps.names()
    steps.stops_at, steps.calls = "", []
    go(folders)
    assert steps.names() == (ALL if stop == "import_teacher" else ALL[1:])
    # What was begun is continued with what was planned then, whether it was finished or not.
    calls = dict(steps.calls)
    assert calls["pretrain"]["resume"] is True and calls["finetune"]["resume"] is True
    assert (calls["finetune"]["epochs"] is None) == tuning


def test_fine_tuning_keeps_to_its_time(steps: Steps, folders: tuple[Path, Path]) -> None:
    steps.epoch_s = 50
    go(folders)
    assert dict(steps.calls)["finetune"]["epochs"] == (0.5 * 3600 - 5) // 50
    steps.epoch_s, steps.calls = 2000, []
    with pytest.raises(ConfigError, match=r"not enough to fine-tune for an epoch\. Give 1h6m50s or more"):
        go(folders, out=folders[0].parent / "other")


def test_mistakes_are_found_before_the_work(steps: Steps, folders: tuple[Path, Path], tmp_path: Path) -> None:
    for wrong in ({"target": "arm32"}, {"budget": "soon"}, {"labels": tmp_path / "none"}, {"image_size": 4}):
        with pytest.raises(BsslError):
            go(folders, **wrong)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there are no images"):
        go((tmp_path / "empty", folders[1]))
    assert not steps.calls


@pytest.mark.slow
def test_real_steps_fit_together(bssl_tf: Command, tmp_path: Path) -> None:
    images = image_set()
    assert images.labels is not None
    for place in range(200):
        label, pixels = int(images.labels[place]), np.asarray(images.images[place])[..., 0]
        for folder in ["photos", *([f"labelled/{label}"] if label < 3 else [])]:
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{place}.png")
    arguments = [
        *("auto", tmp_path / "photos", "--labels", tmp_path / "labelled", "--target", "x86_64", "--budget", "3m"),
        *("--image-size", "28", "--out", tmp_path / "out", "--json"),
    ]
    done = bssl_tf(*arguments, timeout=1800)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["top1"] > 40 and Path(found["report"]).is_file()
    image = next((tmp_path / "photos").iterdir())
    assert bssl_tf("run", found["bundle"], image).returncode == 0
    weights = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*/student/weights.safetensors")}
    again = bssl_tf(*arguments, timeout=1800)
    assert json.loads(again.stdout) == found and len(weights) >= 2
    assert all(path.read_bytes() == content for path, content in weights.items())
