"""Semi-supervised fine-tuning: the whole network trained on a small share of the labels.

The protocol of SimCLR (Chen et al., ICML 2020, arXiv 2002.05709, section 6) with 1 % and 10 % of the labels, as in BSSL
(arXiv 2110.08851). Give it an untrained network for the control: what the same labels and steps reach from scratch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bssl_tf.backend import keras, tf
from bssl_tf.data.augmentation import WEAK
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.preprocessing import evaluation_batches
from bssl_tf.data.views import Sampling
from bssl_tf.descent import descend
from bssl_tf.errors import ConfigError, DataError, TrainingError
from bssl_tf.evaluation.few_shot import class_ranks
from bssl_tf.evaluation.predictions import Predictions
from bssl_tf.models.binarization import copy_of
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.progress import progress
from bssl_tf.schedules import linear_decay
from bssl_tf.seeding import named_seed
from bssl_tf.tasks.classification import LOGITS, Classification
from bssl_tf.tasks.task import Tensors

_EVALUATED_AT_ONCE = 256


@dataclass(frozen=True)
class FinetuneResult:
    """What fine-tuning reached.

    Attributes:
        predictions: of the test images, with the softmax of each answer.
        labelled_images: how many images it learned from.
        steps: optimiser steps.
    """

    predictions: Predictions
    labelled_images: int
    steps: int

    @property
    def top1(self) -> float:
        """Accuracy on the test images, percent."""
        return self.predictions.accuracies[0]


def finetune(
    backbone: keras.Model,
    train: ImageSet,
    test: ImageSet,
    preprocessing: Preprocessing,
    *,
    share: float,
    seed: int,
    steps: int = 1000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
) -> FinetuneResult:
    """Fine-tunes a copy of `backbone` on a share of the labels and measures it on the test images.

    Args:
        backbone: binary or float, [B, S, S, C] float32 to [B, D]; it is not changed.
        train: labelled images, of which `labelled_subset` chooses.
        test: labelled images.
        preprocessing: what `backbone` was trained with.
        share: of the training labels, above 0 and at most 1.
        seed: chooses the images, their order and their views.
        steps: optimiser steps; the same number for every share, so that a larger share does not also train longer.
        batch_size: images a step, or all labelled ones where there are fewer.
        learning_rate: of Adam at the first step; it falls linearly to zero.

    Raises:
        ConfigError: `share`, `steps`, `batch_size` or `learning_rate` is out of range.
        DataError: there are no labels or no test images, or less than one image a class.
        TrainingError: the loss is not finite.
    """
    truth = test.require_labels()
    if not len(test):
        raise DataError(f"{test.name} has no test images to measure fine-tuning on", "Add labelled images")
    chosen = labelled_subset(train.require_labels(), share, named_seed(seed, "labelled subset"))
    model = fine_tuned(
        backbone,
        train.subset(chosen),
        preprocessing,
        seed=seed,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    logits = [
        model(batch, training=False).numpy() for batch in evaluation_batches(test, preprocessing, _EVALUATED_AT_ONCE)
    ]
    return FinetuneResult(Predictions.of_logits(np.concatenate(logits), truth), len(chosen), steps)


def labelled_subset(labels: np.ndarray, share: float, seed: int) -> NDArray[np.int64]:
    """Chooses a share of the images, the same number of every class to within one.

    A class that runs out gives all it has, and the others more. With the same seed a smaller share is a part of a
    larger one.

    Args:
        labels: [N] integer.
        share: above 0 and at most 1.
        seed: 0 or more.

    Returns:
        Indices int64 [share * N, rounded], rising.

    Raises:
        ConfigError: `share` is out of range.
        DataError: that is less than one image for each class.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"a share of {share} of the labels", "Give a number above 0 and at most 1, such as 0.1")
    count, classes = round(share * len(labels)), len(np.unique(labels))
    if count < max(classes, 1):
        raise DataError(
            f"{100 * share:g} % of {len(labels)} labelled images is less than one for each of {classes} classes",
            f"Add labelled images, or take {math.ceil(100 * classes / max(len(labels), 1))} % or more of them",
        )
    # The first image of every class, then the second, and so on; where a round is cut short, chance decides.
    chance = class_ranks(np.zeros(len(labels), np.int64), named_seed(seed, "ties"))
    return np.sort(np.lexsort((chance, class_ranks(labels, seed)))[:count])


def fine_tuned(
    backbone: keras.Model,
    images: ImageSet,
    preprocessing: Preprocessing,
    *,
    seed: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> keras.Model:
    """A copy of `backbone` with a linear classifier on top, all of it trained on all of `images`.

    Batches, head and loss are those of `tasks.classification`; the optimiser is Adam without weight decay.
    Binary layers keep their latent weights within their constraint: the optimiser applies it after each step.

    Returns:
        A model from [B, S, S, C] float32 to logits [B, K], for each of the K classes of `images`.

    Raises:
        ConfigError: `steps`, `batch_size` or `learning_rate` is not positive.
        DataError: there are no labels.
        TrainingError: the loss is not finite.
    """
    if steps < 1 or batch_size < 1 or not learning_rate > 0:
        raise ConfigError(
            f"fine-tuning with {steps} steps, batches of {batch_size} and learning rate {learning_rate}",
            "Give positive numbers",
        )
    batch_size = min(batch_size, len(images))
    task = Classification()
    sampling = Sampling(preprocessing, WEAK, batch_size, named_seed(seed, "fine-tuning views"), 0, steps)
    examples = task.batches(images, sampling)
    copy = copy_of(backbone)
    copy.trainable = True  # a teacher may come frozen
    model = task.network(copy, images.class_names, preprocessing.height, preprocessing.width)
    optimizer = keras.optimizers.Adam(learning_rate)
    optimizer.build(model.trainable_variables)

    @tf.function
    def train_step(pictures: tf.Tensor, targets: Tensors, rate: tf.Tensor) -> tf.Tensor:
        def objective(pictures: tf.Tensor, targets: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
            # Batch norm goes on learning, statistics too: weights that change sign move what stands behind them, and
            # the untrained control has no statistics yet that could be kept.
            loss = task.losses({LOGITS: model(pictures, training=True)}, targets)["loss"]
            return loss, loss

        optimizer.learning_rate.assign(rate)
        return descend(objective, (pictures, targets), model.trainable_variables, optimizer)

    description = f"fine-tuning on {len(images)} images"
    for step, example in enumerate(progress(examples, total=steps, description=description)):
        rate = tf.constant(learning_rate * linear_decay(step, steps), tf.float32)
        loss = float(train_step(example.images, example.targets, rate))
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at step {step + 1}", "Lower the learning rate of fine-tuning")
    return model
