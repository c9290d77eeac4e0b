"""What the package promises to installers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from bssl_tf.settings import read_toml
from tests.conftest import require_or_skip

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return dict(read_toml(ROOT / "pyproject.toml")["project"])


@pytest.mark.parametrize(
    ("system", "machine", "wanted"),
    [
        ("linux", "x86_64", True),
        ("linux", "aarch64", False),
        ("darwin", "arm64", True),
        ("darwin", "x86_64", True),
        ("win32", "AMD64", True),
    ],
)
def test_training_installs_where_lce_has_no_wheel(
    project: dict[str, Any], system: str, machine: str, wanted: bool
) -> None:
    [lce] = [r for r in map(Requirement, project["dependencies"]) if r.name == "larq-compute-engine"]
    assert lce.marker is not None
    assert lce.marker.evaluate({"sys_platform": system, "platform_machine": machine}) is wanted


def test_every_requirement_has_a_floor(project: dict[str, Any]) -> None:
    for text in project["dependencies"]:
        assert any(specifier.operator in (">=", "==") for specifier in Requirement(text).specifier), text


def test_every_file_of_the_packages_is_in_the_wheel(tmp_path: Path) -> None:
    """Modules, presets, templates, the zoo: whatever lies in the packages is installed."""
    # In a copy, as a build leaves folders beside the sources.
    sources = tmp_path / "sources"
    for name in ("bssl_tf", "converters"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    require_or_skip(done.returncode == 0 or "No matching distribution" not in done.stderr, "no setuptools to be had")
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("bssl_tf-*.whl")
    installed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = {
        str(path.relative_to(folder))
        for folder in (sources, sources / "converters")
        for package in ("bssl_tf", "bssl_tf_converters")
        for path in (folder / package).rglob("*")
        if path.is_file() and path.suffix != ".md"
    }
    assert len(there) > 200
    assert there - installed == set() and not {name for name in installed - there if not name.endswith(".md")}


def test_versions_agree(project: dict[str, Any]) -> None:
    import bssl_tf

    device: Any = read_toml(ROOT / "deploy" / "pyproject.toml")["project"]
    assert bssl_tf.__version__ == project["version"] == device["version"]
    assert f"bssl-tf-deploy=={device['version']}" in project["dependencies"]


def test_the_zoo_extra_works_beside_everything_else() -> None:
    """Its protobuf pin decides which TensorFlow and TFDS can be had; this is what would break first."""
    program = (
        "from bssl_tf.backend import tf\n"
        "import larq_zoo, tensorflow_datasets\n"
        "model = larq_zoo.sota.QuickNetSmall(input_shape=(64, 64, 3), weights=None)\n"
        "print(model.count_params())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    require_or_skip("No module named 'larq_zoo'" not in done.stderr, "larq-zoo is not installed (extra `zoo`)")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 10_000_000


def test_import_contracts_hold() -> None:
    """Who may import whom; also part of `make lint`, here so that `pytest` alone shows it."""
    program = Path(sys.executable).with_name("lint-imports")
    require_or_skip(program.exists(), "import-linter is not installed (extra `dev`)")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    [phony] = re.findall(r"^\.PHONY: (.*)$", text, re.M)
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in phony.split():
        assert f"make {target} " in done.stdout
