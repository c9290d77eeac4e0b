"""Builds the device runtime, libbssl_tf_runtime.so, from the C++ beside this file. Needs nothing but Python.

    python deploy/native/build.py --target arm64 --out libbssl_tf_runtime.so
    python deploy/native/build.py --target android-arm64 --runner --out bssl_tf_runner   # the program in runner/

| target | compilers | what is built runs where there is |
|---|---|---|
| x86_64, arm64 | $CXX; else c++, g++ or clang++; else zig | the compiler's glibc; with zig 2.17 |
| android-arm64 | zig (`pip install ziglang`) | Android 7 or newer, 64 bit |

The compilers of this machine are asked what they compile for, and used for that only; zig compiles for every target.
What comes out is read again and checked: its size, what it exports, what it imports, and from which libraries.

Objects and libraries are kept in native/ of the cache (`bssl_tf_deploy.files.cache_dir`) under a hash of all that they
are made from, so that nothing is compiled twice.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

TARGETS = ("x86_64", "arm64", "android-arm64")
LIBRARY = "libbssl_tf_runtime.so"
RUNNER = "bssl_tf_runner"
EXPORTS = {
    "tflite_plugin_create_delegate",
    "tflite_plugin_destroy_delegate",
    "bssl_runtime_version",
    "bssl_runtime_kernels",
    "bssl_runtime_profile",
}
MAX_BYTES = 200 * 1024
# manylinux2014's, older than every system that has a Python for an interpreter's wheel.
ZIG_GLIBC = (2, 17)
# Devices with pages of 16 KiB do not load a library that is laid out for smaller ones.
ANDROID_PAGE = 16384
ANDROID_API = 24  # Android 7
# Every function that the runtime may ask of Android's libc.so. Who needs another one adds it here, once it is sure that
# Android has it, and to the headers in android/.
ANDROID_IMPORTS = (
    *("free", "malloc", "memchr", "memcmp", "memcpy", "memmove", "memset", "posix_memalign", "snprintf", "strcmp"),
    *("strlen", "strtol", "pthread_create", "pthread_join", "pthread_cond_broadcast", "pthread_cond_destroy"),
    *("pthread_cond_signal", "pthread_cond_wait", "pthread_mutex_destroy", "pthread_mutex_lock"),
    *("pthread_mutex_unlock", "sched_yield", "clock_gettime"),
)
# The same for the runner, by library; its headers are in runner/android/.
RUNNER_IMPORTS = {
    "libc.so": (
        *("__errno", "__libc_init", "calloc", "clock_gettime", "dprintf", "exit", "fclose", "fflush", "fopen", "fread"),
        *("free", "fwrite", "memcpy", "memset", "printf", "putchar", "puts", "snprintf", "strchr", "strcmp"),
        *("strerror", "strlen", "strstr", "strtol", "vsnprintf"),
    ),
    "libdl.so": ("dlerror", "dlopen", "dlsym"),
}

_NATIVE = Path(__file__).resolve().parent
# The package, of which only what needs the standard library is used: beside this folder in a checkout, around it where
# it is installed.
_PACKAGES = [str(folder) for folder in _NATIVE.parents[:2] if (folder / "bssl_tf_deploy" / "files.py").is_file()]
_ZIG_TARGETS = {"x86_64": "x86_64-linux-gnu.2.17", "arm64": "aarch64-linux-gnu.2.17"}
_MACHINES = {"x86_64": "x86_64", "arm64": "aarch64", "android-arm64": "aarch64"}
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
_LINUX_LIBRARIES = re.compile(r"lib(?:c\.so\.6|m\.so\.6|pthread\.so\.0)|ld-linux-(?:x86-64\.so\.2|aarch64\.so\.1)")

# Types of sections in an ELF file.
_DYNAMIC, _SYMBOLS, _VERSIONS_NEEDED, _VERSIONS = 6, 11, 0x6FFFFFFE, 0x6FFFFFFF

_FLAGS = (
    *("-O3", "-std=c++17", "-fPIC", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-fvisibility=hidden"),
    # The same rounding on every machine: no fused multiply-add that the source does not ask for.
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra"),
)
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vpopcntdq", "-mprefer-vector-width=512")
# By machine, then by how a kernel's file name begins.
_KERNEL_FLAGS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "x86_64": (("avx2_", ("-mavx2",)), ("avx512_", _AVX512)),
    "aarch64": (("neon_", ("-mtune=cortex-a72",)),),
}


class BuildError(Exception):
    """The library cannot be built here; one line: what happened, and what to do next.

    Args:
        what: without a final full stop.
        next_step: an imperative sentence without a final full stop.
        output: what the compiler said, for the terminal.
    """

    def __init__(self, what: str, next_step: str, output: str = "") -> None:
        super().__init__(f"error[build]: {' '.join(what.split())}. {' '.join(next_step.split())}.")
        self.output = output


@dataclass(frozen=True)
class Built:
    """A library or program and what is known of it.

    Attributes:
        library: its file.
        target: one of `TARGETS`.
        compiler: name and version.
        glibc: the oldest that has all that it imports, such as "2.17"; "" on Android.
        size_bytes: of the file.
        imports: names of the functions that it takes from the system, sorted.
    """

    library: str
    target: str
    compiler: str
    glibc: str
    size_bytes: int
    imports: tuple[str, ...]


@dataclass(frozen=True)
class Compiler:
    """How to compile for a target.

    Attributes:
        compile: command that turns FILE.cc into FILE.o when flags, "-c", FILE.cc, "-o", FILE.o are added.
        link: command that links when "-o", LIBRARY and the objects are added.
        version: name and version.
        is_zig: whether it is zig's, which brings its own libraries and so gives the same everywhere.
        runner: whether this is for the runner, not the library.
    """

    compile: tuple[str, ...]
    link: tuple[str, ...]
    version: str
    is_zig: bool
    runner: bool


@dataclass(frozen=True)
class Elf:
    """What the dynamic linker will see of a library.

    Attributes:
        machine: e_machine.
        page: alignment of the loaded segments, bytes; the smallest.
        needed: libraries.
        imports: name of an undefined symbol -> its version, or "".
        exports: names of defined symbols.
    """

    machine: int
    page: int
    needed: tuple[str, ...]
    imports: dict[str, str]
    exports: frozenset[str]

    @property
    def glibc(self) -> tuple[int, ...]:
        """The newest version of glibc that a symbol asks for; () without any."""
        matches = (re.fullmatch(r"GLIBC_([0-9.]+)", version) for version in self.imports.values())
        return max((tuple(map(int, match[1].split("."))) for match in matches if match), default=())


def host() -> str | None:
    """The target that this machine is, or None: another system than Linux, or a processor of 32 bits."""
    if sys.platform != "linux" or struct.calcsize("P") != 8 or hasattr(sys, "getandroidapilevel"):
        return None
    return {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine())


def build(target: str, out: Path, compiler: str | None = None, *, strict: bool = False, runner: bool = False) -> Built:
    """Builds the library for `target` and writes it to `out`, whole or not at all.

    Args:
        target: one of `TARGETS`.
        out: the file to write; folders above it are made.
        compiler: a command, or `zig`; None chooses (see the head of this file).
        strict: treat warnings as errors.
        runner: build the runner instead, a program.

    Raises:
        BuildError: there is no compiler for this target, it fails, or what it made is not as it has to be.
        OSError: `out` cannot be written.
    """
    chosen = find_compiler(target, compiler, runner=runner)
    flags = (*_FLAGS, "-Werror") if strict else _FLAGS
    with _work_folder() as folder:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as pool:
            files = sources(runner)
            objects = list(pool.map(lambda source: _compile(chosen, target, flags, source, folder), files))
        library = _link(chosen, target, objects, folder)
        elf = read_elf(library)
        _check(library, elf, target, chosen)
        out.parent.mkdir(parents=True, exist_ok=True)
        _copy(library, out, 0o777 if runner else 0o666)
    return Built(
        str(out),
        target,
        chosen.version,
        ".".join(map(str, elf.glibc)),
        out.stat().st_size,
        tuple(sorted(elf.imports)),
    )


def sources(runner: bool = False) -> list[Path]:
    """The C++ files to compile, relative to this folder."""
    patterns = ("runner/*.cc",) if runner else ("*.cc", "kernels/*.cc")
    return sorted(path.relative_to(_NATIVE) for pattern in patterns for path in _NATIVE.glob(pattern))


def find_compiler(target: str, wanted: str | None = None, *, runner: bool = False) -> Compiler:
    """The compiler that `build` uses. Raises `BuildError` when there is none, or `wanted` is not one for `target`."""
    if target not in TARGETS:
        if target.startswith("arm"):
            raise BuildError(
                f"there is no runtime for {target}: an interpreter hands its operators over in a way that is only "
                "the same in all versions on 64-bit processors",
                "Use a 64-bit system, and --target arm64",
            )
        raise BuildError(f"there is no target {target!r}", f"Choose one of {', '.join(TARGETS)}")
    if wanted == "zig":
        return _zig(target, runner)
    if wanted is not None:
        found = _system_compiler(shlex.split(wanted), target, runner)
        if found is None:
            raise BuildError(f"{wanted} does not run here or does not compile for {target}", "Name another, or zig")
        return found
    for command in (shlex.split(os.environ.get("CXX", "")), ["c++"], ["g++"], ["clang++"]):
        found = _system_compiler(command, target, runner)
        if found is not None:
            return found
    return _zig(target, runner)


def read_elf(path: Path) -> Elf:
    """Reads a 64-bit little-endian shared library or program. Raises `BuildError` when it is none."""
    content = path.read_bytes()
    try:
        return _read_elf(content)
    except (struct.error, ValueError, KeyError, IndexError) as error:
        raise BuildError(f"{path} is no 64-bit ELF library", "Try another compiler") from error


def _read_elf(content: bytes) -> Elf:
    if content[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not ELF, 64-bit, little-endian")
    (machine,) = struct.unpack_from("<H", content, 18)
    segments_at, sections_at = struct.unpack_from("<QQ", content, 32)
    segment_size, segment_count, section_size, section_count = struct.unpack_from("<HHHH", content, 54)
    segments = [struct.unpack_from("<IIQQQQQQ", content, segments_at + i * segment_size) for i in range(segment_count)]
    # Type -> offset, size, number of the section with its names, number of entries.
    sections = {}
    starts = []
    for i in range(section_count):
        _, kind, _, _, start, size, link, info, _, _ = struct.unpack_from(
            "<IIQQQQIIQQ", content, sections_at + i * section_size
        )
        sections[kind] = (start, size, link, info)
        starts.append(start)

    def text(strings: int, at: int) -> str:
        start = starts[strings] + at
        return content[start : content.index(b"\0", start)].decode("ascii")

    start, size, strings, _ = sections[_DYNAMIC]
    entries = [struct.unpack_from("<qQ", content, at) for at in range(start, start + size, 16)]
    needed = tuple(text(strings, value) for tag, value in entries if tag == 1)

    names: dict[int, str] = {}  # of versions
    if _VERSIONS_NEEDED in sections:
        at, _, strings, libraries = sections[_VERSIONS_NEEDED]
        for _ in range(libraries):
            _, count, _, first, following = struct.unpack_from("<HHIII", content, at)
            entry = at + first
            for _ in range(count):
                _, _, number, name_at, after = struct.unpack_from("<IHHII", content, entry)
                names[number] = text(strings, name_at)
                entry += after
            at += following

    imports, exports = {}, set()
    start, size, strings, _ = sections[_SYMBOLS]
    for i in range(1, size // 24):
        name_at, info, _, section = struct.unpack_from("<IBBH", content, start + 24 * i)
        name = text(strings, name_at)
        if section == 0:
            number = struct.unpack_from("<H", content, sections[_VERSIONS][0] + 2 * i)[0] if names else 0
            imports[name] = names.get(number & 0x7FFF, "")
        elif info >> 4 != 0:  # not local
            exports.add(name)
    page = min(segment[7] for segment in segments if segment[0] == 1)
    return Elf(machine, page, needed, imports, frozenset(exports))


def _system_compiler(command: Sequence[str], target: str, runner: bool) -> Compiler | None:
    """`command` if it runs and compiles for `target`; never for Android, which needs what only zig is told here."""
    if not command or target not in _ZIG_TARGETS or shutil.which(command[0]) is None:
        return None
    try:
        answers = [
            subprocess.run([*command, question], capture_output=True, text=True, timeout=60, check=True).stdout.strip()
            for question in ("-dumpmachine", "--version")
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    machine, version = answers
    if not re.match(rf"{_MACHINES[target]}-.*linux-gnu$", machine) or not version:
        return None
    link = (
        *(*command, *(["-pie"] if runner else ["-shared", f"-Wl,-soname,{LIBRARY}"]), "-s", "-pthread"),
        # Otherwise g++ and clang++ would ask for libstdc++, of which nothing is used.
        *("-static-libgcc", "-Wl,--as-needed", "-Wl,-z,defs", "-Wl,-z,noexecstack"),
    )
    return Compiler(tuple(command), link, version.splitlines()[0], is_zig=False, runner=runner)


def _zig(target: str, runner: bool) -> Compiler:
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
            *command,
            *(["-pie"] if runner else ["-shared", f"-Wl,-soname,{LIBRARY}"]),
            "-s",
            "-nostdlib++",
            "-pthread",
            "-Wl,-z,defs",
        )
        return Compiler(command, link, version, is_zig=True, runner=runner)
    # zig has no C library of Android: its clang and its linker are called directly, with headers and stubs of our own.
    headers = Path(spec.submodule_search_locations[0], "lib", "include")
    own = _NATIVE / ("runner/android" if runner else "android")
    clang = (
        *(*zig, "clang", f"--target=aarch64-linux-android{ANDROID_API}"),
        *("-nostdinc", "-isystem", str(own), "-isystem", str(headers)),
        # No calls into a compiler's run-time library, which would have to be linked.
        *("-mno-outline-atomics", "-fno-stack-protector"),
    )
    page = str(ANDROID_PAGE)
    kind = ("-pie", "--dynamic-linker=/system/bin/linker64") if runner else ("-shared", "-soname", LIBRARY)
    link = (
        *(*zig, "ld.lld", *kind, "-s", "--hash-style=both", "-z", "defs", "-z", "noexecstack"),
        *("-z", f"max-page-size={page}", "-z", f"common-page-size={page}", "--as-needed"),
    )
    return Compiler(clang, link, version, is_zig=True, runner=runner)


def _compile(compiler: Compiler, target: str, flags: Sequence[str], source: Path, folder: Path) -> Path:
    machine = _MACHINES[target]
    kernel = source.name if source.parent.name == "kernels" else ""
    extra = next((own for prefix, own in _KERNEL_FLAGS[machine] if kernel.startswith(prefix)), ())
    if compiler.is_zig and target in _ZIG_TARGETS:
        # zig takes -mtune for -mcpu, which would let the compiler use what older processors lack.
        tunes = [flag.removeprefix("-mtune=") for flag in extra if flag.startswith("-mtune=")]
        extra = tuple(flag for flag in extra if not flag.startswith("-mtune="))
        for tune in tunes:
            extra = (*extra, "-Xclang", "-tune-cpu", "-Xclang", tune)
    arguments = (*flags, *extra)
    # All headers, because which of them a file includes is not known.
    headers = [
        path for path in sorted(_NATIVE.glob("**/*.*")) if path.suffix in (".h", ".inc") and path.parent.name != "tests"
    ]
    words, files = [compiler.version, *compiler.compile, *arguments], [_NATIVE / source, *headers]
    key = _hash(words, files)
    made = folder / f"{source.stem}-{key}.o"
    if not made.exists():
        with _temporary(folder, ".o") as temporary:
            # By relative name and from this folder, so that no path of this machine gets into the object.
            _run((*compiler.compile, *arguments, "-c", str(source), "-o", str(temporary)), f"compile {source}")
            if _hash(words, files) != key:
                raise BuildError(f"{source} or a header was changed while it was compiled", "Build again")
            temporary.replace(made)
    return made


def _link(compiler: Compiler, target: str, objects: Sequence[Path], folder: Path) -> Path:
    made = folder / f"{target}-{_hash([compiler.version, *compiler.link, *(path.name for path in objects)], [])}.so"
    if made.exists():
        return made
    with _temporary(folder, ".so") as temporary:
        system = ["-ldl"] if compiler.runner else []
        if target == "android-arm64":
            stubs = _android_imports(compiler).items()
            system = [str(_android_stub(compiler, folder, library, names)) for library, names in stubs]
        _run((*compiler.link, "-o", str(temporary), *map(str, objects), *system), f"link the {_kind(compiler)}")
        temporary.replace(made)
    return made


def _android_imports(compiler: Compiler) -> dict[str, tuple[str, ...]]:
    return RUNNER_IMPORTS if compiler.runner else {"libc.so": ANDROID_IMPORTS}


def _kind(compiler: Compiler) -> str:
    return "runner" if compiler.runner else "library"


def _android_stub(compiler: Compiler, folder: Path, library: str, names: Sequence[str]) -> Path:
    """A library with the names that Android's has, to link against; what they do does not matter."""
    code = "".join(f'extern "C" void stub_{n}() __asm__("{n}");\nvoid stub_{n}() {{}}\n' for n in names)
    stub = folder / f"{_hash([compiler.version, code], [])}-{library}"
    if not stub.exists():
        with _temporary(folder, ".cc") as source, _temporary(folder, ".o") as made, _temporary(folder, ".so") as linked:
            source.write_text(code, encoding="ascii")
            _run((*compiler.compile, "-fPIC", "-c", str(source), "-o", str(made)), "compile Android's stub")
            linker = compiler.link[: compiler.link.index("ld.lld") + 1]
            _run((*linker, "-shared", "-soname", library, str(made), "-o", str(linked)), "link Android's stub")
            linked.replace(stub)
    return stub


def _check(library: Path, elf: Elf, target: str, compiler: Compiler) -> None:
    """Raises `BuildError` unless the library or program is what `target` needs."""

    def require(holds: bool, what: str) -> None:
        if not holds:
            raise BuildError(
                f"the {_kind(compiler)} for {target} from {compiler.version} {what}", "Try another compiler, or zig"
            )

    size = library.stat().st_size
    require(elf.machine == _ELF_MACHINES[_MACHINES[target]], "is for another processor")
    require(size <= MAX_BYTES, f"has {size} bytes, more than {MAX_BYTES}")
    # What a program exports is its C library's affair.
    exports = elf.exports if compiler.runner else EXPORTS
    require(elf.exports == exports, f"exports other names than it has to: {sorted(elf.exports ^ exports)[:5]}")
    if target == "android-arm64":
        known = _android_imports(compiler)
        odd = sorted(set(elf.imports).difference(*known.values()))
        require(not odd, f"imports what Android may not have: {odd[:5]}")
        require(set(elf.needed) == set(known), f"needs {list(elf.needed)}")
        require(elf.page >= ANDROID_PAGE, f"is laid out for pages of {elf.page} bytes")
        return
    own = {"libdl.so.2"} if compiler.runner else set()
    odd = [name for name in elf.needed if name not in own and not _LINUX_LIBRARIES.fullmatch(name)]
    require(not odd, f"needs {odd}")
    require(not compiler.is_zig or elf.glibc <= ZIG_GLIBC, f"needs glibc {elf.glibc}")


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, cwd=_NATIVE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["killed"]
        raise BuildError(
            f"{shlex.join(command[:4])} ... cannot {what} ({lines[0].strip():.200})",
            "Try another compiler, with --compiler or in CXX; `pip install ziglang` brings one",
            done.stderr,
        )


def _hash(words: Sequence[str], files: Sequence[Path]) -> str:
    digest = hashlib.sha256("\0".join(words).encode())
    for file in files:
        content = file.read_bytes()
        digest.update(f"\0{file.relative_to(_NATIVE).as_posix()}\0{len(content)}\0".encode() + content)
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


@contextlib.contextmanager
def _work_folder() -> Iterator[Path]:
    """Where objects are kept, or a temporary folder when nothing can be kept."""
    files = _files()
    try:
        folder: Path = (files.cache_dir() / "native").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except (OSError, files.StorageError):  # no home
        usable = False
    if usable:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def _copy(source: Path, out: Path, mode: int) -> None:
    descriptor, temporary = _files().new_file(out.parent, f".{out.name}.", ".tmp", mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(source.read_bytes())
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _files() -> ModuleType:
    """`bssl_tf_deploy.files`."""
    if _PACKAGES and _PACKAGES[0] not in sys.path:
        sys.path.insert(0, _PACKAGES[0])
    return importlib.import_module("bssl_tf_deploy.files")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build the device runtime for a target.")
    parser.add_argument("--target", default=host(), help=f"one of {', '.join(TARGETS)} [this machine]")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the file to write")
    parser.add_argument("--compiler", metavar="COMMAND", help="a compiler, or zig [$CXX, c++, g++, clang++, zig]")
    parser.add_argument("--runner", action="store_true", help="build the program in runner/, not the library")
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")
    parser.add_argument("--json", action="store_true", help="print what was built as JSON")
    options = parser.parse_args(arguments)
    try:
        if options.target is None:
            raise BuildError(
                f"there is no runtime for this machine ({platform.system()} {platform.machine()})", "Name a --target"
            )
        built = build(options.target, options.out, options.compiler, strict=options.strict, runner=options.runner)
    except BuildError as error:
        if error.output:
            sys.stderr.write(error.output.rstrip() + "\n")
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(BuildError(f"cannot write {options.out} ({error.strerror})", "Choose another --out"), file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(asdict(built)))
        return 0
    needs = f", needs glibc {built.glibc}" if built.glibc else ""
    print(f"{built.library}: {built.size_bytes / 1024:.1f} KiB for {built.target} by {built.compiler}{needs}")
    if built.target == "android-arm64":
        # Nobody has tried it on a phone: what it will ask for there is worth a look.
        print(f"imports: {', '.join(built.imports)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
