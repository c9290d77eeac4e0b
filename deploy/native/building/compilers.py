"""Which compiler makes the runtime for a target, and how it is called."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from native.building.targets import (
    ANDROID_API,
    ANDROID_PAGE,
    ANDROID_TARGETS,
    JNI_LIBRARY,
    LIBRARY,
    MACHINES,
    NATIVE,
    TARGETS,
    BuildError,
    Product,
)

_ZIG_TARGETS = {"x86_64": "x86_64-linux-gnu.2.17", "arm64": "aarch64-linux-gnu.2.17"}
# Addresses of functions are looked up when the library is loaded, and the table of them is read-only from then on.
_HARDENED = ("relro", "now")


@dataclass(frozen=True)
class Compiler:
    """How to compile for a target.

    Attributes:
        target: one of `TARGETS`.
        compile: command that turns FILE.cc into FILE.o when flags, "-c", FILE.cc, "-o", FILE.o are added.
        link: command that links when "-o", LIBRARY and the objects are added.
        version: name and version.
        is_zig: whether it is zig's, which brings its own libraries and so gives the same everywhere.
        product: what this is for.
    """

    target: str
    compile: tuple[str, ...]
    link: tuple[str, ...]
    version: str
    is_zig: bool
    product: Product

    @property
    def makes(self) -> str:
        """What is made, in words."""
        return "runner" if self.product == "runner" else "library"

    def tune_for(self, processor: str) -> tuple[str, ...]:
        """Flags that order instructions for `processor` and use none that others lack."""
        if self.is_zig and self.target in _ZIG_TARGETS:
            # zig takes -mtune for -mcpu.
            return ("-Xclang", "-tune-cpu", "-Xclang", processor)
        return (f"-mtune={processor}",)


def find_compiler(target: str, wanted: str | None = None, product: Product = "library") -> Compiler:
    """The compiler to build with.

    Args:
        target: one of `TARGETS`.
        wanted: a command, or `zig`; None: the first of $CXX, c++, g++, clang++ and zig that runs here and compiles for
            `target`.
        product: what it is to make.

    Raises:
        BuildError: there is none, or `wanted` is not one for `target`.
    """
    if target not in TARGETS:
        if target.startswith("arm"):
            raise BuildError(
                f"there is no runtime for {target}: an interpreter hands its operators over in a way that is only "
                "the same in all versions on 64-bit processors",
                "Use a 64-bit system, and --target arm64",
            )
        raise BuildError(f"there is no target {target!r}", f"Choose one of {', '.join(TARGETS)}")
    if wanted == "zig":
        return _zig(target, product)
    if wanted is not None:
        found = _system_compiler(shlex.split(wanted), target, product)
        if found is None:
            raise BuildError(f"{wanted} does not run here or does not compile for {target}", "Name another, or zig")
        return found
    for command in (shlex.split(os.environ.get("CXX", "")), ["c++"], ["g++"], ["clang++"]):
        found = _system_compiler(command, target, product)
        if found is not None:
            return found
    return _zig(target, product)


def _system_compiler(command: Sequence[str], target: str, product: Product) -> Compiler | None:
    """`command` if it runs and compiles for `target`; never for Android, for which only zig is set up here."""
    if not command or target in ANDROID_TARGETS or shutil.which(command[0]) is None:
        return None
    try:
        answers = [
            subprocess.run([*command, question], capture_output=True, text=True, timeout=60, check=True).stdout.strip()
            for question in ("-dumpmachine", "--version")
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    machine, version = answers
    if not re.match(rf"{MACHINES[target]}-.*linux-gnu$", machine) or not version:
        return None
    link = (
        *(*command, *_kind(product), "-s", "-pthread"),
        # Otherwise g++ and clang++ would ask for libstdc++, of which nothing is used.
        *("-static-libgcc", "-Wl,--as-needed", "-Wl,-z,defs", "-Wl,-z,noexecstack"),
        *(f"-Wl,-z,{word}" for word in _HARDENED),
    )
    return Compiler(target, tuple(command), link, version.splitlines()[0], is_zig=False, product=product)


def _zig(target: str, product: Product) -> Compiler:
    spec = importlib.util.find_spec("ziglang")
    if spec is None or not spec.submodule_search_locations:
        raise BuildError(
            f"there is no compiler for {target} here (the package ziglang is not installed either)",
            f"Install one with `{Path(sys.executable).name} -m pip install ziglang`",
        )
    zig = (sys.executable, "-m", "ziglang")
    version = f"zig {importlib.metadata.version('ziglang')}"
    if target in _ZIG_TARGETS:
        command = (*zig, "c++", "-target", _ZIG_TARGETS[target])
        link: tuple[str, ...] = (
            *(*command, *_kind(product), "-s", "-nostdlib++", "-pthread", "-Wl,-z,defs"),
            *(f"-Wl,-z,{word}" for word in _HARDENED),
        )
        return Compiler(target, command, link, version, is_zig=True, product=product)
    # zig has no C library of Android: its clang and its linker are called directly, with headers and stubs of our own.
    headers = Path(spec.submodule_search_locations[0], "lib", "include")
    own = NATIVE / ("runner/android" if product == "runner" else "android")
    clang = (
        *(*zig, "clang", f"--target={MACHINES[target]}-linux-android{ANDROID_API}"),
        *("-nostdinc", "-isystem", str(own), "-isystem", str(headers)),
        # No calls into a compiler's run-time library, which would have to be linked.
        *(("-mno-outline-atomics",) if MACHINES[target] == "aarch64" else ()),
    )
    page = str(ANDROID_PAGE)
    program = ("-pie", "--dynamic-linker=/system/bin/linker64")
    kind = program if product == "runner" else ("-shared", "-soname", _soname(product))
    link = (
        *(*zig, "ld.lld", *kind, "-s", "--hash-style=both", "-z", "defs", "-z", "noexecstack"),
        *("-z", f"max-page-size={page}", "-z", f"common-page-size={page}", "--as-needed"),
        *(part for word in _HARDENED for part in ("-z", word)),
    )
    return Compiler(target, clang, link, version, is_zig=True, product=product)


def _kind(product: Product) -> tuple[str, ...]:
    return ("-pie",) if product == "runner" else ("-shared", f"-Wl,-soname,{_soname(product)}")


def _soname(product: Product) -> str:
    return JNI_LIBRARY if product == "jni" else LIBRARY
