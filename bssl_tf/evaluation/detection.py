"""What is known of a detector: COCO's average precision on test images, and the boxes it found. No TensorFlow."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bssl_tf.checkpoints import read_tensors, write_tensors
from bssl_tf.errors import RunFolderError
from bssl_tf.evaluation.records import STRICT, Count, Percent, as_record, read_evaluated
from bssl_tf.evaluation.task_evaluation import TaskEvaluation
from bssl_tf.evaluation.text import Shown, detection_table, trained_with
from bssl_tf.files import write_json
from bssl_tf_deploy.boxes import Detections

FILE = "evaluation-detection.json"
BOXES = "boxes.safetensors"
# In pixels of the photo, squared: COCO's.
_LIMITS = {"small": "up to 32² px", "medium": "32² to 96² px", "large": "from 96² px"}


@dataclass(frozen=True)
class ClassPrecision:
    """Average precision of one class, percent; None where no test image has an object of it.

    Attributes:
        name: of the class.
        objects: of it on the test images, without those that count for nothing (difficult, crowds).
        ap: the mean over overlaps (IoU) of 0.5, 0.55, ..., 0.95.
        ap50, ap75: at an overlap of 0.5 and 0.75.
        precisions: at an overlap of 0.5, percent, for recalls of 0, 1, ..., 100 %; empty without objects.
    """

    __pydantic_config__ = STRICT

    name: str
    objects: Count
    ap: Percent | None
    ap50: Percent | None
    ap75: Percent | None
    precisions: tuple[Percent, ...]


@dataclass(frozen=True)
class SizePrecision:
    """Average precision of objects of one size, in pixels of the photo, percent; None without objects.

    Attributes:
        name: `small`, with an area of up to 32 x 32, `medium`, of up to 96 x 96, or `large`.
        objects: of that size on the test images, without those that count for nothing.
        ap, ap50, ap75: see `ClassPrecision`; means over classes.
    """

    __pydantic_config__ = STRICT

    name: Literal["small", "medium", "large"]
    objects: Count
    ap: Percent | None
    ap50: Percent | None
    ap75: Percent | None

    @property
    def title(self) -> str:
        """Its name with its limits."""
        return f"{self.name} ({_LIMITS[self.name]})"


@dataclass(frozen=True)
class DetectionEvaluation(TaskEvaluation, Shown):
    """What evaluation-detection.json holds.

    Attributes:
        image_size: of the network's input, pixels per side.
        ap, ap50, ap75: means over classes, percent.
        sentence: for a person.
        classes: each of them.
        sizes: small, medium and large objects; empty in records of before they were measured.
        float_twin: whether nothing in the network is quantised.
        image_width: of an input that is not a square, whose height is `image_size`; 0 for a square.
    """

    image_size: int
    ap: Percent
    ap50: Percent
    ap75: Percent
    sentence: str
    classes: tuple[ClassPrecision, ...]
    sizes: tuple[SizePrecision, ...] = ()
    float_twin: bool = False
    image_width: Count = 0

    @property
    def input_size(self) -> str:
        """Of the network's input, as `320 px` or `320 x 416 px`, height first."""
        return f"{self.image_size} x {self.image_width} px" if self.image_width else f"{self.image_size} px"

    def text_lines(self) -> list[str]:
        """The average precision of each class and size, and the sentence."""
        return [*detection_table(self), *trained_with(self.labels_used), self.sentence]


def sentence_of(ap50: float, ap: float, images: int, data: str) -> str:
    """Precision in one sentence."""
    return (
        f"Average precision on {images} test image{'s' * (images > 1)} of {data}: AP50 {ap50:.1f} % (boxes that "
        f"overlap an object by half of their union), AP {ap:.1f} % (the mean over overlaps of 0.5 to 0.95)."
    )


def write_detection(folder: Path, found: DetectionEvaluation) -> None:
    """Writes the file, atomically. Raises `StorageError`."""
    write_json(folder / FILE, as_record(found))


def read_detection(folder: Path) -> DetectionEvaluation | None:
    """What `write_detection` wrote; None where there is none.

    Raises:
        RunFolderError: the file is damaged.
    """
    return read_evaluated(folder / FILE, DetectionEvaluation)


def write_boxes(folder: Path, found: Sequence[Detections], evaluation: DetectionEvaluation) -> None:
    """Writes the boxes that were found on each test image, atomically. Raises `StorageError`."""
    tensors: dict[str, np.ndarray] = {
        "counts": np.array([len(one) for one in found], np.int64),
        "boxes": np.concatenate([one.boxes for one in found]).astype(np.float32),
        "scores": np.concatenate([one.scores for one in found]).astype(np.float32),
        "classes": np.concatenate([one.classes for one in found]).astype(np.int64),
    }
    write_tensors(folder / BOXES, tensors, _belonging(evaluation))


def read_boxes(folder: Path, evaluation: DetectionEvaluation) -> list[Detections]:
    """What `write_boxes` wrote for `evaluation`: boxes as shares of each test image, best first.

    Raises:
        RunFolderError: the file is missing, damaged, or of another evaluation.
    """
    path, again = folder / BOXES, f"Make it again with `bssl-tf evaluate {shlex.quote(str(folder))}`"
    if not path.is_file():
        raise RunFolderError(f"{path} is missing", again)
    try:
        tensors, metadata = read_tensors(path)
    except RunFolderError as error:
        raise error.with_next_step(again) from error
    if metadata != _belonging(evaluation):
        raise RunFolderError(f"{path} does not belong to {FILE}", again)
    try:
        counts, boxes, scores, classes = (tensors[name] for name in ("counts", "boxes", "scores", "classes"))
        total = int(counts.sum())
        shapes = [(one.shape, one.dtype) for one in (counts, boxes, scores, classes)]
        wanted = [((evaluation.test_images,), "i8"), ((total, 4), "f4"), ((total,), "f4"), ((total,), "i8")]
        if shapes != [(shape, np.dtype(kind)) for shape, kind in wanted] or counts.min() < 0:
            raise ValueError("the shapes contradict each other")
        if total and not 0 <= classes.min() <= classes.max() < len(evaluation.classes):
            raise ValueError("a class is not one of the evaluation")
    except (KeyError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged ({error})", again) from error
    ends = np.cumsum(counts)[:-1]
    parts = zip(*(np.split(one, ends) for one in (boxes, scores, classes)), strict=True)
    return [Detections(*part) for part in parts]


def _belonging(evaluation: DetectionEvaluation) -> dict[str, str]:
    """What ties the boxes to the figures: a run may have been killed between two files."""
    return {"format": "1", "test_fingerprint": evaluation.test_fingerprint, "ap": repr(evaluation.ap)}
