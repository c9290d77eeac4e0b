"""What a task is on the host."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from bssl_tf.backend import keras, tf
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.open import open_data
from bssl_tf.data.preprocessing import evaluation_views, fit_preprocessing
from bssl_tf.data.views import Sampling
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import DataConfig

Labelled = TypeVar("Labelled")
Tensors = Mapping[str, tf.Tensor]
Arrays = Mapping[str, np.ndarray]
Both = Callable[[np.ndarray], Iterator[tuple[Arrays, Arrays]]]
# Called as a Keras model: with normalised images [B, S, S, C], and `training=False`.
Network = Callable[..., Any]


class Example(NamedTuple):
    """A batch to learn from.

    Attributes:
        images: float32 [B, H, W, C], normalised.
        targets: what the task's losses compare outputs with, by name; boxes, say, padded to one number.
    """

    images: tf.Tensor
    targets: Tensors


class Task(ABC, Generic[Labelled]):
    """One task; a single object of it serves all networks. `Labelled` is the data that it learns from.

    Outputs are named everywhere: `outputs` has the names in the order in which the network gives them.

    Attributes:
        name: in manifests; the device's half has the same (`bssl_tf_deploy.tasks`).
        distils: whether `distillation` is there: the task can learn from a linear classifier on a teacher's features.
        resizes: whether its networks may take images of another size than the backbone was made for, and of another
            shape than a square.
        weighs_classes: whether `losses` takes weights of classes.
        least_agreement: of a converted network, by `same_answers`, below which it is refused.
    """

    name: ClassVar[str]
    distils: ClassVar[bool] = False
    resizes: ClassVar[bool] = False
    weighs_classes: ClassVar[bool] = True
    least_agreement: ClassVar[float] = 0.99

    # Learning with labels.

    def open(self, config: DataConfig, *, validation: bool) -> Any:
        """The labelled data that `config` names; with `validation`, also that of a folder of its own.

        Returns:
            A frozen dataclass with what `DataSplits` has, whose parts are `Labelled`. Of these, all use the length,
            `channels`, `loading` and `fingerprint()`.

        Raises:
            BsslError: see `data.open.open_data`, which this is for images with one label each.
        """
        data = open_data(config, labels_needed=True, validation=validation)
        data.train.require_labels()
        return data

    @abstractmethod
    def held_out(self, labelled: Labelled, seed: int) -> tuple[Labelled, Labelled]:
        """`labelled` in two parts, to learn from and to stop by: the same ones for the same seed.

        Each has its share of every class. The second is empty where there is too little for two.
        """

    @abstractmethod
    def class_names(self, labelled: Labelled) -> tuple[str, ...]:
        """What the network is to tell apart: K names."""

    @abstractmethod
    def class_counts(self, labelled: Labelled) -> NDArray[np.int64]:
        """How often each class is there: int64 [K]."""

    def fit_preprocessing(self, labelled: Labelled, image_size: int) -> Preprocessing:
        """How images are normalised for a network that was not pretrained: by their mean and standard deviation."""
        assert isinstance(labelled, ImageSet)
        return fit_preprocessing(labelled, image_size)

    def views(
        self, labelled: Labelled, preprocessing: Preprocessing, indices: Sequence[int] | NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Images as evaluation and the device have them, float32 [B, S, S, C]: their central squares, normalised."""
        assert isinstance(labelled, ImageSet)
        return evaluation_views(labelled, preprocessing, indices)

    @abstractmethod
    def network(self, backbone: keras.Model, class_names: Sequence[str], height: int, width: int) -> keras.Model:
        """`backbone` with a fresh head for these classes, on its pooled features or on `models.feature_maps`.

        The backbone's layers are shared, not copied; the head's are float32, or quantised, and called by names of their
        own, by which their weights are saved. What it gives is named by `outputs`.

        Args:
            backbone: from images of the size that it was made for.
            class_names: K names.
            height, width: of the images that the network will take; other ones than the backbone's where the task
                `resizes`.
        """

    @abstractmethod
    def outputs(self, model: keras.Model) -> tuple[str, ...]:
        """The names of the outputs of `model`, in its order.

        Raises:
            ConversionError: the model does not give what this task needs.
        """

    @abstractmethod
    def batches(self, labelled: Labelled, sampling: Sampling) -> Iterator[Example]:
        """The batches of augmented images that `sampling` names, with their targets.

        Raises:
            DataError: there are no labels.
        """

    @abstractmethod
    def losses(self, outputs: Tensors, targets: Tensors, class_weights: tf.Tensor | None = None) -> Tensors:
        """Scalars by name: `loss` is what training makes small, the others are for progress.

        Means over the images, as several devices that share a batch average them.

        Args:
            outputs: float32, by the names of `outputs`.
            targets: of `batches`.
            class_weights: float32 [K], how much an image of each class counts; None for all alike.
        """

    def distillation(self, outputs: Tensors, taught: tf.Tensor, temperature: float) -> tf.Tensor:
        """A scalar: how far `outputs` are from what a classifier on a teacher's features gives, [B, K] float32.

        Called only where `distils` is true.
        """
        raise NotImplementedError

    @abstractmethod
    def metrics(self, model: Network, labelled: Labelled, preprocessing: Preprocessing) -> Mapping[str, float]:
        """How good `model` is on `labelled`; the first is the one that counts, more is better. Shares in percent."""

    # What a bundle needs beside the network.

    @abstractmethod
    def table(self, class_names: Sequence[str], model: keras.Model) -> Any:
        """The manifest's table for a network of `network`, without what is measured."""

    @abstractmethod
    def same_answers(self, expected: Arrays, found: Arrays) -> np.ndarray:
        """For each image whether two networks give the same answer, from outputs [N, ...].

        Returns:
            bool [N], or of answers of several parts the share of them that is the same, float [N], 0 to 1.
        """

    @abstractmethod
    def with_accuracy(self, table: Any, labelled: Labelled, indices: np.ndarray, both: Both) -> Any:
        """The manifest's table with what was measured.

        Args:
            table: of the device's half, as far as it is known without the conversion.
            labelled: held-out data; where its labels are not those of the table, nothing is measured.
            indices: which of it may be measured on, int64 [N].
            both: gives for such of `indices` as the task chooses, in batches in their order, the outputs [B, ...] of
                the Keras network and those of the converted one. It runs both, so it is to be called once at most.
        """

    @abstractmethod
    def example_words(self, labelled: Labelled, indices: np.ndarray) -> Sequence[str]:
        """A word for each image, for the names of a bundle's examples; `image` where nothing is known."""


@dataclass(frozen=True, eq=False)
class Purpose:
    """What a network is fine-tuned for.

    Attributes:
        task: the task.
        class_names: K names.
        class_counts: int64 [K], how often each class is there to learn from.
        taught: what a classifier on the teacher's features gives for normalised images, [B, S, S, C] to [B, K]; None
            without a teacher.
        height, width: of the images that the network takes; 0 for those of the backbone.
    """

    task: Task[Any]
    class_names: tuple[str, ...]
    class_counts: NDArray[np.int64]
    taught: Callable[[tf.Tensor], tf.Tensor] | None = None
    height: int = 0
    width: int = 0

    def balanced_weights(self) -> NDArray[np.float32]:
        """Float32 [K], with which all classes count alike and an image counts 1 on average; 0 for absent classes."""
        present = self.class_counts > 0
        even = self.class_counts.sum() / max(int(present.sum()), 1)
        return np.where(present, even / np.maximum(self.class_counts, 1), 0).astype(np.float32)
