"""The protocols by name. To add one: write its file, a function of a `Bench` here, and its line in `PROTOCOLS`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from bssl_tf.backend import keras, tf
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.preprocessing import evaluation_batches
from bssl_tf.evaluation.few_shot import class_ranks, few_shot_svm
from bssl_tf.evaluation.finetune import finetune
from bssl_tf.evaluation.knn import knn_top1
from bssl_tf.evaluation.linear_probe import fit_linear_probe, top1
from bssl_tf.evaluation.sgd_probe import fit_sgd_probe
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.seeding import named_seed
from bssl_tf.settings import PROTOCOLS, check_choice

_BATCH = 256
Scores = dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Subject:
    """Whose features are measured.

    Attributes:
        name: for the table.
        features: normalised images float32 [B, S, S, C] to float32 [B, D].
        network: what fine-tuning begins with; None where there is nothing to tune.
    """

    name: str
    features: Callable[[np.ndarray], np.ndarray]
    network: keras.Model | None = None


def compiled(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    """`function` as one graph, from and to numpy."""
    graph = tf.function(function, reduce_retracing=True)
    return lambda batch: graph(tf.constant(batch)).numpy()


def features_of(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """What `model` gives in inference mode."""
    return compiled(lambda batch: model(batch, training=False))


class Bench:
    """A subject and the labelled data it is measured on; features are computed once, when first asked for.

    Attributes:
        probe: weights [D, K] and bias [K] of the linear probe, once it was fitted.
    """

    def __init__(
        self, subject: Subject, train: ImageSet, test: ImageSet, preprocessing: Preprocessing, seed: int
    ) -> None:
        self.subject, self.train, self.test, self.preprocessing, self.seed = subject, train, test, preprocessing, seed
        self.train_labels, self.test_labels = train.require_labels(), test.require_labels()
        self.probe: tuple[np.ndarray, np.ndarray] | None = None

    @functools.cached_property
    def train_features(self) -> np.ndarray:
        """float32 [N, D]."""
        return self._features(self.train)

    @functools.cached_property
    def test_features(self) -> np.ndarray:
        """float32 [M, D]."""
        return self._features(self.test)

    @functools.cached_property
    def neighbour_votes(self) -> tuple[float, float]:
        """Top-1 of 20 and of 200 neighbours, which one search finds."""
        twenty, two_hundred = knn_top1(
            self.train_features, self.train_labels, self.test_features, self.test_labels, (20, 200)
        )
        return twenty, two_hundred

    def _features(self, images: ImageSet) -> np.ndarray:
        batches = evaluation_batches(images, self.preprocessing, _BATCH)
        return np.concatenate([self.subject.features(batch) for batch in batches])


def _linear_probe(bench: Bench) -> Scores:
    seed = named_seed(bench.seed, "probe")
    bench.probe = fit_linear_probe(bench.train_features, bench.train_labels, len(bench.train.class_names), seed=seed)
    return {"linear-probe": (top1(*bench.probe, bench.test_features, bench.test_labels),)}


def _linear_probe_held_out(bench: Bench) -> Scores:
    """Fitted on five sixths of the training images and measured on the rest: for choosing settings without the test."""
    held = class_ranks(bench.train_labels, named_seed(bench.seed, "held out")) % 6 == 0
    x, y, classes = bench.train_features, bench.train_labels, len(bench.train.class_names)
    fitted = fit_linear_probe(x[~held], y[~held], classes, seed=named_seed(bench.seed, "probe"))
    return {"linear-probe-held-out": (top1(*fitted, x[held], y[held]),)}


def _linear_probe_sgd(bench: Bench) -> Scores:
    classes, seed = len(bench.train.class_names), named_seed(bench.seed, "probe")
    fitted = fit_sgd_probe(bench.train_features, bench.train_labels, classes, seed=seed)
    return {"linear-probe-sgd": (top1(*fitted, bench.test_features, bench.test_labels),)}


def _few_shot(bench: Bench) -> Scores:
    data = bench.train_features, bench.train_labels, bench.test_features, bench.test_labels
    accuracies = few_shot_svm(*data, seed=named_seed(bench.seed, "few-shot"))
    return {f"few-shot-svm-{shots}": draws for shots, draws in accuracies.items()}


def _finetune(share: float) -> Callable[[Bench], Scores]:
    def protocol(bench: Bench) -> Scores:
        seed = named_seed(bench.seed, "finetune")
        result = finetune(bench.subject.network, bench.train, bench.test, bench.preprocessing, share=share, seed=seed)
        return {f"finetune-{share:.0%}": (result.top1,)}

    return protocol


_PROTOCOLS: dict[str, Callable[[Bench], Scores]] = {
    "knn-20": lambda bench: {"knn-20": (bench.neighbour_votes[0],)},
    "knn-200": lambda bench: {"knn-200": (bench.neighbour_votes[1],)},
    "linear-probe": _linear_probe,
    "linear-probe-sgd": _linear_probe_sgd,
    "linear-probe-held-out": _linear_probe_held_out,
    "few-shot-svm": _few_shot,
    "finetune-1%": _finetune(0.01),
    "finetune-10%": _finetune(0.10),
}
NETWORK_PROTOCOLS = ("finetune-1%", "finetune-10%")
DEFAULT_PROTOCOLS = ("linear-probe", "knn-20")


def measure(bench: Bench, protocols: Iterable[str]) -> Scores:
    """Every protocol that fits the subject: raw pixels have no weights to tune, and the teacher's are not ours."""
    scores: Scores = {}
    for name in protocols:
        if bench.subject.network is not None or name not in NETWORK_PROTOCOLS:
            scores |= _PROTOCOLS[name](bench)
    return scores


def check_protocols(names: Iterable[str]) -> None:
    """Raises `ConfigError`, with the nearest known name, when one is unknown."""
    for name in names:
        check_choice("the protocol", name, PROTOCOLS)
