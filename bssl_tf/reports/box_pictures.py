"""What a detector found and missed, as pictures: photos with true boxes and found ones. Opens the evaluated data."""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from bssl_tf.data.image_set import spread_indices
from bssl_tf.errors import BsslError, DataError, MissingDataError
from bssl_tf.evaluation.detection import DetectionEvaluation, read_boxes
from bssl_tf.reports.document import Grid, Group, Picture, Section
from bssl_tf.reports.runs import Run
from bssl_tf.tasks import find_task
from bssl_tf.tasks.detection.boxes import BoxSet
from bssl_tf.tasks.detection.evaluation import matched
from bssl_tf.tasks.detection.task import MIN_SCORE
from bssl_tf_deploy.boxes import Detections, intersection_over_union

_A_ROW = 6
_SIDE = 220  # pixels of a picture on the page
_QUALITY = 80
# The part of the photo that is shown, around the box in question: in sides of that box, and as a share of the photo.
_AROUND, _LEAST_SHARE = 3.0, 0.4
# Okabe and Ito's orange and sky blue, which differ in lightness as well.
_FOUND, _TRUE = "#e69f00", "#56b4e9"
_DASH = 5
_log = logging.getLogger(__name__)
_LOST = "Run it in the folder that the evaluation was started in, or pass --no-images"


class _Case(NamedTuple):
    """A box in question: found, or of the truth."""

    image: int
    place: int


def box_picture_section(runs: Sequence[Run], images: int, data_dir: str | None) -> list[Section]:
    """For each evaluated detector its surest false boxes, the largest objects it missed, and some hits.

    Args:
        runs: others than detectors have none.
        images: at most this many of each kind, rounded up to whole rows.
        data_dir: where TFDS keeps its data, if not where the evaluation had it. Nothing is downloaded.
    """
    groups = []
    for run in runs:
        if run.detection is None:
            continue
        _log.info(f"hits and misses of {run.name}")
        try:
            groups.append(_group(run, run.detection, images, data_dir))
        except BsslError as error:
            groups.append(Group(run.name, (), (f"{error.what}. {error.next_step}.",)))
    about = (
        "Boxes with a solid line were found, those with a dashed line are of the annotations; the thick one is in "
        "question. Look for objects without annotation, for wrong classes, and for what the misses have in common."
    )
    return [Section("Hits and misses", about, tuple(groups))] if groups else []


def _group(run: Run, evaluation: DetectionEvaluation, images: int, data_dir: str | None) -> Group:
    found = [one.take(np.flatnonzero(one.scores >= MIN_SCORE)) for one in read_boxes(run.path, evaluation)]
    settings = dataclasses.replace(
        evaluation.data_settings, data_dir=data_dir or evaluation.data_settings.data_dir, download=False
    )
    try:
        test: BoxSet = find_task("detection").open(settings, validation=False).test
    except MissingDataError as error:
        raise error.with_next_step(_LOST) from error
    if test.fingerprint() != evaluation.test_fingerprint:
        raise DataError(f"the test images of {evaluation.data} are not those that were evaluated", "Evaluate again")
    hits = [matched(objects, one) for objects, one in zip(test.objects, found, strict=True)]
    limit = -(-images // _A_ROW) * _A_ROW
    grids = []
    for title, caption, cases, draw in (
        ("false boxes", "surest first; below each: class and score, and what is there.", _false(found, hits), _found),
        (
            "missed objects",
            "largest first; below each: its class, and what was found there.",
            _missed(test, hits),
            _true,
        ),
        ("hits", "evenly spaced by score; below each: class, score and overlap.", _hit(found, hits), _found),
    ):
        if not cases:
            continue
        chosen = cases[:limit] if title != "hits" else [cases[place] for place in spread_indices(len(cases), _A_ROW)]
        pictures = [draw(test, found[case.image], hits[case.image], case) for case in chosen]
        grids.append(
            Grid(
                f"{len(pictures)} of {len(cases)} {title}",
                f"On {evaluation.data}, n = {evaluation.test_images} test images, boxes with a score of at least "
                f"{MIN_SCORE:g}, hits from an overlap of 0.5; {caption}",
                tuple(f"{place}" for place in range(1, min(_A_ROW, len(pictures)) + 1)),
                tuple(tuple(pictures[start : start + _A_ROW]) for start in range(0, len(pictures), _A_ROW)),
            )
        )
    missing = () if grids else (f"no box has a score of at least {MIN_SCORE:g}, and there are no objects to miss.",)
    return Group(run.name, tuple(grids), missing)


def _false(found: Sequence[Detections], hits: Sequence[np.ndarray]) -> list[_Case]:
    return _by_score(found, [one == -1 for one in hits])


def _hit(found: Sequence[Detections], hits: Sequence[np.ndarray]) -> list[_Case]:
    return _by_score(found, [one >= 0 for one in hits])


def _by_score(found: Sequence[Detections], chosen: Sequence[np.ndarray]) -> list[_Case]:
    cases = [_Case(image, int(place)) for image, one in enumerate(chosen) for place in np.flatnonzero(one)]
    return sorted(cases, key=lambda case: -float(found[case.image].scores[case.place]))


def _missed(test: BoxSet, hits: Sequence[np.ndarray]) -> list[_Case]:
    """By area on the photo, largest first."""
    sizes = test.sizes().astype(np.float64)

    def area(case: _Case) -> float:
        left, top, right, bottom = test.objects[case.image].boxes[case.place].astype(np.float64)
        return float((right - left) * (bottom - top) * np.prod(sizes[case.image]))

    cases = [
        _Case(image, place)
        for image, (objects, of_image) in enumerate(zip(test.objects, hits, strict=True))
        for place in range(len(objects))
        if not objects.ignored[place] and place not in of_image
    ]
    return sorted(cases, key=lambda case: -area(case))


def _found(test: BoxSet, found: Detections, hits: np.ndarray, case: _Case) -> Picture:
    """Of a box that was found."""
    objects, names = test.objects[case.image], test.class_names
    name, score = names[found.classes[case.place]], float(found.scores[case.place])
    good = bool(hits[case.place] >= 0)
    near, overlap = _nearest(found.boxes[case.place], objects.boxes)
    if good:
        overlap = float(intersection_over_union(found.boxes[[case.place]], objects.boxes[[hits[case.place]]])[0, 0])
        words = f"overlap {overlap:.2f}"
    elif near is None:
        words = "nothing is there"
    elif objects.classes[near] != found.classes[case.place]:
        words = f"{names[objects.classes[near]]} is there, overlap {overlap:.2f}"
    else:
        words = f"overlap {overlap:.2f}" if overlap < 0.5 else "found twice"
    about = f"test image {case.image}, {name} with a score of {score:.2f}, {words}"
    return Picture(_drawn(test, found, case, of_truth=False), about, f"{name} {score:.2f}, {words}", good)


def _true(test: BoxSet, found: Detections, hits: np.ndarray, case: _Case) -> Picture:
    """Of an object that was missed."""
    objects, names = test.objects[case.image], test.class_names
    name = names[objects.classes[case.place]]
    near, overlap = _nearest(objects.boxes[case.place], found.boxes)
    words = "nothing found there" if near is None else f"found {names[found.classes[near]]}, overlap {overlap:.2f}"
    about = f"test image {case.image}, {name} that was missed, {words}"
    return Picture(_drawn(test, found, case, of_truth=True), about, f"{name}, {words}", good=False)


def _nearest(box: np.ndarray, others: np.ndarray) -> tuple[int | None, float]:
    """The one that overlaps `box` most, and by how much; None where none does."""
    overlaps = intersection_over_union(box[np.newaxis], others)[0]
    if not len(overlaps) or overlaps.max() <= 0:
        return None, 0.0
    return int(overlaps.argmax()), float(overlaps.max())


def _drawn(test: BoxSet, found: Detections, case: _Case, *, of_truth: bool) -> bytes:
    """A JPEG of the photo around the box in question, no side longer than `_SIDE`."""
    objects = test.objects[case.image]
    size = test.sizes()[case.image].astype(np.float64)
    box = (objects if of_truth else found).boxes[case.place].astype(np.float64) * np.tile(size, 2)
    window = _window(box, size)
    left, top, right, bottom = window
    pixels = test.pixels([case.image])[0]
    scale = _SIDE / max(right - left, bottom - top)
    shown = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    stored = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    squashed = np.tile(pixels.shape[0] / size, 2)
    picture = stored.resize(shown, Image.Resampling.BICUBIC, box=tuple((window * squashed).tolist()))
    canvas = ImageDraw.Draw(picture)
    # True boxes on top, as gaps in their lines show what is below; the one in question last.
    marks = [(one, False, not of_truth and place == case.place) for place, one in enumerate(found.boxes)]
    marks += [(one, True, of_truth and place == case.place) for place, one in enumerate(objects.boxes)]
    for one, dashed, asked in sorted(marks, key=lambda mark: mark[2]):
        corners = (one.astype(np.float64) * np.tile(size, 2) - np.tile([left, top], 2)) * scale
        _frame(canvas, corners, dashed=dashed, width=3 if asked else 1)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def _window(box: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The part of a photo of `size` that is shown: left, top, right, bottom, pixels; a square where there is room."""
    side = max(_AROUND * float(max(box[2:] - box[:2])), _LEAST_SHARE * float(max(size)))
    wide = np.minimum(side, size)
    start = np.clip((box[:2] + box[2:]) / 2 - wide / 2, 0, size - wide)
    return np.concatenate([start, start + wide])


def _frame(canvas: ImageDraw.ImageDraw, box: np.ndarray, *, dashed: bool, width: int) -> None:
    """A line around a box, black at its edges, so that it is seen on any photo."""
    for part in _lines(box, dashed):
        canvas.line(part, fill="black", width=width + 2)
    for part in _lines(box, dashed):
        canvas.line(part, fill=_TRUE if dashed else _FOUND, width=width)


def _lines(box: np.ndarray, dashed: bool) -> Iterator[tuple[float, float, float, float]]:
    left, top, right, bottom = box.tolist()
    for x0, y0, x1, y1 in (
        (left, top, right, top),
        (right, top, right, bottom),
        (right, bottom, left, bottom),
        (left, bottom, left, top),
    ):
        length = max(abs(x1 - x0), abs(y1 - y0), 1e-9)
        count = max(1, round(length / (2 * _DASH))) if dashed else 1
        for number in range(count):
            first, last = number / count, (number + (0.5 if dashed else 1)) / count
            yield x0 + (x1 - x0) * first, y0 + (y1 - y0) * first, x0 + (x1 - x0) * last, y0 + (y1 - y0) * last
