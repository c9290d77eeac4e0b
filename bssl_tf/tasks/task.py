"""What a task is on the host."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np

from bssl_tf.backend import keras, tf
from bssl_tf.preprocessing import Preprocessing

Labelled = TypeVar("Labelled")
Tensors = Mapping[str, tf.Tensor]
Arrays = Mapping[str, np.ndarray]
Both = Callable[[np.ndarray], Iterator[tuple[Arrays, Arrays]]]


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
    """

    name: ClassVar[str]

    # Learning with labels.

    @abstractmethod
    def network(self, backbone: keras.Model, labelled: Labelled) -> keras.Model:
        """`backbone` with a fresh head for `labelled`, on its pooled features or on `models.feature_maps`.

        The backbone's layers are shared, not copied. What it gives is named by `outputs`.
        """

    @abstractmethod
    def outputs(self, model: keras.Model) -> tuple[str, ...]:
        """The names of the outputs of `model`, in its order.

        Raises:
            ConversionError: the model does not give what this task needs.
        """

    @abstractmethod
    def batches(
        self,
        labelled: Labelled,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        seed: int,
        first_step: int,
        last_step: int,
    ) -> Iterator[Example]:
        """Batches of augmented images with their targets, for steps `first_step` up to before `last_step`.

        The same seed and step give the same batch, so that a run can be resumed.

        Raises:
            DataError: there are no labels.
        """

    @abstractmethod
    def losses(self, outputs: Tensors, targets: Tensors) -> Tensors:
        """Scalars by name: `loss` is what training makes small, the others are for progress."""

    @abstractmethod
    def metrics(self, model: keras.Model, labelled: Labelled, preprocessing: Preprocessing) -> Mapping[str, float]:
        """How good `model` is on `labelled`; the first is the one that counts. Shares are in percent."""

    # What a bundle needs beside the network.

    @abstractmethod
    def same_answers(self, expected: Arrays, found: Arrays) -> np.ndarray:
        """For each image whether two networks give the same answer, bool [N], from outputs [N, ...]."""

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
