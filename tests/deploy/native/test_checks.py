"""The runtime's C++ under sanitizers and a fuzzer, without TensorFlow Lite (deploy/native/tests/Makefile)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import require_or_skip
from tests.native import NATIVE

CHECKS = NATIVE / "tests"


def compiles(compiler: str, sanitizer: str, folder: Path) -> bool:
    """Whether `compiler` is there, with the libraries that `sanitizer` needs."""
    if shutil.which(compiler) is None:
        return False
    main = "extern 'C' int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }".replace("'", '"')
    (folder / "try.cc").write_text(main if "fuzzer" in sanitizer else "int main() {}", encoding="utf-8")
    command = [compiler, f"-fsanitize={sanitizer}", str(folder / "try.cc"), "-o", str(folder / "try")]
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0


def make(target: str, build: Path, *settings: str) -> str:
    """Builds and runs a target of the Makefile; what it printed."""
    command = ["make", f"-j{os.cpu_count()}", "-C", str(CHECKS), f"BUILD={build}", *settings, target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    # The commands fill pages; what a program said comes last.
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("target", "sanitizer", "tests"),
    [
        (
            "check",
            "address,undefined",
            "attributes options wrong sizes few wild memory huge extremes threads profile shared met",
        ),
        ("threads", "thread", "threads shared met"),
    ],
)
def test_no_sanitizer_complains(tmp_path: Path, target: str, sanitizer: str, tests: str) -> None:
    require_or_skip(compiles("g++", sanitizer, tmp_path), f"g++ with -fsanitize={sanitizer} is not installed")
    said = make(target, tmp_path / "build", "CXX=g++")
    assert all(f"{name}: ok" in said for name in tests.split()), said[-3000:]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_a_child_of_fork_runs_and_ends_whatever_other_threads_did(tmp_path: Path) -> None:
    require_or_skip(shutil.which("g++") is not None, "g++ is not installed")
    assert "forks: ok" in make("forks", tmp_path / "build", "CXX=g++")


@pytest.mark.slow
def test_fuzzing_for_a_while_finds_nothing(tmp_path: Path) -> None:
    require_or_skip(compiles("clang++", "fuzzer,address,undefined", tmp_path), "clang with libFuzzer is not installed")
    said = make("fuzz", tmp_path / "build", "SECONDS_EACH=10")
    runs = [int(count) for count in re.findall(r"number_of_executed_units: (\d+)", said)]
    assert len(runs) == 2 and runs[0] > 10_000 and runs[1] > 100, runs
