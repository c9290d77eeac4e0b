"""What a device needs to run a bundle, brought along: our package with its library, and wheels of what it requires.

Everything is fetched and built here, for the device's processor, Python and C library, so that the device needs neither
a network nor pip. A wheel is a zip file; the agent unpacks it.
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import bssl_tf_deploy
from bssl_tf.errors import DeviceError, RuntimeUnavailableError
from bssl_tf.files import cache_dir, storage_errors
from bssl_tf_deploy.library import LIBRARY, Library

ARCHIVE = "bssl_tf_deploy.zip"
OLDEST_PYTHON = (3, 10)
_TARGETS = {"aarch64": "arm64", "x86_64": "x86_64"}
_PIP_TIMEOUT_S = 900
# glibc 2.17 is the oldest that any wheel of today is made for.
_OLDEST_GLIBC = 17
_BEFORE_311 = ("exceptiongroup>=1.1",)
_BEFORE_313 = ("typing-extensions>=4.10",)


@dataclass(frozen=True)
class Packages:
    """What to bring.

    Attributes:
        environment: name of the folder on the device; a hash of all that goes in.
        archives: file name -> content or file, in the order of unpacking.
        requirements: for the device's own pip, where nothing could be fetched here; else empty.
        unpacked_bytes: what the archives take on the device.
    """

    environment: str
    archives: Mapping[str, bytes | Path]
    requirements: tuple[str, ...]
    unpacked_bytes: int


def target_of(address: str, facts: Mapping[str, Any]) -> str:
    """The runtime's target for a device with these facts (`bssl_tf_deploy.conditions.facts`).

    Raises:
        DeviceError: there is no runtime for it.
    """
    machine, bits, system = facts["machine"], facts["pointer_bits"], facts["system"]
    if machine.startswith("arm") or (machine == "aarch64" and bits == 32):
        raise DeviceError(
            f"{address} runs 32-bit programs ({machine}, Python of {bits} bits), for which there is no runtime: "
            "interpreters hand operators over by value, which only 64-bit calling conventions forgive",
            "Install a 64-bit system there",
        )
    if system != "Linux" or machine not in _TARGETS or bits != 64:
        raise DeviceError(
            f"there is no runtime for {address} ({system} {machine}, Python of {bits} bits)",
            "Use 64-bit Linux on ARM or x86",
        )
    return _TARGETS[machine]


def collect_packages(
    address: str, facts: Mapping[str, Any], library: Library, *, bring_wheels: bool, serving: bool = False
) -> Packages:
    """Builds and fetches what the device needs.

    Args:
        address: of the device, for messages.
        facts: of the device.
        library: our runtime for its target.
        bring_wheels: False where numpy and LiteRT are there already.
        serving: with what `bssl-tf-deploy serve` requires.

    Raises:
        DeviceError: the device's C library is not glibc.
        RuntimeUnavailableError: the library needs a newer C library than it has.
        StorageError: the cache cannot be written.
    """
    _fits(address, facts, library)
    archives: dict[str, bytes | Path] = {ARCHIVE: runtime_archive(library.content)}
    requirements: tuple[str, ...] = ()
    if bring_wheels:
        if not facts["glibc"]:
            raise DeviceError(
                f"{address} has a C library other than glibc, and LiteRT has no wheels for it",
                "Use Raspberry Pi OS, Debian, Ubuntu or another system with glibc",
            )
        needed = required_to_serve(facts["python"]) if serving else required()
        wheels = fetched_wheels(facts["machine"], facts["python"], facts["glibc"], needed)
        archives |= {wheel.name: wheel for wheel in wheels}
        requirements = () if wheels else needed
    digest, unpacked = hashlib.sha256(repr((facts["python"], requirements)).encode()), 0
    for name, content in archives.items():
        data = content if isinstance(content, bytes) else content.read_bytes()
        digest.update(name.encode() + hashlib.sha256(data).digest())
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked += sum(item.file_size for item in archive.infolist())
    return Packages(f"env-{digest.hexdigest()[:16]}", archives, requirements, unpacked)


def runtime_archive(library: bytes) -> bytes:
    """Our package as a zip file that is ready to import; the same bytes for the same content."""
    package = Path(bssl_tf_deploy.__file__).parent
    found = sorted((*package.rglob("*.py"), *package.rglob("*.html")))
    files = {file.relative_to(package).as_posix(): file for file in found}
    # Installed, it has the runtime's sources too, which nothing there builds.
    contents = {
        f"bssl_tf_deploy/{name}": file.read_bytes() for name, file in files.items() if not name.startswith("native/")
    }
    contents[f"bssl_tf_deploy/lib/{LIBRARY}"] = library
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def required() -> tuple[str, ...]:
    """What `bssl-tf-deploy` requires, as its metadata says, but Pillow, which only image files need."""
    texts = metadata.requires("bssl-tf-deploy") or ()
    return tuple(text for text in texts if ";" not in text and not text.startswith("pillow"))


def required_to_serve(python: str) -> tuple[str, ...]:
    """What `bssl-tf-deploy serve` requires as well.

    Args:
        python: the device's version, such as 3.11.2.
    """
    texts = [text.partition(";") for text in metadata.requires("bssl-tf-deploy") or ()]
    own = [text.strip() for text, _, marker in texts if not marker or "serve" in marker]
    # What these require below some versions of Python; pip looks at the version that it runs in.
    minor = int(python.split(".")[1])
    return (*own, *_BEFORE_311 * (minor < 11), *_BEFORE_313 * (minor < 13))


def fetched_wheels(machine: str, python: str, glibc: str, requirements: Sequence[str]) -> list[Path]:
    """Wheels of requirements and of what these require, from the cache or by pip; none where pip cannot fetch them.

    Args:
        machine: as `platform.machine()` has it.
        python: version, such as 3.11.2.
        glibc: version, such as 2.36.
        requirements: as pip takes them.

    Raises:
        StorageError: the cache cannot be written.
    """
    minor = ".".join(python.split(".")[:2])
    newest = int(glibc.split(".")[1])
    tags = [f"manylinux_2_{number}_{machine}" for number in range(newest, _OLDEST_GLIBC - 1, -1)]
    tags.append(f"manylinux2014_{machine}")
    key = hashlib.sha256(repr((tuple(requirements), minor, tags)).encode()).hexdigest()[:16]
    cache = cache_dir() / "device-wheels"
    folder = cache / key
    if not folder.is_dir():
        with storage_errors(cache):
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{key}.", dir=cache) as name:
                made = Path(name, "wheels")
                if not _download(made, minor, tags, requirements):
                    return []
                # Another process may have been faster.
                if not folder.is_dir():
                    made.rename(folder)
    return sorted(folder.glob("*.whl"))


def _download(folder: Path, python: str, tags: list[str], requirements: Sequence[str]) -> bool:
    """Whether pip brought all wheels into `folder`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, "--dest", str(folder)]
    for tag in tags:
        command += ["--platform", tag]
    try:
        done = subprocess.run([*command, *requirements], capture_output=True, timeout=_PIP_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _fits(address: str, facts: Mapping[str, Any], library: Library) -> None:
    newest = re.match(r"(\d+)\.(\d+)", facts["glibc"])
    needed = re.match(r"(\d+)\.(\d+)", library.glibc)
    if newest and needed and tuple(map(int, needed.groups())) > tuple(map(int, newest.groups())):
        raise RuntimeUnavailableError(
            f"the library built here needs glibc {library.glibc}, and {address} has {facts['glibc']}",
            "Install ziglang here, which builds for older systems",
        )
