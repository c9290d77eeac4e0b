"""TensorFlow Lite's library out of a file that someone names."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest

from bssl_tf.devices import tflite_library
from bssl_tf.devices.tflite_library import read_tflite_library
from bssl_tf.errors import DeviceError

JNI = "jni/arm64-v8a/libtensorflowlite_jni.so"


def elf(machine: int = 183, kind: int = 3, size: int = 64) -> bytes:
    return (b"\x7fELF\x02\x01" + bytes(10) + struct.pack("<HH", kind, machine)).ljust(size, b"\0")


def package(files: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        archive.writestr("AndroidManifest.xml", "<manifest/>")
        for name, content in (files or {}).items():
            archive.writestr(name, content)
    return made.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some file.aar"


def test_a_library_is_taken_as_it_is(file: Path) -> None:
    file.write_bytes(elf())
    assert read_tflite_library(file) == elf()


@pytest.mark.parametrize("name", ["libtensorflowlite_jni.so", "libtensorflowlite_c.so"])
def test_a_package_gives_the_one_for_64_bit_arm(file: Path, name: str) -> None:
    others = {f"jni/{folder}/{name}": elf(62) for folder in ("x86_64", "armeabi-v7a", "../arm64-v8a")}
    file.write_bytes(package(others | {f"jni/arm64-v8a/{name}": elf(size=100)}))
    assert read_tflite_library(file) == elf(size=100)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "neither a shared library nor an Android package"),
        (b"PK", "neither a shared library"),
        (b"\x7fELF\x02\x01", "neither a shared library"),
        (b"\x7fELF\x01\x01" + elf()[6:], "neither a shared library"),
        (elf(62), "not a shared library for 64-bit ARM"),
        (elf(kind=1), "not a shared library for 64-bit ARM"),
        (b"PK\x03\x04 and no more", "not a valid Android package"),
        (package(), "has no jni/arm64-v8a/libtensorflowlite_c.so and no libtensorflowlite_jni.so"),
        (package({"jni/x86_64/libtensorflowlite_jni.so": elf()}), "has no jni/arm64-v8a"),
        (package({f"/{JNI}": elf(), f"../{JNI}": elf(), f"{JNI}/": b""}), "has no jni/arm64-v8a"),
        (package({JNI: elf(62)}), "not a shared library for 64-bit ARM"),
        (package({JNI: b"text"}), "neither a shared library"),
        (package({JNI: bytes(10_000)}), "has more than"),
    ],
)
def test_other_files_are_one_line(file: Path, content: bytes, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_library, "_MAX_BYTES", 5000)
    file.write_bytes(content)
    with pytest.raises(DeviceError, match=words) as caught:
        read_tflite_library(file)
    assert "some file.aar" in str(caught.value) and "org.tensorflow:tensorflow-lite" in str(caught.value)


def test_a_damaged_or_locked_package_is_one_line(file: Path) -> None:
    sound = package({JNI: elf(size=4000) + bytes(range(256)) * 8})
    at = sound.index(JNI.encode()) + len(JNI)
    file.write_bytes(sound[: at + 20] + b"\xff\xff\xff\xff" + sound[at + 24 :])
    with pytest.raises(DeviceError, match="not a valid Android package"):
        read_tflite_library(file)
    # Kinds of packing whose damage Python tells in ways of their own, and a name that is no text.
    for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file.write_bytes(package({JNI: elf()}, kind))
        with pytest.raises(DeviceError, match=r"not a valid Android package \(neither stored nor deflated"):
            read_tflite_library(file)
    file.write_bytes(package({JNI: elf(), "ü": b""}).replace("ü".encode(), b"\xff\xff"))
    with pytest.raises(DeviceError, match="not a valid Android package"):
        read_tflite_library(file)
    # The flag of a password, in both places where the archive has flags.
    locked = bytearray(sound)
    locked[sound.rindex(b"PK\x03\x04") + 6] |= 1
    locked[sound.rindex(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(locked)
    with pytest.raises(DeviceError, match=r"not a valid Android package \(.*encrypted"):
        read_tflite_library(file)


def test_what_is_not_there_or_a_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be read"):
        read_tflite_library(tmp_path / "none")
    with pytest.raises(DeviceError, match="cannot be read"):
        read_tflite_library(tmp_path)
