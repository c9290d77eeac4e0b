"""Bundles: one without a real network, which the format is tested on, and real ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bssl_tf_deploy.bundle import write_bundle
from bssl_tf_deploy.manifest import (
    FORMAT,
    Binary,
    Manifest,
    NetworkDescription,
    OutputParity,
    ParityFigures,
    Preprocessing,
    TensorSignature,
    Training,
)
from bssl_tf_deploy.tasks.classification import Probe, Table

if TYPE_CHECKING:
    from bssl_tf_converters.lce.export import Converted

SIZE = 8
LABELS = ("cat", "dog / wolf", "Ä")
PIXELS = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)


def manifest(**changes: Any) -> Manifest:
    made = Manifest(
        format=FORMAT,
        task="classification",
        target="arm64",
        commit="0123456789ab",
        created_by={"bssl-tf": "0.1.0"},
        files={},
        inputs=(TensorSignature("image", (1, SIZE, SIZE, 3), "float32"),),
        outputs=(TensorSignature("logits", (1, 3), "float32"),),
        preprocessing=Preprocessing(SIZE, SIZE, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)),
        operators={"LceBconv2d": 3},
        binary=Binary(3, 1, 1, 1000),
        parity=ParityFigures(10, 1.0, 1.0, {"logits": OutputParity(1e-5, 1e-6, 1e-3)}),
        network=NetworkDescription("binary_resnet", {"depth": 1}),
        training=Training("s2bnn", "embedded", None, 0),
        table=Table(LABELS, Probe("embedded", 50.0), None),
    )
    return dataclasses.replace(made, **changes)


def golden() -> tuple[list[np.ndarray], list[np.ndarray]]:
    p = manifest().preprocessing
    inputs = (PIXELS.astype(np.float32) / np.float32(255) - np.float32(np.array(p.mean))) / np.float32(np.array(p.std))
    outputs = np.random.default_rng(1).normal(0, 2, (4, 3)).astype(np.float32)
    return [inputs.astype(np.float32)], [outputs]


def write(path: Path, model: bytes = b"model", **options: Any) -> Path:
    write_bundle(path, manifest(), model, *golden(), ["cat", "dog / wolf", "Ä", "cat"], **options)
    return path


def write_real(path: Path, converted: Converted, preprocessing: Preprocessing, library: bytes | None = None) -> Path:
    """A bundle with a network that was really converted, as `bssl-tf export` writes it."""
    classes = converted.outputs[0].shape[1]
    about = manifest(
        target=converted.target,
        inputs=converted.inputs,
        outputs=converted.outputs,
        preprocessing=preprocessing,
        table=Table(tuple(f"class {number}" for number in range(classes)), None, None),
    )
    inputs, outputs = converted.golden_inputs, converted.golden_outputs
    write_bundle(path, about, converted.model, inputs, outputs, ["a"] * len(inputs[0]), library=library)
    return path
