"""`--json`: one value of JSON on stdout and nothing else there, whatever the command."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from bssl_tf.cli._training_options import show_plan
from bssl_tf.cli.main import COMMANDS, cli
from bssl_tf.engine.forecast import Forecast
from bssl_tf.engine.profile import Profile
from tests.cli.test_inspect import small_model
from tests.converters.networks import write_run_folder

Command = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).parents[2]
# A script for a shell; and what starts another command, whose own --json it passes on.
WITHOUT = {"completion", "launch"}


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - WITHOUT))
def test_every_command_that_has_results_has_the_option(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert any("--json" in option.opts for option in command.params)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a model, images, and records of a comparison."""
    root = tmp_path_factory.mktemp("json")
    write_run_folder(root / "run")
    (root / "small.tflite").write_bytes(small_model())
    photos = ROOT / "bssl_tf/zoo/fashion-mnist-28/bundle/examples"
    shutil.copytree(photos, root / "photos")
    (root / "results").mkdir()
    shutil.copy(ROOT / "results/cifar10.jsonl", root / "results")
    return root


def parsed(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    # Not even a line of its own after it.
    return json.loads(done.stdout)


CASES = {
    "doctor": ("doctor",),
    "zoo": ("zoo",),
    "check": ("check", "--list"),
    "devices": ("devices", "local"),
    "summary": ("summary", "run"),
    "report": ("report", "run"),
    "inspect": ("inspect", "small.tflite"),
    "compare": ("compare", "cifar10", "--report-only", "--results", "results"),
    "embed": ("embed", "run", "photos", "--out", "v.npz"),
    "similar": ("similar", "run", "photos/0-ankle-boot.png", "photos"),
    "select": ("select", "photos", "--count", "2"),
}


@pytest.mark.parametrize("name", CASES)
def test_stdout_is_one_value(name: str, folder: Path, bssl_tf: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    done = bssl_tf(*CASES[name], "--json")
    if name == "doctor":  # 1 where something is missing here
        done.returncode = 0
    assert parsed(done)


class Ready:
    """A run that would start."""

    def forecast(self) -> Forecast:
        return Forecast(64, 2, 1, 2, 0.5, 0.5, 1.0, 2.0, 2**20, 0, 2**20)

    def profile(self, steps: int) -> Profile:
        return Profile(steps, {"input": 0.1, "forward": 0.2}, Path("runs/a/profile"))


def test_what_training_would_take(capsys: pytest.CaptureFixture[str]) -> None:
    ready: Any = Ready()
    show_plan(ready, None, True)
    assert json.loads(capsys.readouterr().out)["total_s"] == 2.0
    show_plan(ready, 3, True)
    assert json.loads(capsys.readouterr().out)["trace"] == "runs/a/profile"
    show_plan(ready, 3, False)
    assert "median of 3 steps" in capsys.readouterr().out


def test_training_prints_where_the_network_is(tiny_teacher: Path) -> None:
    """The fixture trains with --json."""
    assert json.loads((tiny_teacher.parent / "stdout.json").read_text()) == {
        "run": str(tiny_teacher),
        "network": str(tiny_teacher / "teacher"),
    }
