"""What `embed`, `similar` and `select` take features from: a bundle, or the network of a run or of a file in Keras."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bssl_tf import zoo
from bssl_tf.errors import ConfigError
from bssl_tf.files import read_regular
from bssl_tf_deploy.bundle import MANIFEST
from bssl_tf_deploy.cli import prepare
from bssl_tf_deploy.embedding import FeatureNetwork, bundle_features
from bssl_tf_deploy.inputs import OneImage
from bssl_tf_deploy.manifest import Preprocessing
from bssl_tf_deploy.predictor import Prepared
from bssl_tf_deploy.preprocess import load_view, normalise
from bssl_tf_deploy.quiet import captured_output
from bssl_tf_deploy.tasks.classification import NAME, softmax

_MAX_WEIGHTS_BYTES = 1 << 32


@dataclass(frozen=True)
class Stated:
    """What the user states of a saved model that does not state it itself; None for what it shows, or a default.

    Attributes:
        image_size: pixels per side, of a model that takes any size.
        teacher_pixels: range of its input, see the setting.
        teacher_layout: axes of an ONNX file's input.
        teacher_output: tensor of an ONNX file that holds the features.
    """

    image_size: int | None = None
    teacher_pixels: str | None = None
    teacher_layout: str | None = None
    teacher_output: str | None = None

    def words(self) -> list[str]:
        """The same as options of a command."""
        options = {
            "--image-size": self.image_size,
            "--pixels": self.teacher_pixels,
            "--teacher-layout": self.teacher_layout,
            "--teacher-output": self.teacher_output,
        }
        # With =, because a range may begin with a minus sign.
        return [f"{name}={value}" for name, value in options.items() if value is not None]


def feature_network(
    model: str | os.PathLike[str],
    stated: Stated,
    *,
    threads: int = 1,
    runtime: str = "auto",
    trust_bundle_library: bool = False,
) -> FeatureNetwork:
    """Opens a bundle with what runs it, or any other network with TensorFlow or, an ONNX file, with ONNX Runtime.

    Args:
        model: a bundle; the folder of `pretrain`, `finetune`, `train_teacher` or `import_teacher`; `zoo:NAME`; a
            .keras, .h5 or .onnx file; or a SavedModel.
        stated: of a saved model.
        threads: of a bundle, for one image, 1 to 64.
        runtime: of a bundle, see `bssl_tf_deploy.load`.
        trust_bundle_library: see there.

    Raises:
        BundleError: the bundle is not sound, or not a classifier's.
        RunFolderError: it is none of these, or not finished.
        NetworkError: the zoo has no such network, or the file is not a network with one vector for each image.
        ConfigError: `stated` does not fit the network, or lacks what it does not state itself.
    """
    path = Path(model)
    if (path / MANIFEST).exists():
        _require_nothing_stated(path, stated)
        predictor, _ = prepare(str(path), threads, runtime, trust_bundle_library)
        with captured_output():  # LiteRT announces XNNPACK
            return bundle_features(predictor, threads, runtime, trust_bundle_library=trust_bundle_library)
    if not os.fspath(model).startswith(zoo.PREFIX):
        return _of_run(path, stated)
    entry = zoo.find(os.fspath(model))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / entry.name
        zoo.make_run(entry, run)
        return _of_run(run, stated)


def prepared_by(preprocessing: Preprocessing) -> Callable[[OneImage], Prepared]:
    """What prepares an image as a device does, [1, H, W, C] float32. Raises `ImageError` when it is called."""

    def prepared(image: OneImage) -> Prepared:
        pixels, view = load_view(image, preprocessing)
        return Prepared(normalise(pixels, preprocessing.mean, preprocessing.std), view)

    return prepared


def _require_nothing_stated(path: Path, stated: Stated) -> None:
    if words := stated.words():
        raise ConfigError(f"{path} states itself which images it was made for", f"Omit {' '.join(words)}")


def _of_run(run: Path, stated: Stated) -> FeatureNetwork:
    from bssl_tf.backend import configure
    from bssl_tf.environment import resolved_threads
    from bssl_tf.evaluation.records import STUDENT
    from bssl_tf.workflows.evaluable import find_evaluable

    found = find_evaluable(run)
    configure(resolved_threads(0))
    if found.preprocessing is None:
        return _of_file(run, stated)
    _require_nothing_stated(run, stated)
    p = found.preprocessing
    preprocessing = Preprocessing(p.image_size, p.image_size, p.channels, p.mean, p.std)
    part = run / ("student" if found.name == STUDENT else "teacher")
    weights = hashlib.sha256(read_regular(part / "weights.safetensors", _MAX_WEIGHTS_BYTES)).hexdigest()
    if found.has_head:
        features, scores = _fine_tuned(run)
    else:
        features = found.subjects(p, False)[0].features
        scores = _probed(run, features)
    return FeatureNetwork(found.backbone, weights, preprocessing, prepared_by(preprocessing), features, scores)


def _of_file(path: Path, stated: Stated) -> FeatureNetwork:
    """A saved model, opened as a teacher is."""
    from bssl_tf import preprocessing as views
    from bssl_tf.evaluation.protocols import compiled
    from bssl_tf.teachers.inputs import TeacherOptions
    from bssl_tf.teachers.teacher import open_teacher
    from bssl_tf.workflows.evaluable import DEFAULT_SIZE

    size = stated.image_size or 0
    options = TeacherOptions(
        stated.teacher_pixels or "auto", size, stated.teacher_layout or "auto", stated.teacher_output or ""
    )
    teacher = open_teacher(str(path), options)
    if size and teacher.own_image_size not in (0, size):
        raise ConfigError(f"{path} takes images of {teacher.own_image_size} px", "Omit --image-size")
    # Of a network that takes any images.
    default = views.Preprocessing(size or DEFAULT_SIZE, 3, (0.0,) * 3, (1.0,) * 3)
    wanted = teacher.for_views(default).wanted
    assert wanted is not None
    if wanted.constants is None:
        raise ConfigError(
            f"{path} does not state how its pixels are normalised",
            "Add --pixels with 0..1, -1..1, 0..255, imagenet, clip, or MEAN/STD of pixel / 255, as in its training",
        )
    made = Preprocessing(wanted.image_size, wanted.image_size, wanted.channels, *wanted.constants)
    return FeatureNetwork(path.name, teacher.fingerprint(), made, prepared_by(made), compiled(teacher.features))


_Function = Callable[[np.ndarray], np.ndarray]


def _fine_tuned(run: Path) -> tuple[_Function, _Function | None]:
    """Features of a network of any task, and scores of a classifier."""
    from bssl_tf.evaluation.protocols import features_of
    from bssl_tf.tasks.fine_tuned import load_fine_tuned

    tuned = load_fine_tuned(run)
    features = features_of(tuned.backbone)
    if tuned.task.name != NAME:
        return features, None
    logits = features_of(tuned.model)
    return features, lambda batch: softmax(logits(batch))


def _probed(run: Path, features: _Function) -> _Function | None:
    """Scores of the linear probe that `evaluate` saved, if it did."""
    from bssl_tf.evaluation.linear_probe import load_probe

    if not (run / "probe").is_dir():
        return None
    probe = load_probe(run / "probe")
    return lambda batch: softmax(features(batch) @ probe.weights + probe.bias)
