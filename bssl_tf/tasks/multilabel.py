"""Several labels for one image: a linear classifier on pooled features, a sigmoid for each label, mean precision.

The data is a listing (`data.listing`): the classes of its `ImageSet` are sets of labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bssl_tf.backend import keras, tf
from bssl_tf.data.building import held_out
from bssl_tf.data.image_set import DataSplits, ImageSet
from bssl_tf.data.listing import is_listing, label_sets, labels_of_images, rarest_labels
from bssl_tf.data.open import open_data
from bssl_tf.data.preprocessing import evaluation_batches
from bssl_tf.data.views import Sampling
from bssl_tf.errors import DataError
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import DataConfig
from bssl_tf.tasks.classification import LOGITS, Classification
from bssl_tf.tasks.precision import mean_average_precision
from bssl_tf.tasks.task import Arrays, Both, Example, Network, Task, Tensors
from bssl_tf_deploy.tasks.multilabel import NAME, Precision, Table

_AT_ONCE = 256


class MultiLabel(Task[ImageSet]):
    """See the top of this file; targets are `labels`, float32 [B, K], 1 where the image has the label."""

    name = NAME

    def open(self, config: DataConfig, *, validation: bool) -> DataSplits:
        """Of a listing. Raises `DataError` for data of another kind, or without two labels."""
        if not is_listing(config.source):
            raise DataError(
                f"{config.source} is not a listing of images with their labels",
                "Pass --data FILE.csv with the columns file and labels, or FILE.jsonl; or omit --task multilabel",
            )
        data = open_data(config, labels_needed=False, validation=validation, label_sets=True)
        if len(self.class_names(data.train)) < 2:
            raise DataError(f"{config.source} has fewer than two labels among its training images", "Add labels")
        return data

    def class_names(self, labelled: ImageSet) -> tuple[str, ...]:
        """The labels that occur in any split."""
        return label_sets(labelled)[0]

    def held_out(self, labelled: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
        """One image in six, of each label its share as far as labels that go together allow."""
        strata = rarest_labels(labels_of_images(labelled)[1]).tolist()
        kept = held_out([f"{seed} {place}" for place in range(len(labelled))], strata)
        return labelled.subset(np.flatnonzero(~kept)), labelled.subset(np.flatnonzero(kept))

    def class_counts(self, labelled: ImageSet) -> NDArray[np.int64]:
        """Images that have each label."""
        return labels_of_images(labelled)[1].sum(axis=0).astype(np.int64)

    def network(self, backbone: keras.Model, class_names: Sequence[str], height: int, width: int) -> keras.Model:
        """A dense layer on the pooled features, as for classification."""
        return Classification().network(backbone, class_names, height, width)

    def outputs(self, model: keras.Model) -> tuple[str, ...]:
        """One output, [B, K] with K at least 2."""
        return Classification().outputs(model)

    def batches(self, labelled: ImageSet, sampling: Sampling) -> Iterator[Example]:
        """One random view of each image, and its labels."""
        table = tf.constant(label_sets(labelled)[1], tf.float32)
        # A set of labels is a class.
        made = Classification().batches(labelled, sampling)
        return (one._replace(targets={"labels": tf.gather(table, one.targets["labels"])}) for one in made)

    def losses(self, outputs: Tensors, targets: Tensors, class_weights: tf.Tensor | None = None) -> Tensors:
        """Binary cross-entropy, mean over labels, and `train_labels`, the share of labels that are right, in percent.

        With `class_weights` those of an image that has a label count so much.
        """
        logits, labels = outputs[LOGITS], targets["labels"]
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
        if class_weights is not None:
            entropy = tf.where(labels > 0, class_weights * entropy, entropy)
        right = tf.cast(tf.equal(logits > 0, labels > 0), tf.float32)
        return {"loss": tf.reduce_mean(entropy), "train_labels": 100.0 * tf.reduce_mean(right)}

    def metrics(self, model: Network, labelled: ImageSet, preprocessing: Preprocessing) -> Mapping[str, float]:
        """`map`, mean average precision in percent, over labels that some images have and some lack."""
        logits = [model(batch, training=False) for batch in evaluation_batches(labelled, preprocessing, _AT_ONCE)]
        return {"map": mean_average_precision(np.concatenate(logits), labels_of_images(labelled)[1])}

    def table(self, class_names: Sequence[str], model: keras.Model) -> Table:
        """The labels."""
        return Table(tuple(class_names), None)

    def same_answers(self, expected: Arrays, found: Arrays) -> np.ndarray:
        """The same labels."""
        return np.all((expected[LOGITS] >= 0) == (found[LOGITS] >= 0), axis=1)

    def with_accuracy(self, table: Table, labelled: ImageSet, indices: np.ndarray, both: Both) -> Any:
        """Mean average precision of both networks, where the data has these labels."""
        names, has = labels_of_images(labelled)
        if names != table.labels:
            return table
        pairs = [(expected[LOGITS], found[LOGITS]) for expected, found in both(indices)]
        expected, found = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        of_keras, own = (mean_average_precision(logits, has[indices]) for logits in (expected, found))
        if np.isnan(own):
            return table
        return dataclasses.replace(table, accuracy=Precision(len(indices), own, of_keras))

    def example_words(self, labelled: ImageSet, indices: np.ndarray) -> Sequence[str]:
        """Its first label."""
        names, has = labels_of_images(labelled)
        return [names[has[place].argmax()] if has[place].any() else "none" for place in indices]
