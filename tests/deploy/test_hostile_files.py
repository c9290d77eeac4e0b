"""Files of strangers: pipes, endless devices, sizes that lie. Each is refused at once, in little memory."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssl_tf.checkpoints import read_tensors, write_tensors
from bssl_tf.devices.devices_file import named_devices
from bssl_tf.devices.tflite_library import read_tflite_library
from bssl_tf.errors import BsslError, BundleError, ConfigError, DeviceError, NetworkError, RunFolderError
from bssl_tf.files import read_json, read_records
from bssl_tf.settings.tables import read_toml
from bssl_tf_converters.checkpoints.torch_checkpoint import read_torch_checkpoint
from bssl_tf_deploy.arrays import read_npz
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.files import open_regular, read_regular, without_checksum
from tests.deploy.bundles import write
from tests.edited import edited

KINDS = ("pipe", "zero", "folder")


def put(kind: str, path: Path) -> Path:
    """Something that is not a regular file, under `path`."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


READERS: dict[str, tuple[Callable[[Path], object], type[BsslError]]] = {
    "JSON": (read_json, RunFolderError),
    "TOML": (read_toml, ConfigError),
    "devices file": (named_devices, ConfigError),
    "records": (read_records, RunFolderError),
    "tensors": (read_tensors, RunFolderError),
    "PyTorch checkpoint": (read_torch_checkpoint, NetworkError),
    "TFLite library": (read_tflite_library, DeviceError),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path: Path, reader: str, kind: str) -> None:
    read, error = READERS[reader]
    words = "[Ii]s a directory" if kind == "folder" else "[Nn]ot a regular file"
    with pytest.raises(error, match=words):
        read(put(kind, tmp_path / "file"))


@pytest.mark.parametrize("reader", READERS)
def test_what_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    read, error = READERS[reader]
    (tmp_path / "file").write_text("x")

    def refuse(path: object, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(error, match=r"cannot be read \(Permission denied\)\. Check the permissions"):
        read(tmp_path / "file")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["manifest.json", "model.tflite", "golden.npz"])
def test_a_bundle_of_other_things_than_files_is_refused_at_once(tmp_path: Path, name: str, kind: str) -> None:
    write(tmp_path / "bundle")
    put(kind, tmp_path / "bundle" / name)
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        read_bundle(tmp_path / "bundle")


def test_a_pipe_that_a_manifest_calls_empty_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "bundle")
    manifest = without_checksum(json.loads((tmp_path / "bundle" / "manifest.json").read_text()))
    manifest["files"]["model.tflite"]["bytes"] = 0
    (tmp_path / "bundle" / "manifest.json").write_text(edited(manifest))
    put("pipe", tmp_path / "bundle" / "model.tflite")
    with pytest.raises(BundleError, match=r"model\.tflite"):
        read_bundle(tmp_path / "bundle")


def test_a_file_over_its_limit_is_refused_and_one_at_its_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    for read in (read_regular, open_regular):
        with pytest.raises(OSError, match=r"Larger than 4 bytes"):
            read(tmp_path / "file", 4)


def test_a_file_that_states_no_size_is_bounded_while_it_is_read() -> None:
    """As those in /proc, which look empty."""
    path = Path("/proc/self/maps")
    if not path.exists():
        pytest.skip("no /proc")
    assert path.stat().st_size == 0
    with pytest.raises(OSError, match="Larger than 10 bytes"):
        read_regular(path, 10)


def test_what_becomes_a_pipe_after_the_first_look_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    look = (tmp_path / "file").stat()
    put("pipe", tmp_path / "file")
    monkeypatch.setattr(Path, "stat", lambda self, **_: look)
    with pytest.raises(OSError, match="Not a regular file"):
        open_regular(tmp_path / "file", 10)


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


@given(
    st.sampled_from(["float32", "float64", "uint8", "int8", "int64", "bool"]),
    st.lists(st.integers(0, 4), max_size=4),
    st.booleans(),
)
def test_arrays_come_back_as_numpy_reads_them(dtype: str, shape: list[int], fortran: bool) -> None:
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    array = np.asfortranarray(array) if fortran else array
    again = read_npz(npz(a=array, b=array), 1 << 20)
    with np.load(io.BytesIO(npz(a=array, b=array))) as expected:
        for name in ("a", "b"):
            np.testing.assert_array_equal(again[name], expected[name])
            assert again[name].dtype == expected[name].dtype


def member(header: str, content: bytes) -> bytes:
    head = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


def archive(content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        made.writestr("a.npy", content)
    return file.getvalue()


SHAPE = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
LIES = {
    "more bytes than the shape": archive(member(SHAPE, bytes(12))),
    "fewer bytes than the shape": archive(member(SHAPE, bytes(4))),
    "a huge shape": archive(member(SHAPE.replace("(2,)", "(1000000000000,)"), bytes(8))),
    "a negative shape": archive(member(SHAPE.replace("(2,)", "(-1, -2)"), bytes(8))),
    "objects": archive(member(SHAPE.replace("<f4", "|O"), bytes(16))),
    "text": archive(member(SHAPE.replace("<f4", "<U1"), bytes(8))),
    "no header": archive(b"hello"),
    "an expression": archive(member("__import__('os').abort()", b"")),
    "another compression": archive(member(SHAPE, bytes(8)), compression=zipfile.ZIP_LZMA),
    "not an archive": b"PK\x03\x04" + bytes(100),
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\n",
}


@pytest.mark.parametrize("name", LIES)
def test_an_archive_that_lies_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        read_npz(LIES[name], 1 << 20)


def test_an_archive_that_holds_more_than_it_states_is_refused() -> None:
    packed = bytearray(archive(member(SHAPE, bytes(1 << 20)), compression=zipfile.ZIP_DEFLATED))
    stated = struct.pack("<I", len(member(SHAPE, bytes(1 << 20))))
    assert packed.count(stated) == 2  # beside the content and in the directory
    with pytest.raises(ValueError, match="valid archive"):
        read_npz(bytes(packed.replace(stated, struct.pack("<I", len(member(SHAPE, bytes(8)))))), 1 << 20)


BOMB = """
import resource, sys
from pathlib import Path
from bssl_tf_deploy.arrays import read_npz
content = Path(sys.argv[1]).read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_npz(content, 1 << 28)
except ValueError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    """A megabyte that unpacks to a gigabyte."""
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as made, made.open("a.npy", "w") as file:
        file.write(member(SHAPE.replace("(2,)", f"({1 << 28},)"), b""))
        for _ in range(64):
            file.write(bytes(1 << 24))
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 21
    command = [sys.executable, "-c", BOMB, str(tmp_path / "bomb.npz")]
    said, kilobytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == "it unpacks to more than 268,435,456 bytes"
    assert int(kilobytes) < 64 << 10


def test_records_are_lines_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": "x\u2028y"}\n{"b": 2}\n{"c": 3', encoding="utf-8")
    assert read_records(path) == [{"a": "x\u2028y"}, {"b": 2}]
    path.write_text('{"a": 1}\n[1]\n{"b": 2}\n')
    assert read_records(path) == [{"a": 1}]
    assert read_records(tmp_path / "missing") == []


def test_a_file_of_tensors_is_still_read(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", {"x": np.arange(3)}, {})
    shutil.copyfile(tmp_path / "a", tmp_path / "b")
    assert read_tensors(tmp_path / "b")[0]["x"].tolist() == [0, 1, 2]
