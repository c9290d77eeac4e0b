"""What `bssl-tf evaluate` can measure: a student's run, a teacher's run, an imported teacher, a saved Keras model."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.backend import keras
from bssl_tf.errors import ConfigError
from bssl_tf.evaluation.protocols import Head, Subject, compiled, features_of
from bssl_tf.evaluation.records import BEFORE, STUDENT, TEACHER, untrained
from bssl_tf.evaluation.verdict import Origin
from bssl_tf.files import read_json
from bssl_tf.methods.registry import read_run
from bssl_tf.models.place import START
from bssl_tf.models.saved import load_weights, read_network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.seeding import named_seed
from bssl_tf.settings import DataConfig, FinetuneConfig, PretrainConfig, TeacherConfig, read_import, read_run_config
from bssl_tf.tasks.fine_tuned import has_head, load_fine_tuned
from bssl_tf.teachers.inputs import NOTHING_SAID, ONNX_SUFFIX, TeacherOptions, teacher_options
from bssl_tf.teachers.teacher import Teacher, open_teacher, unknown_labels
from bssl_tf.workflows.run_folders import check_finished, run_config
from bssl_tf_deploy.tasks import classification

# Pixels per side, of a saved model that takes any.
DEFAULT_SIZE = 224
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluable:
    """A network to be evaluated, before its data is known.

    Attributes:
        path: where it is.
        name: `STUDENT` or `TEACHER`, its row in the table.
        folder: whether `path` is a folder that the evaluation can be saved in.
        data: the data it was trained on, where that is known.
        image_size: of the images that it is to see; opens a saved model, for which TensorFlow must have been set up.
        preprocessing: of its images; None where the labelled data decides, as for a saved Keras model.
        subjects: makes the subject and, if wanted, its untrained control.
        method: that trained it.
        backbone: its network.
        seed: of its training.
        epochs: of each stage; 0 where it was not trained here.
        threads: that it was trained with; 0 for all.
        photos: images that it was trained on; None where that is not known.
        labels_used: see `models.saved.Network`.
        pretrained: whether it, or its teacher, has weights that were not trained here.
        origin: where it comes from itself.
        teacher: of a student, with what its settings say of it; "" for none.
        has_head: whether it was fine-tuned, and gives answers of its own.
    """

    path: Path
    name: str
    data: DataConfig
    preprocessing: Preprocessing | None
    image_size: Callable[[], int]
    subjects: Callable[[Preprocessing, bool], list[Subject]]
    method: str
    backbone: str
    labels_used: str | None
    pretrained: bool
    origin: Origin = "trained here"
    folder: bool = True
    seed: int = 0
    epochs: int = 0
    threads: int = 0
    photos: int | None = None
    teacher: tuple[str, TeacherOptions] = ("", NOTHING_SAID)
    has_head: bool = False


def find_evaluable(path: Path, options: TeacherOptions = NOTHING_SAID, *, image_size: int = 0) -> Evaluable:
    """Finds out what is at `path`.

    Args:
        path: a finished run of `bssl-tf pretrain`, `finetune` or `teacher`, a folder of `bssl-tf import-teacher`, or a
            .keras, .h5 or .onnx file, or a SavedModel.
        options: what a saved model does not say itself.
        image_size: of the images, which a saved model of another size gets resampled; 0 for its own, or 224.

    Raises:
        RunFolderError: it is none of these, or not finished.
        NetworkError: its network cannot be read.
    """
    if path.is_file() or (path / "saved_model.pb").exists():
        return _keras(path, options, image_size)
    if (imported := read_import(path)) is not None:
        return _saved(path, TEACHER, DataConfig(), imported.method, pretrained=True, origin="imported")
    content = read_run_config(path)
    if content["command"] == "teacher":
        own = read_run(TeacherConfig, content).sections
        return _saved(path, TEACHER, own.data, own.method, pretrained=False, config=own)
    student = run_config(path)
    pretrained = (Path(student.teacher) / "import.json").exists() if student.teacher else False
    teacher = student.teacher, teacher_options(student)
    found = _saved(path, STUDENT, student.data, student.method, pretrained=pretrained, config=student, teacher=teacher)
    return _with_head(found) if has_head(path) else found


def _with_head(found: Evaluable) -> Evaluable:
    """A fine-tuned network: with its own answers, and what it was before."""
    start = found.path / START

    def subjects(preprocessing: Preprocessing, controls: bool) -> list[Subject]:
        tuned = load_fine_tuned(found.path)
        if tuned.task.name != classification.NAME:
            raise ConfigError(
                f"{found.path} is fine-tuned for {tuned.task.name}, which is not measured by classification",
                "For several labels per image and for boxes use the command `bssl-tf evaluate`; else evaluate what it "
                "started from",
            )
        head = Head(tuned.class_names, features_of(tuned.model))
        made = [Subject(STUDENT, features_of(tuned.backbone), tuned.backbone, head)]
        if controls:
            made += found.subjects(preprocessing, True)[1:]
            if (start / "network.json").exists():
                before = read_network(start).build()
                load_weights(start, {"student": before})
                made.append(Subject(BEFORE, features_of(before), before))
            else:
                _log.info(f"no row for the network before fine-tuning: {start} is missing")
        return made

    return dataclasses.replace(found, subjects=subjects, has_head=True)


def _saved(
    path: Path,
    name: str,
    data: DataConfig,
    method: str,
    *,
    pretrained: bool,
    origin: Origin = "trained here",
    config: PretrainConfig | FinetuneConfig | TeacherConfig | None = None,
    teacher: tuple[str, TeacherOptions] = ("", NOTHING_SAID),
) -> Evaluable:
    """A network of ours, in its folder."""
    part = "student" if name == STUDENT else "teacher"
    check_finished(path, part, config.command if config is not None else "teacher")
    network = read_network(path / part)
    training = config.training if config is not None else None
    seed = training.seed if training is not None else 0

    def subjects(preprocessing: Preprocessing, controls: bool) -> list[Subject]:
        trained = network.build()
        load_weights(path / part, {part: trained})
        made = [Subject(name, features_of(trained), trained)]
        if controls:
            keras.utils.set_random_seed(named_seed(seed, f"{part} weights"))
            fresh = network.build()
            made.append(Subject(untrained(name), features_of(fresh), fresh))
        return made

    return Evaluable(
        path=path,
        name=name,
        data=data,
        preprocessing=network.preprocessing,
        image_size=lambda: network.preprocessing.image_size,
        subjects=subjects,
        method=method,
        backbone=network.backbone,
        labels_used=network.labels_used,
        pretrained=pretrained or network.labels_used is not None,
        origin=origin,
        seed=seed,
        epochs=training.epochs if training is not None else 0,
        threads=training.threads if training is not None else 0,
        photos=_photos(path),
        teacher=teacher,
    )


def _keras(path: Path, options: TeacherOptions, image_size: int) -> Evaluable:
    """A saved Keras model, whose data and training are not known."""

    @functools.cache
    def opened() -> Teacher:
        return open_teacher(str(path), options, image_size)

    def subjects(preprocessing: Preprocessing, controls: bool) -> list[Subject]:
        teacher = opened().for_views(preprocessing)
        _log.info(teacher.summary())
        made = [Subject(TEACHER, compiled(teacher.features))]
        # An ONNX file does not show how its weights were drawn.
        if controls and isinstance(teacher.backbone, keras.Model):
            keras.utils.set_random_seed(named_seed(0, "teacher weights"))
            fresh = keras.models.clone_model(teacher.backbone)
            plain = dataclasses.replace(teacher, backbone=fresh)
            made.append(Subject(untrained(TEACHER), compiled(plain.features)))
        return made

    return Evaluable(
        path=path,
        name=TEACHER,
        origin="saved model",
        folder=False,
        data=DataConfig(image_size=image_size),
        image_size=lambda: image_size or opened().own_image_size or DEFAULT_SIZE,
        preprocessing=None,
        subjects=subjects,
        method="ONNX model" if path.suffix == ONNX_SUFFIX else "saved Keras model",
        backbone=path.name,
        labels_used=unknown_labels(path),
        pretrained=True,
    )


def _photos(run: Path) -> int | None:
    """Images that the run was trained on, where its environment.json tells."""
    path = run / "environment.json"
    content: dict[str, Any] = read_json(path) if path.exists() else {}
    count = content.get("training_images")
    return count if isinstance(count, int) and count >= 0 else None
