from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from bssl_tf.backend import tf
from bssl_tf.data.augmentation import LITE
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.preprocessing import evaluation_views, fit_preprocessing
from bssl_tf.data.views import Sampling, batches, epoch_order, steps_per_epoch, view_numbers
from bssl_tf.errors import DataError

tf.config.experimental.enable_op_determinism()

MakeSet = Callable[..., ImageSet]


def run(
    images: ImageSet, first: int, last: int, seed: int = 5, views: int = 2, shard: tuple[int, int] = (0, 1)
) -> list[tuple[NDArray[np.float32], ...]]:
    sampling = Sampling(fit_preprocessing(images, 12), LITE, 6, seed, first, last, shard)
    stream = batches(images, sampling, views=views)
    return [tuple(view.numpy() for view in batch.views) for batch in stream]


@settings(deadline=None, max_examples=6)
@given(st.integers(0, 10), st.integers(0, 3))
def test_a_resumed_run_sees_what_an_unbroken_run_sees(first: int, more: int) -> None:
    images = ImageSet(
        "made up",
        np.random.default_rng(1).integers(0, 256, (20, 12, 12, 1), np.uint8),
        np.linspace(0.5, 2, 20, dtype=np.float32),
        None,
    )
    whole = run(images, 0, 10)
    resumed = run(images, first, min(first + more, 10))
    for expected, batch in zip(whole[first : first + more], resumed, strict=True):
        for one, other in zip(expected, batch, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_memory_map_gives_the_same_batches_as_memory(make_set: MakeSet, tmp_path: Path) -> None:
    images = make_set(20)
    np.save(tmp_path / "images.npy", images.images)
    mapped = replace(images, images=np.load(tmp_path / "images.npy", mmap_mode="r"))
    np.testing.assert_array_equal(run(images, 0, 4), run(mapped, 0, 4))


def test_views_have_the_promised_shape_and_differ(make_set: MakeSet) -> None:
    (one, other), *rest = run(make_set(20), 0, 3)
    assert one.shape == other.shape == (6, 12, 12, 3)
    assert one.dtype == np.float32
    assert len(rest) == 2
    assert np.abs(one - other).max() > 0.1
    assert len(run(make_set(20), 0, 1, views=1)[0]) == 1


def test_a_plain_epoch_shows_every_image_once_and_normalised(make_set: MakeSet) -> None:
    images = make_set(18, channels=1)
    preprocessing = fit_preprocessing(images, 12)
    plain = replace(
        LITE, min_area=1.0, jitter_probability=0.0, grey_probability=0.0, blur_probability=0.0, flip_probability=0.0
    )
    stream = batches(images, Sampling(preprocessing, plain, 6, 0, 3, 6), views=1)
    seen = np.concatenate([batch.views[0].numpy() for batch in stream])
    expected = evaluation_views(images, preprocessing, range(18))
    order = np.lexsort(seen.reshape(18, -1).T[::-1].round(2)), np.lexsort(expected.reshape(18, -1).T[::-1].round(2))
    np.testing.assert_allclose(seen[order[0]], expected[order[1]], atol=1e-3)


def test_the_seed_changes_the_batches(make_set: MakeSet) -> None:
    images = make_set(20)
    assert np.abs(run(images, 0, 1, seed=1)[0][0] - run(images, 0, 1, seed=2)[0][0]).max() > 0.1


@given(st.integers(1, 500), st.integers(0, 2**63 - 1), st.integers(0, 10**6))
def test_an_epoch_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    assert np.array_equal(np.sort(epoch_order(count, seed, epoch)), np.arange(count))


def test_epochs_and_seeds_are_shuffled_apart() -> None:
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16
    numbers = {tuple(row) for seed in range(4) for view in view_numbers(seed, 0, 8, 2) for row in view}
    assert len(numbers) == 4 * 2 * 8


def test_the_order_never_changes_between_versions() -> None:
    # Written down once: a change would break every run that is resumed.
    assert epoch_order(8, 1, 2).tolist() == [4, 2, 0, 6, 1, 5, 7, 3]
    assert view_numbers(1, 2, 1, 1)[0, 0, [0, 1, 12]].tolist() == [
        0.12358856201171875,
        0.8686276078224182,
        0.9193330407142639,
    ]


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.integers(1, 40), st.data())
def test_a_samples_numbers_depend_on_nothing_but_itself(seed: int, first: int, count: int, data: st.DataObject) -> None:
    numbers = view_numbers(seed, first, count, 3)
    assert numbers.dtype == np.float32 and numbers.shape == (3, count, 13)
    begin = data.draw(st.integers(0, count - 1))
    part = view_numbers(seed, first + begin, data.draw(st.integers(1, count - begin)), data.draw(st.integers(1, 3)))
    np.testing.assert_array_equal(part, numbers[: part.shape[0], begin : begin + part.shape[1]])


def test_the_numbers_are_uniform_and_independent() -> None:
    numbers = view_numbers(0, 0, 4000, 2)
    assert numbers.min() >= 0 and numbers.max() < 1
    columns = np.concatenate([*numbers], axis=1)  # both views: 26 columns of a number each
    # Fixed numbers, so this cannot flicker; about one of 26 fair columns would be below 0.04.
    assert min(stats.kstest(column, "uniform").pvalue for column in columns.T) > 0.005
    following = np.concatenate([columns[:-1], columns[1:]], axis=1)  # with those of the sample after it
    correlation = np.corrcoef(following.T) - np.eye(52)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(4000)  # the largest of 1,300, each normal with this deviation


def test_a_batch_that_workers_share_is_the_batch_that_one_sees(make_set: MakeSet) -> None:
    images = make_set(20)
    shares = [run(images, 2, 4, shard=(part, 3)) for part in range(3)]
    for step, whole in enumerate(run(images, 2, 4)):
        for view, expected in enumerate(whole):
            np.testing.assert_array_equal(np.concatenate([share[step][view] for share in shares]), expected)


@pytest.mark.parametrize("shard", [(0, 4), (2, 2)])
def test_a_batch_that_does_not_split_is_a_mistake_in_the_code(make_set: MakeSet, shard: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="equal parts of a batch of 6"):
        run(make_set(20), 0, 1, shard=shard)


def test_steps_per_epoch_drops_the_last_part() -> None:
    assert steps_per_epoch(20, 6) == 3
    assert steps_per_epoch(6, 6) == 1


def test_fewer_images_than_a_batch_is_an_error_with_a_next_step(make_set: MakeSet) -> None:
    with pytest.raises(DataError, match=r"has 5 images, fewer than one batch of 6\. Pass --batch-size 5 or less"):
        run(make_set(5), 0, 1)


def test_channels_that_do_not_fit_are_a_mistake_in_the_code(make_set: MakeSet) -> None:
    with pytest.raises(ValueError, match="channels"):
        batches(make_set(9, channels=1), Sampling(fit_preprocessing(make_set(9), 12), LITE, 3, 0, 0, 1), views=1)


def test_replayed_epochs_repeat_and_fresh_ones_do_not(make_set: MakeSet) -> None:
    images = make_set(12)
    sampling = Sampling(fit_preprocessing(images, 12), LITE, 6, 0, 0, 8)
    stream = [batch.views[0].numpy() for batch in batches(images, sampling, views=1, replay_epochs=2)]
    fresh = [views[0] for views in run(images, 0, 4, seed=0, views=1)]
    for step in range(8):
        np.testing.assert_array_equal(stream[step], fresh[step % 4])
    assert np.abs(stream[0] - stream[2]).max() > 0.1


def test_labels_and_what_the_teacher_said_stay_with_their_images(make_set: MakeSet) -> None:
    # Each picture is one grey level, its label; the kept outputs name the step.
    levels = np.arange(12)
    images = replace(
        make_set(12, channels=1),
        images=np.broadcast_to((20 * levels).astype(np.uint8)[:, None, None, None], (12, 12, 12, 1)).copy(),
        labels=levels,
        class_names=tuple(map(str, levels)),
    )
    plain = replace(LITE, jitter_probability=0.0, grey_probability=0.0, blur_probability=0.0)
    kept = np.arange(4, dtype=np.float16)[:, None, None, None] * np.ones((4, 2, 6, 3), np.float16)
    preprocessing = fit_preprocessing(images, 12)
    sampling = Sampling(preprocessing, plain, 6, 0, 1, 7)
    stream = batches(images, sampling, views=2, replay_epochs=2, with_labels=True, teacher=kept)
    for step, batch in enumerate(stream, start=1):
        assert len(batch.views) == len(batch.teacher) == 2
        for view in batch.views:
            grey = view.numpy().mean(axis=(1, 2, 3)) * preprocessing.std[0] + preprocessing.mean[0]
            np.testing.assert_array_equal(np.round(grey * 255 / 20), np.asarray(batch.labels))
        for said in batch.teacher:
            assert said.dtype == tf.float32
            np.testing.assert_array_equal(said, np.full((6, 3), step % 4))
    kept = np.arange(6, dtype=np.float16)[:, None] * np.ones((4, 2, 6, 3), np.float16)  # now the row
    sampling = Sampling(preprocessing, plain, 6, 0, 0, 1, shard=(1, 2))
    (second,) = batches(images, sampling, views=2, replay_epochs=2, with_labels=True, teacher=kept)
    grey = second.views[1].numpy().mean(axis=(1, 2, 3)) * preprocessing.std[0] + preprocessing.mean[0]
    np.testing.assert_array_equal(np.round(grey * 255 / 20), np.asarray(second.labels))
    np.testing.assert_array_equal(second.teacher[1], [[3] * 3, [4] * 3, [5] * 3])
