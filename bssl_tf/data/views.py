"""The stream of augmented batches: the batch of step s depends on the seed, s and the data, and on nothing else.

So a run that is resumed at step s sees exactly what an unbroken run would have seen. Views are drawn per image, not per
batch: workers that share a batch see together, row by row, what one worker would have seen.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bssl_tf.backend import tf
from bssl_tf.data.augmentation import NUMBERS_PER_VIEW, Augmentation, augment, augment_crops
from bssl_tf.data.full_resolution import cut_crops
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.streamed import StreamedImages, StreamedSet
from bssl_tf.errors import DataError
from bssl_tf.preprocessing import Preprocessing

__all__ = ["Batch", "Sampling", "batches", "epoch_order", "steps_per_epoch", "view_numbers"]

# Part of the key of what is kept about views: raise it when a seed makes another view than before.
VIEWS_FORMAT = 2
_PREFETCHED_BATCHES = 2
# Streams of one Philox key that never overlap: the purpose is the counter's top word.
_ORDER, _VIEWS = 0, 1
# Philox makes four words at a time; a sample's numbers are the first words of its own blocks.
_WORDS_PER_BLOCK = 4
_BLOCKS_PER_VIEW = -(-NUMBERS_PER_VIEW // _WORDS_PER_BLOCK)


class Batch(NamedTuple):
    """What a step takes. Position i is the same image everywhere.

    Attributes:
        views: tensors [B, S, S, C] float32, normalised, each an independent view of every image.
        labels: int32 [B], or None when they were not asked for.
        teacher: one tensor [B, D] float32 a view, what the frozen teacher says of it; empty when there is none.
        targets: what a task's losses compare outputs with, see `tasks.task.Example`; None when there is no task.
    """

    views: tuple[tf.Tensor, ...]
    labels: tf.Tensor | None = None
    teacher: tuple[tf.Tensor, ...] = ()
    targets: Mapping[str, tf.Tensor] | None = None


@dataclass(frozen=True)
class Sampling:
    """Which batches are drawn from data, and how their views are made: the same for pretraining and for every task.

    Attributes:
        preprocessing: size and normalisation of the views.
        augmentation: what makes a view.
        batch_size: B, of all shards together.
        seed: 0 to 2^63 - 1; the same seed and step give the same batch, so that a run can be resumed.
        first_step: counted from the start of training, not of this run.
        last_step: the step after the last one.
        shard: number r of n equal parts of every batch, rows r * B / n up to (r + 1) * B / n of it; (0, 1) is all.
    """

    preprocessing: Preprocessing
    augmentation: Augmentation
    batch_size: int
    seed: int
    first_step: int
    last_step: int
    shard: tuple[int, int] = (0, 1)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Full batches in one pass over `count` images; what is left over is not used in that epoch.

    Raises:
        DataError: there are fewer images than one batch holds.
    """
    if count < batch_size:
        raise DataError(
            f"the training set has {count} images, fewer than one batch of {batch_size}",
            f"Pass --batch-size {max(count, 1)} or less, or add images",
        )
    return count // batch_size


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of the images in an epoch: a permutation, int64 [count]."""
    # Ranks of raw Philox words: unlike Generator.permutation, these are the same in every version of numpy.
    return np.argsort(_random_words(seed, _ORDER, epoch, count), kind="stable").astype(np.int64)


def view_numbers(seed: int, first_sample: int, count: int, views: int) -> NDArray[np.float32]:
    """The random numbers that make the views of consecutive samples.

    Those of a sample depend on the seed, the sample's number and the view alone, however samples are batched.

    Args:
        seed: 0 to 2^63 - 1.
        first_sample: number of the first sample, counted from the start of training: step * batch size + row.
        count: B, how many samples.
        views: V of each sample.

    Returns:
        float32 [V, B, 13], uniform in 0 to 1, 1 excluded.
    """
    blocks = count * _BLOCKS_PER_VIEW
    words = [
        _random_words(seed, _VIEWS, view, blocks * _WORDS_PER_BLOCK, first_block=first_sample * _BLOCKS_PER_VIEW)
        for view in range(views)
    ]
    numbers = np.stack(words).reshape(views, count, _BLOCKS_PER_VIEW * _WORDS_PER_BLOCK)[:, :, :NUMBERS_PER_VIEW]
    # The top 24 bits: as many as a float32 holds exactly, so that nothing is rounded up to one.
    return (numbers >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def batches(
    image_set: ImageSet,
    sampling: Sampling,
    *,
    views: int,
    replay_epochs: int = 0,
    with_labels: bool = False,
    teacher: NDArray[np.float16] | None = None,
) -> Iterable[Batch]:
    """The batches of the steps that `sampling` names.

    Args:
        image_set: N training images; a memmap stays on disk.
        sampling: which batches.
        views: views of each image, drawn independently.
        replay_epochs: after so many epochs the same batches come again; 0 for never.
        with_labels: whether batches hold the images' labels.
        teacher: float16 [replay_epochs * steps per epoch, views, B, D], what the teacher says of the views of each
            step; for `replay_epochs` above 0 only.

    Returns:
        Each with the B / n images of its shard.

    Raises:
        DataError: there are fewer images than one batch holds; while it is iterated, too many cannot be read.
    """
    preprocessing, augmentation, batch_size = sampling.preprocessing, sampling.augmentation, sampling.batch_size
    per_epoch = steps_per_epoch(len(image_set), batch_size)
    part, parts_of_batch = sampling.shard
    if batch_size % parts_of_batch or not 0 <= part < parts_of_batch:
        raise ValueError(f"part {part} of {parts_of_batch} equal parts of a batch of {batch_size}")
    count = batch_size // parts_of_batch
    first_row = part * count
    if preprocessing.channels != image_set.channels:
        raise ValueError(
            f"preprocessing is for {preprocessing.channels} channels, the images have {image_set.channels}"
        )

    @functools.lru_cache(maxsize=2)
    def order_of(epoch: int) -> NDArray[np.int64]:
        return epoch_order(len(image_set), sampling.seed, epoch)

    labels = image_set.require_labels().astype(np.int32) if with_labels else None
    cycle = replay_epochs * per_epoch
    streamed = image_set.images if isinstance(image_set, StreamedSet) else None
    cropped = streamed if streamed is not None and not streamed.native else None
    size = preprocessing.image_size

    def gather(step: NDArray[np.int64]) -> list[NDArray[Any]]:
        number = int(step) % cycle if cycle else int(step)
        epoch, position = divmod(number, per_epoch)
        # Rising order reads a memmap front to back; it costs nothing, because a batch is a set.
        batch = np.sort(order_of(epoch)[position * batch_size : (position + 1) * batch_size])
        chosen = batch[first_row : first_row + count]
        numbers = view_numbers(sampling.seed, number * batch_size + first_row, count, views)
        parts: list[NDArray[Any]] = (
            [*image_set.read(chosen)]
            if cropped is None
            else [cut_crops(cropped, chosen, numbers, augmentation, size), np.ones(count, np.float32)]
        )
        parts.append(numbers)
        if labels is not None:
            parts.append(labels[chosen])
        if teacher is not None:
            parts.append(teacher[number, :, first_row : first_row + count].astype(np.float32))
        return parts

    kinds = [tf.uint8, tf.float32, tf.float32]
    pixels = (count, *image_set.images.shape[1:])
    if cropped is not None:
        pixels = (views, count, size, size, cropped.channels)
    shapes: list[tuple[int, ...]] = [pixels, (count,), (views, count, NUMBERS_PER_VIEW)]
    if labels is not None:
        kinds.append(tf.int32)
        shapes.append((count,))
    if teacher is not None:
        kinds.append(tf.float32)
        shapes.append((views, count, teacher.shape[-1]))

    def read(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        parts = tf.numpy_function(gather, [step], kinds, stateful=False)
        for part, shape in zip(parts, shapes, strict=True):
            part.set_shape(shape)
        return tuple(parts)

    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)

    def view_of(images: tf.Tensor, ratios: tf.Tensor, numbers: tf.Tensor, view: int) -> tf.Tensor:
        if cropped is not None:
            return augment_crops(images[view], numbers[view], augmentation)
        return augment(images, ratios, numbers[view], augmentation, size)

    def make_batch(images: tf.Tensor, ratios: tf.Tensor, numbers: tf.Tensor, *others: tf.Tensor) -> Batch:
        rest = list(others)
        return Batch(
            tuple((view_of(images, ratios, numbers, view) - mean) / std for view in range(views)),
            rest.pop(0) if labels is not None else None,
            tuple(tf.unstack(rest.pop(0))) if teacher is not None else (),
        )

    steps = tf.data.Dataset.range(sampling.first_step, sampling.last_step)
    # Nothing in here branches on a tensor, and rewriting it all as if it did takes seconds at the start of each run.
    as_it_is = tf.autograph.experimental.do_not_convert
    gathered = steps.map(as_it_is(read), num_parallel_calls=1, deterministic=True)
    augmented = gathered.map(as_it_is(make_batch), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    stream = augmented.prefetch(_PREFETCHED_BATCHES)
    return stream if streamed is None else _Streamed(stream, streamed)


class _Streamed:
    """Batches of a streamed set: what went wrong in decoding is raised as it was, not as TensorFlow words it."""

    def __init__(self, stream: tf.data.Dataset, images: StreamedImages) -> None:
        self._stream, self._images = stream, images

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from self._stream
        except tf.errors.OpError as error:
            if self._images.unreadable.error is not None:
                raise self._images.unreadable.error from error
            raise


def _random_words(seed: int, purpose: int, number: int, count: int, *, first_block: int = 0) -> NDArray[np.uint64]:
    """`count` random words (uint64), from block `first_block` on of the stream that the first three numbers name."""
    key = np.array([seed, number], np.uint64)
    counter = np.array([first_block, 0, 0, purpose], np.uint64)
    words: NDArray[np.uint64] = np.random.Philox(key=key, counter=counter).random_raw(count)
    return words
