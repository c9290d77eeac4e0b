"""COCO's average precision of boxes, by pycocotools.

Lin et al., Microsoft COCO, ECCV 2014, and https://cocodataset.org/#detection-eval.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bssl_tf.errors import DataError
from bssl_tf.tasks.detection.boxes import BoxSet, Objects
from bssl_tf_deploy.boxes import Detections, intersection_over_union

# Boxes per image that count: COCO's.
MAX_DETECTIONS = 100
# The overlap from which a box hits, where one is enough.
_HIT = 0.5


class OfSize(NamedTuple):
    """Objects of one size.

    Attributes:
        objects: how many count; one on the border is of both sizes, as COCO has it.
        ap, ap50, ap75: of these alone, percent; None without objects.
    """

    objects: int
    ap: float | None
    ap50: float | None
    ap75: float | None


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """Percent; None where there is no box of that kind in the truth.

    Attributes:
        ap: the mean over overlaps (IoU) of 0.5, 0.55, ..., 0.95, and over classes.
        ap50, ap75: at an overlap of 0.5 and 0.75.
        small, medium, large: of boxes with an area of up to 32 x 32 pixels of the photo, up to 96 x 96, and beyond.
        of_classes: `ap` of each class, K.
        ap50_of_classes, ap75_of_classes: `ap50` and `ap75` of each class, K.
        precisions: float64 [K, 101]: precision at an overlap of 0.5 for recalls of 0, 0.01, ..., 1; NaN for a class
            that the truth lacks.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    small: OfSize
    medium: OfSize
    large: OfSize
    of_classes: tuple[float | None, ...]
    ap50_of_classes: tuple[float | None, ...]
    ap75_of_classes: tuple[float | None, ...]
    precisions: NDArray[np.float64]


def average_precision(truth: BoxSet, found: Sequence[Detections]) -> AveragePrecision:
    """How well boxes that were found fit those of `truth`.

    Objects that are ignored are taken as crowds: boxes that lie on them count neither as hits nor as misses.

    Args:
        truth: N images.
        found: N, boxes as shares of the picture, K classes as `truth` has them.

    Raises:
        DataError: pycocotools is missing.
        ValueError: the numbers of images differ.
    """
    if len(truth) != len(found):
        raise ValueError(f"{len(truth)} images, boxes found in {len(found)}")
    sizes = truth.sizes().tolist()
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise DataError("average precision needs the package pycocotools", "Install bssl-tf[detection]") from error
    with contextlib.redirect_stdout(io.StringIO()):  # It prints as it goes.
        of_truth, of_found = COCO(), COCO()
        of_truth.dataset = _as_coco(
            truth.class_names,
            sizes,
            [(one.boxes, one.classes, one.ignored, np.zeros(len(one))) for one in truth.objects],
        )
        of_found.dataset = _as_coco(
            truth.class_names, sizes, [(one.boxes, one.classes, np.zeros(len(one), bool), one.scores) for one in found]
        )
        of_truth.createIndex()
        of_found.createIndex()
        evaluation = COCOeval(of_truth, of_found, "bbox")
        evaluation.params.maxDets = [1, 10, MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
    # [overlaps, recalls, classes, sizes, numbers of detections]; -1 where the truth has none.
    precision: NDArray[np.float64] = evaluation.eval["precision"][..., -1]
    everything = precision[..., 0]
    areas = [one["area"] for one in of_truth.dataset["annotations"] if not one["iscrowd"]]
    small, medium, large = (
        OfSize(
            sum(least <= area <= most for area in areas),
            *(
                _percent(of_size)
                for of_size in (precision[..., size], precision[0, ..., size], precision[5, ..., size])
            ),
        )
        for size, (least, most) in enumerate(evaluation.params.areaRng)
        if size
    )
    return AveragePrecision(
        _percent(everything),
        _percent(everything[0]),
        _percent(everything[5]),
        small,
        medium,
        large,
        tuple(_percent(everything[:, :, kind]) for kind in range(everything.shape[2])),
        tuple(_percent(everything[0, :, kind]) for kind in range(everything.shape[2])),
        tuple(_percent(everything[5, :, kind]) for kind in range(everything.shape[2])),
        np.where(everything[0] < 0, math.nan, everything[0]).T,
    )


def matched(truth: Objects, found: Detections) -> NDArray[np.int64]:
    """Which object each box hits, at an overlap of 0.5: int64 [N], a place in `truth`, or -1 where it hits none.

    As in COCO's average precision, the best box chooses first, and takes the free object of its class that it overlaps
    most. A box without one that lies on an ignored object, by half of its own area, is -2.
    """
    free = ~truth.ignored
    hits = np.full(len(found), -1, np.int64)
    overlaps = intersection_over_union(found.boxes, truth.boxes)
    for place in np.argsort(-found.scores, kind="stable"):
        same = truth.classes == found.classes[place]
        share = np.where(same & free, overlaps[place], 0)
        if len(share) and share.max() >= _HIT:
            hits[place] = share.argmax()
            free[hits[place]] = False
            continue
        left, top, right, bottom = found.boxes[place]
        wide, high = (
            np.maximum(np.minimum(high, truth.boxes[:, side + 2]) - np.maximum(low, truth.boxes[:, side]), 0)
            for side, (low, high) in enumerate(((left, right), (top, bottom)))
        )
        if np.any((wide * high)[same & truth.ignored] >= _HIT * (right - left) * (bottom - top)):
            hits[place] = -2
    return hits


def _as_coco(
    names: Sequence[str],
    sizes: Sequence[Sequence[int]],
    images: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for number, ((width, height), (boxes, classes, ignored, scores)) in enumerate(zip(sizes, images, strict=True)):
        for box, kind, skip, score in zip(
            boxes.tolist(), classes.tolist(), ignored.tolist(), scores.tolist(), strict=True
        ):
            left, top, wide, high = (
                box[0] * width,
                box[1] * height,
                (box[2] - box[0]) * width,
                (box[3] - box[1]) * height,
            )
            annotations.append(
                {
                    # From 1: pycocotools takes 0 for "not matched".
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": kind,
                    "bbox": [left, top, wide, high],
                    # Shares are float32: without rounding a box of 32 x 32 pixels would fall on either side.
                    "area": round(wide, 3) * round(high, 3),
                    "iscrowd": int(skip),
                    "score": score,
                }
            )
    return {
        "images": [{"id": number} for number in range(len(images))],
        "categories": [{"id": kind, "name": name} for kind, name in enumerate(names)],
        "annotations": annotations,
    }


def _percent(precision: NDArray[np.float64]) -> float | None:
    known = precision[precision > -1]
    return 100 * float(known.mean()) if len(known) else None
