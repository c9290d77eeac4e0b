from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bssl_tf.models
from bssl_tf.backend import keras
from bssl_tf.errors import NetworkError
from bssl_tf.models import counts
from bssl_tf.models.binarization import binarize
from bssl_tf.models.counts import Counts, count
from bssl_tf.models.layers import LearnedShift, batch_norm, binary_conv
from bssl_tf.models.registry import BACKBONES

layers = keras.layers


def windows(side: int, size: int, stride: int, padding: str) -> int:
    """How often a window of `size` is laid down along one side, counted by laying it down."""
    if padding == "same":
        return len([start for start in range(side) if start % stride == 0])
    return len([start for start in range(side) if start % stride == 0 and start + size <= side])


@given(st.integers(5, 9), st.integers(1, 5), st.integers(1, 3), st.sampled_from(["same", "valid"]), st.integers(1, 4))
@settings(deadline=None, max_examples=8)
def test_work_is_one_product_for_each_tap_channel_and_position(
    side: int, size: int, stride: int, padding: str, filters: int
) -> None:
    image = layers.Input((side, side, 3))
    conv = layers.Conv2D(filters, size, strides=stride, padding=padding)(image)
    depthwise = layers.DepthwiseConv2D(size, strides=stride, padding=padding, use_bias=False)(image)
    binary = binary_conv(filters, size, "binary", strides=stride, padding=padding)(image)

    dense = depthwise_products = 0
    for _ in range(windows(side, size, stride, padding)):
        for _ in range(windows(side, size, stride, padding)):
            for _ in range(size * size):
                for _ in range(3):
                    depthwise_products += 1
                    dense += filters
    taps = size * size * 3
    assert count(keras.Model(image, conv)) == Counts(taps * filters + filters, 0, 0, dense)
    assert count(keras.Model(image, depthwise)) == Counts(taps, 0, 0, depthwise_products)
    assert count(keras.Model(image, binary)) == Counts(taps * filters, taps * filters, dense, 0)


def test_a_network_is_the_sum_of_its_layers() -> None:
    image = layers.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(image)  # 36 * 27 * 4
    x = layers.PReLU(shared_axes=[1, 2])(LearnedShift()(batch_norm("norm")(x)))  # 16 + 4 + 4 numbers, no work
    y = binary_conv(4, 1, "binary")(x)  # 36 * 16
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    model = keras.Model(image, layers.Dense(5)(x))  # 4 * 5, and 5 biases
    assert count(model) == Counts(108 + 16 + 4 + 4 + 16 + 25, 16, 576, 3888 + 20)


def test_work_on_float_weights_is_not_binary() -> None:
    image = layers.Input((4, 4, 2))
    model = binarize(keras.Model(image, binary_conv(3, 3, "binary")(image)), weights=False)
    assert count(model) == Counts(54, 0, 0, 16 * 54)


def test_a_layer_whose_work_is_unknown_is_named() -> None:
    image = layers.Input((4, 4, 2))
    with pytest.raises(NetworkError, match="layer rescue"):
        count(keras.Model(image, layers.SeparableConv2D(2, 3, name="rescue")(image)))


def test_the_table_has_a_row_for_each_network(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("binary_resnet", "quicknet_tiny")
    monkeypatch.setattr(counts, "BACKBONES", {name: BACKBONES[name] for name in names})
    rows = counts.table().splitlines()[2:]
    assert rows[0] == "| `binary_resnet` | 128, 256 | 687 k (682 k), 2.76 M (2.75 M) | 26 M / 221 k | 419 M / 10.8 M |"
    assert [row.split("`")[1] for row in rows] == list(names)


@pytest.mark.slow
def test_the_guide_shows_the_table_as_it_is() -> None:
    guide = Path(bssl_tf.models.__file__).with_name("README.md").read_text(encoding="utf-8")
    assert counts.table() in guide
