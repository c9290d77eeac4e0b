"""Checkpoints for tests: from a Python that has PyTorch, or put together opcode by opcode (protocol 2)."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np

from tests.conftest import require_or_skip

REFERENCE = Path(__file__).with_name("torch_reference.py")
NUMBERS = np.arange(6, dtype="<f4") / 4


def run_torch(what: str, folder: Path) -> None:
    """Runs `torch_reference.py` with the first Python that has PyTorch."""
    for python in (sys.executable, "/usr/bin/python3"):
        probe = [python, "-c", "import numpy, torch"]
        if Path(python).exists() and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            done = subprocess.run([python, REFERENCE, what, folder], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return
    require_or_skip(False, "no Python with PyTorch (Debian: python3-torch)")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def several(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def mapping(*items: bytes) -> bytes:
    return b"}(" + b"".join(items) + b"u"


def named(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def storage(count: int = 6, key: str = "0", kind: str = "FloatStorage", tag: str = "storage") -> bytes:
    return several(text(tag), named("torch", kind), text(key), text("cpu"), number(count)) + b"Q"


def tensor(*shape: int, strides: tuple[int, ...] | None = None, offset: int = 0, data: bytes | None = None) -> bytes:
    steps = strides if strides is not None else tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    sizes = [several(*map(number, values)) for values in (shape, steps)]
    hooks = named("collections", "OrderedDict") + b")R"
    arguments = several(data or storage(), number(offset), *sizes, b"\x89", hooks)
    return named("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


SOUND = mapping(text("a"), tensor(2, 3), text("b"), tensor(3, strides=(2,), offset=1))


def pickled(content: bytes) -> bytes:
    return b"\x80\x02" + content + b"."


def write_zip(path: Path, content: bytes, data: bytes = NUMBERS.tobytes(), order: bytes = b"little") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, entry in (("data.pkl", pickled(content)), ("byteorder", order), ("data/0", data)):
            archive.writestr(f"archive/{name}", entry)
    return path


def storage_in(content: bytes) -> bool:
    return text("storage") in content


def write_legacy(path: Path, content: bytes, data: bytes = NUMBERS.tobytes(), order: bytes = b"little") -> Path:
    system = mapping(
        text("protocol_version"), number(1001), text("little_endian"), b"\x88" if order == b"little" else b"\x89"
    )
    keys = b"](" + text("0") + b"e" if storage_in(content) else b"]"
    head = [number(0x1950A86A20F9469CFC6C), number(1001), system, content, keys]
    path.write_bytes(b"".join(map(pickled, head)) + struct.pack("<q", len(data) // 4) + data)
    return path
