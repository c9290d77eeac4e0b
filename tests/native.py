"""The runtime's library, built for tests, and interpreters with it."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from elftools.elf.elffile import ELFFile

from tests.arm64.make_rig import MAKE_COMMAND, Rig, find_rig
from tests.conftest import require_or_skip
from tests.lce_models import Case

ROOT = Path(__file__).parent.parent
NATIVE = ROOT / "deploy" / "native"
_FOLDER = tempfile.TemporaryDirectory(prefix="bssl-tf-native-")


@functools.cache
def built_library(target: str) -> Path:
    """Builds the library from the sources as they are; skips the test where nothing can compile for `target`."""
    out = Path(_FOLDER.name) / target / "libbssl_tf_runtime.so"
    out.parent.mkdir(exist_ok=True)
    if target != "x86_64":
        require_or_skip(
            importlib.util.find_spec("ziglang") is not None, "no cross compiler: `pip install ziglang` brings one"
        )
    command = [sys.executable, str(NATIVE / "build.py"), "--target", target, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


HARDENED = {"addresses looked up on loading", "read-only from then on", "stack protector"}


def hardening(library: Path) -> set[str]:
    """Which of `HARDENED` a library has."""
    with library.open("rb") as file:
        read = ELFFile(file)
        tags = {tag.entry.d_tag: tag.entry.d_val for tag in read.get_section_by_name(".dynamic").iter_tags()}
        names = {symbol.name for symbol in read.get_section_by_name(".dynsym").iter_symbols()}
        now = "DT_BIND_NOW" in tags or tags.get("DT_FLAGS", 0) & 8 or tags.get("DT_FLAGS_1", 0) & 1
        relro = any(read.iter_segments("PT_GNU_RELRO"))
    found = {"addresses looked up on loading": now, "read-only from then on": relro}
    return {name for name, holds in (found | {"stack protector": "__stack_chk_fail" in names}).items() if holds}


def require_rig() -> Rig:
    """The emulated aarch64 system; skips the test where it was not made."""
    found = find_rig()
    require_or_skip(found is not None, f"no aarch64 rig: `{MAKE_COMMAND}` makes it (debootstrap and qemu-user)")
    assert found is not None
    return found


def runnable_kernels(library: Path) -> list[str]:
    """Names of the micro-kernels that this processor can run, those in use first."""
    names = ctypes.CDLL(str(library)).bssl_runtime_kernels
    names.restype = ctypes.c_char_p
    return str(names().decode()).split(",")


def runnable_isas(library: Path) -> list[str]:
    """Values of the option `isa` that this processor takes, `auto` first."""
    families = {name.partition("_")[0] for name in runnable_kernels(library)}
    return ["auto", "portable", *sorted(families & {"avx2", "avx512", "neon"})]


def interpreter(
    module: Any, library: Path, model: bytes, options: Mapping[str, str], threads: int = 1
) -> Callable[[np.ndarray], np.ndarray]:
    """A stock interpreter with our delegate.

    Args:
        module: has `Interpreter` and `load_delegate`, as ai_edge_litert.interpreter has them.
        library: the delegate's file.
        model: TFLite flatbuffer with one input and one output.
        options: of the delegate.
        threads: the interpreter's, which the delegate takes over where no option says otherwise.

    Returns:
        A function from a batch of any size that the model takes to its output.
    """
    # The interpreter keeps the delegate and calls its code while it goes; Python frees it first.
    delegate = module.load_delegate(str(library), dict(options))
    made = module.Interpreter(model_content=model, experimental_delegates=[delegate], num_threads=threads)
    return functools.partial(_run, made)


def _run(made: Any, images: np.ndarray) -> np.ndarray:
    [given] = made.get_input_details()
    [wanted] = made.get_output_details()
    if tuple(given["shape"]) != images.shape:
        made.resize_tensor_input(given["index"], images.shape)
    made.allocate_tensors()
    made.set_tensor(given["index"], images)
    made.invoke()
    return np.array(made.get_tensor(wanted["index"]))


def difference(got: np.ndarray, wanted: np.ndarray) -> str:
    """What is wrong with `got`, empty where both are the same, bit for bit."""
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return f"{got.dtype} {list(got.shape)} instead of {wanted.dtype} {list(wanted.shape)}"
    wrong = got.view(f"u{got.itemsize}") != wanted.view(f"u{wanted.itemsize}")
    if not wrong.any():
        return ""
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    furthest = np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max()
    return (
        f"{wrong.sum()} of {wrong.size} differ, by up to {furthest:.3g}; at {list(first)} "
        f"{got[first]!r} instead of {wanted[first]!r}"
    )


def described(case: Case) -> str:
    """The case's name and, so that a random one can be made again, its network."""
    return f"{case.name} ({case.network})" if case.name.startswith("random") else case.name
