"""TensorFlow Lite's C library for Linux, as a phone has it for Android: out of the npm package tfjs-tflite-node."""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from bssl_tf_deploy.files import cache_dir, write_bytes
from tests.conftest import require_or_skip

PACKAGE = "tfjs-tflite-node@0.0.2"
_SHA256 = {
    "amd64": "dc89b4cd86d956516570bd483668e6dd98907f49901d0567dedc69a29a56b7f7",
    "arm64": "ec0dee4fb3418e680d010248ac1e304d9656cc5c8de54caaf91d666712e2f633",
}


@functools.cache
def tflite_c_library(machine: str) -> Path:
    """The library for `amd64` or `arm64`, from the cache or npm; skips the test where there is neither."""
    cache = cache_dir() / "tflite-c-2.9"
    file = cache / machine / "libtensorflowlite_c.so"
    if not file.is_file():
        require_or_skip(
            shutil.which("npm") is not None, "npm is not installed, which brings TensorFlow Lite's C library"
        )
        fetched = _fetch(machine)
        require_or_skip(fetched is not None, f"npm cannot fetch {PACKAGE}")
        assert fetched is not None
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, fetched)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == _SHA256[machine], f"{file} is another one: remove it"
    return file


def _fetch(machine: str) -> bytes | None:
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", PACKAGE, "--silent"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            return None
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode != 0 or not archives:
            return None
        with tarfile.open(archives[0]) as archive:
            member = archive.extractfile(f"package/cc_deps/linux_{machine}/libtensorflowlite_c.so")
            assert member is not None
            return member.read()
