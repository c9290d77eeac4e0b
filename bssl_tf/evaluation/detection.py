"""What is known of a detector: COCO's average precision on test images, of all classes and of each. No TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from bssl_tf.evaluation.records import Count, Percent, as_record, read_evaluated
from bssl_tf.files import write_json
from bssl_tf.settings import DataConfig

FILE = "evaluation-detection.json"
_STRICT: ConfigDict = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


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

    __pydantic_config__ = _STRICT

    name: str
    objects: Count
    ap: Percent | None
    ap50: Percent | None
    ap75: Percent | None
    precisions: tuple[Percent, ...]


@dataclass(frozen=True)
class DetectionEvaluation:
    """What evaluation-detection.json holds.

    Attributes:
        run: the folder that was evaluated.
        data: the data set's name.
        data_settings: how to open it again.
        train_images: that the network could learn from.
        test_images: that precisions are of.
        test_fingerprint: of the test images and their boxes.
        image_size: of the network's input, pixels per side.
        seed: of the run.
        labels_used: whose labels went into the weights, a clause; None if none.
        conditions: machine, versions, time.
        command: what the user called.
        ap, ap50, ap75: means over classes, percent.
        sentence: for a person.
        classes: each of them.
    """

    __pydantic_config__ = _STRICT

    run: str
    data: str
    data_settings: DataConfig
    train_images: Count
    test_images: Annotated[int, Field(ge=1)]
    test_fingerprint: str
    image_size: int
    seed: int
    labels_used: str | None
    conditions: dict[str, Any]
    command: str
    ap: Percent
    ap50: Percent
    ap75: Percent
    sentence: str
    classes: tuple[ClassPrecision, ...]


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
