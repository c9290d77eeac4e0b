"""COCO's average precision against a loop that follows its definition."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bssl_tf.data.image_set import ImageSet
from bssl_tf.tasks.detection.boxes import BoxSet, Objects
from bssl_tf.tasks.detection.evaluation import average_precision, matched
from bssl_tf_deploy.boxes import Detections, intersection_over_union

SIZES = [(200, 100), (100, 150), (300, 300), (120, 80)]
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
    pixels, ratios = np.zeros((len(objects), 8, 8, 3), np.uint8), np.ones(len(objects), np.float32)
    images = ImageSet("made up", pixels, ratios, None, (), np.array(SIZES, np.int32))
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
    result = average_precision(truth, found)
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
    assert average_precision(truth, as_found(truth)).ap == pytest.approx(100)
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert average_precision(truth, [nothing] * 4).ap == 0


def test_a_class_and_a_size_without_boxes_have_no_precision() -> None:
    one = Objects(np.array([[0.1, 0.1, 0.2, 0.2]], np.float32), np.array([1]), np.zeros(1, bool))
    truth = box_set([one] * 4)
    result = average_precision(truth, as_found(truth))
    assert result.of_classes[0] is None and result.of_classes[1] == pytest.approx(100)
    assert np.isnan(result.precisions[0]).all()
    assert result.small.objects == 4 and result.small[1:] == pytest.approx((100,) * 3)
    assert result.medium == result.large == (0, None, None, None)


@pytest.mark.parametrize("seed", range(4))
def test_precision_by_size_is_that_of_pycocotools(seed: int, tmp_path: Path) -> None:
    """From files, as its users call it, with boxes and areas in pixels of the photos."""
    truth, found = made(seed)
    result = average_precision(truth, found)
    annotations: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for image, (one, other) in enumerate(zip(truth.objects, found, strict=True)):
        for boxes, into in ((one, annotations), (other, answers)):
            corners = boxes.boxes.astype(float) * np.array(SIZES[image] * 2)
            for place, (left, top, right, bottom) in enumerate(corners):
                box = [left, top, right - left, bottom - top]
                about = {"image_id": image, "category_id": int(boxes.classes[place]), "bbox": box}
                if isinstance(boxes, Detections):
                    about["score"] = float(boxes.scores[place])
                into.append(about | {"id": len(into) + 1, "area": box[2] * box[3], "iscrowd": 0})
    images = [{"id": image, "width": width, "height": height} for image, (width, height) in enumerate(SIZES)]
    categories = [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]
    file = tmp_path / "truth.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    of_truth = COCO(str(file))
    evaluation = COCOeval(of_truth, of_truth.loadRes(answers), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    expected = [None if share < 0 else pytest.approx(100 * share) for share in evaluation.stats[[0, 1, 2, 3, 4, 5]]]
    assert [result.ap, result.ap50, result.ap75, *(one.ap for one in (result.small, result.medium, result.large))] == (
        expected
    )
    areas = np.array([one["area"] for one in annotations])
    assert result.small.objects == (areas < 32**2).sum() > 0 and result.large.objects == (areas > 96**2).sum()
    assert result.medium.objects == len(areas) - result.small.objects - result.large.objects > 0
    assert result.large.objects or result.large.ap is None


def test_a_box_of_32_by_32_pixels_is_small_and_medium_whatever_float32_makes_of_its_shares() -> None:
    boxes = np.array([[left / 300, 7 / 300, (left + 32) / 300, 39 / 300] for left in range(0, 256, 16)], np.float32)
    one = Objects(boxes, np.zeros(len(boxes), np.int64), np.zeros(len(boxes), bool))
    nothing = Objects(boxes[:0], np.zeros(0, np.int64), np.zeros(0, bool))
    truth = box_set([nothing, nothing, one, nothing])
    result = average_precision(truth, as_found(truth))
    assert result.small.objects == result.medium.objects == 16


def test_what_is_ignored_is_neither_hit_nor_miss() -> None:
    boxes = np.array([[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]], np.float32)
    truth = box_set([Objects(boxes, np.array([0, 0]), np.array([False, True]))] * 4)
    found = as_found(truth)
    without = [one.take(np.array([0])) for one in found]
    assert average_precision(truth, found).ap == average_precision(truth, without).ap == pytest.approx(100)
    with pytest.raises(ValueError, match="boxes found in 3"):
        average_precision(truth, found[:3])


def test_a_box_hits_the_object_that_cocos_precision_gives_it() -> None:
    truth = Objects(
        np.array([[0, 0, 0.4, 0.4], [0.5, 0, 0.9, 0.4], [0, 0.5, 0.4, 0.9]], np.float32),
        np.array([0, 0, 0]),
        np.array([False, False, True]),
    )
    boxes = [
        [0, 0, 0.4, 0.3],
        [0, 0, 0.4, 0.4],
        [0.5, 0, 0.9, 0.4],
        [0, 0.5, 0.2, 0.7],
        [0.6, 0.6, 0.9, 0.9],
        [0.5, 0, 0.9, 0.19],
    ]
    found = Detections(
        np.array(boxes, np.float32), np.array([0.7, 0.9, 0.5, 0.4, 0.3, 0.95], np.float32), np.array([0, 0, 1, 0, 0, 0])
    )
    # Found twice; the best; of another class; on what is ignored; where nothing is; too small an overlap.
    assert matched(truth, found).tolist() == [-1, 0, -1, -2, -1, -1]
    nothing = found.take(np.zeros(0, np.int64))
    empty = Objects(truth.boxes[:0], truth.classes[:0], truth.ignored[:0])
    assert matched(truth, nothing).tolist() == [] and matched(empty, found).tolist() == [-1] * 6
