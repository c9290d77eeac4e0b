"""A task that no package here knows: where in the picture the brightest place is, and how bright.

Two outputs, of which one is a place that decoding brings back to the picture. Its halves are found by entry points, as
those of another distribution would be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bssl_tf.backend import keras, tf
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.views import Sampling
from bssl_tf.errors import ConversionError
from bssl_tf.models.feature_maps import feature_maps
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.tasks.task import Arrays, Both, Example, Network, Task, Tensors
from bssl_tf_deploy.manifest import Manifest
from bssl_tf_deploy.strict import expect
from bssl_tf_deploy.tasks.task import Task as DeviceTask
from bssl_tf_deploy.tasks.task import View

OUTPUTS = ("place", "brightness")


@dataclass(frozen=True)
class Table:
    """The toy's own part of the manifest."""

    unit: str
    mean_distance: float | None


@dataclass(frozen=True)
class Spot:
    """An answer: shares of the picture, and the brightness there."""

    x: float
    y: float
    brightness: float


class DeviceSpot(DeviceTask):
    """The device's half."""

    table = Table

    def check(self, manifest: Manifest) -> None:
        shapes = {one.name: one.shape for one in manifest.outputs}
        expect(shapes == {"place": (1, 2), "brightness": (1, 1)}, "outputs", "place [1, 2] and brightness [1, 1]")

    def decode(self, outputs: Mapping[str, np.ndarray], manifest: Manifest, view: View, limit: int) -> Spot:
        x, y = (float(number) for number in outputs["place"])
        return Spot(
            view.left + x * (view.right - view.left),
            view.top + y * (view.bottom - view.top),
            float(outputs["brightness"][0]),
        )

    def record(self, answer: Spot) -> dict[str, Any]:
        return {"x": answer.x, "y": answer.y, "brightness": answer.brightness}

    def lines(self, answer: Spot) -> Sequence[str]:
        return [f"{answer.brightness:.4f} at {answer.x:.4f} {answer.y:.4f}"]

    def purpose(self, manifest: Manifest) -> str:
        return "Finds the brightest place of an image."

    def output_meanings(self, manifest: Manifest) -> Mapping[str, str]:
        return {"place": "x and y as shares of the input", "brightness": f"in {manifest.table.unit}"}

    def claims(self, manifest: Manifest) -> Sequence[str]:
        return [f"Mean distance: {manifest.table.mean_distance:.3f} of the input's side."]

    def report_cell(self, manifest: Manifest) -> str:
        return "a place"


class HostSpot(Task[ImageSet]):
    """The host's half: places are those of the brightest pixel, so that no labels are needed."""

    name = "brightest-place"

    def held_out(self, labelled: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
        kept = np.arange(len(labelled)) % 4 == seed % 4
        return labelled.subset(np.flatnonzero(~kept)), labelled.subset(np.flatnonzero(kept))

    def class_names(self, labelled: ImageSet) -> tuple[str, ...]:
        return ()

    def class_counts(self, labelled: ImageSet) -> NDArray[np.int64]:
        return np.zeros(0, np.int64)

    def network(self, backbone: keras.Model, class_names: Sequence[str], height: int, width: int) -> keras.Model:
        # Of a map, as a detector's head would be, and of the pooled features.
        maps = feature_maps(backbone)
        x = keras.layers.Conv2D(4, 1, name="spot_conv")(maps[min(maps)])
        place = keras.layers.Dense(2, name="spot_place")(keras.layers.Flatten(name="spot_flat")(x))
        brightness = keras.layers.Dense(1, name="spot_brightness")(backbone.output)
        return keras.Model(backbone.input, [place, brightness], name="spot")

    def outputs(self, model: keras.Model) -> tuple[str, ...]:
        if [tuple(tensor.shape[1:]) for tensor in model.outputs] != [(2,), (1,)]:
            raise ConversionError(f"{model.name} gives no place", "Give a model with a place and a brightness")
        return OUTPUTS

    def batches(self, labelled: ImageSet, sampling: Sampling) -> Iterator[Example]:
        for step in range(sampling.first_step, sampling.last_step):
            rng = np.random.default_rng((sampling.seed, step))
            chosen = rng.integers(0, len(labelled), sampling.batch_size)
            places, brightness = truth(labelled, chosen)
            targets = {"place": tf.constant(places), "brightness": tf.constant(brightness)}
            images = sampling.preprocessing.normalise(np.asarray(labelled.images[chosen]))
            yield Example(tf.constant(images), targets)

    def losses(self, outputs: Tensors, targets: Tensors, class_weights: tf.Tensor | None = None) -> Tensors:
        parts = {name: tf.reduce_mean(tf.square(outputs[name] - targets[name])) for name in OUTPUTS}
        return {"loss": tf.add_n(list(parts.values())), **parts}

    def metrics(self, model: Network, labelled: ImageSet, preprocessing: Preprocessing) -> Mapping[str, float]:
        indices = np.arange(len(labelled))
        found, _ = model(preprocessing.normalise(np.asarray(labelled.images)), training=False)
        return {"nearness": 1 - distance(found.numpy(), truth(labelled, indices)[0])}

    def table(self, class_names: Sequence[str], model: keras.Model) -> Table:
        return Table("shares", None)

    def same_answers(self, expected: Arrays, found: Arrays) -> np.ndarray:
        return np.asarray(np.max(np.abs(expected["place"] - found["place"]), axis=1) < 0.01)

    def with_accuracy(self, table: Table, labelled: ImageSet, indices: np.ndarray, both: Both) -> Any:
        places = np.concatenate([found["place"] for _, found in both(indices)])
        return Table(table.unit, distance(places, truth(labelled, indices)[0]))

    def example_words(self, labelled: ImageSet, indices: np.ndarray) -> Sequence[str]:
        return ["spot"] * len(indices)


def truth(images: ImageSet, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places float32 [N, 2], x and y as shares, and brightness float32 [N, 1]."""
    pixels = np.asarray(images.images[indices]).mean(axis=-1)
    size = pixels.shape[1]
    best = pixels.reshape(len(pixels), -1).argmax(axis=1)
    places = np.stack([best % size, best // size], axis=1) / (size - 1)
    return places.astype(np.float32), (pixels.max(axis=(1, 2)) / 255)[:, np.newaxis].astype(np.float32)


def distance(found: np.ndarray, places: np.ndarray) -> float:
    return float(np.mean(np.linalg.norm(found - places, axis=1)))
