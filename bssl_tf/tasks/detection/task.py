"""Detection as a task: boxes to learn from, the network, its losses, average precision, and its part of a bundle."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bssl_tf.backend import keras, tf
from bssl_tf.data.building import held_out
from bssl_tf.data.image_set import spread_indices
from bssl_tf.data.preprocessing import fit_preprocessing
from bssl_tf.data.views import Sampling
from bssl_tf.errors import ConversionError, DataError
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import DataConfig
from bssl_tf.tasks.detection.boxes import BoxSet, BoxSplits
from bssl_tf.tasks.detection.evaluation import MAX_DETECTIONS, average_precision
from bssl_tf.tasks.detection.network import detector, output_names
from bssl_tf.tasks.detection.objective import losses
from bssl_tf.tasks.detection.open import open_boxes, rarest_classes
from bssl_tf.tasks.detection.views import batches, framed_views
from bssl_tf.tasks.task import Arrays, Both, Example, Network, Task, Tensors
from bssl_tf_deploy.boxes import Detections, candidates, inner_size, intersection_over_union, view_of_frame
from bssl_tf_deploy.tasks.detection import NAME, Precision, Table, detections
from bssl_tf_deploy.tasks.task import View

# From which on the device gives boxes.
MIN_SCORE = 0.3
# Of two boxes of a class that overlap by more, one is given: that of FCOS.
MAX_OVERLAP = 0.6
# What average precision ranks goes down to here; further down there is next to nothing to gain.
_LEAST_SCORE = 0.01
# What rounding, or a sign that it flipped, may do to a box that counts as the same one: it takes a tenth of the overlap
# at most, and boxes near `MIN_SCORE` may come or go.
_SAME_OVERLAP, _SCORE_SLACK = 0.9, 0.05
_AT_ONCE = 32
_FITTED_IMAGES = 2000
_OUTPUT = re.compile(r"(scores|boxes)_(\d+)")


class Detection(Task[BoxSet]):
    """See the top of this file; targets are those of `views.batches`."""

    name = NAME
    resizes = True
    weighs_classes = False
    least_agreement = 0.95

    def open(self, config: DataConfig, *, validation: bool) -> BoxSplits:
        """Of Pascal VOC, COCO, YOLO or TFDS.

        Raises:
            BsslError: see `open_boxes`; or pycocotools is missing.
        """
        if importlib.util.find_spec("pycocotools") is None:
            # Needed after the first epoch at the latest.
            raise DataError("average precision needs the package pycocotools", "Install bssl-tf[detection]")
        if config.loading == "streaming":
            raise DataError("images with boxes are not streamed", "Omit --loading")
        return open_boxes(
            config.source,
            image_size=max(config.image_size, config.image_width),
            channels=config.channels or 3,
            data_dir=Path(config.data_dir) if config.data_dir else None,
            max_unreadable_share=config.max_unreadable_share,
            download=config.download,
            limit=config.limit or None,
        )

    def held_out(self, labelled: BoxSet, seed: int) -> tuple[BoxSet, BoxSet]:
        """One image in six of each class, taken as that of its rarest object."""
        kept = held_out([f"{seed} {path}" for path in labelled.paths], rarest_classes(labelled))
        return labelled.subset(np.flatnonzero(~kept)), labelled.subset(np.flatnonzero(kept))

    def class_names(self, labelled: BoxSet) -> tuple[str, ...]:
        """Those of the objects."""
        return labelled.class_names

    def class_counts(self, labelled: BoxSet) -> NDArray[np.int64]:
        """Objects of each class."""
        return labelled.class_counts()

    def fit_preprocessing(self, labelled: BoxSet, image_size: int) -> Preprocessing:
        """Mean and standard deviation of the pictures, without the grey around them."""
        chosen = labelled.indices[spread_indices(len(labelled), _FITTED_IMAGES)]
        return fit_preprocessing(labelled.images.subset(chosen), image_size)

    def views(
        self, labelled: BoxSet, preprocessing: Preprocessing, indices: Sequence[int] | NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Whole pictures with grey around them."""
        return framed_views(labelled, preprocessing, indices)[0]

    def network(self, backbone: keras.Model, class_names: Sequence[str], height: int, width: int) -> keras.Model:
        """Neck and head on the backbone's maps; see `detection.network`."""
        return detector(backbone, len(class_names), height=height, width=width)

    def outputs(self, model: keras.Model) -> tuple[str, ...]:
        """`scores_s` and `boxes_s` for each stride s."""
        names = output_names(model)
        if not names or not all(map(_OUTPUT.fullmatch, names)):
            raise ConversionError(f"{model.name} is not a detector: it gives {', '.join(names)}", "Give one")
        return names

    def batches(self, labelled: BoxSet, sampling: Sampling) -> Iterator[Example]:
        """One random view of each image, and the boxes in it."""
        return batches(labelled, sampling)

    def losses(self, outputs: Tensors, targets: Tensors, class_weights: tf.Tensor | None = None) -> Tensors:
        """`loss` and its parts `class_loss` and `box_loss`; see `detection.objective`."""
        pairs = _by_stride(outputs)
        stride, (logits, _) = next(iter(pairs.items()))
        height, width = (stride * side for side in logits.shape[1:3])
        return losses(pairs, targets["boxes"], targets["classes"], height, width)

    def metrics(self, model: Network, labelled: BoxSet, preprocessing: Preprocessing) -> Mapping[str, float]:
        """`ap50` and `ap`, percent: COCO's average precision at an overlap of 0.5, and its mean over overlaps."""
        found = average_precision(labelled, found_by(model, labelled, preprocessing))
        return {name: np.nan if one is None else one for name, one in (("ap50", found.ap50), ("ap", found.ap))}

    def table(self, class_names: Sequence[str], model: keras.Model) -> Table:
        """Labels, strides, and how outputs become boxes."""
        strides = _strides(self.outputs(model))
        return Table(tuple(class_names), strides, "letterbox", MIN_SCORE, MAX_OVERLAP, MAX_DETECTIONS, None)

    def same_answers(self, expected: Arrays, found: Arrays) -> np.ndarray:
        """The share of boxes of each image that the other network finds too: of that class, with 0.9 of the overlap.

        Of both networks' boxes, 1 where there is none. Boxes within 0.05 of the least score may be missing. Whether the
        other has it is asked before non-maximum suppression, in which two boxes of nearly the same score may change
        places. A flipped sign moves some of an image's boxes, so that these count and not the images.
        """
        count = len(next(iter(expected.values())))
        rows = [[{name: array[i] for name, array in one.items()} for one in (expected, found)] for i in range(count)]
        shares = []
        for one, other in rows:
            fits = np.concatenate([_found_again(one, other), _found_again(other, one)])
            shares.append(float(fits.mean()) if len(fits) else 1.0)
        return np.array(shares)

    def with_accuracy(self, table: Table, labelled: BoxSet, indices: np.ndarray, both: Both) -> Table:
        """Average precision of both networks, where the data has these classes."""
        if labelled.class_names != table.labels:
            return table
        truth = labelled.subset(indices)
        boxes: tuple[list[Detections], list[Detections]] = ([], [])
        for pair in both(indices):
            for outputs, kept in zip(pair, boxes, strict=True):
                stride = table.strides[0]
                high, wide = (stride * side for side in outputs[f"scores_{stride}"].shape[1:3])
                ratios = truth.ratios(range(len(kept), len(kept) + len(next(iter(outputs.values())))))
                kept += _decoded(
                    outputs, [view_of_frame(inner_size(float(one), wide, high), wide, high) for one in ratios]
                )
        of_keras, own = (average_precision(truth, kept) for kept in boxes)
        if None in (own.ap, own.ap50, of_keras.ap, of_keras.ap50):
            return table
        shares = (own.ap, own.ap50, of_keras.ap, of_keras.ap50)
        # Rounded, so that the last bits of another machine's arithmetic give the same bundle.
        accuracy = Precision(len(indices), *(round(share or 0.0, 4) for share in shares))
        return dataclasses.replace(table, accuracy=accuracy)

    def example_words(self, labelled: BoxSet, indices: np.ndarray) -> Sequence[str]:
        """The class of its first object."""
        objects = [labelled.objects[place] for place in indices]
        return [labelled.class_names[one.classes[0]] if len(one) else "image" for one in objects]


def found_by(model: Network, labelled: BoxSet, preprocessing: Preprocessing) -> list[Detections]:
    """The boxes that a network finds on each image, as shares of the picture, down to a score of 0.01."""
    found: list[Detections] = []
    for start in range(0, len(labelled), _AT_ONCE):
        indices = np.arange(start, min(start + _AT_ONCE, len(labelled)))
        images, views = framed_views(labelled, preprocessing, indices)
        outputs = [np.asarray(one, np.float32) for one in tf.nest.flatten(model(images, training=False))]
        strides = [preprocessing.height // one.shape[1] for one in outputs]
        names = [f"{part}_{stride}" for part, stride in zip(("scores", "boxes") * len(outputs), strides, strict=False)]
        found += _decoded(dict(zip(names, outputs, strict=True)), views)
    return found


def _strides(names: Sequence[str]) -> tuple[int, ...]:
    return tuple(sorted({int(name.rpartition("_")[2]) for name in names}))


def _by_stride(outputs: Mapping[str, Any]) -> dict[int, tuple[Any, Any]]:
    return {stride: (outputs[f"scores_{stride}"], outputs[f"boxes_{stride}"]) for stride in _strides([*outputs])}


def _decoded(outputs: Arrays, views: Sequence[View]) -> list[Detections]:
    """Of a batch, [B, H / s, W / s, ...]."""
    strides = _strides([*outputs])
    high, wide = (strides[0] * side for side in outputs[f"scores_{strides[0]}"].shape[1:3])
    return [
        detections(
            {name: array[row] for name, array in outputs.items()},
            strides,
            view,
            (wide, high),
            min_score=_LEAST_SCORE,
            max_overlap=MAX_OVERLAP,
            limit=MAX_DETECTIONS,
        )
        for row, view in enumerate(views)
    ]


def _found_again(one: Arrays, other: Arrays) -> NDArray[np.bool_]:
    """Which of the boxes that `one` surely gives are among those that `other` finds; outputs of one image."""
    pairs = _by_stride(one)
    stride, (logits, _) = next(iter(pairs.items()))
    size = (stride * logits.shape[1], stride * logits.shape[0])
    given = detections(
        one,
        list(pairs),
        View(),
        size,
        min_score=MIN_SCORE + _SCORE_SLACK,
        max_overlap=MAX_OVERLAP,
        limit=MAX_DETECTIONS,
    )
    others = candidates(_by_stride(other), MIN_SCORE - _SCORE_SLACK)
    shares = others.boxes / np.array(size * 2, np.float32)
    overlaps = intersection_over_union(given.boxes, np.clip(shares, 0, 1))
    fits = (overlaps >= _SAME_OVERLAP) & (given.classes[:, np.newaxis] == others.classes)
    found: NDArray[np.bool_] = fits.any(axis=1)
    return found
