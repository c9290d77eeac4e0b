"""What a detector sees: whole pictures in their frames for evaluation, and random views with their boxes to learn from.

As everywhere, the batch of a step depends on the seed, the step and the data alone (see `data.views`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bssl_tf.backend import tf
from bssl_tf.data.augmentation import Augmentation
from bssl_tf.data.views import Sampling, epoch_order, steps_per_epoch, view_numbers
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.tasks.detection.augmentation import NUMBERS_PER_VIEW, BoxAugmentation, augmented, framed
from bssl_tf.tasks.detection.boxes import BoxSet, Objects
from bssl_tf.tasks.task import Example
from bssl_tf_deploy.tasks.task import View

# What a cell of `classes` says where there is no object to learn: see `objective.losses`.
_FILL, _IGNORED = -1, -2
# Each is compared with each cell of the maps; of more on one picture, the largest are learnt.
MAX_OBJECTS = 300
_PREFETCHED = 2
_log = logging.getLogger(__name__)


def framed_views(
    labelled: BoxSet, preprocessing: Preprocessing, indices: Sequence[int] | NDArray[np.int64]
) -> tuple[NDArray[np.float32], list[View]]:
    """Whole pictures as the device has them, normalised, float32 [B, H, W, C]; and where each lies on its picture.

    A picture was stored squashed to a square, so that it is resized once more than on the device.
    """
    made = [
        framed(pixels, float(ratio), preprocessing.width, preprocessing.height)
        for pixels, ratio in zip(labelled.pixels(indices), labelled.ratios(indices), strict=True)
    ]
    return preprocessing.normalise(np.stack([pixels for pixels, _ in made])), [view for _, view in made]


def box_augmentation(augmentation: Augmentation) -> BoxAugmentation:
    """The area of the smallest crop, and flips, as the run's settings have them; the rest as it is for boxes."""
    return BoxAugmentation(min_scale=math.sqrt(augmentation.min_area), flip_probability=augmentation.flip_probability)


def batches(labelled: BoxSet, sampling: Sampling) -> Iterator[Example]:
    """One random view of each image.

    Targets are `boxes`, float32 [B, N, 4] in pixels of the view, and `classes`, int32 [B, N] (see `objective.losses`),
    with the same N in all batches.
    """
    preprocessing, batch_size, seed, shard = sampling.preprocessing, sampling.batch_size, sampling.seed, sampling.shard
    augmentation = box_augmentation(sampling.augmentation)
    per_epoch = steps_per_epoch(len(labelled), batch_size)
    count = batch_size // shard[1]
    first_row = shard[0] * count
    most = max(1, *(len(one) for one in labelled.objects))
    if most > MAX_OBJECTS:
        _log.warning(
            f"up to {most:,} objects are on one picture of {labelled.name}; the largest {MAX_OBJECTS} are learnt"
        )
        most = MAX_OBJECTS
    height, width = preprocessing.height, preprocessing.width

    def make(step: NDArray[np.int64]) -> list[NDArray[Any]]:
        epoch, position = divmod(int(step), per_epoch)
        order = epoch_order(len(labelled), seed, epoch)
        batch = np.sort(order[position * batch_size : (position + 1) * batch_size])
        chosen = batch[first_row : first_row + count]
        numbers = view_numbers(seed, int(step) * batch_size + first_row, count, 1)[0, :, :NUMBERS_PER_VIEW]
        images = np.empty((count, height, width, preprocessing.channels), np.uint8)
        boxes = np.zeros((count, most, 4), np.float32)
        classes = np.full((count, most), _FILL, np.int32)
        rows = zip(chosen, labelled.pixels(chosen), labelled.ratios(chosen), numbers, strict=True)
        for row, (place, pixels, ratio, drawn) in enumerate(rows):
            images[row], objects = augmented(
                pixels, float(ratio), labelled.objects[place], drawn, augmentation, width, height
            )
            kept = _largest(objects, most)
            boxes[row, : len(kept)] = objects.boxes[kept] * ([width, height] * 2)
            classes[row, : len(kept)] = np.where(objects.ignored[kept], _IGNORED, objects.classes[kept])
        return [preprocessing.normalise(images), boxes, classes]

    def read(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        images, boxes, classes = tf.numpy_function(make, [step], [tf.float32, tf.float32, tf.int32], stateful=False)
        images.set_shape((count, height, width, preprocessing.channels))
        boxes.set_shape((count, most, 4))
        classes.set_shape((count, most))
        return images, boxes, classes

    steps = tf.data.Dataset.range(sampling.first_step, sampling.last_step)
    made = steps.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(_PREFETCHED)
    return (Example(images, {"boxes": boxes, "classes": classes}) for images, boxes, classes in made)


def _largest(objects: Objects, most: int) -> NDArray[np.int64]:
    """The places of at most `most` objects, in order."""
    if len(objects) <= most:
        return np.arange(len(objects))
    areas = np.prod(objects.boxes[:, 2:] - objects.boxes[:, :2], axis=1)
    return np.sort(np.argsort(-areas, kind="stable")[:most])
