"""Classification: one label for each image, a linear classifier on pooled features, cross-entropy, top-1.

Its losses serve supervised pretraining and fine-tuning too.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bssl_tf.backend import keras, tf
from bssl_tf.data.building import held_out
from bssl_tf.data.class_names import described
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.preprocessing import evaluation_batches
from bssl_tf.data.views import Sampling, batches
from bssl_tf.errors import ConversionError
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.tasks.calibration import calibrate
from bssl_tf.tasks.task import Arrays, Both, Example, Network, Task, Tensors
from bssl_tf_deploy.tasks.classification import NAME, Accuracy, Table, same_top1

_log = logging.getLogger(__name__)
LOGITS = "logits"
_AT_ONCE = 256


class Classification(Task[ImageSet]):
    """See the top of this file; targets are `labels`, int32 [B]."""

    name = NAME
    distils = True

    def held_out(self, labelled: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
        """One image in six of each class, and at least one of two or more."""
        kept = held_out([f"{seed} {place}" for place in range(len(labelled))], labelled.require_labels().tolist())
        return labelled.subset(np.flatnonzero(~kept)), labelled.subset(np.flatnonzero(kept))

    def class_names(self, labelled: ImageSet) -> tuple[str, ...]:
        """Those of the labels."""
        return labelled.class_names

    def class_counts(self, labelled: ImageSet) -> NDArray[np.int64]:
        """Images of each class."""
        counts = np.bincount(labelled.require_labels(), minlength=len(labelled.class_names))
        return counts.astype(np.int64)

    def network(self, backbone: keras.Model, class_names: Sequence[str], height: int, width: int) -> keras.Model:
        """A dense layer on the pooled features, from zero: no class is preferred, and no feature pulled along."""
        layer = keras.layers.Dense(len(class_names), kernel_initializer="zeros", name="classifier", dtype="float32")
        logits = layer(backbone.output)
        return keras.Model(backbone.input, logits, name="fine_tuned")

    def outputs(self, model: keras.Model) -> tuple[str, ...]:
        """One output, [B, K] with K at least 2."""
        shapes = [list(tensor.shape) for tensor in model.outputs]
        # Of a single number (yes or no after a sigmoid) the best would always be the first.
        if len(model.inputs) != 1 or len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][-1] == 1:
            raise ConversionError(
                f"{model.name} is not a classifier: it gives {shapes}",
                "Give a model with one input, and with one number per class as output, two for yes and no; "
                "if it gives a map, end it with Flatten or GlobalAveragePooling2D",
            )
        return (LOGITS,)

    def batches(self, labelled: ImageSet, sampling: Sampling) -> Iterator[Example]:
        """One random view of each image, and its label."""
        made = batches(labelled, sampling, views=1, with_labels=True)
        return (Example(batch.views[0], {"labels": batch.labels}) for batch in made)

    def losses(self, outputs: Tensors, targets: Tensors, class_weights: tf.Tensor | None = None) -> Tensors:
        """Softmax cross-entropy, and `train_top1` in percent."""
        logits, labels = outputs[LOGITS], targets["labels"]
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        if class_weights is not None:
            entropy = tf.gather(class_weights, labels) * entropy
        hits = tf.cast(tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), labels), tf.float32)
        return {"loss": tf.reduce_mean(entropy), "train_top1": 100.0 * tf.reduce_mean(hits)}

    def distillation(self, outputs: Tensors, taught: tf.Tensor, temperature: float) -> tf.Tensor:
        """KL(softmax(taught / T) || softmax(logits / T)), times T^2, so that its gradient does not shrink with T.

        Hinton et al. 2015 (arXiv 1503.02531), section 2.
        """
        target = tf.nn.softmax(taught / temperature)
        information = tf.nn.log_softmax(taught / temperature) - tf.nn.log_softmax(outputs[LOGITS] / temperature)
        return temperature**2 * tf.reduce_mean(tf.reduce_sum(target * information, axis=-1))

    def metrics(self, model: Network, labelled: ImageSet, preprocessing: Preprocessing) -> Mapping[str, float]:
        """`top1`, percent."""
        truth = labelled.require_labels()
        predicted = [
            np.argmax(model(batch, training=False), axis=1)
            for batch in evaluation_batches(labelled, preprocessing, _AT_ONCE)
        ]
        return {"top1": 100.0 * float(np.mean(np.concatenate(predicted) == truth))}

    def table(self, class_names: Sequence[str], model: keras.Model) -> Table:
        """The labels."""
        return Table(tuple(class_names), None, None)

    def same_answers(self, expected: Arrays, found: Arrays) -> np.ndarray:
        """The same best class."""
        return same_top1(expected, found)

    def with_accuracy(self, table: Table, labelled: ImageSet, indices: np.ndarray, both: Both) -> Any:
        """Top-1 of both networks on the images whose class is among the table's labels, in whatever order.

        And the temperature of the converted one.
        """
        if labelled.labels is None:
            return table
        all_labels = labelled.labels_as(table.labels)
        chosen = indices[all_labels[indices] >= 0]
        if not len(chosen):
            return table
        _report_unmatched(table.labels, labelled, all_labels)
        pairs = [(expected[LOGITS].argmax(axis=1), found[LOGITS]) for expected, found in both(chosen)]
        keras_best, logits = (np.concatenate(batches) for batches in zip(*pairs, strict=True))
        truth = all_labels[chosen]
        keras_own, own = (100 * float((best == truth).mean()) for best in (keras_best, logits.argmax(axis=1)))
        accuracy = Accuracy(len(chosen), own, keras_own)
        return dataclasses.replace(table, accuracy=accuracy, calibration=calibrate(logits, truth))

    def example_words(self, labelled: ImageSet, indices: np.ndarray) -> Sequence[str]:
        """The true class."""
        if labelled.labels is None:
            return ["image"] * len(indices)
        return [labelled.class_names[label] for label in labelled.labels[indices]]


def _report_unmatched(names: Sequence[str], images: ImageSet, labels: np.ndarray) -> None:
    """Names the classes of test images that the network lacks, and the network's classes without a test image."""
    unknown = labels < 0
    if unknown.any():
        counts = Counter(images.class_names[label] for label in images.require_labels()[unknown])
        strangers = [described(name, counts[name], names) for name in sorted(counts)]
        count = int(unknown.sum())
        what = "1 test image is" if count == 1 else f"{count} test images are"
        _log.warning(
            f"{what} of a class that is not among the labels, and excluded from the accuracy: {_some(strangers)}"
        )
    seen = set(labels.tolist())
    if missing := [name for place, name in enumerate(names) if place not in seen]:
        _log.warning(f"{len(missing)} of {len(names)} labels have no test image: {_some(missing)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
