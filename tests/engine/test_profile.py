"""`--profile`: where the time of a step goes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY_STUDENT, TINY_TEACHER

PARTS = ["input", "teacher", "forward", "backward", "optimizer", "step"]


def rows(text: str) -> dict[str, tuple[float, float]]:
    """Milliseconds and percent by part."""
    found = re.findall(r"^(\w+) +([\d.]+) ms +([\d.]+) %$", text, re.MULTILINE)
    return {name: (float(ms), float(share)) for name, ms, share in found}


@pytest.mark.parametrize(
    "more",
    [
        pytest.param((), id="whole batches"),
        pytest.param(("--set", "training.accumulate=2"), id="in parts", marks=pytest.mark.slow),
    ],
)
def test_parts_add_up_to_the_step_and_nothing_is_trained(
    more: tuple[str, ...], tmp_path: Path, tiny_teacher: Path, bssl_tf: Callable[..., Any]
) -> None:
    run = tmp_path / "run"
    command = ("pretrain", "--out", run, "--teacher", tiny_teacher, *TINY_STUDENT, *more)
    done = bssl_tf(*command, "--profile", "3")
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert list(found) == PARTS
    assert sum(found[name][0] for name in PARTS[:-1]) == pytest.approx(found["step"][0], abs=0.5)
    # A network so small takes no longer forward than its teacher, now and then, on a machine that does other work.
    assert found["step"][1] == 100 and found["teacher"][0] > 0 and found["forward"][0] + found["backward"][0] > 0
    assert [path.name for path in run.iterdir()] == ["tensorboard"]
    assert list(run.glob("tensorboard/plugins/profile/*/*.xplane.pb"))
    if not more:  # the folder of a profile is free for the run
        assert bssl_tf(*command).returncode == 0


def test_a_teacher_has_no_teacher(tmp_path: Path, bssl_tf: Callable[..., Any]) -> None:
    done = bssl_tf("teacher", "--out", tmp_path / "run", *TINY_TEACHER, "--profile", "2")
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout)["teacher"][0] < 5
