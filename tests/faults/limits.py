"""Large files of every kind, read in little memory: `python -m tests.faults.limits ORIGINALS [KIND ...]`.

Each is read by a fork of one process that has read nothing yet, which first reads the sound file and then may take
1 GB of address space and ten seconds of a processor more. It reads the file or refuses it with one line.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from bssl_tf.errors import BsslError
from bssl_tf_deploy.system_errors import system_error
from tests.faults.mutations import FORGED, KINDS, Kind, TimeoutExceededError, files_of

SECONDS, BYTES = 10, 10**9
# Of a fork, for what uses no processor.
_HANGS_S = 90
_MODULES = ("bssl_tf.backend", "bssl_tf.cli.main", "bssl_tf.keras_files.models", "bssl_tf.models.saved")


def _beside(path: Path) -> object:
    from bssl_tf.workflows.networks_beside import read_models

    return read_models({"other": path})


def _photos(folder: Path) -> object:
    """A folder, and the cache of its images within it."""
    from bssl_tf.data.load import load_data

    return load_data(str(folder / "photos"), image_size=8, cache_dir=folder / "cache", labels_needed=False)


def _tensors(path: Path) -> object:
    from bssl_tf.checkpoints import read_tensors

    return read_tensors(path)


MORE: dict[str, Kind] = {
    "model beside": Kind("student/bundle/model.tflite", _beside),
    "model in a bundle": Kind("student/bundle", KINDS["manifest.json"].read, "model.tflite"),
    "predictions": Kind("student/predictions.safetensors", _tensors),
    "image cache, index": Kind("photos", _photos, "cache/*/index.json", text=True),
    "image cache, images": Kind("photos", _photos, "cache/*/train*.npy"),
}
# What is forged has the size of what is not.
EVERY = {name: kind for name, kind in KINDS.items() if name not in FORGED} | MORE


def _holes(size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, path.stat().st_size + size)


def _many_lists(path: Path) -> None:
    """What takes twenty times as much memory as bytes."""
    # A little less than is read.
    lists = b"[" + b"[]," * (15_000_000 if path.suffix == ".jsonl" else 2_000_000) + b"[]]"
    path.write_bytes(b'{"a": ' + lists + b"}\n" if path.suffix != ".toml" else b"a = " + lists[-(1 << 20) + 100 :])


def _many_lines(path: Path) -> None:
    if path.suffix == ".toml":
        path.write_bytes(b"".join(b"a%d = 1\n" % number for number in range(80_000)))
    else:
        line = path.read_bytes().splitlines(keepends=True)[0]
        path.write_bytes(line * min(10**6, 6 * 10**7 // len(line)))


def _wide_header(path: Path) -> None:
    """Of safetensors: a header of 90 MB."""
    header = b'{"a":' + b"[" + b"1," * 45_000_000 + b"1]}"
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def _bomb(path: Path) -> None:
    """A largest member that unpacks to 1.5 GB more."""
    with zipfile.ZipFile(path) as archive:
        members = [(item, archive.read(item)) for item in archive.infolist()]
    largest = max(members, key=lambda member: len(member[1]))[0].filename
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for item, content in members:
            with archive.open(item.filename, "w", force_zip64=True) as file:
                file.write(content)
                for _ in range(96 * (item.filename == largest)):
                    file.write(bytes(1 << 24))


def _wide(path: Path) -> None:
    """An image of as many pixels as Pillow takes, the same colour all over."""
    kind = {".jpg": "JPEG", ".webp": "WEBP"}.get(path.suffix, path.suffix[1:].upper())
    side = 13_000 if kind != "WEBP" else 8_000
    options: dict[str, Any] = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    Image.new("RGB" if kind == "JPEG" else "RGBA", (side, side)).save(path, kind, **options)


def specimens(kind: Kind, file: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Ways to make a file of this kind large."""
    yield "900 MB of zeros at its end", _holes(900 * 10**6)
    yield "5 GB of zeros at its end", _holes(5 * 10**9)
    if kind.text:
        yield "many lists", _many_lists
        yield "many lines", _many_lines
    if file.suffix == ".safetensors":
        yield "a wide header", _wide_header
    if zipfile.is_zipfile(file):
        yield "a bomb", _bomb
    if file.suffix in (".jpg", ".png", ".webp", ".tiff"):
        yield "169 million pixels", _wide


def _target(kind: Kind, copy: Path) -> Path:
    return max(files_of(kind, copy), key=lambda file: file.stat().st_size)


def _copy(kind: Kind, originals: Path, folder: Path) -> Path:
    source = originals / kind.original
    folder.mkdir()
    return Path(shutil.copytree(source, folder / source.name) if source.is_dir() else shutil.copy(source, folder))


def _late(signum: int, frame: object) -> None:
    raise TimeoutExceededError


def _read(kind: Kind, sound: Path, large: Path) -> dict[str, Any]:
    """In a fork: what became of a large file."""
    kind.read(sound)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGPROF, _late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    began = time.process_time()
    try:
        kind.read(large)
        outcome = "read"
    except BsslError as error:
        outcome = type(error).__name__
    except Exception as error:
        known = system_error(error)
        outcome = f"{type(known).__name__} at the door" if known else f"FAILED: {type(error).__name__}: {error}"[:300]
    except TimeoutExceededError:
        outcome = "late"
    signal.setitimer(signal.ITIMER_PROF, 0)
    took = time.process_time() - began
    # Whatever was made of the error. The timer's clock is coarser than this one.
    if took >= 0.9 * SECONDS:
        outcome = f"FAILED: no answer within {SECONDS} s of a processor"
    return {"outcome": outcome, "processor_s": round(took, 2)}


def _forked(kind: Kind, sound: Path, large: Path) -> dict[str, Any]:
    ours, theirs = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for number in (1, 2):
                os.dup2(nowhere, number)
            os.write(theirs, json.dumps(_read(kind, sound, large)).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    end = time.monotonic() + _HANGS_S
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return {"outcome": f"FAILED: no answer within {_HANGS_S} s"}
        time.sleep(0.01)
    with os.fdopen(ours, "rb") as pipe:
        content = pipe.read()
    found: dict[str, Any] = json.loads(content) if content else {"outcome": "FAILED: the process died"}
    return found


def read_large(originals: Path, kinds: list[str]) -> list[dict[str, Any]]:
    """Every large specimen of these kinds, in a process that has run no op of TensorFlow."""
    for module in _MODULES:
        importlib.import_module(module)
    results = []
    for name in kinds:
        kind = EVERY[name]
        with tempfile.TemporaryDirectory() as folder:
            sound = _copy(kind, originals, Path(folder, "whole"))
            if kind.damaged.startswith("cache/"):  # which reading makes
                _forked(kind, sound, sound)
            for number, (specimen, enlarge) in enumerate(specimens(kind, _target(kind, sound))):
                place = Path(folder, f"large{number}")
                large = Path(shutil.copytree(sound.parent, place)) / sound.name
                enlarge(_target(kind, large))
                results.append({"kind": name, "specimen": specimen, **_forked(kind, sound, large)})
                sys.stdout.write(json.dumps(results[-1]) + "\n")
                sys.stdout.flush()
                shutil.rmtree(place)
    return results


if __name__ == "__main__":
    _originals, *_kinds = sys.argv[1:]
    _found = read_large(Path(_originals), _kinds or list(EVERY))
    sys.exit(any("FAILED" in one["outcome"] for one in _found))
