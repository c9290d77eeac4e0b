"""Sound files of every kind, from a tiny run that goes the whole way; mutants are made from them."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from bssl_tf import zoo
from bssl_tf.engine.teacher_cache import _Growing
from tests.conftest import TINY_STUDENT, TINY_TEACHER
from tests.teachers.onnx_models import Linear, save

_HERE = Path(__file__).parents[2]
_PRESETS, _RESULTS = _HERE / "bssl_tf" / "settings" / "presets", _HERE / "results"


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
    make_tfds(folder / "tfds" / "tfds" / "tiny" / "1.0.0")
    (folder / "onnx").mkdir()
    save(folder / "onnx" / "model.onnx", Linear(np.random.default_rng(0)).made())
    for name in ("a", "b"):
        shutil.copytree(folder / "pictures", folder / "photos" / "photos" / name)
    growing = _Growing(folder / "outputs.teacher.npy", shared=True)
    with growing:
        for block in np.random.default_rng(0).standard_normal((3, 2, 4, 8)).astype(np.float16):
            growing.append(block, 3)
        growing.finish()
    shutil.copytree(zoo.find("fashion-mnist-28").folder, folder / "zoo" / "fashion-mnist-28")
    shutil.copy(_PRESETS / "cifar10.toml", folder / "preset.toml")
    records = (_RESULTS / "cifar10.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "comparison.jsonl").write_text("".join(records[::8]), encoding="utf-8")
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


def make_tfds(folder: Path) -> None:
    """As TFDS prepares a data set, of four images and two classes."""
    from bssl_tf.backend import tf

    folder.mkdir(parents=True)
    room, splits = "tensorflow_datasets.core.features", {"train": 4, "test": 2}
    image = {"shape": {"dimensions": ["8", "8", "3"]}, "dtype": "uint8", "encodingFormat": "png"}
    features = {
        "image": {"pythonClassName": f"{room}.image_feature.Image", "image": image},
        "label": {"pythonClassName": f"{room}.class_label_feature.ClassLabel", "classLabel": {"numClasses": "2"}},
    }
    about = {"pythonClassName": f"{room}.features_dict.FeaturesDict", "featuresDict": {"features": features}}
    (folder / "features.json").write_text(json.dumps(about), encoding="utf-8")
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    listed = [
        {"filepathTemplate": template, "name": name, "numBytes": "999", "shardLengths": [str(count)]}
        for name, count in splits.items()
    ]
    info = {"fileFormat": "tfrecord", "moduleName": "tiny", "name": "tiny", "splits": listed, "version": "1.0.0"}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    (folder / "label.labels.txt").write_text("ant\nbee\n", encoding="utf-8")
    for name, count in splits.items():
        with tf.io.TFRecordWriter(str(folder / f"tiny-{name}.tfrecord-00000-of-00001")) as file:
            for number in range(count):
                content = io.BytesIO()
                Image.new("RGB", (8, 8), (number, 50, 99)).save(content, "PNG")
                parts = {
                    "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[content.getvalue()])),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 2])),
                }
                file.write(tf.train.Example(features=tf.train.Features(feature=parts)).SerializeToString())


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
