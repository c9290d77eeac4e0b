"""What `embed`, `similar` and `select` take beside runs and bundles: students of the zoo, saved models."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bssl_tf as bt
from bssl_tf import zoo
from bssl_tf.backend import keras
from bssl_tf.errors import ConfigError, NetworkError, UsageError
from bssl_tf.models.saved import load_weights, read_network
from bssl_tf_deploy.manifest import Preprocessing
from bssl_tf_deploy.preprocess import load_image
from bssl_tf_deploy.vectors import read_vectors
from tests.teachers.onnx_models import Linear, save

SIZE, WIDTH, IMAGES = 16, 5, 4
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for place in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (40, 56, 3), np.uint8)).save(folder / f"{place}.png")
    return folder


def prepared(photos: Path, size: int, channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """[N, S, S, C], as a device prepares them."""
    wanted = Preprocessing(size, size, channels, mean, std)
    return np.concatenate([load_image(photos / f"{place}.png", wanted) for place in range(IMAGES)])


def saved_model(path: Path, size: int | None = SIZE) -> tuple[Path, keras.Model]:
    """A convolution and its mean, saved as the suffix of `path` says."""
    image = keras.Input((size, size, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(WIDTH, 3, strides=2, activation="relu")(image))
    model = keras.Model(image, features)
    model.save(path)
    return path, model


@pytest.mark.parametrize("name", ["m.h5", "m.keras", "folder"])
def test_a_saved_keras_model_gives_its_features(name: str, photos: Path, tmp_path: Path) -> None:
    path, model = saved_model(tmp_path / name)
    found = bt.embed(path, photos, out=tmp_path / "v.npz", teacher_pixels="imagenet").vectors
    images = prepared(photos, SIZE, 3, *IMAGENET)
    np.testing.assert_allclose(found.values, model(images).numpy(), atol=1e-5)
    assert (found.about.network, found.about.dimensions) == (name, WIDTH)
    assert read_vectors(tmp_path / "v.npz").about == found.about


def test_a_model_of_any_size_is_given_the_size_that_is_stated(photos: Path, tmp_path: Path) -> None:
    path, model = saved_model(tmp_path / "m.h5", None)
    options: dict[str, Any] = {"teacher_pixels": "0..255"}
    found = bt.embed(path, photos, out=tmp_path / "v.npz", image_size=24, **options).vectors
    images = prepared(photos, 24, 3, (0.0,) * 3, (1.0,) * 3) * 255
    np.testing.assert_allclose(found.values, model(images).numpy(), rtol=1e-4, atol=1e-2)

    image, page = photos / "1.png", tmp_path / "page.html"
    call: dict[str, Any] = {"images": tmp_path / "v.npz", "out": page, "folder": photos}
    best = bt.similar(path, image, image_size=24, **call, **options).matches[0]
    directions = found.directions()
    assert best.similarity == pytest.approx(np.sort(directions @ directions[1])[-2], abs=1e-4)
    assert "--image-size=24 --pixels=0..255" in page.read_text()
    with pytest.raises(UsageError, match="prepared differently"):
        bt.similar(path, image, image_size=32, **call, **options)
    with pytest.raises(UsageError, match="another network"):
        bt.similar(path, image, image_size=24, teacher_pixels="0..1", **call)


def test_an_onnx_file_gives_the_features_that_it_holds(photos: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    linear = Linear(rng)
    path = save(tmp_path / "m.onnx", linear.made())
    found = bt.embed(path, photos, out=tmp_path / "v.npz", teacher_pixels="-1..1").vectors
    images = prepared(photos, linear.size, 3, (0.5,) * 3, (0.5,) * 3)
    np.testing.assert_allclose(found.values, linear.features(images), rtol=1e-4, atol=1e-5)


def test_a_student_of_the_zoo_gives_its_features(photos: Path, tmp_path: Path, bssl_tf: Command) -> None:
    done = bssl_tf("embed", "zoo:fashion-mnist-28", photos, "--out", tmp_path / "v.npz")
    assert done.returncode == 0, done.stderr
    entry = zoo.find("fashion-mnist-28")
    network = read_network(entry.folder)
    model, p = network.build(), network.preprocessing
    load_weights(entry.folder, {"student": model})
    found = read_vectors(tmp_path / "v.npz")
    images = prepared(photos, p.image_size, p.channels, p.mean, p.std)
    np.testing.assert_allclose(found.values, model(images, training=False).numpy(), atol=1e-4)
    assert found.about.sha256 == entry.weights_sha256
    with pytest.raises(NetworkError, match="Did you mean zoo:fashion-mnist-28"):
        bt.embed("zoo:fashion-mnist-27", photos, out=tmp_path / "w.npz")
    with pytest.raises(ConfigError, match="states itself"):
        bt.embed("zoo:fashion-mnist-28", photos, out=tmp_path / "w.npz", image_size=28)


def test_commands_take_a_saved_model_and_what_it_lacks(photos: Path, tmp_path: Path, bssl_tf: Command) -> None:
    path, _ = saved_model(tmp_path / "m.keras")
    out = tmp_path / "list.txt"
    done = bssl_tf("select", photos, "--count", "2", "--network", path, "--pixels=-1..1", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: 2 of {IMAGES} photos, by m.keras\n"
    assert "--pixels=-1..1" in out.with_suffix(".html").read_text()
    done = bssl_tf("select", photos, "--pixels", "imagenet", "--out", out)
    assert (done.returncode, "Add --network" in done.stderr) == (2, True), done.stderr
    done = bssl_tf("similar", path, photos / "0.png", photos, "--out", tmp_path / "p.html")
    assert (done.returncode, "Add --pixels with 0..1" in done.stderr) == (3, True), done.stderr


def test_what_is_not_a_network_for_features_is_refused_in_one_line(photos: Path, tmp_path: Path) -> None:
    path, _ = saved_model(tmp_path / "m.keras")
    maps = keras.Sequential([keras.layers.Conv2D(2, 3, input_shape=(SIZE, SIZE, 3))])
    maps.save(tmp_path / "maps.h5")
    (tmp_path / "text.txt").write_text("no network")
    for model, options, kind, expected in (
        (path, {}, ConfigError, "does not state how its pixels are normalised"),
        (path, {"teacher_pixels": "normalized"}, ConfigError, "does not state how its pixels are normalised"),
        (path, {"teacher_pixels": "0..1", "image_size": 32}, ConfigError, "takes images of 16 px"),
        (path, {"teacher_pixels": "0..1", "teacher_layout": "nchw"}, ConfigError, "for ONNX files"),
        (tmp_path / "maps.h5", {"teacher_pixels": "0..1"}, NetworkError, "not one vector for each image"),
        (tmp_path / "text.txt", {}, NetworkError, "neither a run folder nor"),
    ):
        with pytest.raises(kind, match=expected):
            bt.embed(model, photos, out=tmp_path / "v.npz", **options)
    assert not (tmp_path / "v.npz").exists()
