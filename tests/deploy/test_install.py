"""The device side as a device gets it: a wheel in an environment of its own, without TensorFlow and the host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from packaging.utils import parse_wheel_filename

from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.library import LIBRARY, host_target
from bssl_tf_deploy.record import Record
from tests.conftest import require_or_skip
from tests.native import HARDENED, hardening

ROOT = Path(__file__).parent.parent.parent
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def call(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program outside of this checkout's reach."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CXX")}
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=clean | environment,
        cwd="/",
    )


def pip(*arguments: object, **environment: str) -> None:
    done = call(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, **environment)
    offline = "No matching distribution" in done.stderr or "Connection" in done.stderr
    require_or_skip(not offline, "there is no package index to install from")
    assert done.returncode == 0, done.stderr


def sources(folder: Path) -> Path:
    """deploy/ as it is in version control, with leftovers of a build for another machine."""
    unversioned = shutil.ignore_patterns("build", "lib", "*.egg-info", "__pycache__", "benchmarks", "tests")
    copy = shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=unversioned)
    left = copy / "bssl_tf_deploy" / "lib"
    left.mkdir()
    (left / LIBRARY).write_bytes(b"of another machine")
    return copy


def environment(folder: Path, *install: object) -> Path:
    """The Python of a fresh environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip("--python", python, "install", "--quiet", *install)
    return python


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled here, by whatever compiler is here."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder / "dist", sources(folder))
    [made] = (folder / "dist").iterdir()
    return made


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Command:
    """Runs programs of an environment that holds the wheel and what it requires."""
    python = environment(tmp_path_factory.mktemp("device") / "venv", wheel)

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return call(python.with_name(program), *arguments)

    return run


def test_the_wheel_holds_this_machines_library_and_the_sources(wheel: Path, tmp_path: Path) -> None:
    name, version, _, tags = parse_wheel_filename(wheel.name)
    assert (name, str(version)) == ("bssl-tf-deploy", "0.1.0")
    [tag] = tags
    machine = {"x86_64": "x86_64", "arm64": "aarch64"}[host_target()]
    assert (tag.interpreter, tag.abi) == ("py3", "none")
    assert tag.platform in (f"linux_{machine}", f"manylinux2014_{machine}")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        library = Path(archive.extract(f"bssl_tf_deploy/lib/{LIBRARY}", tmp_path))
    assert hardening(library) == HARDENED
    for file in (ROOT / "deploy" / "native").rglob("*"):
        beside = {"tests", "example"} & set(file.relative_to(ROOT).parts)
        if file.suffix in (".cc", ".h", ".inc") and not beside:
            assert f"bssl_tf_deploy/{file.relative_to(ROOT / 'deploy').as_posix()}" in names
    assert not [name for name in names if "tests" in name or "benchmarks" in name]
    assert {f"bssl_tf_deploy-{version}.dist-info/licenses/LICENSE", "bssl_tf_deploy/serving/page.html"} <= names


def test_a_bundle_runs_where_nothing_else_is_installed(device: Command, real_bundle: Path) -> None:
    for absent in ("tensorflow", "bssl_tf", "bssl_tf_converters", "larq_compute_engine", "click"):
        assert "ModuleNotFoundError" in device("python", "-c", f"import {absent}").stderr
    bundle = read_bundle(real_bundle)
    examples = sorted((real_bundle / "examples").iterdir())
    [logits] = bundle.golden_outputs
    best = [bundle.manifest.table.labels[index] for index in np.argmax(logits, axis=1)]

    done = device("bssl-tf-deploy", "run", real_bundle, *examples, "--top", 1)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("  ") for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows] == [[str(file), label] for file, label in zip(examples, best, strict=True)]

    done = device("bssl-tf-deploy", "run", real_bundle, *examples, "--outputs", "--json", "--threads", 2)
    outputs = [record["outputs"]["logits"] for record in json.loads(done.stdout)]
    np.testing.assert_allclose(outputs, logits, rtol=1e-3, atol=1e-3)

    done = device("bssl-tf-deploy", "bench", real_bundle, "--repetitions", 5, "--json")
    record = Record.from_dict(json.loads(done.stdout))
    [run] = record.runs
    latency = run.networks["binary"].latency
    assert record.library and latency and latency.calls == 5
    assert latency.min_ms and latency.p50_ms and 0 < latency.min_ms <= latency.p50_ms
    assert record.command == f"bssl-tf-deploy bench {real_bundle} --repetitions 5 --json"
    done = device("bssl-tf-deploy", "measure", real_bundle, "--budget", 0, "--json")
    measured = Record.from_dict(json.loads(done.stdout))
    assert measured.golden and len(measured.runs) == 1 and measured.runs[0].profiles
    assert "golden outputs: as expected" in done.stderr
    assert "bssl-tf runtime 0.1.0" in device("bssl-tf-deploy", "bench", real_bundle, "--repetitions", 5).stdout


def test_errors_are_one_line_with_a_status(device: Command, real_bundle: Path, tmp_path: Path) -> None:
    example = next((real_bundle / "examples").iterdir())
    (tmp_path / "bad.png").write_bytes(b"no image")
    done = device("bssl-tf-deploy", "run", real_bundle, tmp_path / "bad.png", example)
    assert done.returncode == 9
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr.startswith("error[image]: ") and len(done.stderr.splitlines()) == 1
    for arguments, status, message in (
        (("run", tmp_path / "none", example), 7, "does not exist"),
        (("run", real_bundle, example, "--runtime", "lce"), 10, "LCE's interpreter is not installed here"),
        (("bench", tmp_path), 7, "is not a bundle"),
        (("serve", real_bundle), 10, "pip install 'bssl-tf-deploy[serve]'"),
    ):
        done = device("bssl-tf-deploy", *arguments)
        assert (done.returncode, done.stdout) == (status, "")
        assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert "Traceback" in device("bssl-tf-deploy", "run", tmp_path, example, "--debug").stderr
    for wrong in (("--threads", 0), ("--threads", 65), ("--top", "many"), ("--runtime", "fast")):
        assert device("bssl-tf-deploy", "run", real_bundle, example, *wrong).returncode == 2


def test_the_installed_package_builds_for_other_targets(device: Command, tmp_path: Path) -> None:
    """With the sources that it brings and pyelftools; here without ziglang, so for this machine only."""
    program = "from bssl_tf_deploy.library import library_for; print(len(library_for({!r}).content))"
    require_or_skip(any(map(shutil.which, ("c++", "g++", "clang++"))), "no compiler is installed beside ziglang")
    unchecked = device("python", "-c", program.format(host_target()))
    assert "pyelftools is not installed" in unchecked.stderr, unchecked.stderr
    python = device("python", "-c", "import sys; print(sys.executable)").stdout.strip()
    pip("--python", python, "install", "--quiet", "pyelftools")
    done = device("python", "-c", program.format(host_target()))
    assert int(done.stdout) > 10_000, done.stderr
    [other] = {"x86_64", "arm64"} - {host_target()}
    assert f"no compiler for {other} here" in device("python", "-c", program.format(other)).stderr


@pytest.mark.slow  # Two environments and a compiler for each, of 80 MB.
def test_release_wheels_are_for_every_linux_since_2014(tmp_path: Path) -> None:
    folder = sources(tmp_path)
    for target, machine, elf in (("x86_64", "x86_64", 62), ("arm64", "aarch64", 183)):
        settings = {"BSSL_TF_TARGET": target, "BSSL_TF_COMPILER": "zig"}
        pip("wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / target, folder, **settings)
        [made] = (tmp_path / target).iterdir()
        assert made.name == f"bssl_tf_deploy-0.1.0-py3-none-manylinux2014_{machine}.whl"
        with zipfile.ZipFile(made) as archive:
            library = Path(archive.extract(f"bssl_tf_deploy/lib/{LIBRARY}", tmp_path / target))
            names = archive.namelist()
        if target == "arm64":
            # Downloaded to boards over whatever they are connected by.
            assert made.stat().st_size < 300_000 and not [name for name in names if "/native/" in name]
        assert library.read_bytes()[18:20] == elf.to_bytes(2, "little") and hardening(library) == HARDENED


@pytest.mark.slow
def test_an_editable_installation_has_its_library_beside_its_code(tmp_path: Path) -> None:
    folder = sources(tmp_path)
    python = environment(tmp_path / "venv", "--no-deps", "--editable", folder)
    program = "from bssl_tf_deploy.library import describe, own_library; print(own_library(), *describe(own_library()))"
    done = call(python, "-c", program)
    path, version, _ = done.stdout.split(maxsplit=2)
    assert (path, version) == (str(folder / "bssl_tf_deploy" / "lib" / LIBRARY), "0.1.0"), done.stderr


@pytest.mark.slow  # The compiler is downloaded.
def test_without_a_compiler_pip_brings_one(tmp_path: Path) -> None:
    settings = {"PATH": str(tmp_path), "BSSL_TF_CACHE": str(tmp_path / "cache")}
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "dist", sources(tmp_path), **settings)
    [made] = (tmp_path / "dist").iterdir()
    assert "manylinux2014" in made.name
