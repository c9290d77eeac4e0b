"""Makes the aarch64 rig: a Debian userland and the real aarch64 interpreters from PyPI, run by qemu-user, no chroot.

    python tests/arm64/make_rig.py            # into ~/.cache/bssl-tf/arm64-rig, about half a minute, 400 MB

Needs Linux, the Debian packages debootstrap, dpkg and qemu-user, pip, Debian's mirror and PyPI; root is not needed.
Run again it does nothing. What is in it:

    root/           files of Debian's arm64 packages of Python and what it loads
    site/NAME/      wheels of one interpreter with numpy, for PYTHONPATH
    cpu/NAME/       root/ as one processor sees it: links, and a /proc/cpuinfo that names its cores
    rig.json        what it was made of

An emulated run tells whether an answer is right and how many instructions it took, never how long it takes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.files import cache_dir

MAKE_COMMAND = "python tests/arm64/make_rig.py"
NEEDED_TOOLS = ("debootstrap", "dpkg-deb", "qemu-aarch64")

_SUITE = "bookworm"
_PYTHON = "3.11"
_NUMPY = "numpy==1.26.4"
# Of a minimal Debian only what Python and the wheels load: shared libraries and Python itself.
_PACKAGES = ("lib", "python3", "zlib1g")
# Interpreters, by the name of their folder. protobuf is a stated need of 2.3.0 that the interpreter does not load.
SITES = {
    "ai-edge-litert-2.3": ("ai-edge-litert==2.3.0", _NUMPY),
    "ai-edge-litert-1.4": ("ai-edge-litert==1.4.0", _NUMPY),
    "tflite-runtime-2.14": ("tflite-runtime==2.14.0", _NUMPY),
}
_PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
# Processors that qemu 7.2 knows too: qemu's name, and implementer, variant and part as /proc/cpuinfo has them.
PROCESSORS = {
    "cortex-a72": ("0x41", "0x0", "0xd08"),  # Raspberry Pi 4: out of order
    "cortex-a53": ("0x41", "0x0", "0xd03"),  # Raspberry Pi 3: in order
    "cortex-a76": ("0x41", "0x4", "0xd0b"),  # Raspberry Pi 5: out of order, ARMv8.2
}
_FEATURES = {
    "cortex-a72": "fp asimd evtstrm crc32 cpuid",
    "cortex-a53": "fp asimd evtstrm crc32 cpuid",
    "cortex-a76": "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
}
_CORES = 4


class RigError(Exception):
    """The rig cannot be made or used; the message says why and what to do."""


@dataclass(frozen=True)
class Rig:
    """A finished rig."""

    folder: Path

    def program(self, processor: str, command: Sequence[str], plugins: Sequence[str] = ()) -> list[str]:
        """The command line that runs an aarch64 program.

        Args:
            processor: a key of `PROCESSORS`.
            command: the program and its arguments.
            plugins: qemu plugins, each a path, with options after commas if it has any.
        """
        made = ["qemu-aarch64", "-cpu", processor, "-L", str(self.folder / "cpu" / processor)]
        for plugin in plugins:
            # qemu shows what a plugin says only when asked to, on stderr.
            made += ["-plugin", plugin, "-d", "plugin"]
        return [*made, *command]

    def python(self, processor: str, site: str, arguments: Sequence[str], plugins: Sequence[str] = ()) -> list[str]:
        """The command line that runs the emulated Python with the packages of `site`, a key of `SITES`."""
        python = self.folder / "root" / "usr" / "bin" / f"python{_PYTHON}"
        # env, as qemu's own option for it takes no commas. -B: no caches of byte code; -s: no packages of the user's.
        packages = f"PYTHONPATH={self.folder / 'site' / site}"
        return ["env", packages, *self.program(processor, [str(python), "-B", "-s", *arguments], plugins)]


def default_folder() -> Path:
    """Where the rig lies unless someone says otherwise."""
    return cache_dir() / "arm64-rig"


def find_rig(folder: Path | None = None) -> Rig | None:
    """The rig, if it is there, made by this version of the script, and qemu is installed."""
    folder = folder or default_folder()
    try:
        recipe = json.loads((folder / "rig.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Rig(folder) if recipe == _recipe() and shutil.which("qemu-aarch64") else None


def make_rig(folder: Path | None = None, mirror: str | None = None) -> Rig:
    """Makes the rig, unless it is there.

    Args:
        folder: where; it appears whole, by renaming, and replaces one that another version of the script made.
        mirror: Debian mirror; None for debootstrap's own choice.

    Raises:
        RigError: a tool is missing or fails.
    """
    folder = folder or default_folder()
    missing = [tool for tool in NEEDED_TOOLS if shutil.which(tool) is None]
    if missing:
        raise RigError(f"{', '.join(missing)} not found. Install the Debian packages debootstrap, dpkg and qemu-user.")
    found = find_rig(folder)
    if found is not None:
        return found
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
            made = Path(name) / "rig"
            _make_root(made / "root", Path(name) / "packages", mirror)
            for site, requirements in SITES.items():
                _make_site(made / "site" / site, requirements)
            for processor in PROCESSORS:
                _make_view(made / "cpu" / processor, processor)
            (made / "rig.json").write_text(json.dumps(_recipe(), indent=1), encoding="utf-8")
            # Another process may have made it meanwhile; an older one has to go. Renaming is last, so a rig is whole.
            if find_rig(folder) is None:
                if folder.exists():
                    folder.rename(Path(name) / "old")
                made.rename(folder)
    except OSError as error:
        raise RigError(
            f"cannot write {folder}: {error.strerror or error}. Free space or name another --out."
        ) from error
    rig = find_rig(folder)
    assert rig is not None
    return rig


def _recipe() -> dict[str, Any]:
    recipe = {
        "suite": _SUITE,
        "packages": _PACKAGES,
        "sites": SITES,
        "processors": PROCESSORS,
        "features": _FEATURES,
        "cores": _CORES,
        "layout": 1,
    }
    # Through JSON, so that what was read back compares equal.
    return dict(json.loads(json.dumps(recipe)))


def _make_root(root: Path, packages: Path, mirror: str | None) -> None:
    command = ["debootstrap", "--arch=arm64", "--variant=minbase", "--download-only"]
    command += ["--include=python3,libpython3-stdlib", _SUITE, str(packages), *([mirror] if mirror else [])]
    # debootstrap insists on uid 0, also where it only downloads; a user namespace is enough for that.
    _run(command if os.geteuid() == 0 else ["unshare", "--map-root-user", *command])
    root.mkdir(parents=True)
    for package in sorted((packages / "var" / "cache" / "apt" / "archives").glob("*.deb")):
        if package.name.startswith(_PACKAGES):
            _run(["dpkg-deb", "--extract", str(package), str(root)])
    if not (root / "usr" / "bin" / f"python{_PYTHON}").exists():
        raise RigError(f"debootstrap brought no Python {_PYTHON}. Look at the mirror.")


def _make_site(site: Path, requirements: Sequence[str]) -> None:
    platforms = [argument for name in _PLATFORMS for argument in ("--platform", f"{name}_aarch64")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--python-version", _PYTHON, "--implementation", "cp", "--only-binary=:all:", *platforms]
    _run([*command, "--target", str(site), *requirements])


def _make_view(view: Path, processor: str) -> None:
    """qemu looks every absolute path up under its prefix first: links to what all processors share, and one file."""
    (view / "proc").mkdir(parents=True)
    for name in ("lib", "usr", "etc"):
        (view / name).symlink_to(Path("..", "..", "root", name))
    implementer, variant, part = PROCESSORS[processor]
    cores = [
        f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: {_FEATURES[processor]}\n"
        f"CPU implementer\t: {implementer}\nCPU architecture: 8\n"
        f"CPU variant\t: {variant}\nCPU part\t: {part}\nCPU revision\t: 3\n"
        for core in range(_CORES)
    ]
    # Without this file ai-edge-litert 2.2 and 2.3 crash: they would read the host's, which has none of the names.
    (view / "proc" / "cpuinfo").write_text("\n".join(cores), encoding="utf-8")


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired as error:
        raise RigError(f"{command[0]} does not end. Look at the network and run it again.") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise RigError(f"{' '.join(command)[:200]} failed: {said}. Look at the network and run it again.")


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except RigError as error:
        sys.exit(f"error: {error}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Makes the aarch64 rig that tests run under qemu.")
    parser.add_argument("--out", type=Path, default=None, help=f"folder (default: {default_folder()})")
    parser.add_argument("--mirror", default=None, help="Debian mirror (default: debootstrap's)")
    arguments = parser.parse_args()
    with _one_line_errors():
        print(make_rig(arguments.out, arguments.mirror).folder)


if __name__ == "__main__":
    main()
