"""What `embed`, `similar` and `select` take features from: a bundle, or the network of a run in Keras."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bssl_tf.errors import RunFolderError
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


def feature_network(
    model: str | os.PathLike[str],
    *,
    threads: int = 1,
    runtime: str = "auto",
    trust_bundle_library: bool = False,
) -> FeatureNetwork:
    """Opens a bundle with what runs it, or a run's network with TensorFlow.

    Args:
        model: a bundle; or the folder of `pretrain`, `finetune`, `train_teacher` or `import_teacher`.
        threads: of a bundle, for one image, 1 to 64.
        runtime: of a bundle, see `bssl_tf_deploy.load`.
        trust_bundle_library: see there.

    Raises:
        BundleError: the bundle is not sound, or not a classifier's.
        RunFolderError: it is neither of these, or not finished.
    """
    path = Path(model)
    if (path / MANIFEST).exists():
        predictor, _ = prepare(str(path), threads, runtime, trust_bundle_library)
        with captured_output():  # LiteRT announces XNNPACK
            return bundle_features(predictor, threads, runtime, trust_bundle_library=trust_bundle_library)
    return _of_run(path)


def prepared_by(preprocessing: Preprocessing) -> Callable[[OneImage], Prepared]:
    """What prepares an image as a device does, [1, H, W, C] float32. Raises `ImageError` when it is called."""

    def prepared(image: OneImage) -> Prepared:
        pixels, view = load_view(image, preprocessing)
        return Prepared(normalise(pixels, preprocessing.mean, preprocessing.std), view)

    return prepared


def _of_run(run: Path) -> FeatureNetwork:
    from bssl_tf.backend import configure
    from bssl_tf.environment import resolved_threads
    from bssl_tf.evaluation.records import STUDENT
    from bssl_tf.workflows.evaluable import find_evaluable

    found = find_evaluable(run)
    if found.preprocessing is None:
        raise RunFolderError(
            f"{run} is a saved model, which does not state what images it was made for",
            "Give a bundle or a run folder: `bssl-tf export` makes a bundle of a Keras classifier",
        )
    configure(resolved_threads(0))
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
