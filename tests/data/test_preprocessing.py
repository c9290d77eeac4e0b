from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.preprocessing import evaluation_batches, evaluation_views, fit_preprocessing
from bssl_tf.errors import ConfigError
from bssl_tf.preprocessing import Preprocessing

MakeSet = Callable[..., ImageSet]


def test_fitted_constants_make_zero_mean_and_unit_deviation(make_set: MakeSet) -> None:
    images = make_set(50)
    preprocessing = fit_preprocessing(images, 12)
    views = evaluation_views(images, preprocessing, range(50)).astype(np.float64)
    # float32 views: 1e-6 is a few of their rounding steps.
    np.testing.assert_allclose(views.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(views.std(axis=(0, 1, 2)), 1, atol=1e-6)


def test_images_of_one_colour_do_not_divide_by_zero(make_set: MakeSet) -> None:
    images = ImageSet("flat", np.full((3, 9, 9, 1), 77, np.uint8), np.ones(3, np.float32), None)
    assert np.all(np.abs(evaluation_views(images, fit_preprocessing(images, 9), [0, 1, 2])) < 1e-3)


def test_a_native_size_set_is_only_normalised(make_set: MakeSet) -> None:
    images = make_set(5)
    preprocessing = Preprocessing(12, 3, (0.5, 0.25, 0.125), (0.5, 1.0, 2.0))
    expected = (images.images[[3, 1]] / 255 - [0.5, 0.25, 0.125]) / [0.5, 1.0, 2.0]
    views = evaluation_views(images, preprocessing, [3, 1])
    assert views.dtype == np.float32
    # One float32 step of values up to 2.
    np.testing.assert_allclose(views, expected, atol=3e-7)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(60, 40), (40, 60), (50, 50)])
def test_the_view_is_the_central_square_in_true_geometry(size: tuple[int, int], channels: int) -> None:
    # A picture that varies slowly, so that squashing it loses next to nothing.
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    smooth = np.stack([x * 4, y * 4, 255 - x * 2], axis=-1).astype(np.uint8)
    picture = Image.fromarray(smooth).convert("L" if channels == 1 else "RGB")
    squashed = np.asarray(picture.resize((48, 48), Image.Resampling.BICUBIC)).reshape(1, 48, 48, channels)
    images = ImageSet("one", squashed, np.array([size[0] / size[1]], np.float32), None)
    view = evaluation_views(images, Preprocessing(32, channels, (0.0,) * channels, (1.0,) * channels), [0])[0]
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    device = picture.crop((left, top, left + side, top + side)).resize((32, 32), Image.Resampling.BILINEAR)
    # What resampling twice may change: rounding, and half a grey level's slope at the edges.
    difference = np.abs(view * 255 - np.asarray(device, np.float32).reshape(32, 32, channels))
    assert difference.max() < 4
    assert difference.mean() < 1


def test_evaluation_batches_cover_all_images_in_order(make_set: MakeSet) -> None:
    images = make_set(11, channels=1)
    preprocessing = fit_preprocessing(images, 12)
    batches = list(evaluation_batches(images, preprocessing, 4))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate(batches), evaluation_views(images, preprocessing, range(11)))


@given(st.integers(8, 1024), st.lists(st.floats(0, 1), min_size=3, max_size=3), st.floats(0.01, 1))
def test_it_survives_json(size: int, mean: list[float], std: float) -> None:
    preprocessing = Preprocessing(size, 3, (mean[0], mean[1], mean[2]), (std, std, std))
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 7}, "image_size 7"),
        ({"image_size": 1025}, "image_size 1025"),
        ({"image_size": 32.0}, "preprocessing.image_size"),
        ({"image_size": True}, "preprocessing.image_size"),
        ({"channels": 2}, "channels 2"),
        ({"mean": [0.5]}, "one number for each channel"),
        ({"mean": "0.5"}, "preprocessing.mean"),
        ({"mean": [0.5, "a", 0.5]}, "preprocessing.mean"),
        ({"std": [0.5, 0.0, 0.5]}, "above zero"),
        ({"std": [0.5, float("nan"), 0.5]}, "above zero"),
        ({"mean": [0.5, float("inf"), 0.5]}, "finite"),
        ({"sdt": [1.0]}, "unknown or missing keys: sdt"),
    ],
)
def test_saved_values_are_checked(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"image_size": 32, "channels": 3, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    with pytest.raises(ConfigError, match=message):
        Preprocessing.from_dict({**good, **change})
    with pytest.raises(ConfigError, match="missing keys: std"):
        Preprocessing.from_dict({key: value for key, value in good.items() if key != "std"})


def test_channels_that_do_not_fit_are_a_mistake_in_the_code(make_set: MakeSet) -> None:
    with pytest.raises(ValueError, match="1 channels"):
        evaluation_views(make_set(3), Preprocessing(12, 1, (0.5,), (0.5,)), [0])


def test_a_square_is_written_as_ever_and_a_rectangle_with_its_width() -> None:
    square = Preprocessing(64, 1, (0.5,), (0.25,))
    assert (square.height, square.width) == (64, 64)
    assert square.to_dict() == {"image_size": 64, "channels": 1, "mean": [0.5], "std": [0.25]}
    wide = dataclasses.replace(square, image_width=96)
    assert (wide.height, wide.width) == (64, 96)
    for one in (square, wide):
        assert Preprocessing.from_dict(one.to_dict()) == one
    for odd in ({"image_width": 4}, {"image_width": "96"}, {"image_width": None}, {"width": 96}):
        with pytest.raises(ConfigError):
            Preprocessing.from_dict(square.to_dict() | odd)
