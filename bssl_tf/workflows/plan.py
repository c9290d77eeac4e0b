"""What `bssl-tf init` and `bssl-tf auto` decide for the user: which teacher, and how the time is shared out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bssl_tf.data.layout import image_count
from bssl_tf.errors import DataError, MissingDataError, NetworkError
from bssl_tf.evaluation.verdict import PHOTOS_FOR_AN_OWN_TEACHER
from bssl_tf.files import storage_errors
from bssl_tf.settings.durations import duration_of, seconds_of
from bssl_tf_converters.checkpoints.teacher_weights import installed_checkpoint

PRETRAINED = "efficientnet_lite0"
# Of the time, for a teacher of one's own.
_TEACHERS_SHARE = 0.4


@dataclass(frozen=True)
class Plan:
    """How to train on some photos.

    Attributes:
        photos: how many there are, at most.
        pretrained: whether to take the pretrained teacher: there are fewer than 50,000 photos, and it is installed.
        lacking: whether it would be advised, but is not installed.
        teacher: how long to train a teacher, as `--budget` takes it; "" with a pretrained one.
        student: how long to train the student.
    """

    photos: int
    pretrained: bool
    lacking: bool
    teacher: str
    student: str


def plan(photos: Path, budget: str) -> Plan:
    """Decides by the number of photos and what is installed.

    Args:
        photos: the folder.
        budget: of all training: `30m`, `1h30m`.

    Raises:
        ConfigError: `budget` is not a duration.
        MissingDataError: there is no such folder.
        DataError: there are no photos in it.
    """
    seconds = seconds_of(budget)
    if not photos.is_dir():
        raise MissingDataError(f"{photos} is not a folder", "Name the folder with your photos, labelled or not")
    with storage_errors(photos):
        count = image_count(photos)
    if not count:
        raise DataError(f"there are no images in {photos}", "Name the folder with your photos, labelled or not")
    few, installed = count < PHOTOS_FOR_AN_OWN_TEACHER, _installed()
    if few and installed:
        return Plan(count, True, False, "", budget)
    teacher = duration_of(_TEACHERS_SHARE * seconds)
    return Plan(count, False, few, teacher, duration_of(seconds - seconds_of(teacher)))


def _installed() -> bool:
    try:
        installed_checkpoint(PRETRAINED)
    except NetworkError:
        return False
    return True
