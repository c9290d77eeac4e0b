"""Builds the device runtime, libbssl_tf_runtime.so, from the C++ beside this file. Needs Python and pyelftools.

    python deploy/native/build.py --target arm64 --out libbssl_tf_runtime.so
    python deploy/native/build.py --target android-arm64 --runner --out bssl_tf_runner   # the program in runner/

| target | compilers | what is built runs where there is |
|---|---|---|
| x86_64, arm64 | $CXX; else c++, g++ or clang++; else zig | the compiler's glibc; with zig 2.17 |
| android-arm64, android-x86_64 | zig (`pip install ziglang`) | Android 7 or newer, 64 bit |

The compilers of this machine report what they compile for, and are used for that only; zig compiles for every target.
What comes out is read again and checked: its size, what it exports, what it imports, and from which libraries.

Objects and libraries are kept in native/ of the cache (`bssl_tf_deploy.files.cache_dir`) under a hash of all that they
are made from, so that nothing is compiled twice.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:
    # Run as a program, Python looks beside this file. `native` is the folder around it, which lies beside
    # `bssl_tf_deploy` in a checkout and inside it when installed.
    sys.path[:1] = map(str, Path(__file__).resolve().parents[1:3])

from native.building.compilers import find_compiler
from native.building.elf import check, read_elf
from native.building.objects import copy, make, work_folder
from native.building.targets import ANDROID_TARGETS, TARGETS, BuildError, Product, host


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


def build(
    target: str, out: Path, compiler: str | None = None, *, strict: bool = False, product: Product = "library"
) -> Built:
    """Builds the library for `target` and writes it to `out`, whole or not at all.

    Args:
        target: one of `TARGETS`.
        out: the file to write; folders above it are made.
        compiler: a command, or `zig`; None chooses (see the head of this file).
        strict: treat warnings as errors.
        product: build another library or program instead.

    Raises:
        BuildError: there is no compiler for this target, it fails, or what it made is not as it has to be.
        OSError: `out` cannot be written.
    """
    chosen = find_compiler(target, compiler, product)
    with work_folder() as folder:
        library = make(chosen, folder, strict=strict)
        elf = read_elf(library)
        check(library, elf, chosen)
        out.parent.mkdir(parents=True, exist_ok=True)
        copy(library, out, 0o777 if product == "runner" else 0o666)
    return Built(
        str(out),
        target,
        chosen.version,
        ".".join(map(str, elf.glibc)),
        out.stat().st_size,
        tuple(sorted(elf.imports)),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build the device runtime for a target.")
    parser.add_argument("--target", default=host(), help=f"one of {', '.join(TARGETS)} [default: this machine]")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the file to write")
    parser.add_argument("--compiler", metavar="COMMAND", help="[default: $CXX, c++, g++, clang++ or zig]")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--runner", action="store_true", help="build the program in runner/, not the library")
    instead.add_argument("--jni", action="store_true", help="build the library with a door for Java (needs a JDK)")
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")
    parser.add_argument("--json", action="store_true", help="print what was built as JSON")
    options = parser.parse_args(arguments)
    try:
        if options.target is None:
            raise BuildError(
                f"there is no runtime for this machine ({platform.system()} {platform.machine()})", "Name a --target"
            )
        product: Product = "runner" if options.runner else "jni" if options.jni else "library"
        built = build(options.target, options.out, options.compiler, strict=options.strict, product=product)
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
    if built.target in ANDROID_TARGETS:
        # Nobody has tried it on a phone: what it will ask for there is worth a look.
        print(f"imports: {', '.join(built.imports)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
