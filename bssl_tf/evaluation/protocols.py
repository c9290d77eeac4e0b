"""The protocols by name. To add one: its own file, a function of a `FeatureBank` here, its line in `PROTOCOLS`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from bssl_tf.backend import keras, tf
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.preprocessing import evaluation_batches
from bssl_tf.evaluation.few_shot import class_ranks, few_shot_svm
from bssl_tf.evaluation.finetune import finetune
from bssl_tf.evaluation.knn import knn_predictions
from bssl_tf.evaluation.linear_probe import fit_linear_probe, solve_linear_probe
from bssl_tf.evaluation.predictions import Predictions
from bssl_tf.evaluation.records import Solution
from bssl_tf.evaluation.sgd_probe import fit_sgd_probe
from bssl_tf.memory import require_memory
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.seeding import named_seed
from bssl_tf.settings import FINE_TUNED, PROTOCOLS, check_choice
from bssl_tf_deploy.preprocess import averaged

_BATCH = 256
_MAX_PIXEL_SIZE = 32
# Protocol -> what it took each test image for. One call may give several: few-shot-svm-1, few-shot-svm-2, ...
Found = dict[str, Predictions]


@dataclass(frozen=True)
class Head:
    """The classifier of a fine-tuned network.

    Attributes:
        class_names: K names.
        logits: normalised images float32 [B, S, S, C] to float32 [B, K].
    """

    class_names: tuple[str, ...]
    logits: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Subject:
    """Whose features are measured.

    Attributes:
        name: for the table.
        features: normalised images float32 [B, S, S, C] to float32 [B, D].
        network: what fine-tuning begins with; None where there is nothing to tune.
        head: of a fine-tuned network; None for others.
    """

    name: str
    features: Callable[[np.ndarray], np.ndarray]
    network: keras.Model | None = None
    head: Head | None = None


def compiled(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    """`function` as one graph, from and to numpy."""
    graph = tf.function(function, reduce_retracing=True)
    return lambda batch: graph(tf.constant(batch)).numpy()


def features_of(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """What `model` gives in inference mode."""
    return compiled(lambda batch: model(batch, training=False))


def raw_pixels(batch: np.ndarray) -> np.ndarray:
    """float32 [B, S, S, C] to [B, D]: averaged over squares down to 32 px or less, so that a probe can be fitted."""
    return averaged(batch, _MAX_PIXEL_SIZE)


class FeatureBank:
    """A subject's features of the labelled data it is measured on, computed once, when first needed.

    Attributes:
        linear_probe: weights [D, K] and bias [K] of the linear probe, once it was fitted.
        solution: how far its solver came, likewise.
    """

    def __init__(
        self, subject: Subject, train: ImageSet, test: ImageSet, preprocessing: Preprocessing, seed: int
    ) -> None:
        self.subject, self.train, self.test, self.preprocessing, self.seed = subject, train, test, preprocessing, seed
        self.train_labels, self.test_labels = train.require_labels(), test.require_labels()
        self.linear_probe: tuple[np.ndarray, np.ndarray] | None = None
        self.solution: Solution | None = None

    @functools.cached_property
    def train_features(self) -> np.ndarray:
        """float32 [N, D]."""
        return self._features(self.train)

    @functools.cached_property
    def test_features(self) -> np.ndarray:
        """float32 [M, D]."""
        return self._features(self.test)

    @functools.cached_property
    def neighbour_votes(self) -> tuple[Predictions, Predictions]:
        """What 20 and what 200 neighbours vote for; one search finds both."""
        twenty, two_hundred = knn_predictions(
            self.train_features, self.train_labels, self.test_features, self.test_labels, (20, 200)
        )
        return twenty, two_hundred

    def _features(self, images: ImageSet) -> np.ndarray:
        found, done = np.zeros((0, 0), np.float32), 0
        for batch in evaluation_batches(images, self.preprocessing, _BATCH):
            features = self.subject.features(batch)
            if not done:
                shape = len(images), features.shape[1]
                needed = math.prod(shape) * features.itemsize
                require_memory(needed, f"a table of the features of {len(images)} images", "--limit")
                found = np.empty(shape, features.dtype)
            found[done : done + len(features)] = features
            done += len(features)
        return found


def _fine_tuned(bank: FeatureBank) -> Found:
    """The answers of the network's own head, whose classes may come in another order."""
    head = bank.subject.head
    assert head is not None
    places = np.array([bank.test.class_names.index(name) for name in head.class_names])
    logits = np.concatenate([head.logits(batch) for batch in evaluation_batches(bank.test, bank.preprocessing, _BATCH)])
    own = Predictions.of_logits(logits, bank.test_labels)
    return {FINE_TUNED: Predictions(places[own.predicted], bank.test_labels, own.confidence)}


def _linear_probe(bank: FeatureBank) -> Found:
    weights, bias, bank.solution = solve_linear_probe(
        bank.train_features, bank.train_labels, len(bank.train.class_names), seed=named_seed(bank.seed, "probe")
    )
    bank.linear_probe = weights, bias
    return {"linear-probe": Predictions.of_logits(bank.test_features @ weights + bias, bank.test_labels)}


def _linear_probe_held_out(bank: FeatureBank) -> Found:
    """Fitted on five sixths of the training images and measured on the rest: for choosing settings without the test."""
    held = class_ranks(bank.train_labels, named_seed(bank.seed, "held out")) % 6 == 0
    x, y, classes = bank.train_features, bank.train_labels, len(bank.train.class_names)
    weights, bias = fit_linear_probe(x[~held], y[~held], classes, seed=named_seed(bank.seed, "probe"))
    return {"linear-probe-held-out": Predictions.of_logits(x[held] @ weights + bias, y[held])}


def _linear_probe_sgd(bank: FeatureBank) -> Found:
    classes, seed = len(bank.train.class_names), named_seed(bank.seed, "probe")
    weights, bias = fit_sgd_probe(bank.train_features, bank.train_labels, classes, seed=seed)
    return {"linear-probe-sgd": Predictions.of_logits(bank.test_features @ weights + bias, bank.test_labels)}


def _few_shot(bank: FeatureBank) -> Found:
    data = bank.train_features, bank.train_labels, bank.test_features, bank.test_labels
    found = few_shot_svm(*data, seed=named_seed(bank.seed, "few-shot"))
    return {f"few-shot-svm-{shots}": predictions for shots, predictions in found.items()}


def _finetune(share: float) -> Callable[[FeatureBank], Found]:
    def protocol(bank: FeatureBank) -> Found:
        seed = named_seed(bank.seed, "finetune")
        result = finetune(bank.subject.network, bank.train, bank.test, bank.preprocessing, share=share, seed=seed)
        return {f"finetune-{share:.0%}": result.predictions}

    return protocol


_PROTOCOLS: dict[str, Callable[[FeatureBank], Found]] = {
    "knn-20": lambda bank: {"knn-20": bank.neighbour_votes[0]},
    "knn-200": lambda bank: {"knn-200": bank.neighbour_votes[1]},
    "linear-probe": _linear_probe,
    "linear-probe-sgd": _linear_probe_sgd,
    "linear-probe-held-out": _linear_probe_held_out,
    "few-shot-svm": _few_shot,
    "finetune-1%": _finetune(0.01),
    "finetune-10%": _finetune(0.10),
    FINE_TUNED: _fine_tuned,
}
NETWORK_PROTOCOLS = ("finetune-1%", "finetune-10%")
DEFAULT_PROTOCOLS = ("linear-probe", "knn-20")


def measure(bank: FeatureBank, protocols: Iterable[str]) -> Found:
    """Every protocol that fits the subject: raw pixels have no weights to tune, and the teacher's are not ours.

    A head is measured where its classes are among those of the data.
    """
    found: Found = {}
    for name in protocols:
        if name == FINE_TUNED:
            fits = bank.subject.head is not None and set(bank.subject.head.class_names) <= set(bank.test.class_names)
        else:
            fits = bank.subject.network is not None or name not in NETWORK_PROTOCOLS
        if fits:
            found |= _PROTOCOLS[name](bank)
    return found


def check_protocols(names: Iterable[str]) -> None:
    """Raises `ConfigError`, with the nearest known name, when one is unknown."""
    for name in names:
        check_choice("the protocol", name, PROTOCOLS)
