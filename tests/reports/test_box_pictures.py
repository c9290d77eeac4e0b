"""Hits and misses of a detector: which boxes are shown, in which order, and how they are drawn."""

from __future__ import annotations

import dataclasses
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from bssl_tf.errors import RunFolderError
from bssl_tf.evaluation.detection import (
    BOXES,
    FILE,
    ClassPrecision,
    DetectionEvaluation,
    SizePrecision,
    read_boxes,
    read_detection,
    write_boxes,
    write_detection,
)
from bssl_tf.files import read_json, write_json
from bssl_tf.reports.box_pictures import _frame, box_picture_section
from bssl_tf.reports.boxes import box_section
from bssl_tf.reports.document import Grid, Group, Table
from bssl_tf.reports.page import as_html
from bssl_tf.reports.runs import Run, read_runs
from bssl_tf.reports.sections import make_document
from bssl_tf.settings import DataConfig
from bssl_tf.tasks.detection.boxes import BoxSet
from bssl_tf.tasks.detection.evaluation import average_precision
from bssl_tf.tasks.detection.open import open_boxes
from bssl_tf_deploy.boxes import Detections
from tests.reports.run_folders import _write

BCCD = Path(__file__).parents[1] / "tasks" / "detection" / "bccd"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BoxSet]:
    root = tmp_path_factory.mktemp("boxes") / "cells"
    shutil.copytree(BCCD, root)
    return root, open_boxes(str(root), image_size=64, max_unreadable_share=0.3).test


def found_in(test: BoxSet) -> list[Detections]:
    """All objects, of growing scores and a little off, but the first of each image; and a box where nothing is."""
    found = []
    for number, one in enumerate(test.objects):
        boxes = np.concatenate([one.boxes[1:] + np.float32(0.001), [[0, 0, 0.02, 0.02]]]).astype(np.float32)
        classes = np.append(one.classes[1:], 2)
        scores = np.append(np.linspace(0.4, 0.9, len(one) - 1), 0.95 - 0.01 * number).astype(np.float32)
        order = np.argsort(-scores)
        found.append(Detections(np.clip(boxes, 0, 1)[order], scores[order], classes[order]))
    return found


def evaluated(root: Path, test: BoxSet, found: list[Detections], folder: Path) -> Run:
    """A run folder as `bssl-tf evaluate` leaves it, read again."""
    measured = average_precision(test, found)
    settings = DataConfig(str(root), image_size=64, max_unreadable_share=0.3)
    config: dict[str, Any] = {"command": "finetune", "task": "detection", "method": "finetune"}
    _write(folder, config, [])
    assert measured.ap is not None and measured.ap50 is not None and measured.ap75 is not None
    rows = zip(test.class_names, test.class_counts().tolist(), measured.of_classes, strict=True)
    evaluation = DetectionEvaluation(
        "x", "cells", settings, 3, len(test), test.fingerprint(), 0, None, {}, "", 64, measured.ap, measured.ap50,
        measured.ap75, "Found.", tuple(ClassPrecision(name, count, ap, ap, ap, ()) for name, count, ap in rows),
        (SizePrecision("small", *measured.small), SizePrecision("medium", *measured.medium),
         SizePrecision("large", *measured.large)),
    )  # fmt: skip
    write_boxes(folder, found, evaluation)
    write_detection(folder, evaluation)
    [run] = read_runs([folder])
    assert run.detection == evaluation and not run.damaged
    return run


def test_false_boxes_missed_objects_and_hits_are_on_the_page(data: tuple[Path, BoxSet], tmp_path: Path) -> None:
    root, test = data
    run = evaluated(root, test, found_in(test), tmp_path / "run")
    [section] = box_picture_section([run], 2, None)
    [group] = section.blocks
    assert isinstance(group, Group) and not group.missing
    false, missed, hits = group.blocks
    assert isinstance(false, Grid) and isinstance(missed, Grid) and isinstance(hits, Grid)
    count, name = len(test), test.class_names[2]
    assert false.title == f"{count} of {count} false boxes" and missed.title == f"{count} of {count} missed objects"
    assert [one.label for one in false.rows[0]] == [
        f"{name} {0.95 - 0.01 * n:.2f}, nothing is there" for n in range(count)
    ]
    areas = [float(np.prod(one.boxes[0, 2:] - one.boxes[0, :2])) for one in test.objects]
    order = np.argsort(areas)[::-1]
    assert [one.alt.split(",")[0] for one in missed.rows[0]] == [f"test image {place}" for place in order]
    total = sum(len(one) - 1 for one in test.objects)
    assert hits.title == f"6 of {total} hits" and all(one.good for one in hits.rows[0])
    for grid in (false, missed, hits):
        for one in grid.rows[0]:
            picture = Image.open(io.BytesIO(one.content))
            assert picture.format == "JPEG" and max(picture.size) == 220 and len(one.content) < 40_000
    page = as_html(make_document([run], "bssl-tf report x", "Made today.", [section]))
    assert page.count("data:image/jpeg;base64,") == 2 * count + 6 and "Hits and misses" in page


def test_what_the_network_is_unsure_of_is_not_shown_and_all_of_it_is_missed(
    data: tuple[Path, BoxSet], tmp_path: Path
) -> None:
    root, test = data
    unsure = [dataclasses.replace(one, scores=one.scores * np.float32(0.2)) for one in found_in(test)]
    [section] = box_picture_section([evaluated(root, test, unsure, tmp_path / "run")], 1, None)
    [group] = section.blocks
    assert isinstance(group, Group)
    [missed] = group.blocks
    assert isinstance(missed, Grid) and missed.title == f"6 of {sum(map(len, test.objects))} missed objects"


def test_pictures_that_cannot_be_made_are_named(data: tuple[Path, BoxSet], tmp_path: Path) -> None:
    root, test = data
    run = evaluated(root, test, found_in(test), tmp_path / "run")
    evaluation = run.detection
    assert evaluation is not None

    def said(one: Run) -> str:
        [section] = box_picture_section([one], 2, None)
        [group] = section.blocks
        assert isinstance(group, Group) and not group.blocks
        [line] = group.missing
        return line

    moved = dataclasses.replace(evaluation.data_settings, source=str(tmp_path / "gone"))
    lost = dataclasses.replace(run, detection=dataclasses.replace(evaluation, data_settings=moved))
    assert "gone does not exist" in said(lost) and "--no-images" in said(lost)
    other = dataclasses.replace(run, detection=dataclasses.replace(evaluation, ap=1.0))
    assert "does not belong to evaluation-detection.json" in said(other)
    (run.path / BOXES).write_bytes(b"{}")
    assert "bssl-tf evaluate" in said(run)
    (run.path / BOXES).unlink()
    assert "is missing" in said(run)
    assert box_picture_section([dataclasses.replace(run, detection=None)], 2, None) == []


def test_boxes_are_read_as_they_were_written(data: tuple[Path, BoxSet], tmp_path: Path) -> None:
    root, test = data
    found = found_in(test)
    run = evaluated(root, test, found, tmp_path / "run")
    assert run.detection is not None
    for one, other in zip(read_boxes(run.path, run.detection), found, strict=True):
        for name in ("boxes", "scores", "classes"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    fewer = dataclasses.replace(run.detection, test_images=run.detection.test_images + 1)
    with pytest.raises(RunFolderError, match=r"damaged.*evaluate"):
        read_boxes(run.path, fewer)


def test_sizes_have_a_table_and_what_no_image_has_is_not_measured(data: tuple[Path, BoxSet], tmp_path: Path) -> None:
    root, test = data
    run = evaluated(root, test, found_in(test), tmp_path / "run")
    assert run.detection is not None
    none = dataclasses.replace(run.detection.sizes[0], objects=0, ap=None, ap50=None, ap75=None)
    run = dataclasses.replace(run, detection=dataclasses.replace(run.detection, sizes=(none, *run.detection.sizes[1:])))
    [group] = box_section([run]).blocks
    assert isinstance(group, Group)
    [table] = [one for one in group.blocks if isinstance(one, Table) and one.name.endswith("-sizes")]
    assert table.rows[0] == ("small (up to 32² px)", 0, *("not measured",) * 3)
    medium, large = table.rows[1:]
    assert run.detection is not None
    found = run.detection.sizes[1]
    assert medium[1:] == (found.objects, found.ap50, found.ap75, found.ap)
    assert isinstance(medium[1], int) and isinstance(large[1], int) and medium[1] + large[1] > 0
    # A record of before.
    record = read_json(run.path / FILE)
    del record["sizes"]
    write_json(run.path / FILE, record)
    older = read_detection(run.path)
    assert older is not None and older.sizes == ()


@pytest.mark.parametrize("dashed", [False, True])
def test_true_and_found_boxes_differ_without_colour(dashed: bool) -> None:
    picture = Image.new("L", (100, 100), 128)
    _frame(ImageDraw.Draw(picture.convert("RGB")), np.zeros(4), dashed=dashed, width=1)
    canvas = picture.convert("RGB")
    _frame(ImageDraw.Draw(canvas), np.array([10.0, 10, 90, 90]), dashed=dashed, width=1)
    line = np.asarray(canvas.convert("L"))[10, 10:90].astype(int)
    share = np.mean(np.abs(line - 128) > 20)
    assert (0.35 < share < 0.8) if dashed else share == 1
