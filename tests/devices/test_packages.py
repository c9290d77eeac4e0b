"""What a device is brought, and which devices are brought nothing."""

from __future__ import annotations

import dataclasses
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bssl_tf.devices import Job
from bssl_tf.devices.packages import collect_packages, fetched_wheels, required, runtime_archive, target_of
from bssl_tf.errors import DeviceError, RuntimeUnavailableError
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.library import Library, bundled_name, own_library

LIBRARY = Library(b"library", compiler="", glibc="2.17")
PI: dict[str, Any] = {
    "machine": "aarch64",
    "pointer_bits": 64,
    "system": "Linux",
    "python": "3.11.2",
    "glibc": "2.36",
}


@pytest.mark.parametrize(("machine", "target"), [("aarch64", "arm64"), ("x86_64", "x86_64")])
def test_64_bit_linux_has_a_target(machine: str, target: str) -> None:
    assert target_of("pi", PI | {"machine": machine}) == target


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"machine": "armv7l", "pointer_bits": 32}, r"32-bit programs .* by value.*Install a 64-bit system"),
        # Raspberry Pi OS of 32 bits with a kernel of 64.
        ({"pointer_bits": 32}, r"32-bit programs \(aarch64, Python of 32 bits\)"),
        ({"machine": "x86_64", "pointer_bits": 32}, "no runtime for pi"),
        ({"machine": "riscv64"}, "no runtime for pi"),
        ({"system": "Darwin", "machine": "x86_64"}, "no runtime for pi"),
    ],
)
def test_other_machines_are_refused_with_the_reason(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        target_of("pi", PI | changes)


def test_the_archive_is_ready_to_import_and_always_the_same(tmp_path: Path) -> None:
    library = own_library()
    assert library is not None
    content = runtime_archive(library.read_bytes())
    assert runtime_archive(library.read_bytes()) == content
    zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path)
    program = (
        "import sys; from bssl_tf_deploy.library import describe, own_library; import bssl_tf_deploy.cli;"
        "from bssl_tf_deploy.tasks import find_task; find_task('classification');"
        "files = [module.__file__ for name, module in sys.modules.items() if name.startswith('bssl_tf_deploy')];"
        "print(describe(own_library())[0], *files)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)}, check=True
    )
    version, *files = done.stdout.split()
    assert version == "0.1.0" and str(tmp_path / "bssl_tf_deploy/tasks/classification.py") in files
    assert [file for file in files if not file.startswith(str(tmp_path))] == []


def test_a_device_with_packages_is_brought_only_the_runtime(real_bundle: Path) -> None:
    job = Job(read_bundle(real_bundle))
    made = collect_packages("pi", PI, job.library("arm64"), bring_wheels=False)
    assert list(made.archives) == ["bssl_tf_deploy.zip"] and not made.requirements
    content = made.archives["bssl_tf_deploy.zip"]
    assert isinstance(content, bytes)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        library = archive.read("bssl_tf_deploy/lib/libbssl_tf_runtime.so")
        assert made.unpacked_bytes == sum(item.file_size for item in archive.infolist())
    # ELF for AArch64.
    assert library[:5] == b"\x7fELF\x02" and library[18:20] == (183).to_bytes(2, "little")


def test_where_nothing_can_be_fetched_the_device_asks_its_own_pip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BSSL_TF_CACHE", str(tmp_path))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    made = collect_packages("pi", PI, LIBRARY, bring_wheels=True)
    assert made.requirements == required() and list(made.archives) == ["bssl_tf_deploy.zip"]
    assert sorted(re.match(r"[\w-]+", text)[0] for text in required()) == ["ai-edge-litert", "numpy"]  # type: ignore[index]
    assert not [path for path in (tmp_path / "device-wheels").iterdir() if not path.name.startswith(".")]


def test_a_device_without_glibc_is_refused() -> None:
    with pytest.raises(DeviceError, match="a C library other than glibc"):
        collect_packages("pi", PI | {"glibc": ""}, LIBRARY, bring_wheels=True)


def test_a_library_that_is_too_new_for_the_device_is_refused() -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"needs glibc 2\.99, and pi has 2\.36"):
        collect_packages("pi", PI, dataclasses.replace(LIBRARY, glibc="2.99"), bring_wheels=False)


def test_a_bundles_own_library_is_sent_only_if_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(target: str) -> Any:
        raise RuntimeUnavailableError("there is no compiler", "Install one")

    some: Any = SimpleNamespace(manifest=SimpleNamespace(files={bundled_name("android-arm64"): ""}))
    (tmp_path / "library").write_bytes(b"code")
    monkeypatch.setattr("bssl_tf_deploy.library.library_for", none)
    monkeypatch.setattr("bssl_tf_deploy.bundle.checked_file", lambda bundle, name: tmp_path / "library")
    assert Job(some, trust_bundle_library=True).library("android-arm64").content == b"code"
    for job, target in ((Job(some), "android-arm64"), (Job(some, trust_bundle_library=True), "arm64")):
        with pytest.raises(RuntimeUnavailableError, match="there is no compiler"):
            job.library(target)


@pytest.mark.slow  # Fetches 30 MB.
def test_wheels_are_for_the_devices_processor_python_and_c_library() -> None:
    wheels = fetched_wheels("aarch64", "3.11.2", "2.31", required())
    names = {wheel.name.partition("-")[0] for wheel in wheels}
    assert {"numpy", "ai_edge_litert"} <= names and "pillow" not in names
    for wheel in wheels:
        assert wheel.name.endswith(("_aarch64.whl", "-none-any.whl"))
        assert "manylinux_2_3" not in wheel.name or "manylinux_2_31" in wheel.name or "manylinux_2_2" in wheel.name
