"""What the network sees and makes of it: views, nearest neighbours, a map of the features. Loads TensorFlow."""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from bssl_tf.backend import configure
from bssl_tf.data.augmentation import PRESETS, Augmentation
from bssl_tf.data.image_set import DataSplits, ImageSet, spread_indices
from bssl_tf.data.open import open_data
from bssl_tf.data.preprocessing import evaluation_batches, fit_preprocessing
from bssl_tf.data.views import Sampling, batches, epoch_order
from bssl_tf.environment import environment, resolved_threads
from bssl_tf.errors import BsslError, DataError, MissingDataError, RunFolderError
from bssl_tf.evaluation.protocols import features_of
from bssl_tf.models.saved import load_weights, read_network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.reports import figures
from bssl_tf.reports.document import Column, Figure, Grid, Group, Key, Picture, Section, Table
from bssl_tf.reports.fields import number, table, text, whole
from bssl_tf.reports.runs import Run, conditions
from bssl_tf.seeding import named_seed
from bssl_tf.settings import DataConfig, read_settings

VIEWS, NEIGHBOURS = 4, 5
# Images whose features are compared: enough for a map, and a minute's work on two cores at 32 px.
POOL = 1000
_BATCH = 250
_SIDE = 96  # pixels of a picture on the page
_CLASSES = 14  # of which a map tells one from the other
_LOST = "Run it in the folder that the training was started in, or pass --no-images"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pool:
    """Images, what they are normalised with, and the features of the network, scaled to length one: float32 [N, D]."""

    images: ImageSet
    split: str
    preprocessing: Preprocessing
    features: np.ndarray

    def neighbours(self, count: int) -> np.ndarray:
        """The nearest others of each image by cosine similarity, nearest first: integers [N, count]."""
        similarity = self.features @ self.features.T
        np.fill_diagonal(similarity, -np.inf)
        return np.argsort(-similarity, axis=1, kind="stable")[:, :count]


def picture_sections(runs: Sequence[Run], images: int, data_dir: str | None) -> list[Section]:
    """Views, neighbours and maps of each run; what cannot be made is named.

    Args:
        runs: of either kind.
        images: sample images of each run.
        data_dir: where TFDS keeps its data, if not where the run had it. Nothing is downloaded.
    """
    configure(resolved_threads(0))
    views: list[Group] = []
    near: list[Group] = []
    maps: list[Group] = []
    opened: dict[DataConfig, DataSplits] = {}
    shown: dict[tuple[Any, ...], str] = {}
    for place, run in enumerate(runs):
        if text(run.settings, "task") == "detection":
            views.append(Group(run.name, (), ("views of images with boxes are not shown in reports yet.",)))
            continue
        _log.info(f"pictures of {run.name}")
        try:
            config = _data_config(run, data_dir)
            if config not in opened:
                opened[config] = _opened(config)
            data = opened[config]
            kind = (config, _augmentation(run), *_order(run))
            same = (f"The same views as those of {shown[kind]}.",) if kind in shown else ()
            views.append(Group(run.name, () if same else (view_grid(run, data.train, images),), same))
            shown.setdefault(kind, run.name)
            pool = _pool(run, data)
        except BsslError as error:
            reason = Group(run.name, (), (f"{error.what}. {error.next_step}.",))
            _log.info(
                f"no {'neighbours and map' if len(views) > place else 'pictures'} of {run.name}: {reason.missing[0]}"
            )
            (near if len(views) > place else views).append(reason)
            continue
        near.append(Group(run.name, (neighbour_grid(pool, images),)))
        maps.append(Group(run.name, (feature_map(run, pool, f"map-{place}"),)))
    return [
        Section(
            "Views",
            "What the network sees in training: random crops, mirrored, recoloured or blurred, and then "
            "normalised, which is undone here. Two views of one image should look alike to it.",
            tuple(views),
        ),
        Section(
            "Nearest neighbours",
            "For a sample of images, the ones that the network finds most similar. A useful network groups the same "
            "kind of thing, not the same colours.",
            tuple(near),
        ),
        Section("Map of the features", "Images that the network finds similar lie close together.", tuple(maps)),
    ]


def _opened(config: DataConfig) -> DataSplits:
    try:
        return open_data(config, labels_needed=False)
    except MissingDataError as error:
        raise error.with_next_step(_LOST) from error


def _data_config(run: Run, data_dir: str | None) -> DataConfig:
    config = read_settings(DataConfig, table(run.settings, "data"), "data.")
    return dataclasses.replace(config, download=False, data_dir=data_dir or config.data_dir)


def _preprocessing(run: Run, train: ImageSet) -> Preprocessing:
    if run.finished:
        return read_network(run.path / run.trained).preprocessing
    return fit_preprocessing(train, whole(run.settings, "data", "image_size") or train.stored_size)


def view_grid(run: Run, train: ImageSet, count: int) -> Grid:
    """Views of the first batch, which are those of the run's first step as far as a method takes so many."""
    preprocessing = _preprocessing(run, train)
    size, run_seed = _order(run)
    size, seed = min(size, len(train)), named_seed(run_seed, "views")
    stream = batches(train, Sampling(preprocessing, _augmentation(run), size, seed, 0, 1), views=VIEWS)
    batch = next(iter(stream))
    chosen = spread_indices(size, count)
    order = np.sort(epoch_order(len(train), seed, 0)[:size])
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    columns = [view.numpy()[chosen] * std + mean for view in batch.views]
    rows = []
    for place, index in enumerate(order[chosen]):
        name = _label(train, int(index))
        cells = [Picture(png_of(train.images[index] / 255), f"training image {index}, {name}", name)]
        cells += [
            Picture(png_of(view[place]), f"view {number} of training image {index}")
            for number, view in enumerate(columns, start=1)
        ]
        rows.append(tuple(cells))
    name = text(run.settings, "augmentation", "name")
    return Grid(
        "Views of training images",
        f"n = {len(rows)} of the {size} images of the run's first step, {preprocessing.image_size} px, augmentation "
        f"{name}, smallest crop {number(run.settings, 'augmentation', 'min_area'):.0%} of the picture, seed "
        f"{run_seed}. A method that takes two views was given the first two.",
        ("picture", *(f"view {n}" for n in range(1, VIEWS + 1))),
        tuple(rows),
    )


def _order(run: Run) -> tuple[int, int]:
    """Batch size and seed, which say what the first batch is."""
    return whole(run.settings, "training", "batch_size") or 1, whole(run.settings, "training", "seed") or 0


def _augmentation(run: Run) -> Augmentation:
    name, area = text(run.settings, "augmentation", "name"), number(run.settings, "augmentation", "min_area")
    if name not in PRESETS or area is None:
        raise RunFolderError(
            f"its augmentation {name!r} is not known here", "Use the version of bssl-tf that trained it"
        )
    made = dataclasses.replace(PRESETS[name], min_area=area)
    flipped = table(run.settings, "augmentation").get("flip", True)
    return made if flipped else dataclasses.replace(made, flip_probability=0.0)


def _pool(run: Run, data: DataSplits) -> Pool:
    if not run.finished:
        raise RunFolderError("it is not finished, so there is no network yet", "Make the report again once it is")
    split, images = ("test", data.test) if data.test is not None and len(data.test) else ("training", data.train)
    images = images.spread(POOL)
    if len(images) < NEIGHBOURS + 1:
        raise DataError(f"there are only {len(images)} images to compare", "Use a larger data set")
    folder = run.path / run.trained
    network = read_network(folder)
    model = network.build()
    load_weights(folder, {run.trained: model})
    features_from = features_of(model)
    views = evaluation_batches(images, network.preprocessing, _BATCH)
    features = np.concatenate([features_from(batch) for batch in views]).astype(np.float64)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return Pool(images, split, network.preprocessing, features)


def neighbour_grid(pool: Pool, count: int) -> Grid:
    nearest = pool.neighbours(NEIGHBOURS)
    images, labels = pool.images, pool.images.labels
    rows = []
    for index in spread_indices(len(images), count):
        cells = [
            Picture(
                png_of(images.images[index] / 255), f"image {index}, {_label(images, index)}", _label(images, index)
            )
        ]
        for rank, other in enumerate(nearest[index], start=1):
            name, good = _label(images, other), None if labels is None else bool(labels[other] == labels[index])
            cells.append(
                Picture(png_of(images.images[other] / 255), f"neighbour {rank}, image {other}, {name}", name, good)
            )
        rows.append(tuple(cells))
    known = " ✓ marks those of the same class." if labels is not None else " The data has no labels."
    return Grid(
        f"The {NEIGHBOURS} nearest of {len(images)} {pool.split} images",
        f"By cosine similarity of the {pool.features.shape[1]} features; n = {len(rows)} pictures, evenly spaced, not "
        f"chosen by hand.{known}",
        ("picture", *(f"nearest {n}" for n in range(1, NEIGHBOURS + 1))),
        tuple(rows),
    )  # fmt: skip


def feature_map(run: Run, pool: Pool, name: str) -> Figure:
    """t-SNE begun from the two principal components, so that the same features give the same map."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    count = len(pool.images)
    seed = (whole(run.settings, "training", "seed") or 0) % 2**31
    perplexity = min(30.0, (count - 1) / 3)
    # With one thread: sums come out the same everywhere, and on a busy machine threads wait for each other most.
    with threadpool_limits(1):
        points = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(pool.features)
    labels, names = pool.images.labels, pool.images.class_names
    nearest = pool.neighbours(NEIGHBOURS)
    rows: list[tuple[str, int, float | None]] = []
    series, keys = [], []
    if labels is None:
        series = [figures.Series(0, points[:, 0], points[:, 1])]
        rows = [("all, without labels", count, None)]
    else:
        same = 100 * (labels[nearest] == labels[:, None]).mean(axis=1)
        present = sorted(set(labels.tolist()), key=lambda one: (-int(np.sum(labels == one)), one))
        rows = [(names[one], int(np.sum(labels == one)), float(same[labels == one].mean())) for one in present]
        for style, one in enumerate(sorted(present[:_CLASSES])):
            series.append(figures.Series(style, *points[labels == one].T))
            keys.append(Key(names[one], style))
        rest = ~np.isin(labels, present[:_CLASSES])
        if rest.any():
            series.insert(0, figures.Series(_CLASSES, *points[rest].T))
            keys.append(Key(f"{len(present) - _CLASSES} other classes", _CLASSES))
        rows.append(("all", count, float(same.mean())))
    share = "" if rows[-1][2] is None else f" Of the {NEIGHBOURS} nearest, {rows[-1][2]:.0f} % are of the same class."
    columns = (Column("class"), Column("images"), Column(f"same class among the {NEIGHBOURS} nearest", "%", 1))
    return Figure(
        name=name,
        title=f"{count} {pool.split} images by their features",
        caption=f"t-SNE (perplexity {perplexity:.0f}) of {pool.features.shape[1]} features; n = {count}. Only which "
        f"images are close has meaning; axes, sizes of clusters and distances between them have none.{share}",
        alt=f"Scatter plot of {count} images in {len(series)} colours.{share}",
        conditions=conditions(
            [environment(0)], f"bssl-tf report {run.given}, with the weights in {run.trained}/"
        ),
        draw=lambda: figures.cloud(name, series),
        table=Table(name, "Classes among the nearest neighbours", columns, tuple(rows)),
        keys=tuple(keys),
    )  # fmt: skip


def _label(images: ImageSet, index: int) -> str:
    return "" if images.labels is None else images.class_names[images.labels[index]]


def png_of(pixels: np.ndarray) -> bytes:
    """A PNG of float [S, S, C] in 0 to 1, no larger than `_SIDE`."""
    levels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()
