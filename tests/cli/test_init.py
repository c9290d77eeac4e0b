"""`bssl-tf init`: the commands take the preset that it writes, and those that it prints are right."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

import bssl_tf.cli.init as command_file
import bssl_tf.workflows.plan as planning
from bssl_tf.cli.main import cli
from bssl_tf.errors import DataError
from bssl_tf.methods.registry import over_preset, read_run
from bssl_tf.settings import PretrainConfig, TeacherConfig
from bssl_tf.settings.durations import duration_of, seconds_of
from bssl_tf.workflows.init import init
from bssl_tf.workflows.plan import plan

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / 'my "photos"'
    folder.mkdir()
    for place in range(3):
        Image.new("RGB", (8, 8), (place, 0, 0)).save(folder / f"{place}.png")
    return folder


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_preset_is_read_by_the_commands_that_are_printed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrained: bool
) -> None:
    monkeypatch.setattr(planning, "_installed", lambda: pretrained)
    made = init(photos, target="arm64", budget="1h", out=tmp_path / "my preset.toml")
    parsed = []
    for line in made.commands:
        program, name, *words = shlex.split(line)
        command = cli.get_command(click.Context(cli), name)
        assert program == "bssl-tf" and command is not None
        parsed.append(command.make_context(name, words).params)
    teacher, student = parsed
    assert student["preset"] == str(made.path)
    settings = over_preset("pretrain", str(made.path), {})
    config = read_run(PretrainConfig, settings).sections
    assert config.data.source == str(photos) and config.data.image_size == 96
    assert config.teacher == teacher["out"]
    # Which --budget chooses.
    assert "epochs" not in settings.get("training", {})
    assert bool(made.advice) == (not pretrained)
    if pretrained:
        assert teacher["pretrained"] == "efficientnet_lite0" and student["budget"] == "1h"
        assert config.data.channels == 3
    else:
        own = read_run(TeacherConfig, over_preset("teacher", str(made.path), {})).sections
        assert teacher["preset"] == str(made.path) and own.data == config.data
        assert seconds_of(teacher["budget"]) + seconds_of(student["budget"]) == 3600
    comments = [line for line in made.path.read_text().splitlines() if line.startswith("#")]
    assert len(comments) >= 8 and "a Raspberry Pi" in comments[0]


def test_it_works_without_a_terminal(photos: Path, tmp_path: Path, bssl_tf: Command) -> None:
    out = tmp_path / "p.toml"
    arguments = ["init", "--data", photos, "--target", "x86_64", "--budget", "30m", "--out", out]
    done = bssl_tf(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["preset"] == str(out) and len(made["commands"]) == 2 and "--target x86_64" in made["later"][1]
    assert "3 images" in done.stderr
    again = bssl_tf(*arguments)
    assert again.returncode == 8 and "--overwrite" in again.stderr
    done = bssl_tf(*arguments, "--overwrite")
    assert done.stdout.splitlines() == made["commands"]
    done = bssl_tf("init", "--data", photos, "--budget", "30m", "--out", tmp_path / "q.toml")
    assert done.returncode == 2 and "no terminal to prompt for --target" in done.stderr
    for wrong in (["--budget", "soon"], ["--data", tmp_path / "none"], ["--out", tmp_path / "q.txt"]):
        done = bssl_tf(*arguments, *wrong)
        assert done.returncode != 0 and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "q.toml").exists() and not (tmp_path / "q.txt").exists()


def test_it_prompts_for_what_is_missing_until_it_is_right(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_file, "_interactive", lambda: True)
    answers = f"{tmp_path / 'none'}\n{photos}\nandroid-arm64\nsoon\n45m\n"
    done = CliRunner().invoke(command_file.command, ["--out", str(tmp_path / "p.toml")], input=answers)
    assert done.exit_code == 0, done.output
    assert "is not a folder" in done.output and "is not a duration" in done.output
    head = (tmp_path / "p.toml").read_text().splitlines()[0]
    assert "an Android phone" in head and "45m" in head


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no images"):
        plan(tmp_path, "1h")


def test_many_photos_get_a_teacher_of_their_own(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_installed", lambda: True)
    assert plan(photos, "1h").pretrained
    monkeypatch.setattr(planning, "image_count", lambda folder: 50_000)
    found = plan(photos, "1h")
    assert not found.pretrained and not found.lacking and (found.teacher, found.student) == ("24m", "36m")


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1s"), (90, "1m30s"), (3600, "1h"), (5400, "1h30m")])
def test_durations_are_written_as_they_are_read(seconds: float, text: str) -> None:
    assert duration_of(seconds) == text and seconds_of(text) == max(1, round(seconds))
