from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssl_tf.backend import keras, lq
from bssl_tf.models.counts import count
from bssl_tf.models.layers import BlurKernel
from bssl_tf.models.quicknet import quicknet, quicknet_large, quicknet_small, quicknet_tiny
from tests.models.zoo import features, kernel_shapes, with_the_zoo_s_numbers, zoo_network


@pytest.mark.parametrize(
    ("builder", "name", "stem_width"),
    [(quicknet_small, "QuickNetSmall", 32), (quicknet, "QuickNet", 64), (quicknet_large, "QuickNetLarge", 64)],
)
def test_it_has_the_zoo_s_kernels_at_224_px(builder: Callable[..., keras.Model], name: str, stem_width: int) -> None:
    theirs, ours = zoo_network("sota", name), builder(224, 3)
    # Ours has scale and shift in the norm behind the stem's depthwise convolution.
    assert ours.count_params() - 2 * (stem_width // 4) + 512 * 1000 + 1000 == theirs.count_params()
    assert kernel_shapes(ours) == kernel_shapes(theirs)[:-1]


def test_with_the_zoo_s_weights_and_quantisers_it_gives_the_zoo_s_features() -> None:
    theirs, ours = zoo_network("sota", "QuickNetSmall"), quicknet_small(224, 3)
    images = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)
    expected = features(theirs)(images, training=False)
    result = with_the_zoo_s_numbers(ours, theirs)(images, training=False)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("builder", "size", "maps"),
    [
        (quicknet, 28, [28, 14, 7, 3]),
        (quicknet, 32, [32, 16, 8, 4]),
        (quicknet, 64, [32, 16, 8, 4]),
        (quicknet, 128, [32, 16, 8, 4]),
        (quicknet, 224, [56, 28, 14, 7]),
        (quicknet_tiny, 28, [14, 7, 3]),
        (quicknet_tiny, 32, [16, 8, 4]),
        (quicknet_tiny, 64, [16, 8, 4]),
        (quicknet_tiny, 224, [56, 28, 14]),
    ],
)
def test_small_images_drop_strides_of_the_stem_only(
    builder: Callable[..., keras.Model], size: int, maps: list[int]
) -> None:
    model = builder(size, 3, width=32)
    convolutions = [layer for layer in model.layers if isinstance(layer, lq.layers.QuantConv2D)]
    assert list(dict.fromkeys(layer.input_shape[1] for layer in convolutions)) == maps


def test_tiny_is_as_small_as_it_says() -> None:
    model = quicknet_tiny(32, 3)
    assert model.get_layer("stem_widen").output_shape == (None, 16, 16, 32)
    counts = count(model)
    # A norm folds into two numbers a channel, and its two averages are not stored.
    averages = sum(w.shape[0] for w in model.weights if "moving" in w.name)
    stored = counts.binary_parameters / 8 + 4 * (counts.parameters - counts.binary_parameters - averages)
    assert round(stored / 1024) == 98
    transitions = [model.get_layer(f"section{section}_transition_widen").count_params() for section in (2, 3)]
    assert 4 * sum(transitions) // 1024 == 40


@given(st.integers(1, 7), st.integers(1, 4))
@settings(deadline=None, max_examples=20)
def test_a_blur_kernel_keeps_the_mean_and_favours_no_side(size: int, channels: int) -> None:
    kernel = BlurKernel()((size, size, channels, 1)).numpy()
    np.testing.assert_allclose(kernel.sum(axis=(0, 1)), 1, rtol=1e-6)
    for turned in (kernel[::-1], kernel[:, ::-1], kernel.transpose(1, 0, 2, 3)):
        np.testing.assert_allclose(turned, kernel, rtol=1e-6)
    # Blurring away alternating pixels is what it is for: that needs two taps or more.
    signs = (-1.0) ** np.arange(size)
    alternating = np.abs(np.einsum("ijco,j->ico", kernel, signs)).max()
    assert alternating < 1e-6 if size > 1 else alternating == 1


def test_the_blur_is_never_trained() -> None:
    trained = {weight.name for weight in quicknet_tiny(32, 3).trainable_weights}
    assert trained and not [name for name in trained if "blur" in name]
