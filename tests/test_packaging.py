"""What the package promises to installers."""

from __future__ import annotations

import re
import subprocess
import sys
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


def test_every_module_is_in_the_wheel() -> None:
    """The packages are listed by hand, because three folders hold them, and two distributions."""
    host, device = ROOT / "pyproject.toml", ROOT / "deploy" / "pyproject.toml"
    for top, folder, project in (
        ("bssl_tf", ROOT / "bssl_tf", host),
        ("bssl_tf_converters", ROOT / "converters" / "bssl_tf_converters", host),
        ("bssl_tf_deploy", ROOT / "deploy" / "bssl_tf_deploy", device),
    ):
        listed = set(read_toml(project)["tool"]["setuptools"]["packages"])
        for file in folder.rglob("*.py"):
            package = ".".join([top, *file.parent.relative_to(folder).parts])
            assert package in listed, f"{package} is missing in {project}"


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
