"""COCO's average precision against a loop that follows its definition."""

from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.data.image_set import ImageSet
from bssl_tf.tasks.detection.boxes import BoxSet, Objects
from bssl_tf.tasks.detection.evaluation import average_precision
from bssl_tf_deploy.boxes import Detections, intersection_over_union

SIZES = [(200.0, 100.0), (100.0, 150.0), (300.0, 300.0), (120.0, 80.0)]
CLASSES = 2


def made(seed: int) -> tuple[BoxSet, list[Detections]]:
    """Some boxes of the truth are found, more or less well, some not; and some are found where nothing is."""
    random = np.random.default_rng(seed)
    objects, found = [], []
    for _ in SIZES:
        corners = random.uniform(0, 0.6, (5, 2))
        boxes = np.concatenate([corners, corners + random.uniform(0.1, 0.4, (5, 2))], axis=1).astype(np.float32)
        classes = random.integers(0, CLASSES, 5)
        objects.append(Objects(boxes, classes, np.zeros(5, bool)))
        moved = np.concatenate([boxes[:4] + random.normal(0, 0.02, (4, 4)), boxes[2:4] * 0.8]).astype(np.float32)
        scores = np.round(random.uniform(0.1, 1, 6), 3).astype(np.float32)
        order = np.argsort(-scores)
        found.append(Detections(moved[order], scores[order], np.concatenate([classes[:4], classes[2:4]])[order]))
    return box_set(objects), found


def box_set(objects: list[Objects]) -> BoxSet:
    images = ImageSet("made up", np.zeros((len(objects), 8, 8, 3), np.uint8), np.ones(len(objects), np.float32), None)
    paths = tuple(f"{number}.png" for number in range(len(objects)))
    return BoxSet("made up", images, np.arange(len(objects)), paths, tuple(objects), ("a", "b"))


def plain_ap(truth: BoxSet, found: list[Detections], kind: int, overlap: float) -> float:
    """Detections by score, each takes the free box that it overlaps most; precision at 101 recalls, percent."""
    every = sorted(
        (-float(one.scores[place]), image, place)
        for image, one in enumerate(found)
        for place in range(len(one))
        if one.classes[place] == kind
    )
    total = sum(int((one.classes == kind).sum()) for one in truth.objects)
    taken: set[tuple[int, int]] = set()
    hits = []
    for _, image, place in every:
        best, choice = overlap, -1
        for other in np.flatnonzero(truth.objects[image].classes == kind):
            scale = np.array(SIZES[image] * 2)
            share = intersection_over_union(
                found[image].boxes[place : place + 1] * scale, truth.objects[image].boxes[other : other + 1] * scale
            )[0, 0]
            if (image, other) not in taken and share >= best:
                best, choice = share, other
        if choice >= 0:
            taken.add((image, choice))
        hits.append(choice >= 0)
    precisions, recalls = [], []
    for count in range(1, len(hits) + 1):
        precisions.append(sum(hits[:count]) / count)
        recalls.append(sum(hits[:count]) / total)
    at = [
        max((p for p, r in zip(precisions, recalls, strict=True) if r >= recall / 100), default=0)
        for recall in range(101)
    ]
    return 100 * float(np.mean(at))


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_the_definition(seed: int) -> None:
    truth, found = made(seed)
    result = average_precision(truth, found, SIZES)
    overlaps = [0.5 + step / 20 for step in range(10)]
    table = np.array([[plain_ap(truth, found, kind, overlap) for kind in range(CLASSES)] for overlap in overlaps])
    # A recall of exactly a hundredth may fall on either side in floating point.
    assert result.ap == pytest.approx(table.mean(), abs=0.5)
    assert result.ap50 == pytest.approx(table[0].mean(), abs=1.0)
    assert result.ap75 == pytest.approx(table[5].mean(), abs=1.0)
    assert result.of_classes == pytest.approx(table.mean(axis=0), abs=0.5)
    assert result.ap50_of_classes == pytest.approx(table[0], abs=1.0)
    assert 100 * result.precisions.mean(axis=1) == pytest.approx(table[0], abs=1.0)
    assert 5 < table.mean() < 90


def as_found(truth: BoxSet) -> list[Detections]:
    return [Detections(one.boxes, np.full(len(one), 0.9, np.float32), one.classes) for one in truth.objects]


def test_all_of_the_truth_is_a_hundred_and_nothing_is_zero() -> None:
    truth, _ = made(0)
    assert average_precision(truth, as_found(truth), SIZES).ap == pytest.approx(100)
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert average_precision(truth, [nothing] * 4, SIZES).ap == 0


def test_a_class_and_a_size_without_boxes_have_no_precision() -> None:
    one = Objects(np.array([[0.1, 0.1, 0.2, 0.2]], np.float32), np.array([1]), np.zeros(1, bool))
    truth = box_set([one] * 4)
    result = average_precision(truth, as_found(truth), SIZES)
    assert result.of_classes[0] is None and result.of_classes[1] == pytest.approx(100)
    assert np.isnan(result.precisions[0]).all()
    assert result.small == pytest.approx(100) and result.medium is None and result.large is None


def test_what_is_ignored_is_neither_hit_nor_miss() -> None:
    boxes = np.array([[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]], np.float32)
    truth = box_set([Objects(boxes, np.array([0, 0]), np.array([False, True]))] * 4)
    found = as_found(truth)
    without = [one.take(np.array([0])) for one in found]
    assert (
        average_precision(truth, found, SIZES).ap == average_precision(truth, without, SIZES).ap == pytest.approx(100)
    )
    with pytest.raises(ValueError, match="boxes found in 3"):
        average_precision(truth, found[:3], SIZES)
