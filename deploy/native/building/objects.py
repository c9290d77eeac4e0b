"""Compiles and links, each only where what it is made from has changed.

Objects and libraries are kept under a hash of all that they are made from, the compiler's version included.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bssl_tf_deploy.errors import StorageError
from bssl_tf_deploy.files import cache_dir, new_file
from native.building.compilers import Compiler
from native.building.targets import (
    ANDROID_IMPORTS,
    ANDROID_TARGETS,
    MACHINES,
    NATIVE,
    RUNNER_IMPORTS,
    BuildError,
    headers,
    jni_headers,
    sources,
    version,
)

_FLAGS = (
    *("-O3", "-std=c++17", "-fPIC", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-fvisibility=hidden"),
    # The same rounding on every machine: no fused multiply-add that the source does not ask for.
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra"),
)
# Kernels have none: all that they write is of a size known when they are compiled.
_PROTECTED = "-fstack-protector-strong"
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vpopcntdq", "-mprefer-vector-width=512")
# By machine, then by how a kernel's file name begins.
_KERNEL_FLAGS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {"avx2": ("-mavx2",), "avx512": _AVX512},
    "aarch64": {},
}
_TUNED = {"neon": "cortex-a72"}


def make(compiler: Compiler, folder: Path, *, strict: bool) -> Path:
    """Compiles what changed and links.

    Args:
        compiler: for what is to be made.
        folder: where objects are kept.
        strict: treat warnings as errors.

    Returns:
        The library or program, in `folder`.

    Raises:
        BuildError: the compiler or linker fails.
    """
    flags = (*_FLAGS, f'-DBSSL_RUNTIME_VERSION="{version()}"', *(["-Werror"] if strict else []))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as pool:
        files = sources(compiler.product)
        objects = list(pool.map(lambda source: _compile(compiler, flags, source, folder), files))
    return _link(compiler, objects, folder)


def android_imports(compiler: Compiler) -> dict[str, tuple[str, ...]]:
    """By library of Android: the functions that may be taken from it."""
    return RUNNER_IMPORTS if compiler.product == "runner" else {"libc.so": ANDROID_IMPORTS}


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """native/ of the cache, or a temporary folder when nothing can be kept."""
    try:
        folder = (cache_dir() / "native").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except (OSError, StorageError):  # no home
        usable = False
    if usable:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def copy(source: Path, out: Path, mode: int) -> None:
    """Copies a file, whole or not at all, with the permissions `mode` as far as the user's umask leaves them."""
    descriptor, temporary = new_file(out.parent, f".{out.name}.", ".tmp", mode)
    try:
        with os.fdopen(descriptor, "wb") as file, source.open("rb") as content:
            shutil.copyfileobj(content, file)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _compile(compiler: Compiler, flags: Sequence[str], source: Path, folder: Path) -> Path:
    if source.parent.name == "kernels":
        family = source.name.partition("_")[0]
        extra = _KERNEL_FLAGS[MACHINES[compiler.target]].get(family, ())
        if family in _TUNED and MACHINES[compiler.target] == "aarch64":
            extra = (*extra, *compiler.tune_for(_TUNED[family]))
    else:
        extra = (_PROTECTED,)
    if source.parent.name == "jni":
        # Our jni_md.h, which jni.h includes, is for the target; the JDK's own is for this machine.
        extra = (*extra, "-isystem", "jni", "-isystem", str(jni_headers()))
    arguments = (*flags, *extra)
    # All headers, because which of them a file includes is not known.
    words, files = [compiler.version, *compiler.compile, *arguments], [NATIVE / source, *headers()]
    key = _hash(words, files)
    made = folder / f"{source.stem}-{key}.o"
    if not made.exists():
        with _temporary(folder, ".o") as temporary:
            # By relative name and from this folder, so that no path of this machine gets into the object.
            _run((*compiler.compile, *arguments, "-c", str(source), "-o", str(temporary)), f"compile {source}", folder)
            if _hash(words, files) != key:
                raise BuildError(f"{source} or a header was changed while it was compiled", "Build again")
            temporary.replace(made)
    return made


def _link(compiler: Compiler, objects: Sequence[Path], folder: Path) -> Path:
    key = _hash([compiler.version, *compiler.link, *(path.name for path in objects)], [])
    made = folder / f"{compiler.target}-{key}.so"
    if made.exists():
        return made
    with _temporary(folder, ".so") as temporary:
        system = ["-ldl"] if compiler.product == "runner" else []
        if compiler.target in ANDROID_TARGETS:
            stubs = android_imports(compiler).items()
            system = [str(_android_stub(compiler, folder, library, names)) for library, names in stubs]
        _run((*compiler.link, "-o", str(temporary), *map(str, objects), *system), f"link the {compiler.makes}", folder)
        temporary.replace(made)
    return made


def _android_stub(compiler: Compiler, folder: Path, library: str, names: Sequence[str]) -> Path:
    """A library with the names that Android's has, to link against; what they do does not matter."""
    code = "".join(f'extern "C" void stub_{n}() __asm__("{n}");\nvoid stub_{n}() {{}}\n' for n in names)
    stub = folder / f"{_hash([compiler.version, *compiler.compile, code], [])}-{library}"
    if not stub.exists():
        with _temporary(folder, ".cc") as source, _temporary(folder, ".o") as made, _temporary(folder, ".so") as linked:
            source.write_text(code, encoding="ascii")
            _run((*compiler.compile, "-fPIC", "-c", str(source), "-o", str(made)), "compile Android's stub", folder)
            linker = compiler.link[: compiler.link.index("ld.lld") + 1]
            _run((*linker, "-shared", "-soname", library, str(made), "-o", str(linked)), "link Android's stub", folder)
            linked.replace(stub)
    return stub


def _run(command: Sequence[str], what: str, folder: Path) -> None:
    surroundings = os.environ | _zig_cache(folder)
    done = subprocess.run(command, cwd=NATIVE, env=surroundings, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["killed"]
        raise BuildError(
            f"{shlex.join(command[:4])} ... cannot {what} ({lines[0].strip():.200})",
            "Try another compiler, with --compiler or in CXX; `pip install ziglang` provides one",
            done.stderr,
        )


@functools.cache
def _zig_cache(folder: Path) -> dict[str, str]:
    """Where zig, which does not work without a cache, is to keep it, if the place of its own cannot be written."""
    if os.environ.get("ZIG_GLOBAL_CACHE_DIR"):
        return {}
    base = os.environ.get("XDG_CACHE_HOME")
    own = Path(base, "zig") if base else Path(os.environ.get("HOME") or "/nowhere", ".cache", "zig")
    with contextlib.suppress(OSError):
        own.mkdir(parents=True, exist_ok=True)
        if os.access(own, os.W_OK):
            return {}
    return {"ZIG_GLOBAL_CACHE_DIR": str(folder / "zig")}


def _hash(words: Sequence[str], files: Sequence[Path]) -> str:
    digest = hashlib.sha256("\0".join(words).encode())
    for file in files:
        content = file.read_bytes()
        digest.update(f"\0{file.relative_to(NATIVE).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:24]


@contextlib.contextmanager
def _temporary(folder: Path, suffix: str) -> Iterator[Path]:
    """A name for a file in `folder`, removed at the end if it still stands."""
    descriptor, name = tempfile.mkstemp(suffix=suffix, dir=folder)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
