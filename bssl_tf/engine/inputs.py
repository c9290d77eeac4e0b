"""What the loop feeds to a recipe: images, and how they become views; or labelled data, as a task wants it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bssl_tf.backend import tf
from bssl_tf.data.augmentation import Augmentation
from bssl_tf.data.cache import cache_key
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.views import VIEWS_FORMAT, Batch, Sampling, batches, steps_per_epoch
from bssl_tf.methods.recipe import Recipe
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.seeding import named_seed
from bssl_tf.settings import TrainingConfig
from bssl_tf.tasks.task import Task


@dataclass(frozen=True)
class Inputs:
    """What the loop feeds to a recipe.

    Attributes:
        images: the training images.
        preprocessing: size and normalisation of the views.
        augmentation: what makes a view.
        labels: whether the method wants labels too.
        replay_epochs: after this many epochs the same views come again; 0 for never.
        teacher: the teacher's outputs for them, if they were kept; see `data.views.batches`.
    """

    images: ImageSet
    preprocessing: Preprocessing
    augmentation: Augmentation
    labels: bool = False
    replay_epochs: int = 0
    teacher: np.ndarray | None = None

    def __len__(self) -> int:
        """N, the images of an epoch."""
        return len(self.images)

    @property
    def total(self) -> int:
        """All images that are learned from."""
        return len(self.images)

    @property
    def per_row(self) -> int:
        """Images that a row of a batch stands for."""
        return 1

    def batches(
        self,
        recipe: Recipe,
        config: TrainingConfig,
        first_step: int,
        last_step: int,
        shard: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        """The batches of these steps, as `recipe` wants them, or a shard of each."""
        seed = named_seed(config.seed, "views")
        return batches(
            self.images,
            Sampling(self.preprocessing, self.augmentation, config.batch_size, seed, first_step, last_step, shard),
            views=recipe.views,
            replay_epochs=self.replay_epochs,
            with_labels=self.labels,
            teacher=self.teacher,
        )

    def fingerprint(self) -> str:
        """Of everything that makes the views, but for what `batches` is given."""
        made_of = self.images.fingerprint(), self.preprocessing.to_dict(), dataclasses.asdict(self.augmentation)
        return cache_key("inputs", *made_of, VIEWS_FORMAT)

    def block(self, outputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """What `teacher` holds of a step, from one [B, D] a view."""
        return tf.stack(outputs)


@dataclass(frozen=True)
class LabelledInputs:
    """What the loop feeds to a recipe that learns a task.

    Attributes:
        images: labelled data of the task, of some length.
        preprocessing: size and normalisation of the views.
        augmentation: what makes a view, and keeps its label.
        task: makes the batches.
        unlabelled: images for a teacher alone.
        ratio: how many of them a batch has for each labelled image.
        replay_epochs: after this many epochs the same views come again; 0 for never.
        teacher: float16 [replay_epochs * steps per epoch, B (1 + ratio), D], the teacher's outputs for the views of a
            step, labelled images first, if they were kept.
    """

    images: Any
    preprocessing: Preprocessing
    augmentation: Augmentation
    task: Task[Any]
    unlabelled: ImageSet | None = None
    ratio: int = 1
    replay_epochs: int = 0
    teacher: np.ndarray | None = None

    def __len__(self) -> int:
        """N, the labelled images of an epoch, which goes through those without labels if there are any."""
        return len(self.images) if self.unlabelled is None else len(self.unlabelled) // self.ratio

    @property
    def total(self) -> int:
        """All images that are learned from."""
        return len(self.images) + (0 if self.unlabelled is None else len(self.unlabelled))

    @property
    def per_row(self) -> int:
        """Images that a row of a batch stands for: a labelled one, and its share of those without labels."""
        return 1 if self.unlabelled is None else 1 + self.ratio

    def batches(
        self,
        recipe: Recipe,
        config: TrainingConfig,
        first_step: int,
        last_step: int,
        shard: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """The batches of these steps, or a shard of each: one view of every image, and its targets.

        With `unlabelled` the second view of a batch is of those images, which have no targets.
        """
        if not self.replay_epochs:
            return self._views(config, first_step, last_step, shard)
        cycle = self.replay_epochs * steps_per_epoch(len(self), config.batch_size)
        # What lies in one pass through the cycle, and then in the next.
        bounds = [first_step, *range((first_step // cycle + 1) * cycle, last_step, cycle), last_step]
        passes = (self._pass(config, b % cycle, b % cycle + e - b, shard) for b, e in itertools.pairwise(bounds))
        return itertools.chain.from_iterable(passes)

    def fingerprint(self) -> str:
        """Of everything that makes the views, but for what `batches` is given."""
        images = [one.fingerprint() for one in (self.images, self.unlabelled) if one is not None]
        made_of = images, self.preprocessing.to_dict(), dataclasses.asdict(self.augmentation), self.ratio
        return cache_key("labelled inputs", self.task.name, *made_of, VIEWS_FORMAT)

    def block(self, outputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """What `teacher` holds of a step, from one tensor for the labelled images and one for those without."""
        return tf.concat(outputs, axis=0)

    def _pass(self, config: TrainingConfig, first_step: int, last_step: int, shard: tuple[int, int]) -> Iterator[Batch]:
        """The batches of steps that lie in one cycle, with what the teacher says of them."""
        part, parts = shard
        for step, batch in enumerate(self._views(config, first_step, last_step, shard), first_step):
            if self.teacher is not None:
                counts = (config.batch_size, config.batch_size * self.ratio)[: len(batch.views)]
                kept = np.split(self.teacher[step].astype(np.float32), np.cumsum(counts)[:-1])
                batch = batch._replace(teacher=tuple(tf.constant(np.split(one, parts)[part]) for one in kept))
            yield batch

    def _views(
        self, config: TrainingConfig, first_step: int, last_step: int, shard: tuple[int, int]
    ) -> Iterator[Batch]:
        seed = named_seed(config.seed, "views")
        sampling = Sampling(
            self.preprocessing, self.augmentation, config.batch_size, seed, first_step, last_step, shard
        )
        examples = self.task.batches(self.images, sampling)
        if self.unlabelled is None:
            return (Batch((example.images,), targets=example.targets) for example in examples)
        seed = named_seed(config.seed, "unlabelled views")
        more = dataclasses.replace(sampling, batch_size=self.ratio * config.batch_size, seed=seed)
        others = batches(self.unlabelled, more, views=1)
        pairs = zip(examples, others, strict=True)
        return (Batch((example.images, other.views[0]), targets=example.targets) for example, other in pairs)
