from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from bssl_tf.backend import keras, tf
from bssl_tf.errors import BsslError, ConfigError, NetworkError
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.teachers.teacher import load_teacher

PREPROCESSING = Preprocessing(28, 1, (0.25,), (0.5,))


def small_model(units: int = 6, size: int = 28) -> keras.Model:
    image = keras.layers.Input((size, size, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(image))
    return keras.Model(image, keras.layers.Dense(units)(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((3, 28, 28, 1)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_saved_keras_model_is_a_teacher(suffix: str, tmp_path: Path, images: np.ndarray) -> None:
    model = small_model()
    path = tmp_path / f"teacher{suffix}"
    model.save(path)
    teacher = load_teacher(str(path), PREPROCESSING)
    np.testing.assert_allclose(teacher.features(images), model(images, training=False), rtol=1e-6)
    # Without a projection head of its own, its features are what is distilled.
    np.testing.assert_array_equal(teacher.embed(images), teacher.features(images))
    assert (teacher.feature_width, teacher.embedding_width) == (6, 6)


@pytest.mark.parametrize(
    ("pixel_range", "expected"),
    [
        ("normalized", lambda x: x),
        ("0..1", lambda x: x * 0.5 + 0.25),
        ("-1..1", lambda x: (x * 0.5 + 0.25) * 2 - 1),
        ("0..255", lambda x: (x * 0.5 + 0.25) * 255),
    ],
)
def test_a_keras_teacher_gets_the_pixels_it_wants(
    pixel_range: str, expected: object, tmp_path: Path, images: np.ndarray
) -> None:
    model = small_model()
    model.save(tmp_path / "teacher.keras")
    teacher = load_teacher(str(tmp_path / "teacher.keras"), PREPROCESSING, pixel_range)
    wanted = model(expected(images), training=False)  # type: ignore[operator]
    np.testing.assert_allclose(teacher.features(images), wanted, rtol=1e-4, atol=1e-4)


def test_a_run_of_the_teacher_command_is_a_teacher(tiny_teacher: Path, images: np.ndarray) -> None:
    teacher = load_teacher(str(tiny_teacher), PREPROCESSING)
    assert teacher.embed(images).shape == (3, 16)
    assert teacher.preprocessing is not None and teacher.preprocessing != PREPROCESSING


def test_a_teacher_is_in_inference_mode_and_gets_no_gradient(tiny_teacher: Path, images: np.ndarray) -> None:
    teacher = load_teacher(str(tiny_teacher), PREPROCESSING)
    before = teacher.backbone.get_weights()
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(teacher.embed(images))
    assert tape.gradient(total, teacher.backbone.trainable_variables[0]) is None
    for a, b in zip(before, teacher.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_model_file_that_brings_code_is_refused(suffix: str, tmp_path: Path) -> None:
    image = keras.layers.Input((28, 28, 1))
    hostile = keras.layers.Lambda(lambda x: keras.backend.mean(x, axis=(1, 2)))(image)
    path = tmp_path / f"hostile{suffix}"
    keras.Model(image, hostile).save(path)
    with pytest.raises(NetworkError, match="has a Lambda layer, which is Python code inside the file"):
        load_teacher(str(path), PREPROCESSING)


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95", b"PK\x03\x04 not a zip", b"\x89HDF\r\n\x1a\n truncated"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_corrupt_model_file_is_one_clear_line(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(NetworkError) as error:
        load_teacher(str(path), PREPROCESSING)
    assert re.search("broken.* (cannot be loaded|is not a Keras model)", str(error.value))
    assert "\n" not in str(error.value)


def test_what_is_no_teacher_is_named(tmp_path: Path) -> None:
    small_model(size=32).save(tmp_path / "large.keras")
    image = keras.layers.Input((28, 28, 1))
    keras.Model(image, keras.layers.Conv2D(4, 3)(image)).save(tmp_path / "map.keras")
    (tmp_path / "notes.txt").write_text("hello")
    cases: list[tuple[str, type[BsslError], str]] = [
        ("", NetworkError, "no teacher was named"),
        (str(tmp_path / "none"), NetworkError, "there is no teacher at"),
        (str(tmp_path), NetworkError, "holds no trained teacher"),
        (str(tmp_path / "notes.txt"), NetworkError, "neither a run folder nor a .keras or .h5 file"),
        (str(tmp_path / "large.keras"), NetworkError, "takes images [32, 32, 1], the student's are [28, 28, 1]"),
        (str(tmp_path / "map.keras"), NetworkError, "not one vector for each image"),
    ]
    for path, kind, message in cases:
        with pytest.raises(kind) as error:
            load_teacher(path, PREPROCESSING)
        assert message in str(error.value)
    with pytest.raises(ConfigError, match=r"Did you mean '0\.\.1'"):
        load_teacher(str(tmp_path / "large.keras"), PREPROCESSING, "0.1")
