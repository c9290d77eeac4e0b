"""The folder of converted models: a flatbuffer and a JSON file for each network and kind. Loads no TensorFlow."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.networks import BINARY, BINARY_INT8, FLOAT32, INT8
from bssl_tf.errors import ConversionError, RunFolderError
from bssl_tf.files import read_json, write_bytes, write_json

SEED = 20211015
# By kind; to be raised when `conversion` or `images` make something else of the same seed.
_RECIPES = {BINARY: 2, BINARY_INT8: 1, FLOAT32: 1, INT8: 1}
_PACKAGES = ("tensorflow", "tf-keras", "larq", "larq-compute-engine", "larq-zoo", "numpy")


def versions() -> dict[str, str]:
    """Versions of the packages that made the models.

    Raises:
        ConversionError: one is not installed.
    """
    try:
        return {name: metadata.version(name) for name in _PACKAGES}
    except metadata.PackageNotFoundError as error:
        raise ConversionError(
            f"{error.name} is not installed, which the networks are made with", "Run `make setup`"
        ) from error


def load(cache: Path, network: str, kind: str) -> bytes | None:
    """The model, or None when it is not there, not whole, or made by another recipe or other versions."""
    try:
        about = read_json(_about(cache, network, kind))
        content = _model(cache, network, kind).read_bytes()
    except (RunFolderError, OSError):
        return None
    current = {"recipe": _RECIPES[kind], "seed": SEED, "versions": versions()}
    if {name: about.get(name) for name in current} != current:
        return None
    return content if about.get("sha256") == hashlib.sha256(content).hexdigest() else None


def loaded(cache: Path, network: str, kind: str) -> bytes:
    """As `load`, where the model has to be there. Raises `ConversionError`."""
    content = load(cache, network, kind)
    if content is None:
        raise ConversionError(f"there is no {kind} model of {network} in {cache}", "Run the benchmark again to make it")
    return content


def store(cache: Path, network: str, kind: str, content: bytes, about: dict[str, Any]) -> None:
    """Keeps a model; its JSON file comes last, so that it vouches for the other. Raises `StorageError`."""
    write_bytes(_model(cache, network, kind), content)
    sha256 = hashlib.sha256(content).hexdigest()
    write_json(
        _about(cache, network, kind),
        {
            **about,
            "recipe": _RECIPES[kind],
            "seed": SEED,
            "versions": versions(),
            "sha256": sha256,
            "bytes": len(content),
        },
    )


def images(shape: tuple[int, ...], count: int, seed: int = SEED) -> np.ndarray:
    """Coarse random patterns with a little noise, float32 [count, *shape], most values within -2 to 2.

    Pure noise would leave nothing after a global pool: every image would give the same logits.
    """
    height, width, channels = shape
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 0.9, (count, 7, 7, channels))
    fine = coarse.repeat(-(-height // 7), axis=1).repeat(-(-width // 7), axis=2)[:, :height, :width]
    return np.asarray(fine + rng.normal(0, 0.3, fine.shape), np.float32)


def _model(cache: Path, network: str, kind: str) -> Path:
    return cache / f"{network}.{kind}.tflite"


def _about(cache: Path, network: str, kind: str) -> Path:
    return cache / f"{network}.{kind}.json"
