"""`bssl-tf doctor`: what it says is missing is missing, and nothing that a command imports is left out."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssl_tf.cli.main import COMMANDS
from bssl_tf.doctor.machine import processor_features
from bssl_tf.doctor.needs import NEEDS
from bssl_tf.doctor.packages import MODULES
from tests.conftest import light_start

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = ("tensorflow", "tf_keras", "keras", "larq", "larq_compute_engine", "sklearn", "numpy", "matplotlib")
# Third-party modules that come with a package that is listed.
BROUGHT = {
    **{"h5py": "tensorflow", "markupsafe": "jinja2", "threadpoolctl": "sklearn"},
    **{"annotated_types": "pydantic", "pydantic_core": "pydantic"},
}
# A Raspberry Pi's system has picamera2, PyPI does not; others share a package with `run` and open no camera. What
# LCE will keep of a student is found out without converting it, and the zoo names networks that it does not build.
# Saved networks are rebuilt by the module that opens larq_zoo:NAME. A picture is a type that tasks have in annotations.
# What makes reports shows detectors too, which `auto` does not train. The device's command line has a server, and the
# host's commands use other parts of it; nor do they learn heads.
NOT_NEEDED = {
    **{
        "run": {"picamera2", "sklearn", "starlette", "uvicorn"},
        "data": {"array_record"},
        "auto": {"pycocotools", "yaml"},
    },
    **{name: {"picamera2", "cv2", "starlette", "uvicorn"} for name in ("embed", "similar", "select")},
    "bench": {"picamera2", "cv2", "sklearn", "starlette", "uvicorn"},
    **{"pretrain": {"larq_compute_engine"}, "zoo": {"tensorflow", "tf_keras", "larq"}},
    **{"import-teacher": {"larq_zoo"}, "report": {"larq_zoo"}, "summary": {"PIL"}},
}
# Things to look for that are no packages of Python.
OTHERS = {
    *(
        "python",
        "processor",
        "GPU",
        "Keras 2",
        "interpreter",
        "runtime",
        "compiler",
        "cache",
        "TFDS folder",
        "ssh",
        "adb",
    ),
}
INSTALLED = sorted(name for name in MODULES if name not in ("tomli", "packaging"))


def test_every_command_is_listed() -> None:
    assert list(NEEDS) == list(COMMANDS)
    for needs in NEEDS.values():
        assert {*needs.required, *needs.optional} <= MODULES.keys() | OTHERS


@functools.cache
def imported(command: str) -> frozenset[str]:
    """The third-party modules that a command's modules import, at once or when they are called."""
    graph = _graph()
    name = f"bssl_tf.cli.{command.replace('-', '_')}"
    reached = graph.find_upstream_modules(name) | {name}
    # This list itself and its command import nothing of what is listed.
    tops = {one.split(".")[0] for module in reached for one in graph.find_modules_directly_imported_by(module)}
    ours = {"bssl_tf", "bssl_tf_converters", "bssl_tf_deploy", "click"}
    return frozenset(tops - ours - set(sys.stdlib_module_names))


@functools.cache
def _graph() -> Any:
    grimp = pytest.importorskip("grimp", reason="comes with import-linter, of the extra `dev`")
    packages = ("bssl_tf", "bssl_tf_converters", "bssl_tf_deploy")
    return grimp.build_graph(*packages, include_external_packages=True, cache_dir=None)


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"doctor"}))
def test_what_a_command_imports_is_among_its_needs(command: str) -> None:
    needs = NEEDS[command]
    listed = {MODULES[name] for name in (*needs.required, *needs.optional) if name in MODULES}
    unlisted = {BROUGHT.get(module, module) for module in imported(command)} - listed - {"tomli", "packaging"}
    unlisted -= NOT_NEEDED.get(command, set())
    assert not unlisted, f"bssl-tf {command} imports {unlisted}, which bssl_tf.doctor.needs does not say"


def site_without(hidden: Collection[str], folder: Path) -> Path:
    """A folder like this environment's site-packages, less some distributions and their modules."""
    gone = {MODULES[name] for name in hidden} | {name.replace("-", "_").lower() for name in hidden}
    for item in Path(sysconfig.get_paths()["purelib"]).iterdir():
        name = re.split(r"-\d|\.dist-info", item.name)[0].replace("-", "_").replace(".", "_")
        if name not in gone and name.lower() not in gone and not item.name.endswith((".pth", ".libs")):
            (folder / item.name).symlink_to(item)
    return folder


def run_in(site: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line with `site` for site-packages."""
    paths = [str(site), *(str(REPOSITORY / part) for part in (".", "converters", "deploy"))]
    program = (
        f"import sys\nsys.path[:0] = {paths!r}\nsys.argv = ['bssl-tf', *{list(arguments)!r}]\n"
        "from bssl_tf.cli.main import main\nmain()"
    )
    command = [sys.executable, "-S", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | environment)


def diagnosed(site: Path, **environment: str) -> dict[str, Any]:
    done = run_in(site, "doctor", "--json", **environment)
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if found["healthy"] else 1)
    return found


@settings(max_examples=6, deadline=None)
@given(st.sets(st.sampled_from(INSTALLED), max_size=5))
def test_a_package_is_said_missing_exactly_when_it_is_not_there(hidden: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        site = site_without(hidden, Path(folder))
        there = {name for name in INSTALLED if (site / MODULES[name]).exists()}
        found = diagnosed(site)
    findings = found["findings"]
    for name in INSTALLED:
        if name in findings:
            assert findings[name]["there"] == (name in there), name
            if name not in there:
                assert (
                    f"pip install '{name}" in findings[name]["next_step"]
                    or f"install {name}" in (findings[name]["next_step"])
                )
    for name, command in found["commands"].items():
        required = set(NEEDS[name].required)
        assert {one for one in required if one in INSTALLED and one not in there} <= set(command["missing"])
        assert set(command["missing"]) <= required
        assert all(not findings[one]["there"] for one in command["missing"])
        assert (command["state"] == "missing") == bool(command["missing"])
    assert found["healthy"] == all(command["state"] != "missing" for command in found["commands"].values())


def test_a_command_that_is_said_to_lack_a_package_really_cannot_run(tmp_path: Path) -> None:
    site = site_without({"tflite"}, tmp_path)
    assert diagnosed(site)["commands"]["inspect"]["missing"] == ["tflite"]
    (tmp_path / "model.tflite").write_bytes(bytes(100))
    done = run_in(site, "inspect", str(tmp_path / "model.tflite"))
    assert done.returncode == 16 and "No module named 'tflite'" in done.stderr
    done = run_in(site, "doctor")
    assert "✗ inspect         missing  needs tflite" in done.stdout.splitlines()
    # The range is that of the metadata, which an editable install keeps as it was when it was made.
    assert re.search(r"-m pip install '?tflite\S*    # for tflite", done.stdout)


def test_without_any_of_them_it_still_answers(tmp_path: Path) -> None:
    found = diagnosed(site_without(MODULES, tmp_path), PATH="")
    states = {name: command["state"] for name, command in found["commands"].items()}
    assert states.pop("doctor") == "limited"
    assert set(states.values()) == {"missing"}
    for name in ("interpreter", "runtime", "compiler", "ssh", "adb"):
        assert not found["findings"][name]["there"] and found["findings"][name]["next_step"], name


def test_a_version_out_of_range_is_said(tmp_path: Path) -> None:
    site = site_without({"numpy"}, tmp_path)
    (site / "numpy").mkdir()
    (site / "numpy" / "__init__.py").touch()
    info = site / "numpy-2.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.1.0\n")
    numpy = diagnosed(site)["findings"]["numpy"]
    assert not numpy["there"]
    assert numpy["found"].startswith("2.1.0, and ") and "<2" in numpy["found"]
    assert numpy["next_step"].endswith("'numpy<2,>=1.26.4'")


def test_a_package_without_its_module_is_said(tmp_path: Path) -> None:
    site = site_without({"tflite"}, tmp_path)
    info = site / "tflite-2.18.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tflite\nVersion: 2.18.0\n")
    assert "without its module" in diagnosed(site)["findings"]["tflite"]["found"]


def test_programs_and_folders_are_said_missing_when_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    programs = tmp_path / "programs"
    programs.mkdir()
    environment = {"PATH": str(programs), "BSSL_TF_CACHE": str(tmp_path / "file" / "cache"), "CXX": ""}
    environment |= {"TFDS_DATA_DIR": str(tmp_path / "later")}
    done = subprocess.run(
        [sys.executable, "-m", "bssl_tf", "doctor", "--json"],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    found = json.loads(done.stdout)
    findings = found["findings"]
    assert not findings["cache"]["there"] and findings["cache"]["next_step"] == "export BSSL_TF_CACHE=FOLDER"
    assert "cache" in found["commands"]["teacher"]["missing"] and done.returncode == 1
    assert findings["TFDS folder"]["there"] and not (tmp_path / "later").exists()
    assert not findings["ssh"]["there"] and not findings["adb"]["there"]
    assert found["commands"]["devices"]["limited"] == ["no ssh:// devices", "no Android devices"]
    (programs / "adb").symlink_to(shutil.which("true") or "/bin/true")
    done = subprocess.run(
        [sys.executable, "-m", "bssl_tf", "doctor", "--json"],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    assert json.loads(done.stdout)["findings"]["adb"]["found"] == str(programs / "adb")


def test_a_gpu_is_named_and_so_is_what_tensorflow_lacks_to_use_it(tmp_path: Path) -> None:
    programs, site = tmp_path / "programs", tmp_path / "site"
    for folder in (programs, site):
        folder.mkdir()
    assert diagnosed(site_without([], site), PATH=str(programs))["findings"]["GPU"] == {
        "there": True, "found": "none of NVIDIA's, so training uses the processor", "next_step": ""
    }  # fmt: skip
    tool = programs / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA A100-SXM4-40GB, 550.54.15, 40960 MiB'\n")
    tool.chmod(0o755)
    found = diagnosed(site, PATH=str(programs))
    gpu = found["findings"]["GPU"]
    assert gpu["found"].startswith("NVIDIA A100-SXM4-40GB, driver 550.54.15, 40960 MiB; TensorFlow cannot use it")
    assert not gpu["there"] and gpu["next_step"].endswith("-m pip install 'tensorflow[and-cuda]'")
    assert "on the processor only" in found["commands"]["pretrain"]["limited"] and found["healthy"]
    for name in sorted(set(re.findall(r"nvidia-[a-z0-9-]+", " ".join(metadata.requires("tensorflow") or [])))):
        (site / f"{name.replace('-', '_')}-1.dist-info").mkdir()
        (site / f"{name.replace('-', '_')}-1.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 1\n")
    assert diagnosed(site, PATH=str(programs))["findings"]["GPU"]["there"]
    # A driver that does not answer is no GPU that could be used.
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert diagnosed(site, PATH=str(programs))["findings"]["GPU"]["found"].startswith("none")


def test_what_only_limits_a_command_is_optional_and_no_next_step(tmp_path: Path) -> None:
    """Nobody has to have a phone."""
    lacking = run_in(site_without(["numpy"], tmp_path), "doctor", PATH="").stdout
    steps, _, optional = lacking.partition("\nnext:\n")[2].partition("\noptional:\n")
    assert "numpy" in steps and "adb" not in steps and "adb" in optional


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    environment = os.environ | {"BSSL_TF_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "bssl_tf", "doctor", "--json"], capture_output=True, text=True, env=environment
    )
    assert json.loads(done.stdout)["findings"]["cache"]["found"].endswith("cannot be written")


def test_keras_that_is_loaded_first_is_said(tmp_path: Path) -> None:
    (tmp_path / "usercustomize.py").write_text("import sys, types\nsys.modules['keras'] = types.ModuleType('keras')\n")
    program = "import usercustomize\nimport sys\nsys.argv = ['bssl-tf', 'doctor', '--json']\n"
    program += "from bssl_tf.cli.main import main\nmain()"
    plain = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    for legacy, there in ({}, False), ({"TF_USE_LEGACY_KERAS": "1"}, True):
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            env=plain | {"PYTHONPATH": str(tmp_path)} | legacy,
        )
        found = json.loads(done.stdout)
        assert found["findings"]["Keras 2"]["there"] == there
        assert ("Keras 2" in found["commands"]["teacher"]["missing"]) != there


def test_deep_finds_a_package_that_is_there_and_does_not_import(tmp_path: Path) -> None:
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise ImportError('broken on purpose')\n")
    for name in ("tensorflow", "sklearn"):  # quickly, as it is the same for all
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("import os\nos.kill(os.getpid(), 4)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "bssl_tf", "doctor", "--json"]
    shallow = json.loads(subprocess.run(command, capture_output=True, text=True, env=environment).stdout)
    assert shallow["findings"]["matplotlib"]["there"]
    done = subprocess.run([*command, "--deep"], capture_output=True, text=True, env=environment)
    deep = json.loads(done.stdout)["findings"]
    assert not deep["matplotlib"]["there"] and "broken on purpose" in deep["matplotlib"]["found"]
    assert not deep["tensorflow"]["there"] and "signal 4" in deep["tensorflow"]["found"]
    assert done.returncode == 1


@pytest.mark.slow
def test_deep_agrees_with_an_environment_that_works() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bssl_tf", "doctor", "--deep", "--json"], capture_output=True, text=True
    )
    findings = json.loads(done.stdout)["findings"]
    for name in ("tensorflow", "larq-compute-engine", "matplotlib", "scikit-learn"):
        assert findings[name]["found"].endswith("and its import works")


def test_it_loads_nothing_large_and_starts_fast() -> None:
    """A third of a second on an idle machine. Numpy alone may come, with the folder of the cache."""
    _, seconds = light_start((name for name in HEAVY if name != "numpy"), "doctor", check=False)
    assert seconds < 1.0


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="only Linux tells its processor's features in a file")
def test_features_are_those_of_the_library_in_use() -> None:
    """The library asks the processor itself, so it is an independent witness."""
    from bssl_tf_deploy.library import describe, own_library

    library = own_library()
    if library is None:
        pytest.skip("the runtime library is not compiled here")
    kernels = describe(library)[1]
    features = processor_features()
    assert ("avx512" in kernels) <= ("avx512_vpopcntdq" in features)
    assert ("avx2" in kernels) == ("avx2" in features)
    assert ("neon" in kernels) == ("asimd" in features)
