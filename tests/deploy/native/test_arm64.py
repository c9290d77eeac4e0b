"""The runtime on aarch64: real interpreters from PyPI, emulated, against what LCE's interpreter answers on the host.

Emulation says whether an answer is right, never how long it takes.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.arm64.make_rig import PROCESSORS, SITES, Rig, find_rig
from tests.lce_models import expected, small_models
from tests.native import NATIVE, ROOT, built_library, described, difference, require_rig

RUNNER = ROOT / "tests" / "arm64" / "run_models.py"
RUNS: list[tuple[str, str, list[dict[str, str]]]] = [
    ("cortex-a72", "ai-edge-litert-2.3", [{"num_threads": "2"}]),
    ("cortex-a53", "ai-edge-litert-2.3", [{}]),
]
MORE_RUNS: list[tuple[str, str, list[dict[str, str]]]] = [
    ("cortex-a76", "ai-edge-litert-2.3", [{}, {"isa": "portable"}]),
    ("cortex-a72", "ai-edge-litert-1.4", [{"num_threads": "3"}]),
    ("cortex-a72", "tflite-runtime-2.14", [{"isa": "neon"}]),
]
NATIVE_TESTS = ["options", "wrong", "sizes", "random", "memory", "huge", "threads", "profile", "shared"]


@pytest.fixture(scope="session")
def rig() -> Rig:
    """The rig, where it is there."""
    return require_rig()


@pytest.fixture(scope="session")
def library() -> Path:
    """The library for aarch64."""
    return built_library("arm64")


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Path:
    """A folder with all models and their images."""
    folder = tmp_path_factory.mktemp("arm64")
    for index, case in enumerate(small_models()):
        (folder / f"{index}.tflite").write_bytes(case.original)
        np.savez(folder / f"{index}.npz", case.images)
    return folder


@pytest.fixture(scope="session")
def native_checks(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Path:
    """The Makefile's `guard` programs for aarch64; where `library` can be built, so can they."""
    build = tmp_path_factory.mktemp("native-checks")
    compiler = f"{shlex.quote(sys.executable)} -m ziglang c++ -target aarch64-linux-gnu.2.17"
    command = ["make", f"-j{os.cpu_count()}", "-C", str(NATIVE / "tests"), f"BUILD={build}", f"CXX={compiler}"]
    done = subprocess.run(
        [*command, "ARCH=aarch64", str(build / "guard" / "test_delegate")],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    return build


def emulated(
    rig: Rig, work: Path, library: Path, processor: str, site: str, options: list[dict[str, str]]
) -> tuple[dict[str, Any], Path]:
    """Runs everything in one emulated process. Returns its report, and the folder with the answers."""
    out = work / f"{processor}-{site}"
    out.mkdir()
    cases = [{"model": f"{index}.tflite", "images": f"{index}.npz"} for index in range(len(small_models()))]
    plan = {"library": str(library), "options": options, "cases": cases}
    (work / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    command = rig.python(processor, site, [str(RUNNER), str(work), str(out)])
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return json.loads((out / "report.json").read_text(encoding="utf-8")), out


@pytest.mark.parametrize(
    ("processor", "site", "options"), RUNS + [pytest.param(*run, marks=pytest.mark.slow) for run in MORE_RUNS]
)
def test_same_bits_as_lce(
    rig: Rig, work: Path, library: Path, processor: str, site: str, options: list[dict[str, str]]
) -> None:
    report, out = emulated(rig, work, library, processor, site, options)
    kernels = report["kernels"].split(",")
    assert kernels[0].startswith("neon_")
    # Where there are kernels for cores that issue in order, those get them and no others.
    if any(name.startswith("neon_inorder_") for name in kernels):
        assert kernels[0].startswith("neon_inorder_") == (processor == "cortex-a53")
    found = []
    for number in range(len(options)):
        for index, case in enumerate(small_models()):
            name = f"options {options[number]}, {described(case)}"
            if f"{number}-{index}" in report["failed"]:
                found.append(f"{name}: {report['failed'][f'{number}-{index}']}")
                continue
            [got] = np.load(out / f"{number}-{index}.npz").values()
            wanted, tolerance = expected(case)
            fault = difference(got, wanted)
            if tolerance and got.shape == wanted.shape and np.abs(got - wanted).max() <= tolerance:
                fault = ""
            if fault:
                found.append(f"{name}: {fault}")
    assert not found, "\n".join(found[:20])


@pytest.mark.parametrize("processor", ["cortex-a72", "cortex-a53"])
def test_kernels_and_delegate_against_plain_code(rig: Rig, native_checks: Path, processor: str) -> None:
    """deploy/native/tests without an interpreter: 1500 random models, and memory that ends at a forbidden page."""
    command = rig.program(processor, [str(native_checks / "guard" / "test_delegate"), *NATIVE_TESTS])
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert all(f"{name}: ok" in done.stdout for name in NATIVE_TESTS), done.stdout


def test_every_interpreter_and_both_kinds_of_core_are_tried() -> None:
    assert {site for _, site, _ in RUNS + MORE_RUNS} == set(SITES)
    assert {processor for processor, _, _ in RUNS + MORE_RUNS} == set(PROCESSORS)


@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="qemu-aarch64 is not installed")
def test_a_rig_that_is_not_whole_is_none(tmp_path: Path) -> None:
    assert find_rig(tmp_path) is None
    (tmp_path / "rig.json").write_text("{", encoding="utf-8")
    assert find_rig(tmp_path) is None
    (tmp_path / "rig.json").write_text('{"layout": 0}', encoding="utf-8")
    assert find_rig(tmp_path) is None
