"""The library for Android prepares pictures and decodes outputs as Python does, to the last bit.

Scores and sides are float32 in Java; Python's are rounded to that. The exponential is taken in float64 on both sides,
by functions that differ in its last place, which rounding to float32 hides but for one case in hundreds of millions.
"""

from __future__ import annotations

import dataclasses
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bssl_tf_deploy.bundle import Bundle
from bssl_tf_deploy.files import with_checksum
from bssl_tf_deploy.manifest import (
    Manifest,
    OutputParity,
    ParityFigures,
    Preprocessing,
    Quantization,
    TensorSignature,
)
from bssl_tf_deploy.predictor import Predictor, Prepared
from bssl_tf_deploy.tasks import find_task
from bssl_tf_deploy.tasks.classification import Calibration
from bssl_tf_deploy.tasks.classification import Table as Classes
from bssl_tf_deploy.tasks.detection import FINAL_OUTPUTS
from bssl_tf_deploy.tasks.detection import Table as Boxes
from bssl_tf_deploy.tasks.task import View
from tests.deploy import bundles
from tests.java import block, run_cases, take_text

NORMAL = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LABELS = ("cell", "Ä\n", "platelet")


def as_json(manifest: Manifest) -> bytes:
    return json.dumps(with_checksum(manifest.to_dict())).encode()


def classifier(height: int, width: int, channels: int, dtype: str = "float32", **changes: Any) -> Manifest:
    quantization = Quantization(0.0183, -3) if dtype == "int8" else None
    p = Preprocessing(height, width, channels, NORMAL[0][:channels], NORMAL[1][:channels])
    image = TensorSignature("image", (1, height, width, channels), dtype, quantization)
    return bundles.manifest(preprocessing=p, inputs=(image,), **changes)


def with_outputs(manifest: Manifest, shapes: dict[str, tuple[int, ...]], table: object) -> Manifest:
    outputs = tuple(TensorSignature(name, (1, *shape), "float32") for name, shape in shapes.items())
    parity = ParityFigures(1, 1.0, 1.0, {name: OutputParity(0.0, 0.0, 0.0) for name in shapes})
    return dataclasses.replace(manifest, task="detection", outputs=outputs, parity=parity, table=table)


def detector(height: int, width: int, channels: int, strides: tuple[int, ...] = (8, 16), **limits: Any) -> Manifest:
    table = dataclasses.replace(Boxes(LABELS, strides, "letterbox", 0.2, 0.5, 50, None), **limits)
    shapes: dict[str, tuple[int, ...]] = {}
    for stride in strides:
        shapes[f"boxes_{stride}"] = (height // stride, width // stride, 4)
        shapes[f"scores_{stride}"] = (height // stride, width // stride, len(LABELS))
    return with_outputs(classifier(height, width, channels), shapes, table)


def picture_case(manifest: Manifest, rgba: np.ndarray, degrees: int, stride: int) -> tuple[str, bytes]:
    """`rgba` [H, W, 4]; without a stride in words of alpha, red, green and blue, else in rows of that many bytes."""
    height, width = rgba.shape[:2]
    if stride:
        rows = np.zeros((height, stride), np.uint8)
        rows[:, : 4 * width] = rgba.reshape(height, -1)
        # The last row may end where its pixels do.
        content = rows.tobytes()[: (height - 1) * stride + 4 * width]
    else:
        content = rgba[..., [3, 0, 1, 2]].tobytes()
    return "prepare", block(as_json(manifest)) + struct.pack(">4i", width, height, stride, degrees) + block(content)


def expected_input(manifest: Manifest, rgba: np.ndarray, degrees: int) -> Prepared:
    bundle = Bundle(Path("none"), manifest, b"", (), ())
    upright = np.rot90(rgba, -degrees // 90)
    return Predictor(bundle, None).prepare(Image.fromarray(np.ascontiguousarray(upright)))  # type: ignore[arg-type]


def test_pictures_become_the_same_input(rng: np.random.Generator) -> None:
    manifests = [
        *(classifier(24, 24, 3), classifier(17, 31, 1), classifier(40, 16, 3, "uint8"), classifier(20, 28, 3, "int8")),
        *(classifier(9, 64, 1, "int8"), detector(32, 32, 3), detector(48, 16, 1), detector(16, 80, 3)),
    ]
    # Values that lie in the middle between two integers.
    halves = (TensorSignature("image", (1, 20, 28, 3), "int8", Quantization(2 / 255, 0)),)
    p = Preprocessing(20, 28, 3, (0.0,) * 3, (1.0,) * 3)
    manifests[3] = dataclasses.replace(manifests[3], inputs=halves, preprocessing=p)
    wanted: list[Prepared] = []
    cases = []
    for number in range(240):
        manifest = manifests[number % len(manifests)]
        p = manifest.preprocessing
        height, width = (int(side) for side in np.exp(rng.uniform(0, np.log(220), 2)))
        if number % 10 == 0:
            height, width = p.height, p.width
        # Halves, which Python and Java may round in different ways.
        if number % 10 == 1:
            height, width = (2 * p.height, 21) if number % 20 == 1 else (21, 2 * p.width)
        rgba = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
        if number % 3:
            rgba[..., 3] = 255
        if number % 4 == 3:
            # Smooth, where a wrong weight shows in every pixel by one.
            rgba[..., :3] = np.linspace(0, 255, width).astype(np.uint8)[np.newaxis, :, np.newaxis]
        degrees = 90 * (number % 4) if number % 5 == 2 else 0
        stride = int(4 * width + rng.integers(0, 20)) if number % 2 else 0
        cases.append(picture_case(manifest, rgba, degrees, stride))
        wanted.append(expected_input(manifest, rgba, degrees))
    for number, (result, (tensor, view)) in enumerate(zip(run_cases(cases), wanted, strict=True)):
        length = tensor.nbytes
        assert struct.unpack(">i", result[:4]) == (length,), number
        assert result[4 : 4 + length] == tensor.tobytes(), number
        assert struct.unpack(">6d", result[4 + length :]) == dataclasses.astuple(view), number


def test_every_colour_of_every_transparency_is_laid_over_white_as_pillow_does() -> None:
    levels = np.arange(256, dtype=np.uint8)
    rgba = np.stack([*[np.tile(levels, (256, 1))] * 3, np.tile(levels[:, np.newaxis], (1, 256))], axis=-1)
    rgba[..., 1] = 255 - rgba[..., 1]
    manifest = classifier(256, 256, 3, "uint8")
    [result] = run_cases([picture_case(manifest, rgba, 0, 0)])
    assert result[4:-48] == expected_input(manifest, rgba, 0).tensor.tobytes()


def answer_case(manifest: Manifest, outputs: dict[str, np.ndarray], view: View, limit: int) -> tuple[str, bytes]:
    content = block(as_json(manifest)) + struct.pack(">6d", *dataclasses.astuple(view))
    content += struct.pack(">ii", limit, len(manifest.outputs))
    for one in manifest.outputs:
        content += block(outputs[one.name].astype(">f4").tobytes())
    return "answer", content


def parts(result: bytes, numbers: int) -> list[tuple[str, bytes]]:
    """Labels, and the bits of what follows each."""
    assert not result.startswith(b"!"), result
    file = io.BytesIO(result)
    found = []
    while file.tell() < len(result):
        found.append((take_text(file), file.read(4 * numbers)))
    return found


def bits(*numbers: float) -> bytes:
    return np.array(numbers, np.float32).astype(">f4").tobytes()


def test_logits_become_the_same_classes(rng: np.random.Generator) -> None:
    cases, wanted = [], []
    for number in range(200):
        labels = tuple(f"class {n}" for n in range(int(rng.integers(1, 40))))
        logits = rng.normal(0, 10 ** rng.uniform(-2, 2), len(labels)).astype(np.float32)
        if number % 3 == 0:
            # Many equal ones, zeros of both signs among them.
            logits = rng.choice(np.array([0.0, -0.0, 1.5, -2.0], np.float32), len(labels))
        temperature = None if number % 2 else Calibration(float(rng.uniform(0.3, 3)), 10, 10, 1.0, 1.0)
        manifest = classifier(
            *(24, 24, 3), table=Classes(labels, None, None, temperature), outputs=(output("logits", len(labels)),)
        )
        limit = int(rng.integers(1, 50))
        cases.append(answer_case(manifest, {"logits": logits}, View(), limit))
        wanted.append(find_task("classification").decode({"logits": logits}, manifest, View(), limit))
    for number, (result, answer) in enumerate(zip(run_cases(cases), wanted, strict=True)):
        assert parts(result, 1) == [(label, bits(score)) for label, score in answer], number


def output(name: str, *shape: int) -> TensorSignature:
    return TensorSignature(name, (1, *shape), "float32")


def test_maps_become_the_same_boxes(rng: np.random.Generator) -> None:
    manifests = [
        *(detector(32, 48, 3), detector(64, 16, 3, (4, 8, 16), max_overlap=0.1), detector(32, 32, 1, min_score=0.01)),
        # Scores of exactly the least, and boxes that overlap by exactly the most.
        detector(16, 16, 3, (2,), min_score=0.5, max_overlap=1 / 3, max_boxes=1000),
        *(detector(16, 16, 3, (2,), max_boxes=5), detector(64, 64, 3, (4,), min_score=0.02, max_boxes=300)),
    ]
    cases, wanted = [], []
    for number in range(50):
        manifest = manifests[number % len(manifests)]
        outputs = {}
        for one in manifest.outputs:
            values = rng.normal(0, 2, one.shape[1:]).astype(np.float32)
            if number % 4 == 1:
                # Coarse, so that scores and overlaps are equal, and what is no number among them.
                values = np.round(values)
                values[rng.random(values.shape) < 0.02] = rng.choice([np.nan, np.inf, -np.inf, 30.0, -30.0])
            if manifest.table.min_score == 0.5:
                values = np.zeros_like(values) if one.name.startswith("boxes") else np.round(values)
            outputs[one.name] = values
        view = random_view(rng)
        limit = int(rng.integers(1, 400))
        cases.append(answer_case(manifest, outputs, view, limit))
        wanted.append(find_task("detection").decode(outputs, manifest, view, limit))
    assert sum(len(answer) for answer in wanted) > 1000
    for number, (result, answer) in enumerate(zip(run_cases(cases), wanted, strict=True)):
        assert parts(result, 5) == [(one.label, bits(*one[1:])) for one in answer], number


def random_view(rng: np.random.Generator) -> View:
    left, top = rng.uniform(-0.5, 0.1, 2)
    right, bottom = rng.uniform(0.9, 1.5, 2)
    return View(left, top, right, bottom, *map(float, rng.integers(1, 4000, 2)))


def test_final_outputs_become_the_same_boxes(rng: np.random.Generator) -> None:
    most = 12
    shapes = dict(zip(FINAL_OUTPUTS, ((most, 4), (most,), (most,), ()), strict=True))
    table = Boxes(LABELS, (8,), "letterbox", 0.2, 0.5, most, None)
    manifest = with_outputs(classifier(32, 32, 3), shapes, table)
    cases, wanted = [], []
    for number in range(40):
        outputs = {
            "boxes": rng.uniform(-0.3, 1.3, (most, 4)).astype(np.float32),
            "classes": rng.integers(-1, len(LABELS) + 1, most).astype(np.float32),
            "scores": np.sort(rng.random(most).astype(np.float32))[::-1].copy(),
            "count": np.array(rng.integers(0, most + 3), np.float32),
        }
        if number % 3 == 0:
            outputs["boxes"][rng.integers(most), rng.integers(4)] = np.nan
            outputs["scores"][rng.integers(most)] = np.inf
        view = random_view(rng)
        cases.append(answer_case(manifest, outputs, view, 100))
        wanted.append(find_task("detection").decode(outputs, manifest, view, 100))
    for number, (result, answer) in enumerate(zip(run_cases(cases), wanted, strict=True)):
        assert parts(result, 5) == [(one.label, bits(*one[1:])) for one in answer], number
