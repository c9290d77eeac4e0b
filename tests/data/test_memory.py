"""Training on 200,000 small JPEG files, in constant memory.

    MEMORY_RECORD=results/streaming-memory.jsonl python -m pytest tests/data/test_memory.py

appends what was measured to that file.
"""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf.files import append_record, read_json
from bssl_tf.settings import read_run_config
from tests.measured import measured

IMAGES = 200_000
MAX_RESIDENT_BYTES = 1.5e9
_CLASSES, _DISTINCT = 100, 1000


def make_photos(root: Path, images: int = IMAGES) -> None:
    """Small JPEG files of several sizes in class folders; many names for each content, so that the disk holds them."""
    generator = np.random.default_rng(0)
    contents = root.parent / "contents"
    contents.mkdir()
    for number in range(_DISTINCT):
        size = (int(generator.integers(40, 90)), int(generator.integers(40, 90)))
        small = Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8))
        file = io.BytesIO()
        small.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
        (contents / f"{number}.jpg").write_bytes(file.getvalue())
    for label in range(_CLASSES):
        folder = root / f"class{label:03d}"
        folder.mkdir(parents=True)
        for number in range(images // _CLASSES):
            os.link(contents / f"{(label * 7 + number) % _DISTINCT}.jpg", folder / f"{number:06d}.jpg")


def run(arguments: list[str], cache: Path) -> tuple[int, float, str]:
    """Largest resident memory of a command, in bytes, its seconds, and what it said."""
    began = time.monotonic()
    found = measured([sys.executable, "-m", "bssl_tf", *arguments], os.environ | {"BSSL_TF_CACHE": str(cache)})
    return found.peak_kib * 1024, time.monotonic() - began, found.said


@pytest.mark.slow  # Six minutes.
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is in kB on Linux only")
def test_an_epoch_of_200_000_files_takes_constant_memory(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    make_photos(root)
    for folder in (root, *root.iterdir()):
        os.utime(folder, (time.time() - 100,) * 2)
    small = ["--width", "8", "--batch-size", "128", "--image-size", "16", "--threads", "2"]
    common = ["teacher", "--method", "moco", "--data", str(root), "--loading", "streaming", *small]
    whole, seconds, said = run([*common, "--epochs", "1", "--out", str(tmp_path / "whole")], tmp_path / "cache")
    assert "streamed" in said
    # Most of it is TensorFlow's own: a hundredth of the images takes nearly as much.
    few, _, _ = run([*common, "--limit", "2000", "--epochs", "1", "--out", str(tmp_path / "few")], tmp_path / "cache")
    if file := os.environ.get("MEMORY_RECORD"):
        append_record(Path(file), record_of(tmp_path / "whole", whole, few, seconds))
    assert whole < MAX_RESIDENT_BYTES
    assert whole - few < 0.3e9


def record_of(folder: Path, whole: int, few: int, seconds: float) -> dict[str, Any]:
    """What was measured, under which conditions."""
    conditions = read_json(folder / "environment.json")
    kept = ("commit", "machine", "python", "threads", "time", "versions", "training_images")
    config = read_run_config(folder)
    command = "bssl-tf teacher --method moco --data PHOTOS --loading streaming --width 8 --epochs 1 --threads 2"
    sizes = f"--image-size {config['data']['image_size']} --batch-size {config['training']['batch_size']}"
    return {key: conditions[key] for key in kept} | {
        "command": f"{command} {sizes}",
        "images": IMAGES,
        "resident_bytes_max": whole,
        "resident_bytes_max_of_2000_images": few,
        "seconds": round(seconds),
    }
