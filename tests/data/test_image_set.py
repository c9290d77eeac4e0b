from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssl_tf.data.image_set import ImageSet, spread_indices
from bssl_tf.errors import DataError

MakeSet = Callable[..., ImageSet]


def test_the_fingerprint_changes_with_anything_that_training_sees(make_set: MakeSet) -> None:
    base = make_set(classes=2)
    pixels = base.images.copy()
    pixels[7, 3, 3, 1] ^= 1
    labels = base.labels
    assert labels is not None
    ratios = base.aspect_ratios.copy()
    ratios[3] = 1.5
    changed = [
        replace(base, images=pixels),
        replace(base, labels=labels[::-1].copy()),
        replace(base, class_names=("class 0", "another")),
        replace(base, aspect_ratios=ratios),
        replace(base, labels=None, class_names=()),
        base.head(19),
    ]
    assert len({base.fingerprint(), *(other.fingerprint() for other in changed)}) == len(changed) + 1
    assert base.fingerprint() == make_set(classes=2).fingerprint()


def test_the_fingerprint_ignores_the_name_and_where_the_images_lie(make_set: MakeSet) -> None:
    base = make_set()
    assert base.fingerprint() == replace(base, name="other").fingerprint() == base.subset(range(20)).fingerprint()


def test_a_subset_keeps_images_labels_and_shapes_together(make_set: MakeSet) -> None:
    part = make_set(classes=3).subset([5, 2, 9])
    assert part.images[:, 0, 0, 0].tolist() == [5, 2, 9]
    assert part.require_labels().tolist() == [2, 2, 0]


def test_head_and_spread_keep_no_more_than_asked(make_set: MakeSet) -> None:
    images = make_set(20)
    assert images.head(3).images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert images.spread(4).images[:, 0, 0, 0].tolist() == [0, 5, 10, 15]
    assert images.head(99) is images
    assert images.spread(20) is images


@given(st.integers(0, 300), st.integers(0, 300))
def test_spread_positions_rise_and_lie_inside(count: int, limit: int) -> None:
    positions = spread_indices(count, limit)
    assert len(positions) == min(count, limit)
    assert np.all(np.diff(positions) > 0)
    assert not len(positions) or 0 <= positions[0] <= positions[-1] < count


def test_labels_that_are_missing_are_an_error_with_a_next_step(make_set: MakeSet) -> None:
    with pytest.raises(DataError, match=r"made up has no labels.*one sub-folder for each class"):
        make_set().require_labels()


def test_arrays_that_contradict_each_other_are_refused(make_set: MakeSet) -> None:
    base = make_set(classes=2)
    labels = base.require_labels()
    for change in (
        {"images": base.images.astype(np.float32)},
        {"images": base.images[..., :2]},
        {"images": base.images[:, :5]},
        {"aspect_ratios": base.aspect_ratios[:3]},
        {"aspect_ratios": base.aspect_ratios.astype(np.float64)},
        {"labels": labels[:3]},
        {"labels": labels.astype(np.int32)},
        {"labels": labels + 1},
        {"labels": labels - 1},
        {"labels": None},
    ):
        with pytest.raises(ValueError, match=r"must|without"):
            replace(base, **change)


def test_labels_are_found_by_name_in_any_order(make_set: Callable[..., ImageSet]) -> None:
    images = make_set(6, classes=3)
    assert images.labels_as(("class 2", "other", "class 0")).tolist() == [2, -1, 0, 2, -1, 0]
    assert images.labels_as(images.class_names).tolist() == [0, 1, 2, 0, 1, 2]
    # Two of one name: nobody knows which is meant.
    assert images.labels_as(("class 0", "class 0", "class 1")).tolist() == [-1, 2, -1, -1, 2, -1]
    with pytest.raises(DataError, match="has no labels"):
        make_set(6).labels_as(("class 0",))
