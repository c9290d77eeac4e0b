"""Mutated files of every kind that users and strangers hand over: each is read as it is, or refused in one line.

A batch of mutants of one kind is read in a process of its own, in which an audit hook watches for files written,
libraries loaded and processes started; run as `python -m tests.faults.mutations KIND ORIGINALS FIRST COUNT`.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import re
import resource
import shutil
import signal
import stat
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssl_tf.errors import BsslError, ImageError
from tests.edited import edited
from tests.faults import structure

SECONDS, MEBIBYTES = 10.0, 1024.0
# Of a file or folder that was opened by its path before.
_NAMELESS = re.compile(r"open \d+|os\.(remove|rmdir) \('[^/]+', \d+\)").fullmatch
# What parsers stumble over, by the kind of file.
_TOKENS = {
    "text": [
        *(b"1e999", b"NaN", b"-1", b"null", b"true", b"{}", b'""', b"99999999999999999999", b"../../x", b"/etc/passwd"),
        *(b"\x00", b"\xff", b"\xed\xa0\x80", b"\x1b[2J", b"\r", b"\n", b'"' + b"A" * 5000 + b'"', b"[" * 3000),
    ],
    "binary": [
        *(b"\x00" * 8, b"\xff" * 8, b"\x7f" * 4, b"\x80\x00\x00\x00", b"\xff\xff\xff\x7f", b"PK\x03\x04"),
        b"\x93NUMPY",
    ],
}


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        original: its place below the folder of originals, a file or a folder.
        read: reads it, by the way that the program takes; loads what it needs by itself.
        checked: whether it carries a checksum: what is read of a mutant must be what is read of the original.
        versions: contents of an original other than the one that `read` returns, which may be read instead.
        damaged: which file of a folder is mutated; any of them where it is empty.
        text: whether it is made of words.
        forged: whether a stranger writes the checksum too, if there is one: only what it says is odd.
        slow: whether a mutant takes a second, so that a tenth as many are read.
    """

    original: str
    read: Callable[[Path], object]
    damaged: str = ""
    text: bool = False
    checked: bool = False
    versions: Callable[[Path], list[object]] = lambda _: []
    forged: bool = False
    slow: bool = False


def _config(run: Path) -> object:
    from bssl_tf.settings.runs import read_run_config

    return read_run_config(run)


def _network(folder: Path) -> object:
    from bssl_tf.models.saved import read_network

    return read_network(folder)


@functools.cache
def _built(folder: Path) -> Any:
    from bssl_tf.models.saved import read_network

    return read_network(folder).build()


def _weights(folder: Path) -> object:
    from bssl_tf.models.saved import load_weights

    # Of one sound network: to build it takes a thousand times longer than to fill it.
    network = _built(folder.parents[1] / "whole" / folder.name)
    load_weights(folder, {"student": network})
    return network.get_weights()


def _checkpoint(run: Path) -> object:
    from bssl_tf.engine.run_folder import RunFolder

    found = RunFolder(run).latest_checkpoint()
    return found and (found.step, found.stage, found.tensors, found.sums)


def _earlier_checkpoints(run: Path) -> list[object]:
    *earlier, _ = sorted((run / "checkpoints").iterdir())
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for file in earlier:
            _copy(file, Path(folder, file.name, "checkpoints", file.name))
            found.append(_checkpoint(Path(folder, file.name)))
    return found


def _records(path: Path) -> object:
    from bssl_tf.files import read_records

    return read_records(path)


def _evaluation(run: Path) -> object:
    from bssl_tf.evaluation.records import read_evaluation

    return read_evaluation(run)


def _bundle(folder: Path) -> object:
    from bssl_tf_deploy.bundle import read_bundle

    found = read_bundle(folder)
    return found.manifest, found.model, found.golden_inputs, found.golden_outputs


def _hashed_bundle(folder: Path) -> object:
    """A stranger corrects the hashes too."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for name, entry in manifest["files"].items():
        entry["bytes"] = (folder / name).stat().st_size
        # Larger ones are refused before they are read.
        if entry["bytes"] <= 1 << 30:
            digest = hashlib.sha256()
            with (folder / name).open("rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
            entry["sha256"] = digest.hexdigest()
    (folder / "manifest.json").write_text(edited(manifest), encoding="utf-8")
    return _bundle(folder)


def _tflite(path: Path) -> object:
    from bssl_tf_converters.tflite.inspection import inspect_model, read_file

    return inspect_model(read_file(path))


def _picture(path: Path) -> object:
    from bssl_tf.data.decoding import decode
    from bssl_tf_deploy.pictures import UnreadableImageError

    try:
        return decode(path, 32, 3)
    except UnreadableImageError as error:
        # A batch of images counts it and goes on; on its own it is this error.
        raise ImageError(str(error), "Leave the file out") from error


def _keras(path: Path) -> object:
    from bssl_tf.keras_files.models import open_model

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return open_model(str(path))


def _torch(path: Path) -> object:
    from bssl_tf_converters.checkpoints.torch_checkpoint import read_torch_checkpoint

    return read_torch_checkpoint(path)


def _resumed(run: Path) -> object:
    """What `--resume` reads before any data or network."""
    from bssl_tf.engine.configuration import configured
    from bssl_tf.engine.run_folder import RunFolder
    from bssl_tf.settings import PretrainConfig

    folder = RunFolder(run)
    found = configured(PretrainConfig, {}, run), folder.planned_epochs()
    folder.rewind_metrics(2)
    return found, folder.scores(0, 2)


def _probe(run: Path) -> object:
    from bssl_tf.evaluation.linear_probe import load_probe

    return load_probe(run / "probe")


def _summary(run: Path) -> object:
    from bssl_tf.cli.summary import command

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return [command.main([str(run), *options], standalone_mode=False) for options in ([], ["--json"])]


def _report(run: Path) -> object:
    from bssl_tf.workflows.report import report

    return [report(run, format=name, images=0, out=run / "report").path for name in ("html", "json")]


def _comparison(path: Path) -> object:
    from bssl_tf.comparison.grid import read_grid
    from bssl_tf.comparison.records import load
    from bssl_tf.comparison.report import markdown

    return markdown(read_grid("cifar10"), load(path), "")


def _preset(path: Path) -> object:
    from bssl_tf.comparison.grid import read_grid

    return read_grid(str(path))


def _tfds(folder: Path) -> object:
    from bssl_tf.data.load import load_data

    shutil.rmtree(folder / "cache", ignore_errors=True)
    options: dict[str, Any] = {"data_dir": folder / "tfds", "cache_dir": folder / "cache", "download": False}
    with contextlib.redirect_stderr(io.StringIO()):
        return load_data("tfds:tiny", image_size=8, labels_needed=False, **options).train.fingerprint()


def _onnx(path: Path) -> object:
    from bssl_tf.teachers.inputs import TeacherOptions
    from bssl_tf.teachers.onnx_network import OnnxNetwork

    return OnnxNetwork(path, TeacherOptions(pixels="imagenet")).fingerprint()


def _teacher_outputs(path: Path) -> object:
    """None where they are computed again."""
    from bssl_tf.engine.teacher_cache import _intact

    return np.load(path, allow_pickle=False) if _intact(path) else None


def _zoo(folder: Path) -> object:
    from bssl_tf import zoo

    return dataclasses.replace(zoo.find("fashion-mnist-28", folder), folder=Path())


def _devices(path: Path) -> object:
    from bssl_tf.devices.devices_file import named_devices

    return named_devices(path)


def _benchmarks(path: Path) -> object:
    from bssl_tf.bench_records import read_benchmarks

    return read_benchmarks(path)


KINDS: dict[str, Kind] = {
    "config.toml": Kind("student", _config, "config.toml", text=True),
    "network.json": Kind("student/student", _network, "network.json", text=True, checked=True),
    "weights": Kind("student/student", _weights, "weights.safetensors", checked=True),
    "checkpoint": Kind("student", _checkpoint, "checkpoints", checked=True, versions=_earlier_checkpoints),
    "metrics.jsonl": Kind("student/metrics.jsonl", _records, text=True),
    "evaluation.json": Kind("student", _evaluation, "evaluation.json", text=True, checked=True),
    "manifest.json": Kind("student/bundle", _bundle, "manifest.json", text=True, checked=True),
    "golden.npz": Kind("student/bundle", _hashed_bundle, "golden.npz"),
    "model.tflite": Kind("student/bundle/model.tflite", _tflite),
    "JPEG": Kind("pictures/photo.jpg", _picture),
    "PNG": Kind("pictures/photo.png", _picture),
    "WebP": Kind("pictures/photo.webp", _picture),
    "TIFF": Kind("pictures/photo.tiff", _picture),
    ".keras": Kind("models/model.keras", _keras),
    ".h5": Kind("models/model.h5", _keras),
    "SavedModel": Kind("models/saved_model", _keras),
    "PyTorch, zip": Kind("torch/small.zip.pth", _torch),
    "PyTorch, legacy": Kind("torch/small.legacy.pth", _torch),
    "devices.toml": Kind("devices.toml", _devices, text=True),
    "benchmark records": Kind("bench.jsonl", _benchmarks, text=True),
    "preset": Kind("preset.toml", _preset, text=True),
    "comparison records": Kind("comparison.jsonl", _comparison, text=True),
    "resumed run": Kind("student", _resumed, "*.[tj]*", text=True),
    "TFDS": Kind("tfds", _tfds, "tfds"),
    "ONNX": Kind("onnx/model.onnx", _onnx),
    "teacher's outputs": Kind("outputs.teacher.npy", _teacher_outputs, checked=True, versions=lambda _: [None]),
    "entry of the zoo": Kind("zoo", _zoo, "fashion-mnist-28/entry.json", text=True, checked=True),
}
FORGED: dict[str, Kind] = {
    f"{name}, forged": dataclasses.replace(KINDS[name], checked=False, forged=True)
    for name in ("network.json", "evaluation.json", "manifest.json", "resumed run", "entry of the zoo")
} | {
    "probe.json, forged": Kind("student", _probe, "probe/probe.json", forged=True),
    "run, summarised, forged": Kind("student", _summary, forged=True),
    "run, reported, forged": Kind("student", _report, forged=True, slow=True),
}
KINDS |= FORGED


def same(one: Any, other: Any) -> bool:
    """Whether two contents are equal to the bit."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        both = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
        return bool(both and one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def mutated(content: bytes, rng: np.random.Generator, *, text: bool) -> bytes:
    """Flips bits, overwrites, inserts, repeats, cuts out or cuts off, one to four times."""
    result = bytearray(content)
    tokens = _TOKENS["text" if text else "binary"]
    for _ in range(int(rng.integers(1, 5))):
        place = int(rng.integers(len(result) + 1))
        length = int(rng.integers(1, 1 + min(64, max(1, len(result) - place))))
        token = tokens[int(rng.integers(len(tokens)))]
        action = int(rng.integers(7))
        if action == 0 and place < len(result):
            result[place] ^= 1 << int(rng.integers(8))
        elif action == 1:
            result[place : place + length] = rng.bytes(length)
        elif action == 2:
            result[place:place] = token
        elif action == 3:
            result[place : place + len(token)] = token
        elif action == 4:
            del result[place : place + length]
        elif action == 5:
            result[place:place] = result[place : place + length] * int(rng.integers(1, 9))
        elif rng.random() < 0.2:
            del result[place:]
    return bytes(result)


def files_of(kind: Kind, copy: Path) -> list[Path]:
    """The files of a copy, one of which is to be damaged."""
    places = sorted(copy.glob(kind.damaged)) if kind.damaged else [copy]
    files = [file for place in places for file in (sorted(place.rglob("*")) if place.is_dir() else [place])]
    return [file for file in files if file.is_file() and (not kind.forged or file.suffix in structure.SUFFIXES)]


def damage(kind: Kind, copy: Path, rng: np.random.Generator) -> None:
    """Mutates one file of a fresh copy."""
    files = files_of(kind, copy)
    file = files[int(rng.integers(len(files)))]
    if (kind.forged or (not kind.checked and rng.random() < 0.5)) and structure.change(file, rng):
        return
    if zipfile.is_zipfile(file) and rng.random() < 0.7:
        _damage_member(file, rng)
    else:
        file.write_bytes(mutated(file.read_bytes(), rng, text=kind.text))


def _damage_member(file: Path, rng: np.random.Generator) -> None:
    """Mutates what an archive holds, whose checksum would give away a mutation of the archive itself."""
    with zipfile.ZipFile(file) as archive:
        members = [(item, archive.read(item)) for item in archive.infolist()]
    chosen = int(rng.integers(len(members)))
    with zipfile.ZipFile(file, "w") as archive:
        for place, (item, content) in enumerate(members):
            text = item.filename.endswith(".json")
            damaged = mutated(content, rng, text=text) if place == chosen else content
            archive.writestr(item.filename, damaged, item.compress_type)


class TimeoutExceededError(BaseException):
    """A mutant was not answered in time; not an `Exception`, which readers turn into messages of theirs."""


@contextlib.contextmanager
def _deadline() -> Iterator[None]:
    def late(signum: int, frame: object) -> None:
        raise TimeoutExceededError

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def peak_mebibytes() -> float:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_mutants(name: str, originals: Path, first: int, count: int) -> dict[str, Any]:
    """Reads the mutants `first`, ..., `first` + `count` - 1 of a kind; the number is the seed of each.

    Returns:
        How many were read and refused, by status; the failures, with their seeds; the slowest in seconds, and by how
        much the process grew in MiB.
    """
    from tests.keras_files.fuzzing import Watch

    kind = KINDS[name]
    source = originals / kind.original
    outcomes: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    slowest = 0.0
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # What a reader unpacks lies here too, where it may write.
        patch.setattr(tempfile, "tempdir", folder)
        # Once whole: what a reader loads by itself is not the mutant's doing.
        copy = _copy(source, Path(folder) / "whole" / source.name)
        intact = [kind.read(copy), *kind.versions(copy)]
        base = peak_mebibytes()
        copy = _copy(source, Path(folder) / "mutant" / source.name)
        for seed in range(first, first + count):
            restore(source, copy)
            damage(kind, copy, np.random.default_rng(seed))
            watch.effects.clear()
            began = time.monotonic()
            try:
                with _deadline():
                    watch.on = True
                    found = kind.read(copy)
                outcomes["read"] += 1
                if kind.checked and not any(same(found, one) for one in intact):
                    failures.append(f"{seed}: other content was read")
            except BsslError as error:
                outcomes[type(error).__name__] += 1
                if "\n" in str(error):
                    failures.append(f"{seed}: more than one line: {str(error)[:200]!r}")
            except Exception as error:  # what a user would see as a traceback
                failures.append(f"{seed}: {type(error).__name__}: {str(error)[:200]}")
            except TimeoutExceededError:
                outcomes["late"] += 1
            finally:
                watch.on = False
            took = time.monotonic() - began
            slowest = max(slowest, took)
            # Whatever was made of the error.
            if took >= SECONDS:
                failures.append(f"{seed}: no answer within {SECONDS:g} s")
            foreign = [one for one in watch.effects if folder not in one and not _NAMELESS(one)]
            if foreign:
                failures.append(f"{seed}: side effects {foreign[:3]}")
        grown = peak_mebibytes() - base
    if grown > MEBIBYTES:
        failures.append(f"grew by {grown:.0f} MiB")
    return {
        "kind": name,
        "mutants": count,
        "outcomes": dict(outcomes),
        "failures": failures,
        "slowest_s": round(slowest, 3),
        "grown_mib": round(grown, 1),
    }


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    # With its times, by which `restore` knows what was changed.
    return Path(shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target))


def restore(source: Path, copy: Path) -> None:
    """Makes a copy what it was: a fresh one of a run folder takes longer than most readers."""
    wanted, there = _below(source), _below(copy)
    for name in sorted(there.keys() - wanted.keys(), reverse=True):
        path = copy / name
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    for name, facts in sorted(wanted.items()):
        if name in there and there[name] == facts:
            continue
        target = copy / name
        if facts is None:
            target.mkdir(exist_ok=True)
        else:
            target.unlink(missing_ok=True)
            shutil.copy2(source / name, target)


def _below(folder: Path) -> dict[str, tuple[int, int] | None]:
    """The time and size of a file, or of all in a folder, by path; None for folders."""
    found: dict[str, tuple[int, int] | None] = {}
    paths = [folder, *folder.rglob("*")] if folder.is_dir() else [folder]
    for path in paths:
        about = path.lstat()
        regular = stat.S_ISREG(about.st_mode)
        found[path.relative_to(folder).as_posix()] = (about.st_mtime_ns, about.st_size) if regular else None
    return found


if __name__ == "__main__":
    _name, _originals, _first, _count = sys.argv[1:]
    print(json.dumps(read_mutants(_name, Path(_originals), int(_first), int(_count))))
