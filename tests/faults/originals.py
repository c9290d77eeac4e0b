"""Sound files of every kind, from a tiny run that goes the whole way; mutants are made from them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import TINY_STUDENT, TINY_TEACHER


def command(*arguments: object) -> None:
    """Runs `bssl-tf ARGUMENTS`."""
    words = [sys.executable, "-m", "bssl_tf", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def make_originals(folder: Path) -> None:
    """Fills `folder`, in about a minute."""
    teacher, student = folder / "teacher", folder / "student"
    command("teacher", "--out", teacher, *TINY_TEACHER)
    command("pretrain", "--out", student, "--teacher", teacher, *TINY_STUDENT)
    command("evaluate", student)
    command("export", student, "--out", student / "bundle", "--target", "x86_64")
    command("bench", student / "bundle", "--device", "local", "--budget", 1, "--record", folder / "bench.jsonl")
    make_pictures(folder / "pictures")
    _models(folder / "models")
    _torch(folder / "torch")
    (folder / "devices.toml").write_text(
        '[board]\naddress = "ssh://pi@board.local"\nremote_dir = "/tmp/bench"\n\n[phone]\naddress = "adb"\n',
        encoding="utf-8",
    )


def make_pictures(folder: Path) -> None:
    folder.mkdir()
    y, x = np.mgrid[0:48, 0:64]
    photo = Image.fromarray(np.stack([x * 4, y * 5, (x * y) % 256], axis=-1).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("photo.jpg", "photo.png", "photo.webp", "photo.tiff"):
        photo.save(folder / name, exif=exif)


def _models(folder: Path) -> None:
    from bssl_tf.backend import keras, lq

    folder.mkdir()
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(image)
    x = keras.layers.BatchNormalization()(x)
    x = lq.layers.QuantConv2D(4, 3, padding="same", input_quantizer="ste_sign", kernel_quantizer="ste_sign")(x)
    x = keras.layers.Add()([x, keras.layers.ReLU()(x)])
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    for name in ("model.keras", "model.h5", "saved_model"):
        model.save(folder / name)


def _torch(folder: Path) -> None:
    from tests.converters.checkpoints.torch_files import run_torch

    folder.mkdir()
    run_torch("small", folder)


def cached_originals(folder: Path) -> Path:
    """`make_originals` once for a folder."""
    done = folder / "complete.json"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make_originals(folder)
        done.write_text(json.dumps(sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))), encoding="utf-8")
    return folder
