"""Every registered binary network through real LCE: as many binary operators as layers, and Keras's answers."""

from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.backend import keras
from bssl_tf.models.binarization import binary_layers
from bssl_tf.models.feature_maps import feature_maps
from bssl_tf.models.registry import BACKBONES, build_backbone
from bssl_tf_converters.lce import converter as lce
from bssl_tf_converters.lce.checks import check_binary, check_convertible
from bssl_tf_converters.lce.deployable import with_classifier
from bssl_tf_converters.lce.parity import Arrays, compare
from tests.converters.networks import embedded_images, random_probe

# The deepest take LCE ten seconds to a minute.
SLOW = {"quicknet", "quicknet_large", "quicknet_small", "reactnet_a"}
# What each takes beside, to be quick, and its float convolutions: the stem's, and those that change a map's width.
CASES: dict[str, tuple[dict[str, int], int]] = {
    "binary_resnet": ({"depth": 1}, 1),
    "bireal_net18": ({"width": 32}, 1 + 3),
    "quicknet": ({"width": 32}, 3 + 2 * 3),
    "quicknet_large": ({"width": 32}, 3 + 2 * 3),
    "quicknet_small": ({}, 3 + 2 * 3),
    "quicknet_tiny": ({}, 3 + 2 * 2),
    "reactnet_a": ({}, 1),
    "xnor_net": ({"width": 64}, 1),
}
IMAGES = 16


def settled(name: str, image_size: int, arguments: dict[str, int]) -> keras.Model:
    """The network with random norms and shifts, at rest on the embedded images."""
    keras.utils.set_random_seed(7)
    model = build_backbone(name, image_size, 3, arguments)
    rng = np.random.default_rng(7)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for weight in model.trainable_weights:
        if "gamma" in weight.name:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape) * rng.choice([1, 1, 1, -1], weight.shape))
        elif weight.shape.rank == 1:
            weight.assign(rng.normal(0, 0.3, weight.shape))
    for norm in norms:
        norm.momentum = 0.0
    model(embedded_images(image_size, 3, IMAGES), training=True)
    for norm in norms:
        norm.momentum = 0.9
    return model


def check_converted(name: str, image_size: int) -> None:
    arguments, float_convolutions = CASES[name]
    backbone = settled(name, image_size, arguments)
    images = embedded_images(image_size, 3, IMAGES)
    model = with_classifier(backbone, *random_probe(backbone, images, 10))
    check_convertible(model)
    converted = lce.convert(model, "arm64")
    report = check_binary(model, converted)
    assert report.binary_convolutions == len(binary_layers(model)) > 0
    assert report.float_convolutions == float_convolutions
    assert report.fully_connected == 1
    # Weights are 1-bit there: with the latent ones the flatbuffer would be 32 times as large.
    binary_bytes = sum(np.prod(layer.kernel.shape) for layer in binary_layers(model)) / 8
    floats = 4 * model.count_params() - 32 * binary_bytes
    assert len(converted) < 1.1 * (binary_bytes + floats) + 200_000
    found = lce.LceInterpreter(converted).predict(images)
    parity = compare({"logits": model(images, training=False).numpy()}, {"logits": found})
    # See bssl_tf_converters.lce.parity: signs within rounding of zero flip, in deep networks in one image of a dozen.
    assert parity.share_within_tolerance >= 0.75, parity
    assert parity.outputs["logits"].median_abs_difference < 1e-4, parity


def same_nearest_image(expected: Arrays, found: Arrays) -> np.ndarray:
    """Whether each image's converted features are nearer to its own from Keras than to any other image's: bool [N]."""
    distances = np.linalg.norm(found["features"][:, np.newaxis] - expected["features"], axis=-1)
    return distances.argmin(axis=1) == np.arange(len(distances))


def check_maps_converted(name: str, image_size: int) -> None:
    """The network with every map that it names as an output, finest first, and its pooled features as the last one."""
    arguments, float_convolutions = CASES[name]
    backbone = settled(name, image_size, arguments)
    maps = feature_maps(backbone)
    assert len(maps) > 1
    model = keras.Model(backbone.input, [*maps.values(), backbone.output], name=name)
    names = (*(f"stride{stride}" for stride in maps), "features")
    images = embedded_images(image_size, 3, IMAGES)
    expected = dict(zip(names, (output.numpy() for output in model(images, training=False)), strict=True))
    check_convertible(model)
    converted = lce.convert(model, "arm64", outputs=names)
    report = check_binary(model, converted)
    # A map that is looked at costs no operator more: it is a tensor that the network has anyway.
    assert report.binary_convolutions == len(binary_layers(model)) > 0
    assert report.float_convolutions == float_convolutions
    given = lce.output_names(converted)
    assert set(given) == set(names)
    for xnnpack in (True, False):
        found = dict(zip(given, lce.LceInterpreter(converted, xnnpack=xnnpack).run([images]), strict=True))
        parity = compare(expected, found, same_nearest_image)
        assert parity.agreement == 1 and parity.share_within_tolerance >= 0.75, parity
        for output in names:
            assert parity.outputs[output].median_abs_difference < 1e-4, (output, parity)


def test_every_binary_network_is_converted_here() -> None:
    assert set(CASES) == set(BACKBONES) - {"efficientnet_lite0", "float_resnet", "resnet18", "resnet34", "resnet50"}


EACH_NETWORK = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in sorted(CASES)]
)


@EACH_NETWORK
def test_it_stays_binary_at_32_px_and_says_what_keras_says(name: str) -> None:
    check_converted(name, 32)


@EACH_NETWORK
def test_its_feature_maps_are_outputs_beside_the_pooled_features(name: str) -> None:
    check_maps_converted(name, 32)


def test_the_strided_stem_converts_too() -> None:
    check_converted("quicknet_tiny", 96)
    check_maps_converted("quicknet_tiny", 96)
