"""`--dry-run`: what it says of a run, and that it leaves nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY_STUDENT, TINY_TEACHER
from tests.measured import measured


def said(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+) +(.*)$", text, re.MULTILINE))


def test_a_dry_run_says_what_a_run_takes_and_writes_nothing(tmp_path: Path, bssl_tf: Callable[..., Any]) -> None:
    done = bssl_tf("teacher", "--out", tmp_path / "new" / "run", *TINY_TEACHER, "--dry-run")
    assert done.returncode == 0, done.stderr
    found = said(done.stdout)
    assert found.keys() == {"images", "steps", "time", "memory", "disk"}
    assert found["images"] == "128" and found["steps"] == "8, 4 in an epoch"
    assert re.fullmatch(r"about \d+ min, \S+ s per step \(median of 7\)", found["time"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_memory_and_disk_are_within_a_fifth_of_what_a_run_takes(tmp_path: Path, tiny_teacher: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "bssl_tf", "pretrain", "--out", str(run), "--teacher", str(tiny_teacher)]
    command += TINY_STUDENT
    dry = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True)
    found = said(dry.stdout)
    assert int(found["memory"].split()[0]) == pytest.approx(measured(command).peak_kib / 1024, rel=0.2)
    # It is the most there is at once: two of three checkpoints stay.
    left = sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) / 2**20
    assert 0.9 * left < float(found["disk"].split()[0]) < 2 * left + 1
