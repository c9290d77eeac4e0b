"""What the commands need of the machine: processor, runtime library, compiler, folders, programs."""

from __future__ import annotations

import ctypes.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from bssl_tf.doctor.packages import Finding, is_module, missing_of_extra, pip, prints

_MIN_FREE_BYTES = 2**30
_NVIDIA_SMI_TIMEOUT_S = 20
_COUNT_GPUS = "from bssl_tf.backend import tf; print(*tf.config.list_physical_devices('GPU'))"


def find_machine(packages: dict[str, Finding], *, deep: bool = False) -> list[Finding]:
    """All of it; `packages` are what `find_packages` found, `deep` asks TensorFlow for its GPUs."""
    stock = _interpreter(packages)
    return [
        *(_processor(), _gpu(packages, deep), stock, _runtime(packages, stock), _compiler(packages)),
        *(_cache(packages), _folder("TFDS folder", _tfds_folder(), "TFDS_DATA_DIR", 0)),
        *(_client("ssh", "openssh-client"), _client("adb", "adb")),
    ]


def processor_features() -> frozenset[str]:
    """What this processor says that it can do, in Linux's words; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset({"asimd"}) if platform.machine() in ("arm64", "aarch64") else frozenset()
    found = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(found.partition(":")[2].split())


def _processor() -> Finding:
    features = processor_features()
    names = {"avx2": "AVX2", "avx512_vpopcntdq": "AVX-512 VPOPCNTDQ", "asimd": "NEON"}
    known = [name for feature, name in names.items() if feature in features]
    found = f"{platform.machine()} with {', '.join(known) or 'none of AVX2, AVX-512 VPOPCNTDQ, NEON reported by it'}"
    if platform.machine() == "x86_64" and features and "avx" not in features:
        return Finding("processor", False, f"{found}; TensorFlow needs AVX", "Use a processor with AVX")
    return Finding("processor", True, found)


def _gpu(packages: dict[str, Finding], deep: bool) -> Finding:
    """NVIDIA's GPUs with driver and memory, and whether TensorFlow can use them, or seems to have what it needs."""
    try:
        said = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
            capture_output=True, text=True, errors="replace", timeout=_NVIDIA_SMI_TIMEOUT_S, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        said = ""
    rows = [[part.strip() for part in line.split(",")] for line in said.splitlines()]
    found = "; ".join(f"{row[0]}, driver {row[1]}, {row[2]}" for row in rows if len(row) == 3)
    if not found:
        return Finding("GPU", True, "none of NVIDIA's, so training uses the processor")
    if packages["tensorflow"].there:
        lacking = missing_of_extra("tensorflow", "and-cuda")
        if (deep and not prints(_COUNT_GPUS)) or (not deep and lacking and not ctypes.util.find_library("cudnn")):
            why = f"TensorFlow cannot use it{f' without {lacking[0]}' if lacking else ''}"
            return Finding("GPU", False, f"{found}; {why}", pip("tensorflow[and-cuda]"))
    return Finding("GPU", True, found)


def _interpreter(packages: dict[str, Finding]) -> Finding:
    for name, there in (
        ("ai-edge-litert", packages["ai-edge-litert"].there),
        ("tflite-runtime", is_module("tflite_runtime")),
        ("tensorflow", packages["tensorflow"].there),
    ):
        if there:
            return Finding("interpreter", True, f"that of {name}")
    return Finding("interpreter", False, "no TFLite interpreter", packages["ai-edge-litert"].next_step)


def _runtime(packages: dict[str, Finding], stock: Finding) -> Finding:
    """Our library, or LCE's interpreter."""
    from bssl_tf_deploy.errors import RuntimeUnavailableError
    from bssl_tf_deploy.library import describe, host_target, own_library

    checkout = (Path(__file__).resolve().parents[2] / "Makefile").is_file()
    step = "make runtime" if checkout else pip("--force-reinstall", "--no-deps", "bssl-tf-deploy")
    try:
        host_target()
        library = own_library()
        if library is None:
            wrong = "the compiled library is not there"
        else:
            version, kernels = describe(library)
            if stock.there:
                return Finding("runtime", True, f"{version}, micro-kernel {kernels.partition(',')[0]}")
            wrong, step = "the library is there, but no TFLite interpreter", stock.next_step
    except RuntimeUnavailableError as error:
        wrong = error.what
    if packages["larq-compute-engine"].there:
        return Finding("runtime", True, f"LCE's interpreter only ({wrong}); to fix it: {step}")
    return Finding("runtime", False, wrong, step)


def _compiler(packages: dict[str, Finding]) -> Finding:
    if packages["ziglang"].there:
        return Finding("compiler", True, f"zig {packages['ziglang'].found}, for every target")
    for command in (*shlex.split(os.environ.get("CXX", ""))[:1], "c++", "g++", "clang++"):
        if path := shutil.which(command):
            return Finding("compiler", True, f"{path}, for this kind of machine")
    return Finding("compiler", False, "no C++ compiler", packages["ziglang"].next_step)


def _cache(packages: dict[str, Finding]) -> Finding:
    try:
        from bssl_tf.files import cache_dir
    except ImportError as error:
        return Finding("cache", False, f"not known without {error.name}", packages[str(error.name)].next_step)
    return _folder("cache", cache_dir(), "BSSL_TF_CACHE", _MIN_FREE_BYTES)


def _tfds_folder() -> Path:
    return Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets").expanduser()


def _folder(name: str, folder: Path, variable: str, needed: int) -> Finding:
    """Whether `folder` can be written, or made, and has `needed` bytes free."""
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    step = f"export {variable}=FOLDER"
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Finding(name, False, f"{folder} cannot be written", step)
    free = shutil.disk_usage(place).free
    if free < needed:
        return Finding(
            name, False, f"{folder} has {free / 2**20:.0f} MiB free, and {needed / 2**20:.0f} are needed", step
        )
    return Finding(name, True, f"{folder}, {free / 2**30:.1f} GiB free")


def _client(name: str, package: str) -> Finding:
    path = shutil.which(name)
    if path:
        return Finding(name, True, path)
    if sys.platform == "darwin":
        step = "brew install --cask android-platform-tools" if name == "adb" else f"brew install {name}"
    elif shutil.which("apt-get"):
        step = f"sudo apt-get install {package}"
    else:
        step = f"install {package} with the package manager of this system"
    return Finding(name, False, "not installed", step)
