"""A teacher for fine-tuning: a float network with a classifier of its own, fitted on the labels that are there.

Where there are images without labels, these count too: see `evaluation.label_spreading`.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bssl_tf.backend import tf
from bssl_tf.data.image_set import ImageSet, spread_indices
from bssl_tf.data.preprocessing import evaluation_batches
from bssl_tf.evaluation.label_spreading import comparable, fit_to_few_labels
from bssl_tf.evaluation.linear_probe import LinearProbe, load_probe, save_probe, top1
from bssl_tf.evaluation.protocols import compiled
from bssl_tf.files import write_json
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import FinetuneConfig
from bssl_tf.teachers.inputs import teacher_options
from bssl_tf.teachers.teacher import Teacher, load_teacher

FOLDER = "teacher_head"
_BATCH = 256
# Images without labels that the classifier is fitted to at most; comparing twice as many takes four times as long.
_MOST = 20_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Taught:
    """A teacher and its classifier.

    Attributes:
        teacher: for the student's views.
        classifier: a linear one on its features, made comparable.
    """

    teacher: Teacher
    classifier: LinearProbe

    def outputs(self, images: tf.Tensor) -> tf.Tensor:
        """[B, S, S, C] normalised to logits [B, K] float32, without gradient."""
        features = comparable(self.teacher.features(images))
        return tf.matmul(features, tf.constant(self.classifier.weights)) + tf.constant(self.classifier.bias)

    def fingerprint(self) -> str:
        """Of all that gives the outputs, SHA-256 in hex."""
        digest = hashlib.sha256(self.teacher.fingerprint().encode())
        for values in (self.classifier.weights, self.classifier.bias):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def save(self, out: Path) -> None:
        """Keeps in the run what it needs of it, unless it is there. Raises `StorageError`."""
        if not (out / FOLDER / "probe.json").exists():
            save_probe(out / FOLDER, self.classifier)
        write_json(out / "teacher.json", self.teacher.describe() | {"fingerprint": self.teacher.fingerprint()})


def taught_by(
    config: FinetuneConfig,
    preprocessing: Preprocessing,
    train: ImageSet,
    unlabelled: ImageSet | None,
    held_out: ImageSet | None,
    out: Path,
) -> Taught:
    """The teacher that `config` names, with the classifier that the run in `out` has, or else a fresh one.

    Args:
        config: of the run.
        preprocessing: of the student's views.
        train: what the student learns from; the classifier is fitted on the same images.
        unlabelled: more of the same kind, of which some may be among `train` too.
        held_out: to measure the classifier on, for the log.
        out: the run folder.

    Raises:
        NetworkError: there is no such teacher, or it does not fit.
        DataError: fewer than two classes have images.
    """
    options = teacher_options(config)
    teacher = load_teacher(config.teacher, preprocessing, options)
    _log.info(teacher.summary())
    if (out / FOLDER / "probe.json").exists():
        return Taught(teacher, load_probe(out / FOLDER))
    sets = [one and one.fingerprint() for one in (train, unlabelled, held_out)]
    key = repr((teacher.fingerprint(), options, sets, preprocessing, config.data))
    if key not in _fitted:
        # No more than the last one.
        _fitted.clear()
        _fitted[key] = _fit(teacher, config, preprocessing, train, unlabelled, held_out)
    return Taught(teacher, _fitted[key])


# A budget is planned with the classifier that then teaches; to fit it may take minutes.
_fitted: dict[str, LinearProbe] = {}


def _fit(
    teacher: Teacher,
    config: FinetuneConfig,
    preprocessing: Preprocessing,
    train: ImageSet,
    unlabelled: ImageSet | None,
    held_out: ImageSet | None,
) -> LinearProbe:
    features = compiled(lambda images: comparable(teacher.features(images)))

    def of(images: ImageSet) -> np.ndarray:
        return np.concatenate([features(batch) for batch in evaluation_batches(images, preprocessing, _BATCH)])

    others = None
    if unlabelled is not None and len(unlabelled):
        some = unlabelled
        if len(some) > _MOST:
            some = some.subset(spread_indices(len(some), _MOST))
        _log.info(f"spreading {len(train)} labels over {len(some)} images without, in the teacher's features")
        others = of(some)
    labels, names = train.require_labels(), train.class_names
    labelled = of(train)
    weights, bias = fit_to_few_labels(labelled, labels, others, len(names))
    measured = train if held_out is None else held_out
    features_there = labelled if held_out is None else of(held_out)
    accuracy = top1(weights, bias, features_there, measured.require_labels())
    where = "training images, that it was fitted on" if held_out is None else "validation images"
    _log.info(f"the teacher's classifier: {accuracy:.1f} % of {len(measured)} {where}")
    return LinearProbe(weights, bias, names, accuracy, config.data)
