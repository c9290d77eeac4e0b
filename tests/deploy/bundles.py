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
    ParityFigures,
    Preprocessing,
    Signature,
    TensorSignature,
    Training,
)

if TYPE_CHECKING:
    from bssl_tf_converters.lce.export import Converted

SIZE = 8
LABELS = ("cat", "dog / wolf", "Ä")
PIXELS = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)


def manifest(**changes: Any) -> Manifest:
    made = Manifest(
        format=FORMAT,
        target="arm64",
        created_by={"bssl-tf": "0.1.0"},
        files={},
        signature=Signature(
            TensorSignature("image", (1, SIZE, SIZE, 3), "float32"), TensorSignature("logits", (1, 3), "float32")
        ),
        preprocessing=Preprocessing(SIZE, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)),
        labels=LABELS,
        operators={"LceBconv2d": 3},
        binary=Binary(3, 1, 1, 1000),
        parity=ParityFigures(10, 1.0, 1e-5, 1e-6, 1.0, 1e-3),
        network=NetworkDescription("binary_resnet", {"depth": 1}),
        training=Training("s2bnn", "embedded", 50.0, 0),
    )
    return dataclasses.replace(made, **changes)


def golden() -> tuple[np.ndarray, np.ndarray]:
    p = manifest().preprocessing
    inputs = (PIXELS.astype(np.float32) / np.float32(255) - np.float32(np.array(p.mean))) / np.float32(np.array(p.std))
    outputs = np.random.default_rng(1).normal(0, 2, (4, 3)).astype(np.float32)
    return inputs.astype(np.float32), outputs


def write(path: Path, model: bytes = b"model", **options: Any) -> Path:
    write_bundle(path, manifest(), model, *golden(), ["cat", "dog / wolf", "Ä", "cat"], **options)
    return path


def write_real(path: Path, converted: Converted, preprocessing: Preprocessing, library: bytes | None = None) -> Path:
    """A bundle with a network that was really converted, as `bssl-tf export` writes it."""
    classes = converted.output_shape[1]
    about = manifest(
        target=converted.target,
        signature=Signature(
            TensorSignature("image", converted.input_shape, converted.golden_inputs.dtype.name),
            TensorSignature("logits", converted.output_shape, "float32"),
        ),
        preprocessing=preprocessing,
        labels=tuple(f"class {number}" for number in range(classes)),
    )
    inputs, outputs = converted.golden_inputs, converted.golden_outputs
    write_bundle(path, about, converted.model, inputs, outputs, ["a"] * len(inputs), library=library)
    return path
