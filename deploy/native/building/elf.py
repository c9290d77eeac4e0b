"""Reads what was built again, as the dynamic linker will see it, and refuses what would not load or run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from native.building.compilers import Compiler
from native.building.objects import android_imports
from native.building.targets import (
    ANDROID_PAGE,
    ANDROID_TARGETS,
    EXPORTS,
    JNI_EXPORTS,
    MACHINES,
    MAX_BYTES,
    ZIG_GLIBC,
    BuildError,
)

_ELF_MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
_LINUX_LIBRARIES = re.compile(r"lib(?:c\.so\.6|m\.so\.6|pthread\.so\.0)|ld-linux-(?:x86-64\.so\.2|aarch64\.so\.1)")
_BIND_NOW, _NOW = 0x8, 0x1  # of DT_FLAGS, of DT_FLAGS_1


@dataclass(frozen=True)
class Elf:
    """What the dynamic linker will see of a library.

    Attributes:
        machine: e_machine, such as "EM_AARCH64".
        page: alignment of the loaded segments, bytes; the smallest.
        needed: libraries.
        imports: name of an undefined symbol -> its version, or "".
        exports: names of defined symbols.
        full_relro: whether the addresses of functions are looked up on loading, and are read-only from then on.
    """

    machine: str
    page: int
    needed: tuple[str, ...]
    imports: dict[str, str]
    exports: frozenset[str]
    full_relro: bool

    @property
    def glibc(self) -> tuple[int, ...]:
        """The newest version of glibc that a symbol asks for; () without any."""
        matches = (re.fullmatch(r"GLIBC_([0-9.]+)", version) for version in self.imports.values())
        return max((tuple(map(int, match[1].split("."))) for match in matches if match), default=())


def read_elf(path: Path) -> Elf:
    """Reads a 64-bit little-endian shared library or program.

    Raises:
        BuildError: it is not one, or pyelftools is not installed.
        OSError: it cannot be read.
    """
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
    except ImportError as error:
        raise BuildError(
            "what was built cannot be checked, as pyelftools is not installed",
            "Install it with `python -m pip install pyelftools`",
        ) from error
    with path.open("rb") as file:
        try:
            read = ELFFile(file)
            if read.elfclass != 64 or not read.little_endian:
                raise ELFError("not 64-bit, little-endian")
            return _read(read)
        except (ELFError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise BuildError(f"{path} is not a 64-bit ELF library", "Try another compiler") from error


def _read(read: Any) -> Elf:
    dynamic = {tag.entry.d_tag: tag for tag in read.get_section_by_name(".dynamic").iter_tags()}
    needed = [tag.needed for tag in read.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
    versions, needs = read.get_section_by_name(".gnu.version"), read.get_section_by_name(".gnu.version_r")
    imports, exports = {}, set()
    for number, symbol in enumerate(read.get_section_by_name(".dynsym").iter_symbols()):
        if number == 0:  # stands for none
            continue
        if symbol.entry.st_shndx == "SHN_UNDEF":
            imports[symbol.name] = ""
            if versions is not None and needs is not None:
                index = versions.get_symbol(number).entry.ndx
                # Others are "local" and "global", which are not versions.
                found = needs.get_version(index & 0x7FFF) if isinstance(index, int) else None
                imports[symbol.name] = found[1].name if found else ""
        elif symbol.entry.st_info.bind != "STB_LOCAL":
            exports.add(symbol.name)
    flags = dynamic["DT_FLAGS"].entry.d_val if "DT_FLAGS" in dynamic else 0
    more = dynamic["DT_FLAGS_1"].entry.d_val if "DT_FLAGS_1" in dynamic else 0
    now = "DT_BIND_NOW" in dynamic or bool(flags & _BIND_NOW or more & _NOW)
    relro = any(read.iter_segments("PT_GNU_RELRO"))
    page = min(segment.header.p_align for segment in read.iter_segments("PT_LOAD"))
    return Elf(read["e_machine"], page, tuple(needed), imports, frozenset(exports), now and relro)


def check(library: Path, elf: Elf, compiler: Compiler) -> None:
    """Raises `BuildError` unless the library or program that `compiler` made is what its target needs."""

    def require(holds: bool, what: str) -> None:
        if not holds:
            raise BuildError(
                f"the {compiler.makes} for {compiler.target} from {compiler.version} {what}",
                "Try another compiler, or zig",
            )

    size = library.stat().st_size
    require(elf.machine == _ELF_MACHINES[MACHINES[compiler.target]], "is for another processor")
    require(size <= MAX_BYTES, f"has {size} bytes, more than {MAX_BYTES}")
    require(elf.full_relro, "leaves the addresses of functions writable")
    require("__stack_chk_fail" in elf.imports, "does not notice when its stack is overrun")
    # What a program exports is its C library's affair.
    exports = {"library": EXPORTS, "jni": JNI_EXPORTS, "runner": elf.exports}[compiler.product]
    require(elf.exports == exports, f"exports other names than it has to: {sorted(elf.exports ^ exports)[:5]}")
    if compiler.target in ANDROID_TARGETS:
        known = android_imports(compiler)
        odd = sorted(set(elf.imports).difference(*known.values()))
        require(not odd, f"imports what Android may not have: {odd[:5]}")
        require(set(elf.needed) == set(known), f"needs {list(elf.needed)}")
        require(elf.page >= ANDROID_PAGE, f"is laid out for pages of {elf.page} bytes")
        return
    own = {"libdl.so.2"} if compiler.product == "runner" else set()
    odd = [name for name in elf.needed if name not in own and not _LINUX_LIBRARIES.fullmatch(name)]
    require(not odd, f"needs {odd}")
    require(not compiler.is_zig or elf.glibc <= ZIG_GLIBC, f"needs glibc {elf.glibc}")
