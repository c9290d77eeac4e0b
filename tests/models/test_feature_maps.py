"""Every registered network offers its maps by stride, and is not changed by that."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest

from bssl_tf.backend import keras
from bssl_tf.errors import NetworkError
from bssl_tf.models.binarization import binarize
from bssl_tf.models.feature_maps import feature_maps
from bssl_tf.models.registry import BACKBONES, FEATURE_LAYERS, build_backbone
from bssl_tf_converters.lce.float_reference import float_twin
from tests.models.test_registry import SMALL

# The strides by the papers, or as each docstring describes them.
STRIDES_AT_224 = {
    "binary_resnet": [4, 8, 16, 32],
    "bireal_net18": [4, 8, 16, 32],
    "efficientnet_lite0": [2, 4, 8, 16, 32],
    "float_resnet": [4, 8, 16, 32],
    "quicknet": [4, 8, 16, 32],
    "quicknet_large": [4, 8, 16, 32],
    "quicknet_small": [4, 8, 16, 32],
    "quicknet_tiny": [4, 8, 16],
    "reactnet_a": [2, 4, 8, 16, 32],
    "resnet18": [4, 8, 16, 32],
    "resnet34": [4, 8, 16, 32],
    "resnet50": [4, 8, 16, 32],
    "xnor_net": [8, 16, 32],
}
SIZES = (47, pytest.param(64, marks=pytest.mark.slow), 224)
FROM_WIDE_LAYERS = {"xnor_net"}


@functools.cache
def built(name: str, size: int) -> keras.Model:
    return build_backbone(name, size, 3, SMALL.get(name, {}))


@pytest.fixture(params=sorted(BACKBONES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_registered_network_says_where_its_maps_are() -> None:
    assert set(FEATURE_LAYERS) == set(BACKBONES) == set(STRIDES_AT_224)


@pytest.mark.parametrize("size", SIZES)
def test_a_map_of_a_stride_has_the_pictures_side_over_it(name: str, size: int) -> None:
    maps = feature_maps(built(name, size))
    assert list(maps) == sorted(maps)
    if size == 224:
        assert list(maps) == STRIDES_AT_224[name]
    lost = 2 if name == "xnor_net" else int(name.startswith("quicknet") and size % 32 > 0)
    for stride, tensor in maps.items():
        sides = tuple(tensor.shape[1:3])
        assert sides[0] == sides[1]
        assert math.ceil(size / stride) - lost <= sides[0] <= math.ceil(size / stride), stride
        assert tensor.shape[-1] % 8 == 0


def test_a_network_on_its_maps_keeps_weights_and_features_bit_for_bit(name: str) -> None:
    model = built(name, 47)
    rng = np.random.default_rng(1)
    images = rng.standard_normal((2, 47, 47, 3)).astype(np.float32)
    weights, features = model.get_weights(), model(images, training=False).numpy()
    maps = feature_maps(model)
    both = keras.Model(model.input, [*maps.values(), model.output])
    *found, again = both(images, training=False)
    np.testing.assert_array_equal(again.numpy(), features)
    for mine, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(mine, before)
    assert {weight.ref() for weight in both.weights} == {weight.ref() for weight in model.weights}
    for tensor, values in zip(maps.values(), found, strict=True):
        assert values.shape[1:] == tensor.shape[1:]
        assert np.all(np.isfinite(values.numpy()))
    if name not in FROM_WIDE_LAYERS:
        np.testing.assert_allclose(found[-1].numpy().mean(axis=(1, 2)), features, rtol=1e-4, atol=1e-5)


def test_each_map_comes_from_the_one_before(name: str) -> None:
    """A map is the last of its stride: everything coarser is made of it."""
    tensors = list(feature_maps(built(name, 47)).values())
    for finer, coarser in itertools.pairwise(tensors):
        # Keras refuses a model whose output cannot be reached from its input.
        keras.Model(finer, coarser)


def test_copies_of_a_network_have_the_same_maps() -> None:
    model = built("quicknet_tiny", 47)
    shapes = {stride: tensor.shape for stride, tensor in feature_maps(model).items()}
    for copy in (binarize(model, weights=False), float_twin(model)):
        assert {stride: tensor.shape for stride, tensor in feature_maps(copy).items()} == shapes


def test_a_network_that_is_not_registered_shows_its_maps_by_their_sizes() -> None:
    image = keras.layers.Input((28, 28, 3))
    layers = keras.layers
    x = layers.Conv2D(8, 3, strides=2, padding="same")(image)
    inner = keras.Model(i := keras.Input((14, 14, 8)), layers.Conv2D(8, 3, strides=2, padding="same")(i), name="inner")
    x = inner(layers.ReLU(name="fine")(x))
    x = layers.Conv2D(8, 3, padding="valid")(x)
    coarse = layers.Conv2D(8, 3, strides=2, padding="same")(x)
    # Called as a registered network is, and something else.
    model = keras.Model(image, layers.GlobalAveragePooling2D()(coarse), name="quicknet")
    maps = feature_maps(model)
    assert {stride: tuple(tensor.shape[1:3]) for stride, tensor in maps.items()} == {2: (14, 14), 4: (5, 5), 8: (3, 3)}
    both = keras.Model(model.input, [*maps.values(), model.output])
    *found, features = both(np.ones((1, 28, 28, 3), np.float32))
    np.testing.assert_array_equal(features, model(np.ones((1, 28, 28, 3), np.float32)))
    np.testing.assert_allclose(found[-1].numpy().mean(axis=(1, 2)), features, rtol=1e-5, atol=1e-6)


def test_a_network_without_maps_is_refused_with_a_next_step() -> None:
    image = keras.layers.Input((32, 32, 3))
    with pytest.raises(NetworkError, match=r"no layer of 'other' gives a map.*GlobalAveragePooling2D"):
        feature_maps(keras.Model(image, keras.layers.Flatten()(image), name="other"))
