"""Views are those of training, neighbours those of a slow search, and a map is the same each time."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bssl_tf.data.augmentation import PRESETS
from bssl_tf.data.embedded import load_embedded
from bssl_tf.data.image_set import ImageSet, spread_indices
from bssl_tf.data.preprocessing import fit_preprocessing
from bssl_tf.data.views import Sampling, batches
from bssl_tf.reports.pictures import NEIGHBOURS, Pool, feature_map, neighbour_grid, view_grid
from bssl_tf.reports.runs import Run, read_runs
from bssl_tf.seeding import named_seed
from bssl_tf.settings import AugmentationConfig
from tests.reports.run_folders import teacher_run


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_runs([teacher_run(tmp_path_factory.mktemp("run") / "teacher")])[0]


def images(count: int, *, labelled: bool = True) -> ImageSet:
    part = load_embedded()[1].spread(count)
    return part if labelled else dataclasses.replace(part, labels=None, class_names=())


def pool(features: np.ndarray, *, labelled: bool = True) -> Pool:
    part = images(len(features), labelled=labelled)
    scaled = features / np.linalg.norm(features, axis=1, keepdims=True)
    return Pool(part, "test", fit_preprocessing(part, 28), scaled)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(6, 30), st.integers(2, 8))
def test_neighbours_are_those_of_a_slow_search(seed: int, count: int, width: int) -> None:
    features = np.random.default_rng(seed).normal(size=(count, width))
    found = pool(features).neighbours(NEIGHBOURS)
    for index in range(count):
        angles = []
        for other in range(count):
            if other != index:
                a, b = features[index], features[other]
                angles.append((-sum(a * b) / (sum(a * a) * sum(b * b)) ** 0.5, other))
        assert found[index].tolist() == [other for _, other in sorted(angles)[:NEIGHBOURS]]


def test_the_grid_shows_the_neighbours_and_marks_them() -> None:
    features = np.random.default_rng(3).normal(size=(40, 4))
    found = pool(features)
    grid, nearest, labels = neighbour_grid(found, 5), found.neighbours(NEIGHBOURS), found.images.require_labels()
    assert len(grid.rows) == 5
    for row, index in zip(grid.rows, spread_indices(40, 5), strict=True):
        assert row[0].good is None
        for cell, other in zip(row, [index, *nearest[index]], strict=True):
            assert np.array_equal(pixels(cell.content), found.images.images[other][..., 0])
            assert cell.label == found.images.class_names[labels[other]]
        assert [cell.good for cell in row[1:]] == [labels[other] == labels[index] for other in nearest[index]]


def test_without_labels_nothing_is_marked(run: Run) -> None:
    found = pool(np.random.default_rng(3).normal(size=(40, 4)), labelled=False)
    assert {cell.good for row in neighbour_grid(found, 3).rows for cell in row} == {None}
    made = feature_map(run, found, "map")
    assert made.table.rows == (("all, without labels", 40, None),)
    assert made.draw().count("<use") >= 40


def test_a_map_is_the_same_each_time_and_counts_what_it_shows(run: Run) -> None:
    rng = np.random.default_rng(0)
    part = images(60)
    centres = rng.normal(size=(10, 16)) * 20
    found = pool(centres[part.require_labels()] + rng.normal(size=(60, 16)))
    once, again = feature_map(run, found, "map"), feature_map(run, found, "map")
    assert once.draw() == again.draw()
    *classes, (everything, count, same) = once.table.rows
    assert (everything, count) == ("all", 60) and sum(int(row[1] or 0) for row in classes) == 60
    # Far apart by class: whoever is near is of the same class, but for classes with fewer than six images.
    assert same is not None and float(same) > 80
    assert len(once.keys) == len(classes)


def test_views_are_those_of_the_first_step(run: Run) -> None:
    train = load_embedded()[0].head(300)
    grid = view_grid(run, train, 6)
    preprocessing = fit_preprocessing(train, 28)
    settings = AugmentationConfig(**run.settings["augmentation"])
    augmentation = dataclasses.replace(PRESETS[settings.name], min_area=settings.min_area)
    seed = named_seed(run.settings["training"]["seed"], "views")
    # As `Inputs.batches` of the training loop.
    stream = batches(train, Sampling(preprocessing, augmentation, 256, seed, 0, 1), views=2)
    views = [view.numpy() for view in next(iter(stream)).views]
    mean, std = preprocessing.mean[0], preprocessing.std[0]
    for row, place in zip(grid.rows, spread_indices(256, 6), strict=True):
        for cell, view in zip(row[1:3], views, strict=True):
            expected = 255 * (view[place, ..., 0] * std + mean)
            # Rounding to whole levels, and no more.
            assert np.abs(pixels(cell.content) - expected).max() <= 0.51


def test_large_pictures_are_made_small(run: Run, tmp_path: Path) -> None:
    part = images(8)
    large = dataclasses.replace(part, images=np.repeat(np.repeat(part.images, 8, axis=1), 8, axis=2))
    found = dataclasses.replace(pool(np.random.default_rng(1).normal(size=(8, 4))), images=large)
    for row in neighbour_grid(found, 2).rows:
        assert all(pixels(cell.content).shape == (96, 96) for cell in row)
