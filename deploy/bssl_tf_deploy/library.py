"""The runtime library: which one this machine needs, where it lies, and how it and the runner are made for a target.

`native/build.py` makes it. It is called as a program of its own, because it lies beside this package in a checkout and
inside it when installed.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import platform
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bssl_tf_deploy.errors import RuntimeUnavailableError
from bssl_tf_deploy.system_errors import memory_shortage

LIBRARY = "libbssl_tf_runtime.so"
RUNNER = "bssl_tf_runner"
TARGETS = ("arm64", "x86_64", "android-arm64")
_TARGETS_32_BIT = ("arm32", "arm", "armhf", "armv6", "armv7", "armv7l")
_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Library:
    """A library, or the runner, for a target.

    Attributes:
        content: of the file.
        compiler: that made it, with its version.
        glibc: the oldest that it runs with, such as "2.17"; "" on Android.
    """

    content: bytes
    compiler: str
    glibc: str


def refuse_32_bit(target: str) -> None:
    """Raises `RuntimeUnavailableError`, with the reason, for what people call targets of 32-bit ARM."""
    if target in _TARGETS_32_BIT:
        raise RuntimeUnavailableError(
            f"there is no runtime for {target}: interpreters hand operators over by value, in a structure that has "
            "grown with their versions, which only the calling conventions of 64-bit processors forgive",
            "Install a 64-bit system (a Raspberry Pi 3 or newer runs one) and export for arm64",
        )


def host_target() -> str:
    """The target that this machine is.

    Raises:
        RuntimeUnavailableError: there is no runtime for it.
    """
    machine = platform.machine()
    android = hasattr(sys, "getandroidapilevel")
    if struct.calcsize("P") == 8 and sys.platform in ("linux", "android"):
        if machine == "aarch64":
            return "android-arm64" if android else "arm64"
        if machine == "x86_64" and not android:
            return "x86_64"
    bits = 8 * struct.calcsize("P")
    raise RuntimeUnavailableError(
        f"there is no runtime for this machine ({platform.system()} {machine}, Python of {bits} bits)",
        "Use 64-bit Linux on ARM or x86, or LCE's interpreter (--runtime lce) where it is installed",
    )


def bundled_name(target: str) -> str:
    """Where a bundle for `target` has its library."""
    return f"lib/{target}/{LIBRARY}"


def own_library() -> Path | None:
    """The library that came with this package, if one did."""
    library = _PACKAGE / "lib" / LIBRARY
    return library if library.is_file() else None


def describe(library: Path) -> tuple[str, str]:
    """Version and micro-kernels of a library, the kernels in use first; loads it.

    Raises:
        RuntimeUnavailableError: it cannot be loaded, or is another library.
    """
    try:
        loaded = ctypes.CDLL(str(library))
        functions = (loaded.bssl_runtime_version, loaded.bssl_runtime_kernels)
    except (OSError, AttributeError) as error:
        raise memory_shortage(error) or RuntimeUnavailableError(
            f"the runtime library {library} cannot be loaded ({error})",
            "Install bssl-tf-deploy again on this machine, or pass --runtime lce where LCE is installed",
        ) from error
    for function in functions:
        function.restype = ctypes.c_char_p
        function.argtypes = []
    version, kernels = (function().decode("ascii") for function in functions)
    return version, kernels


def library_for(target: str) -> Library:
    """A library to be put into a bundle; compiled if needed, which takes seconds.

    With ziglang installed it is the one that runs on every system since glibc 2.17. Without, it is this package's own
    or the work of this machine's compiler, for this machine's kind only.

    Args:
        target: one of `TARGETS`.

    Raises:
        RuntimeUnavailableError: there is no compiler for the target, or it fails.
    """
    return _made(target, LIBRARY, [])


def runner_for(target: str) -> Library:
    """The program of `native/runner`, which runs models where there is no Python; arguments and errors as above."""
    return _made(target, RUNNER, ["--runner"])


def _made(target: str, name: str, options: Sequence[str]) -> Library:
    zig = ["--compiler", "zig"] if importlib.util.find_spec("ziglang") is not None else []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, name)
        built = _build(["--target", target, "--out", str(out), *zig, *options])
        return Library(out.read_bytes(), built["compiler"], built["glibc"])


def _build(arguments: Sequence[str]) -> dict[str, str]:
    # Beside the package in a checkout, inside it when installed.
    scripts = [folder / "native" / "build.py" for folder in (_PACKAGE, _PACKAGE.parent)]
    script = next((path for path in scripts if path.is_file()), None)
    if script is None:
        raise RuntimeUnavailableError(
            "the runtime's sources are not installed", "Build from a checkout, or on x86-64, whose wheel has them"
        )
    done = subprocess.run(
        [sys.executable, str(script), *arguments, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it was killed"]
        what, _, next_step = lines[-1].removeprefix("error[build]: ").rstrip(".").partition(". ")
        raise RuntimeUnavailableError(
            f"the runtime cannot be built: {what}", next_step or "Free memory and try again"
        ) from RuntimeError(done.stderr)
    built: dict[str, str] = json.loads(done.stdout)
    return built
