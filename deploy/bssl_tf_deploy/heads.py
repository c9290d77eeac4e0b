"""Heads that were learned after export: small classifiers on the features of a bundle's network.

A head is one file in the bundle, `heads/NAME.npz`, which numpy opens without pickle; the one before it is kept in
`heads/NAME.previous.npz`. The manifest does not list them, and the bundle stays what was exported: a head states its
own hashes, and that of the model whose features it reads.

    about      text: JSON with labels, calibration and what was measured (`About`), and the hash of each array
    weights    float32 [D, C]
    bias       float32 [C]
    kept       float32 [N, D]: features of the photos that it was learned from, in the order of the classes

Features are kept because no sum of them would do: a class that is added or taken away changes the boundaries of all
others, and how often an answer is right can only be measured on photos. `MAX_KEPT_BYTES` bounds them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bssl_tf_deploy.arrays import read_npz
from bssl_tf_deploy.bundle import HEADS, MODEL, Bundle
from bssl_tf_deploy.errors import BundleError, StorageError, UsageError
from bssl_tf_deploy.files import (
    atomic_writer,
    new_file,
    read_regular,
    storage_errors,
    with_checksum,
    without_checksum,
    write_bytes,
)
from bssl_tf_deploy.strict import StrictError, expect, parse
from bssl_tf_deploy.system_errors import next_step
from bssl_tf_deploy.tasks.classification import softmax
from bssl_tf_deploy.vectors import unit

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
UNKNOWN = "unknown"
MAX_KEPT_BYTES = 1 << 26
_MAX_BYTES = 1 << 27
_ARRAYS = ("weights", "bias", "kept")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
Kind = Literal["linear", "prototypes"]


@dataclass(frozen=True)
class HeldOut:
    """What was measured on photos that the head was not fitted to, by cross-validation.

    Attributes:
        folds: as many fits, each measured on the photos of one fold.
        right: of each class, answers with its label, in any confidence.
        unknown: of each class, answers that `unknown` takes the place of.
    """

    folds: int
    right: tuple[int, ...]
    unknown: tuple[int, ...]


@dataclass(frozen=True)
class About:
    """What a head states of itself.

    Attributes:
        format: of the file; this code writes `FORMAT`.
        kind: `linear`: logits are features @ weights + bias. `prototypes`: the columns of `weights` are class means of
            length one and `bias` is zero, so that logits are cosines once features have length one.
        model: SHA-256 of the model whose features it reads.
        labels: C names.
        photos: of each class, how many it was learned from, all of them in `kept`.
        temperature: scores are softmax(logits / temperature).
        confidence: the score of the best class below which the answer is `unknown`.
        similarity: the same for the largest cosine; None of linear heads.
        unknown_percent: of the right answers on held-out photos, how many may become `unknown` by that.
        held_out: what was measured.
        arrays: SHA-256 of the bytes of each array.
    """

    format: int
    kind: Kind
    model: str
    labels: tuple[str, ...]
    photos: tuple[int, ...]
    temperature: float
    confidence: float
    similarity: float | None
    unknown_percent: float
    held_out: HeldOut
    arrays: dict[str, str]


@dataclass(frozen=True, eq=False)
class Head:
    """A head as its file has it; see the top of this file."""

    about: About
    weights: np.ndarray
    bias: np.ndarray
    kept: np.ndarray

    @property
    def sha256(self) -> str:
        """Of all that answers depend on, in hexadecimal."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self.about)).encode()).hexdigest()

    @property
    def kept_labels(self) -> np.ndarray:
        """The class of each row of `kept`, int64 [N]."""
        return np.repeat(np.arange(len(self.about.labels)), self.about.photos)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float32 [N, C] of features [N, D]."""
        return logits_of(self.about.kind, self.weights, self.bias, features)

    def scores(self, features: np.ndarray) -> np.ndarray:
        """The probability of each class, float64 [N, C], of features [N, D]."""
        return softmax(self.logits(features), self.about.temperature)

    def unknown(self, features: np.ndarray) -> np.ndarray:
        """Whether the answer is `unknown`, bool [N], of features [N, D]."""
        logits, about = self.logits(features), self.about
        return below(logits, about.temperature, about.confidence, about.similarity)


def logits_of(kind: Kind, weights: np.ndarray, bias: np.ndarray, features: np.ndarray) -> np.ndarray:
    """float32 [N, C]; see `About.kind`."""
    rows = unit(features) if kind == "prototypes" else features
    logits: np.ndarray = rows @ weights + bias
    return logits


def below(logits: np.ndarray, temperature: float, confidence: float, similarity: float | None) -> np.ndarray:
    """Which rows of logits [N, C] do not reach the thresholds, bool [N]."""
    short = softmax(logits, temperature).max(axis=1) < confidence
    if similarity is not None:
        short |= logits.max(axis=1) < similarity
    return np.asarray(short)


def check_name(name: str) -> None:
    """Raises `UsageError` for what is not the name of a head."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r:.80} is not the name of a head", "Use up to 64 letters, digits, _ and -")


def head_path(bundle: Bundle, name: str, *, previous: bool = False) -> Path:
    """Where a head lies. Raises `UsageError` for what is not a name."""
    check_name(name)
    return bundle.path / HEADS / f"{name}{'.previous' * previous}.npz"


def head_names(bundle: Bundle) -> list[str]:
    """The heads of a bundle, sorted."""
    return sorted(path.stem for path in (bundle.path / HEADS).glob("*.npz") if _NAME.fullmatch(path.stem))


def read_head(bundle: Bundle, name: str, *, previous: bool = False) -> Head:
    """Reads a head and checks its hashes, and that it was learned on this bundle's network.

    Raises:
        BundleError: there is none of this name, it is damaged, or it is of another network.
        UsageError: see `head_path`.
    """
    path = head_path(bundle, name, previous=previous)
    try:
        head = _head(read_npz(read_regular(path, _MAX_BYTES), _MAX_BYTES, text=True))
    except FileNotFoundError as error:
        there = ", ".join(head_names(bundle))
        raise BundleError(
            f"{bundle.path} has no {'previous ' * previous}head {name}{f', only {there}' if there else ''}",
            "Learn one from photos with `bssl-tf-deploy learn`",
        ) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror})", next_step(error)) from error
    except (ValueError, RecursionError, StrictError) as error:
        step = "Learn it again" if previous else "Bring the previous one back with `learn --undo`, or learn it again"
        raise BundleError(f"{path} is not a head, or is damaged: {error}", step) from error
    if head.about.model != bundle.manifest.files[MODEL].sha256:
        raise BundleError(f"{path} was learned on another network than that of this bundle", "Learn it again")
    return head


def _head(arrays: dict[str, np.ndarray]) -> Head:
    expect(set(arrays) == {"about", *_ARRAYS}, "it", f"a file of about, {', '.join(_ARRAYS)}")
    expect(arrays["about"].dtype.kind == "U" and arrays["about"].ndim == 0, "about", "text")
    about = parse(About, without_checksum(json.loads(str(arrays["about"]))), "about")
    weights, bias, kept = (arrays[name] for name in _ARRAYS)
    classes, rows = len(about.labels), sum(about.photos)
    expect(about.format == FORMAT, "about.format", f"{FORMAT}, which this version reads")
    expect(classes > 1 and all(about.labels), "about.labels", "a list of at least two names")
    expect(len(set(about.labels)) == classes and UNKNOWN not in about.labels, "about.labels", "a list of classes")
    expect(1e-6 <= about.temperature <= 1e6, "about.temperature", "from 1e-6 to 1e6")
    expect(0 <= about.confidence <= 1, "about.confidence", "from 0 to 1")
    expect(0 <= about.unknown_percent <= 100, "about.unknown_percent", "in percent")
    expect((about.similarity is None) == (about.kind == "linear"), "about.similarity", "that of prototypes")
    for counts in (about.photos, about.held_out.right, about.held_out.unknown):
        expect(len(counts) == classes and min(counts) >= 0, "about", "a count for each class")
    expect(weights.ndim == 2 and len(weights) > 0, "weights", "[D, C]")
    shapes = {"weights": (len(weights), classes), "bias": (classes,), "kept": (rows, len(weights))}
    for name, shape in shapes.items():
        right = arrays[name].dtype == np.float32 and arrays[name].shape == shape
        expect(right, name, f"float32 {list(shape)}")
        expect(bool(np.all(np.isfinite(arrays[name]))), name, "finite")
    expect(about.arrays == _hashes(arrays), "it", "what was written: the hash of an array differs")
    return Head(about, weights, bias, kept)


def _hashes(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: hashlib.sha256(np.ascontiguousarray(arrays[name]).tobytes()).hexdigest() for name in _ARRAYS}


@contextlib.contextmanager
def changing(bundle: Bundle) -> Iterator[None]:
    """While heads of a bundle are read, changed and written: no other process may do that.

    Raises:
        StorageError: one does, or the folder cannot be made.
    """
    folder = bundle.path / HEADS
    with storage_errors(folder):
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY) if fcntl is not None else -1
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StorageError(f"another process is changing a head in {folder}", "Wait for it") from error
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def write_head(bundle: Bundle, name: str, head: Head) -> Path:
    """Writes a head, always the same bytes; the one before it is kept.

    A process that is killed leaves the head as it was, or as it is to be.

    Raises:
        StorageError: it cannot be written.
    """
    path, previous = head_path(bundle, name), head_path(bundle, name, previous=True)
    arrays = {"weights": head.weights, "bias": head.bias, "kept": head.kept}
    about = with_checksum(dataclasses.asdict(dataclasses.replace(head.about, arrays=_hashes(arrays))))
    with atomic_writer(path) as file:
        np.savez(file, about=np.array(json.dumps(about)), **arrays)
        # A full disk shows here, before anything is replaced.
        file.flush()
        os.fsync(file.fileno())
        # Only a head that can be read takes the place of the one that was kept.
        with contextlib.suppress(BundleError):
            read_head(bundle, name)
            write_bytes(previous, read_regular(path, _MAX_BYTES))
    return path


def undo(bundle: Bundle, name: str) -> Head:
    """Exchanges a head for the one before it, which it returns; done twice, nothing has changed.

    Raises:
        BundleError: there is none before it, or it is damaged.
        StorageError: it cannot be written.
    """
    path, previous = head_path(bundle, name), head_path(bundle, name, previous=True)
    head = read_head(bundle, name, previous=True)
    with storage_errors(path):
        aside = None
        with contextlib.suppress(FileNotFoundError):
            descriptor, aside = new_file(path.parent, f".{path.name}.", ".tmp")
            os.close(descriptor)
            aside.write_bytes(read_regular(path, _MAX_BYTES))
        previous.replace(path)
        if aside is not None:
            aside.replace(previous)
    return head
