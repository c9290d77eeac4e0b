from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bssl_tf.backend import keras, tf
from bssl_tf.errors import BsslError, ConfigError, NetworkError
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.teachers.inputs import TeacherInput, TeacherOptions
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
        ("auto", lambda x: x),
        ("0.125/0.75", lambda x: (x * 0.5 + 0.125) / 0.75),
    ],
)
def test_a_keras_teacher_gets_the_pixels_it_wants(
    pixel_range: str, expected: object, tmp_path: Path, images: np.ndarray
) -> None:
    model = small_model()
    model.save(tmp_path / "teacher.keras")
    teacher = load_teacher(str(tmp_path / "teacher.keras"), PREPROCESSING, TeacherOptions(pixel_range))
    wanted = model(expected(images), training=False)  # type: ignore[operator]
    np.testing.assert_allclose(teacher.features(images), wanted, rtol=1e-4, atol=1e-4)


def test_a_run_of_the_teacher_command_is_a_teacher(tiny_teacher: Path, images: np.ndarray) -> None:
    teacher = load_teacher(str(tiny_teacher), PREPROCESSING)
    assert teacher.embed(images).shape == (3, 16)
    same = teacher.shared(PREPROCESSING)
    assert same == teacher.preprocessing
    # Given views that are normalised as its own were, it gets them as they are.
    np.testing.assert_array_equal(teacher.for_views(same).features(images), teacher.backbone(images, training=False))
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
    oblong = keras.layers.Input((28, 32, 1))
    keras.Model(oblong, keras.layers.GlobalAveragePooling2D()(oblong)).save(tmp_path / "oblong.keras")
    keras.Model(image, keras.layers.Conv2D(4, 3)(image)).save(tmp_path / "map.keras")
    (tmp_path / "notes.txt").write_text("hello")
    cases: list[tuple[str, type[BsslError], str]] = [
        ("", NetworkError, "no teacher was named"),
        (str(tmp_path / "none"), NetworkError, "there is no teacher at"),
        (str(tmp_path), NetworkError, "holds no trained teacher"),
        (str(tmp_path / "notes.txt"), NetworkError, "neither a run folder nor a .keras, .h5 or .onnx file"),
        (str(tmp_path / "oblong.keras"), NetworkError, "takes [28, 32, 1], not square images of 1 or 3 channels"),
        (str(tmp_path / "map.keras"), NetworkError, "not one vector for each image"),
    ]
    for path, kind, message in cases:
        with pytest.raises(kind) as error:
            load_teacher(path, PREPROCESSING)
        assert message in str(error.value)
    options = [
        (TeacherOptions("0.1"), "Did you mean '0..1'"),
        (TeacherOptions("0.5/0"), "is not a mean and a standard deviation"),
        (TeacherOptions("0.5,0.5/1"), "is not a mean and a standard deviation"),
        (TeacherOptions("nan/1"), "is not a mean and a standard deviation"),
        (TeacherOptions("imagenet"), "is for 3 channels, and the teacher's images have 1"),
        (TeacherOptions(image_size=64), "takes images of 32 px, and teacher_image_size is 64"),
        (TeacherOptions(image_size=4), "Give 8 to 1024 pixels"),
        (TeacherOptions(layout="nwhc"), "Did you mean 'nhwc'"),
    ]
    for said, message in options:
        with pytest.raises(ConfigError) as refused:
            load_teacher(str(tmp_path / "large.keras"), PREPROCESSING, said)
        assert message in str(refused.value)


RGB = Preprocessing(28, 3, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("size", [8, 12, 28, 56, 64])
def test_views_are_resampled_as_pillow_resamples_pictures(size: int, rng: np.random.Generator) -> None:
    """Bilinear, with the wider filter where it shrinks. Pillow rounds its weights to 1 / 2^22, ours are float32."""
    pixels = rng.integers(0, 256, (2, 28, 28, 3), np.uint8)
    mean, std = (np.asarray(values, np.float32) for values in IMAGENET)
    made = TeacherInput(size, 3, IMAGENET).from_views(RGB.normalise(pixels), RGB)
    for ours, picture in zip(made, pixels, strict=True):
        for channel in range(3):
            plane = Image.fromarray(picture[..., channel].astype(np.float32), mode="F")
            theirs = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR)) / 255
            np.testing.assert_allclose(ours[..., channel] * std[channel] + mean[channel], theirs, atol=1e-5)


def test_views_of_other_channels_are_repeated_or_turned_into_luma(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (2, 28, 28, 3), np.uint8)
    grey = TeacherInput(28, 1, ((0.1,), (0.2,))).from_views(RGB.normalise(pixels), RGB)
    luma = np.asarray(Image.fromarray(pixels[0]).convert("L"), np.float32)
    # Pillow rounds to whole levels.
    np.testing.assert_allclose((grey[0, ..., 0] * 0.2 + 0.1) * 255, luma, atol=0.51)
    one = Preprocessing(28, 1, (0.25,), (0.5,))
    colour = TeacherInput(28, 3, IMAGENET).from_views(one.normalise(pixels[..., :1]), one)
    for channel, (mean, std) in enumerate(zip(*IMAGENET, strict=True)):
        np.testing.assert_allclose(colour[..., channel] * std + mean, pixels[..., 0] / np.float32(255), atol=1e-6)


def test_a_teacher_of_another_size_and_channels_says_so_and_is_another_teacher(
    tmp_path: Path, images: np.ndarray
) -> None:
    """In a graph, without gradient, and equal to what the model makes of images resampled beforehand."""
    image = keras.layers.Input((40, 40, 3))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(5, 3)(image)))
    path = str(tmp_path / "teacher.keras")
    model.save(path)
    teacher = load_teacher(path, PREPROCESSING)
    resampled = tf.image.resize(np.repeat(images, 3, axis=-1), [40, 40], antialias=True)
    made = tf.function(teacher.features)(tf.constant(images))
    np.testing.assert_allclose(made, model(resampled, training=False), atol=1e-5)
    assert teacher.summary() == (
        f"teacher {path}: 40 px, RGB, 5 features; views of 28 px are resampled to 40 px for it; "
        "grey views are turned into RGB"
    )
    assert teacher.describe()["image_size"] == 40 and teacher.own_image_size == 40
    fitting = load_teacher(path, Preprocessing(40, 3, *IMAGENET))
    assert "resampled" not in fitting.summary() and fitting.fingerprint() != teacher.fingerprint()


def test_a_model_that_takes_any_size_takes_the_students_or_what_is_said(tmp_path: Path, images: np.ndarray) -> None:
    image = keras.layers.Input((None, None, 1))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(5, 3)(image)))
    path = str(tmp_path / "teacher.keras")
    model.save(path)
    plain, larger = (load_teacher(path, PREPROCESSING, TeacherOptions(image_size=size)) for size in (0, 56))
    np.testing.assert_allclose(plain.features(images), model(images, training=False), atol=1e-6)
    wanted = model(tf.image.resize(images, [56, 56], antialias=True), training=False)
    np.testing.assert_allclose(larger.features(images), wanted, atol=1e-6)
    assert plain.fingerprint() != larger.fingerprint()
