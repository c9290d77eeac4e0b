"""deploy/native/build.py as a program: for every target, with every compiler that is here, and what it refuses."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bssl_tf.settings import read_toml
from tests.conftest import require_or_skip
from tests.native import HARDENED, NATIVE, ROOT, built_library, hardening

LIBRARY = "libbssl_tf_runtime.so"
EXPORTS = [
    *("bssl_runtime_kernels", "bssl_runtime_profile", "bssl_runtime_version"),
    *("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate"),
]
Build = Callable[..., "subprocess.CompletedProcess[str]"]

# Small sources with everything that the real ones have: threads, memory, a kernel for each kind of processor.
DELEGATE = """
#include <pthread.h>
#include <stdlib.h>
#define EXPORT extern "C" __attribute__((visibility("default")))
int hidden(int value) { return value + 1; }
static void* job(void* count) { __atomic_fetch_add(static_cast<int*>(count), 1, __ATOMIC_SEQ_CST); return nullptr; }
EXPORT void* tflite_plugin_create_delegate(char**, char**, size_t, void (*)(const char*)) {
  int* count = static_cast<int*>(malloc(sizeof(int)));
  *count = 0;
  pthread_t thread;
  if (pthread_create(&thread, nullptr, job, count) == 0) pthread_join(thread, nullptr);
  return count;
}
EXPORT void tflite_plugin_destroy_delegate(void* count) { free(count); }
EXPORT const char* bssl_runtime_version(void) { return BSSL_RUNTIME_VERSION; }
EXPORT const char* bssl_runtime_kernels(void) { return "portable"; }
EXPORT long bssl_runtime_profile(void*, void*, size_t) { return -1; }
"""
KERNELS = {
    "portable_a.cc": """
        #if defined(__AVX2__) || defined(__ARM_FEATURE_ATOMICS)
        #error "what not every processor has is switched on"
        #endif
        """,
    "avx2_a.cc": """
        #if defined(__x86_64__)
        #if !defined(__AVX2__) || defined(__AVX512F__) || defined(__FMA__)
        #error "not AVX2 alone"
        #endif
        #endif
        """,
    "avx512_a.cc": """
        #if defined(__x86_64__)
        #if !defined(__AVX512VPOPCNTDQ__) || !defined(__AVX512BW__)
        #error "not AVX-512"
        #endif
        #endif
        """,
    # Tuned for a processor whose additions to the instruction set must stay off.
    "neon_a.cc": """
        #if defined(__aarch64__) && (!defined(__ARM_NEON) || defined(__ARM_FEATURE_CRC32))
        #error "not NEON alone"
        #endif
        """,
}


@pytest.fixture
def native(tmp_path: Path) -> Path:
    """A folder like deploy/native with small sources."""
    folder = tmp_path / "deploy" / "native"
    (folder / "kernels").mkdir(parents=True)
    (folder.parent / "pyproject.toml").write_text('[project]\nname = "small"\nversion = "7.8"\n')
    shutil.copy(NATIVE / "build.py", folder)
    (folder.parent / "bssl_tf_deploy").mkdir()
    for name in ("__init__.py", "errors.py", "files.py", "system_errors.py", "text.py"):
        shutil.copy(ROOT / "deploy" / "bssl_tf_deploy" / name, folder.parent / "bssl_tf_deploy")
    for name in ("android", "building"):
        shutil.copytree(NATIVE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "delegate.cc").write_text(DELEGATE)
    for name, code in KERNELS.items():
        (folder / "kernels" / name).write_text(code)
    return folder


@pytest.fixture
def build(native: Path, tmp_path: Path) -> Build:
    """Runs build.py of `native` with a cache of its own."""

    def call(*arguments: Any, python: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if name != "CXX"}
        return subprocess.run(
            [sys.executable, *python, str(native / "build.py"), *map(str, arguments), "--out", str(tmp_path / LIBRARY)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=clean | {"BSSL_TF_CACHE": str(tmp_path / "cache")} | environment,
        )

    return call


@pytest.fixture(autouse=True)
def zig() -> None:
    require_or_skip(importlib.util.find_spec("ziglang") is not None, "ziglang is not installed (extra `dev`)")


def system_compilers() -> list[str]:
    return [name for name in ("g++", "clang++") if shutil.which(name)]


def readelf(*arguments: object) -> str:
    require_or_skip(shutil.which("readelf") is not None, "readelf is not installed (binutils)")
    return subprocess.run(["readelf", "-W", *map(str, arguments)], capture_output=True, text=True, check=True).stdout


def is_hardened(library: Path) -> bool:
    """Whether the table of functions' addresses is filled on loading and read-only from then on (full RELRO)."""
    return "GNU_RELRO" in readelf("-l", library) and bool(re.search(r"\(FLAGS(_1)?\).*\bNOW\b", readelf("-d", library)))


def version_of(library: Path) -> str:
    """What the library reports, to a process of its own: one that has it loaded would get that one again."""
    program = (
        "import ctypes, sys; version = ctypes.CDLL(sys.argv[1]).bssl_runtime_version; "
        "version.restype = ctypes.c_char_p; print(version().decode())"
    )
    command = [sys.executable, "-c", program, str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def fails(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The last line on stderr is an error that says all `words`; no traceback, nothing on stdout."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error[build]: ") and line.endswith(".")
    for word in words:
        assert word in line, line


@pytest.mark.parametrize("target", ["x86_64", "arm64", "android-arm64"])
def test_the_runtime_builds_for_every_target(target: str, tmp_path: Path) -> None:
    """The real sources, without a warning; looked at with another program than the one that checks them."""
    out = tmp_path / "new" / "folder" / LIBRARY
    command = [sys.executable, str(NATIVE / "build.py"), "--target", target, "--compiler", "zig", "--out", str(out)]
    done = subprocess.run([*command, "--strict", "--json"], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    assert built["size_bytes"] == out.stat().st_size < 200 * 1024
    assert built["compiler"].startswith("zig ")
    assert [path.name for path in out.parent.iterdir()] == [LIBRARY]
    assert str(ROOT).encode() not in out.read_bytes()

    symbols = [line.split() for line in readelf("--dyn-syms", out).splitlines() if re.match(r" +\d+: ", line)]
    exported = [line[7] for line in symbols if line[6] != "UND" and line[4] != "LOCAL"]
    assert sorted(exported) == EXPORTS
    imported = {
        line[7].partition("@")[0]: line[7].partition("@")[2] for line in symbols if line[6] == "UND" and line[7:]
    }
    assert sorted(imported) == built["imports"]
    versions = {tuple(map(int, name.removeprefix("GLIBC_").split("."))) for name in imported.values() if name}
    assert max(versions, default=()) == tuple(int(part) for part in built["glibc"].split(".") if part)
    assert re.search("Machine: +(.*)", readelf("-h", out))[1] == (  # type: ignore[index]
        "Advanced Micro Devices X86-64" if target == "x86_64" else "AArch64"
    )
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", readelf("-d", out)))
    assert is_hardened(out)
    assert "__stack_chk_fail" in imported
    alignments = [int(line.split()[-1], 16) for line in readelf("-l", out).splitlines() if line.startswith("  LOAD")]
    if target == "android-arm64":
        assert not versions
        assert needed == {"libc.so"}
        assert min(alignments) >= 16384
    else:
        assert max(versions) <= (2, 17)
        assert needed <= {"libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}


def test_the_runtime_says_the_packages_version(tmp_path: Path) -> None:
    command = [sys.executable, str(NATIVE / "build.py"), "--out", str(tmp_path / LIBRARY)]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    project: Any = read_toml(ROOT / "deploy" / "pyproject.toml")["project"]
    assert version_of(tmp_path / LIBRARY) == project["version"]


def test_the_version_is_taken_from_the_project_else_from_what_is_installed(
    build: Build, native: Path, tmp_path: Path
) -> None:
    names = system_compilers()
    require_or_skip(bool(names), "neither g++ nor clang++ is installed")
    assert build("--compiler", names[0]).returncode == 0
    assert version_of(tmp_path / LIBRARY) == "7.8"
    project = native.parent / "pyproject.toml"
    project.write_text("[project]\n")
    fails(build("--compiler", names[0]), f"the version is neither in {project} nor installed")
    project.unlink()
    assert build("--compiler", names[0]).returncode == 0
    assert version_of(tmp_path / LIBRARY) == importlib.metadata.version("bssl-tf-deploy")


@pytest.mark.parametrize("target", ["x86_64", "arm64", "android-arm64"])
def test_every_file_gets_the_flags_of_its_name(build: Build, target: str) -> None:
    """The sources refuse others."""
    done = build("--target", target, "--compiler", "zig", "--strict")
    assert done.returncode == 0, done.stderr
    assert f"for {target} by zig" in done.stdout
    assert ("imports: __stack_chk_fail, free, malloc, pthread_create, pthread_join" in done.stdout) is (
        target == "android-arm64"
    )


def test_compilers_of_this_machine_are_preferred_and_work(build: Build, tmp_path: Path) -> None:
    names = system_compilers()
    require_or_skip(bool(names), "neither g++ nor clang++ is installed")
    for name in names:
        done = build("--json", CXX=name)
        assert done.returncode == 0, done.stderr
        assert "zig" not in json.loads(done.stdout)["compiler"]
        assert ctypes.CDLL(str(tmp_path / LIBRARY)).bssl_runtime_version
        assert is_hardened(tmp_path / LIBRARY)
    assert "zig" not in json.loads(build("--json").stdout)["compiler"]


def test_a_compiler_for_another_machine_is_not_asked(build: Build, tmp_path: Path) -> None:
    """CXX may be set for other work; a compiler says itself what it compiles for."""
    other = tmp_path / "other-c++"
    other.write_text("#!/bin/sh\necho riscv64-linux-gnu\n")
    other.chmod(0o755)
    done = build("--json", CXX=str(other))
    assert done.returncode == 0, done.stderr
    fails(build("--compiler", other), "other-c++ does not run here or does not compile for")
    fails(build("--compiler", "no-such-compiler"), "no-such-compiler does not run here")
    # The host's compilers are no help for another processor.
    [elsewhere] = {"x86_64", "arm64"} - {json.loads(done.stdout)["target"]}
    assert "zig" in json.loads(build("--json", "--target", elsewhere, CXX="g++").stdout)["compiler"]


def test_without_any_compiler_it_says_how_to_get_one(build: Build) -> None:
    nothing = {"PATH": "/nonexistent"}
    # -S leaves out installed packages, and with them ziglang.
    for target in ("x86_64", "arm64", "android-arm64"):
        fails(build("--target", target, python=("-S",), **nothing), f"no compiler for {target}", "pip install ziglang")


def test_what_has_no_runtime_is_refused_with_the_reason(build: Build, tmp_path: Path) -> None:
    fails(build("--target", "arm32"), "no runtime for arm32", "64-bit")
    fails(build("--target", "riscv64"), "no target 'riscv64'. Choose one of x86_64, arm64, android-arm64")
    assert not (tmp_path / LIBRARY).exists()


def test_a_second_build_compiles_nothing_and_a_change_only_what_it_touches(
    build: Build, native: Path, tmp_path: Path
) -> None:
    names = system_compilers()
    require_or_skip(bool(names), "neither g++ nor clang++ is installed")
    log = tmp_path / "log"
    wrapper = tmp_path / "logging-c++"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {names[0]} "$@"\n')
    wrapper.chmod(0o755)

    def compiled() -> list[str]:
        log.write_text("")
        assert build("--compiler", wrapper).returncode == 0
        return sorted(re.findall(r"-c (\S+)", log.read_text()))

    everything = ["delegate.cc", *(f"kernels/{name}" for name in sorted(KERNELS))]
    assert compiled() == everything
    first = (tmp_path / LIBRARY).read_bytes()
    assert compiled() == []
    assert (tmp_path / LIBRARY).read_bytes() == first
    (native / "delegate.cc").write_text(
        DELEGATE.replace("return value + 1", "return value + 2").replace("count = 0", "count = 1")
    )
    assert compiled() == ["delegate.cc"]
    assert (tmp_path / LIBRARY).read_bytes() != first
    (native / "some.h").write_text("// any file may include it\n")
    assert compiled() == everything
    (native / "some.h").unlink()
    (native / "delegate.cc").write_text(DELEGATE)
    # All of it was compiled before.
    assert compiled() == []
    assert (tmp_path / LIBRARY).read_bytes() == first


@pytest.mark.parametrize("target", ["arm64", "android-arm64"])
def test_the_same_sources_give_the_same_bytes_anywhere(build: Build, tmp_path: Path, target: str) -> None:
    contents = []
    for number in range(2):
        cache = tmp_path / f"cache{number}"
        assert build("--target", target, "--compiler", "zig", BSSL_TF_CACHE=str(cache)).returncode == 0
        contents.append((tmp_path / LIBRARY).read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_done_without(build: Build, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    # zig keeps a cache of its own, in a home that may not be there.
    done = build("--compiler", "zig", BSSL_TF_CACHE=str(tmp_path / "file"), HOME="/dev/null", XDG_CACHE_HOME="")
    assert done.returncode == 0, done.stderr


# Target, extra.cc, what the error says. The library calls `extra`, as unused code would be thrown away.
BROKEN = {
    "does-not-compile": ("x86_64", "const char* extra( {", "cannot compile extra.cc"),
    "warns": ("x86_64", 'const char* extra() { int unused; return ""; }', "cannot compile extra.cc"),
    "exports-more": (
        "x86_64",
        '__attribute__((visibility("default"))) const char* extra() { return ""; }',
        "exports other names than it has to: ['_Z5extrav']",
    ),
    "too-big": (
        "arm64",
        'const char* extra() { static const char text[300000] = "x"; return text; }',
        "bytes, more than 204800",
    ),
    "needs-libstdc++": ("x86_64", "const char* extra() { return new char[9]; }", "cannot link the library"),
    "not-on-android": (
        "android-arm64",
        'extern "C" char* ttyname(int);\nconst char* extra() { return ttyname(0); }',
        "cannot link the library",
    ),
    "no-header-on-android": ("android-arm64", "#include <dlfcn.h>", "cannot compile extra.cc"),
}


def call_extra(native: Path, code: str) -> None:
    (native / "extra.cc").write_text(code)
    (native / "delegate.cc").write_text(
        "const char* extra();\n" + DELEGATE.replace("return BSSL_RUNTIME_VERSION", "return extra()")
    )


@pytest.mark.parametrize("name", BROKEN)
def test_sources_that_make_no_good_library_are_refused_and_leave_the_old_one(
    build: Build, native: Path, tmp_path: Path, name: str
) -> None:
    target, code, message = BROKEN[name]
    call_extra(native, code)
    (tmp_path / LIBRARY).write_bytes(b"old")
    fails(build("--target", target, "--compiler", "zig", "--strict"), message)
    assert (tmp_path / LIBRARY).read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"deploy", "cache", LIBRARY}


def test_a_library_that_needs_libstdcxx_is_refused(build: Build, native: Path) -> None:
    """Where a compiler links it without being asked."""
    require_or_skip(shutil.which("g++") is not None, "g++ is not installed")
    call_extra(native, "const char* extra() { return new char[9]; }")
    fails(build("--compiler", "g++"), "needs ['libstdc++.so.6']")


def test_a_library_with_writable_addresses_of_functions_is_refused(build: Build, tmp_path: Path) -> None:
    """Where a compiler is set up to look them up late."""
    require_or_skip(shutil.which("g++") is not None, "g++ is not installed")
    for words in ("-Wl,-z,lazy", "-Wl,-z,norelro"):
        lazy = tmp_path / "lazy-c++"
        lazy.write_text(f'#!/bin/sh\nexec g++ "$@" {words}\n')
        lazy.chmod(0o755)
        fails(build("--compiler", lazy), "leaves the addresses of functions writable")


def test_a_library_with_an_unprotected_stack_is_refused(build: Build, tmp_path: Path) -> None:
    """Where a compiler is set up so, or does not know the option."""
    require_or_skip(shutil.which("g++") is not None, "g++ is not installed")
    bare = tmp_path / "bare-c++"
    bare.write_text('#!/bin/sh\nexec g++ "$@" -fno-stack-protector\n')
    bare.chmod(0o755)
    fails(build("--compiler", bare), "does not notice when its stack is overrun")


@pytest.mark.parametrize("target", ["x86_64", "arm64", pytest.param("android-arm64", marks=pytest.mark.slow)])
def test_the_real_library_is_hardened(target: str) -> None:
    assert hardening(built_library(target)) == HARDENED


def test_without_pyelftools_nothing_unchecked_is_handed_out(build: Build, tmp_path: Path) -> None:
    names = system_compilers()
    require_or_skip(bool(names), "neither g++ nor clang++ is installed")
    fails(build("--compiler", names[0], python=("-S",)), "pyelftools is not installed", "pip install pyelftools")
    assert not (tmp_path / LIBRARY).exists()


@pytest.mark.parametrize(
    ("umask", "options", "mode"), [(0o022, (), 0o644), (0o077, (), 0o600), (0o027, ("--runner",), 0o750)]
)
def test_the_file_has_the_permissions_that_the_umask_leaves(
    tmp_path: Path, umask: int, options: tuple[str, ...], mode: int
) -> None:
    """And the program does not change the umask, which its other threads would notice."""
    out = tmp_path / "made"
    command = [sys.executable, str(NATIVE / "build.py"), *options, "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=600, umask=umask)
    assert out.stat().st_mode & 0o777 == mode
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_place_that_cannot_be_written_is_told(build: Build, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = build("--compiler", "zig", "--out", tmp_path / "file" / "library.so")
    assert done.returncode == 0  # the fixture's --out comes last
    (tmp_path / LIBRARY).unlink()
    (tmp_path / LIBRARY).mkdir()
    fails(build("--compiler", "zig"), "cannot write", "Choose another --out")
