"""What every registered network must do. A new one is tested here by being registered."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from bssl_tf.backend import keras, lq, tf
from bssl_tf.errors import ConfigError
from bssl_tf.models.binarization import binarize, binary_layers, named_weights
from bssl_tf.models.registry import BACKBONES, build_backbone
from bssl_tf.models.saved import Network, load_weights, read_network, save_network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.settings import FLOAT_NETWORKS
from bssl_tf_converters.lce.float_reference import float_twin

# Narrower than a network's own width, to be quick.
SMALL: dict[str, dict[str, int]] = {
    "bireal_net18": {"width": 32},
    "quicknet": {"width": 32},
    "quicknet_large": {"width": 32},
    "xnor_net": {"width": 64},
}
ALIKE = {"quicknet", "quicknet_large", "quicknet_small"}  # as quicknet_tiny
SIZE = 33  # odd, so that halves do not come out even


def build(name: str, image_size: int, channels: int) -> keras.Model:
    return build_backbone(name, image_size, channels, SMALL.get(name, {}))


@functools.cache
def small(name: str) -> keras.Model:
    """Made once; nobody changes it."""
    return build(name, SIZE, 3)


def pictures(size: int, channels: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(size).standard_normal((count, size, size, channels)).astype(np.float32)


@pytest.fixture(params=sorted(BACKBONES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_is_laid_out_for_lce(name: str) -> None:
    model = small(name)
    assert model.input_shape == (None, SIZE, SIZE, 3)
    assert len(model.output_shape) == 2 and model.output_shape[1] % 32 == 0
    convolutions = [layer for layer in model.layers if isinstance(layer, lq.layers.QuantConv2D)]
    assert convolutions == binary_layers(model)
    assert bool(convolutions) is (name not in FLOAT_NETWORKS)
    for layer in convolutions:
        assert layer.padding == "valid" or layer.pad_values == 1.0
        assert layer.filters % 32 == 0 and layer.input_shape[-1] % 8 == 0
        assert not layer.use_bias and layer.kernel_constraint is not None
    assert not [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]


# Sizes of one family differ in how many blocks they have. A float network has nothing to switch: one of them shows it.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ALIKE | FLOAT_NETWORKS - {"float_resnet"}))
        for name in sorted(BACKBONES)
    ],
)
def test_its_quantisers_go_off_and_on_without_touching_weights(name: str) -> None:
    model = small(name)
    stage_one = binarize(model, weights=False)
    stage_two = binarize(model, weights=True)
    twin = float_twin(model)
    assert binary_layers(stage_one) == [] == binary_layers(twin)
    assert len(binary_layers(stage_two)) == len(binary_layers(model))
    x = pictures(SIZE, 3)
    for copy in (stage_one, stage_two, twin):
        assert list(named_weights(copy)) == list(named_weights(model))
        for a, b in zip(model.get_weights(), copy.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert len(copy.trainable_weights) == len(model.trainable_weights)
    np.testing.assert_array_equal(stage_two(x), model(x))
    if name not in FLOAT_NETWORKS:
        assert np.abs(stage_one(x) - model(x)).max() > 0


def test_a_saved_one_is_the_same_again(name: str, tmp_path: Path) -> None:
    network = Network(name, Preprocessing(SIZE, 3, (0.3,) * 3, (0.2,) * 3), SMALL.get(name, {}))
    model = small(name)
    # As in runs and zoos of before networks had models in them.
    assert list(named_weights(model)) == [weight.name.removesuffix(":0") for weight in model.weights]
    save_network(tmp_path, network, {"student": model})
    again = read_network(tmp_path).build()
    load_weights(tmp_path, {"student": again})
    x = pictures(SIZE, 3)
    np.testing.assert_array_equal(again(x), model(x))


def test_it_tells_images_apart_and_every_weight_learns(name: str) -> None:
    size = 32 if name in FLOAT_NETWORKS else 28
    model = build(name, size, 1)
    with tf.GradientTape() as tape:
        # With batch statistics: as initialised, XNOR-Net's norms leave every value on one side of zero.
        features = model(pictures(size, 1, 4), training=True)
        loss = tf.reduce_sum(features * tf.constant(np.random.default_rng(0).normal(size=features.shape), tf.float32))
    gradients = tape.gradient(loss, model.trainable_weights)
    still = [w.name for w, g in zip(model.trainable_weights, gradients, strict=True) if g is None or not np.any(g)]
    assert still == []
    assert np.all(np.isfinite(features))
    assert np.abs(features[0] - features[1]).max() > 1e-6


def test_images_and_widths_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="image size 15 is too small for "):
        build_backbone(name, 15, 3, {})
    for width in () if name in FLOAT_NETWORKS else (0, -32, 48):
        with pytest.raises(ConfigError, match=f"width {width} "):
            build_backbone(name, 32, 3, {"width": width})
