"""Boxes on the device: the frame around a picture of another shape, and how a detector's outputs become boxes.

Boxes are (left, top, right, bottom), in pixels of the network's input or as shares of the picture. A detector gives two
outputs for each stride s, of height H / s and width W / s: logits of K classes, and the logarithms of the distances, in
strides, from the middle of each cell to the four sides of its box (Tian et al., FCOS, ICCV 2019, section 3.2). The host
decodes with these functions too, so that training, evaluation and the device mean the same boxes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bssl_tf_deploy.resizing import resized
from bssl_tf_deploy.tasks.task import View

if TYPE_CHECKING:
    from PIL import Image

# Grey around pictures that are not of the input's shape.
FILL = 114
# Logarithms of distances in strides beyond these count as these: no box is larger than 2,900 strides, and no number
# overflows.
MAX_LOG_DISTANCE = 8.0
# By score; more would hardly change the boxes that are kept, and cost time on a device.
MAX_CANDIDATES = 1000


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes that a detector found in one image, best first.

    Attributes:
        boxes: float32 [N, 4].
        scores: float32 [N], 0 to 1.
        classes: int64 [N], 0 to K - 1.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, indices: NDArray[np.int64]) -> Detections:
        """Those at `indices`, in that order."""
        return Detections(self.boxes[indices], self.scores[indices], self.classes[indices])


def inner_size(ratio: float, width: int, height: int) -> tuple[int, int]:
    """Width and height, in pixels, of a picture of width / height = `ratio` that fills `width` x `height` one way."""
    if ratio > width / height:
        return width, max(1, round(width / ratio))
    return max(1, round(height * ratio)), height


def letterbox(image: Image.Image, width: int, height: int, ratio: float | None = None) -> tuple[np.ndarray, View]:
    """The whole picture, in its true shape, in the middle of an input of another shape; the rest is grey.

    Args:
        image: mode L or RGB, upright.
        width, height: of the input, pixels.
        ratio: the picture's true width / height, where `image` is not of it.

    Returns:
        uint8 [height, width, C], and where the input lies on the picture.
    """
    inner = inner_size(image.width / image.height if ratio is None else ratio, width, height)
    if image.size != inner:
        image = resized(image, *inner, (0, 0, *image.size))
    pixels = np.asarray(image, np.uint8)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    framed = np.full((height, width, pixels.shape[2]), FILL, np.uint8)
    framed[top : top + inner[1], left : left + inner[0]] = pixels
    return framed, view_of_frame(inner, width, height)


def view_of_frame(inner: tuple[int, int], width: int, height: int) -> View:
    """Where an input of `width` x `height` lies on a picture that fills `inner` of it, in the middle (`inner_size`)."""
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    return View(-left / inner[0], -top / inner[1], (width - left) / inner[0], (height - top) / inner[1])


def candidates(outputs: Mapping[int, tuple[np.ndarray, np.ndarray]], min_score: float) -> Detections:
    """Every box of every class with a score of at least `min_score`, best first; at most 1,000.

    Of equal scores the one of the finer stride comes first, then the one further up and left, then the lower class.

    Args:
        outputs: by stride, logits [H / s, W / s, K] and logarithms of distances [H / s, W / s, 4] for one image.
        min_score: above 0, below 1.

    Returns:
        Boxes in pixels of the input. Scores are sigmoid(logit). What is not a number is no box.
    """
    least = math.log(min_score) - math.log1p(-min_score)
    boxes: list[NDArray[np.float32]] = []
    logits: list[NDArray[np.float32]] = []
    classes: list[NDArray[np.int64]] = []
    for stride, (of_classes, of_sides) in sorted(outputs.items()):
        rows, columns, kinds = np.nonzero(of_classes >= least)
        sides = _exp(np.clip(of_sides[rows, columns].astype(np.float32), -MAX_LOG_DISTANCE, MAX_LOG_DISTANCE))
        middles = np.stack([columns, rows, columns, rows], axis=1).astype(np.float32) + np.float32(0.5)
        boxes.append((middles + sides * np.array([-1, -1, 1, 1], np.float32)) * np.float32(stride))
        logits.append(of_classes[rows, columns, kinds].astype(np.float32))
        classes.append(kinds.astype(np.int64))
    found = np.concatenate(boxes)
    with np.errstate(over="ignore"):
        scores = (1 / (1 + np.exp(-np.concatenate(logits).astype(np.float64)))).astype(np.float32)
    every = Detections(found, scores, np.concatenate(classes))
    order = np.argsort(-scores, kind="stable")
    return every.take(order[np.isfinite(found[order]).all(axis=1)][:MAX_CANDIDATES])


def _exp(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """By way of float64, which every machine, and Java on a phone, rounds to the same float32.

    numpy's own in float32 is off by up to three units in the last place, on each kind of processor in another way.
    """
    exponentials: NDArray[np.float32] = np.exp(values.astype(np.float64)).astype(np.float32)
    return exponentials


def intersection_over_union(boxes: np.ndarray, others: np.ndarray) -> NDArray[np.float32]:
    """For each of `boxes` [N, 4] and each of `others` [M, 4]: [N, M], 0 to 1; 0 where neither has an area."""
    corners = np.maximum(boxes[:, np.newaxis, :2], others[:, :2]), np.minimum(boxes[:, np.newaxis, 2:], others[:, 2:])
    shared = np.prod(np.maximum(corners[1] - corners[0], 0), axis=-1)
    areas, of_others = (np.prod(np.maximum(one[:, 2:] - one[:, :2], 0), axis=-1) for one in (boxes, others))
    union = areas[:, np.newaxis] + of_others - shared
    shares: NDArray[np.float32] = np.where(union > 0, shared / np.where(union > 0, union, 1), 0).astype(np.float32)
    return shares


def suppress(found: Detections, max_overlap: float, limit: int) -> Detections:
    """Greedy non-maximum suppression within each class.

    Args:
        found: best first, as from `candidates`.
        max_overlap: a box that overlaps a better one of its class by more than this share of their union is dropped.
        limit: at most this many are kept.
    """
    kept: list[int] = []
    left = np.arange(len(found))
    while len(left) and len(kept) < limit:
        best, left = left[0], left[1:]
        kept.append(int(best))
        overlap = intersection_over_union(found.boxes[best : best + 1], found.boxes[left])[0]
        left = left[(found.classes[left] != found.classes[best]) | (overlap <= max_overlap)]
    return found.take(np.array(kept, np.int64))


def on_picture(found: Detections, view: View, width: int, height: int) -> Detections:
    """Boxes in pixels of an input of `width` x `height` as shares of the picture, cut at its border.

    What lies outside the picture is dropped.
    """
    scale = np.array([view.right - view.left, view.bottom - view.top] * 2) / [width, height, width, height]
    boxes = np.clip(found.boxes * scale + [view.left, view.top] * 2, 0, 1).astype(np.float32)
    inside = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    return Detections(boxes, found.scores, found.classes).take(inside)
