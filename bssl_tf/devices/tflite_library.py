"""TensorFlow Lite's C library for a phone, out of the package that every Android developer has.

The package is an `.aar`, a zip archive: `org.tensorflow:tensorflow-lite` in Gradle's cache or from a Maven repository.
Nothing is unpacked by the names in it; one file is read, and that is sent to the phone.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

from bssl_tf.errors import DeviceError
from bssl_tf.files import open_regular
from bssl_tf_deploy.system_errors import next_step

_FOLDER = "jni/arm64-v8a"
_NAMES = ("libtensorflowlite_c.so", "libtensorflowlite_jni.so")
# The largest so far has 13 MB.
_MAX_BYTES = 128 << 20
# The package has the library for several kinds of processors.
_MAX_PACKAGE_BYTES = 1 << 30
_ELF_LIBRARY, _ELF_AARCH64 = 3, 183
_TAKE = "Name a libtensorflowlite_c.so for arm64-v8a, or the .aar of org.tensorflow:tensorflow-lite"


def read_tflite_library(file: Path) -> bytes:
    """The library's content.

    Args:
        file: a shared library, or an `.aar` with one in jni/arm64-v8a.

    Raises:
        DeviceError: it cannot be read, is neither, or is not for 64-bit ARM.
    """
    try:
        with open_regular(file, _MAX_PACKAGE_BYTES) as opened:
            content = opened.read(_MAX_BYTES + 1)
        if content.startswith(b"PK\x03\x04"):
            content = _from_package(file)
    except OSError as error:
        raise DeviceError(f"{file} cannot be read ({error.strerror})", next_step(error)) from error
    if len(content) > _MAX_BYTES:
        raise DeviceError(f"{file} has more than {_MAX_BYTES >> 20} MB, too large for such a library", _TAKE)
    if content[:6] != b"\x7fELF\x02\x01" or len(content) < 20:
        raise DeviceError(f"{file} is neither a shared library nor an Android package", _TAKE)
    kind, machine = struct.unpack_from("<HH", content, 16)
    if (kind, machine) != (_ELF_LIBRARY, _ELF_AARCH64):
        raise DeviceError(f"{file} is not a shared library for 64-bit ARM", _TAKE)
    return content


def _from_package(file: Path) -> bytes:
    try:
        with zipfile.ZipFile(file) as package:
            names = [f"{_FOLDER}/{name}" for name in _NAMES if f"{_FOLDER}/{name}" in package.namelist()]
            if not names:
                raise DeviceError(f"{file} has no {_FOLDER}/{' and no '.join(_NAMES)}", _TAKE)
            # Others fail in ways of their own, and nobody packs so for Android.
            if package.getinfo(names[0]).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise NotImplementedError("neither stored nor deflated")
            # What the archive says of the size is not believed.
            with package.open(names[0]) as library:
                return library.read(_MAX_BYTES + 1)
    # NotImplementedError: another compression; RuntimeError: a password; ValueError: names that are no text.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DeviceError(f"{file} is not a valid Android package ({error})", _TAKE) from error
