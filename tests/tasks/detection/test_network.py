"""Detectors of registered backbones: their maps, what is binary, and who is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bssl_tf.backend import keras, lq
from bssl_tf.errors import BsslError, ConfigError, NetworkError
from bssl_tf.models.registry import build_backbone
from bssl_tf.tasks.detection.network import detector, output_names
from bssl_tf_converters.lce.converter import LceInterpreter, convert
from bssl_tf_converters.lce.converter import output_names as names_of_converted
from bssl_tf_deploy.boxes import candidates, suppress


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    return build_backbone("binary_resnet", 64, 3, {"depth": 1})


def test_outputs_are_maps_by_stride_for_inputs_of_any_shape(backbone: keras.Model) -> None:
    model = detector(backbone, 5, height=64, width=96, neck_width=32)
    assert output_names(model) == tuple(f"{part}_{s}" for s in (8, 16) for part in ("scores", "boxes"))
    found = model(np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype(np.float32))
    shapes = [tuple(one.shape) for one in found]
    assert shapes == [(2, 8, 12, 5), (2, 8, 12, 4), (2, 4, 6, 5), (2, 4, 6, 4)]
    # Nothing is found at first: a score is one in a hundred.
    assert all(np.abs(1 / (1 + np.exp(-one)) - 0.01).max() < 0.02 for one in found[::2])


def test_a_pretrained_backbone_is_shared(backbone: keras.Model) -> None:
    model = detector(backbone, 2, height=96, width=64, neck_width=32)
    before = model(np.ones((1, 96, 64, 3), np.float32))[0].numpy()
    kernel = backbone.get_layer("stem_conv").kernel
    assert any(kernel is variable for variable in model.trainable_variables)
    kept = kernel.numpy()
    kernel.assign(-kept)
    changed = model(np.ones((1, 96, 64, 3), np.float32))[0].numpy()
    kernel.assign(kept)
    assert not np.array_equal(before, changed)
    assert backbone(np.ones((1, 64, 64, 3), np.float32)).shape[-1] == backbone.output_shape[-1]


def test_neck_and_head_are_binary_but_for_their_ends(backbone: keras.Model) -> None:
    model = detector(backbone, 5, height=64, width=64, neck_width=32)
    own = {layer.name for layer in backbone.layers}
    convolutions = [layer for layer in model.layers if hasattr(layer, "kernel_size") and layer.name not in own]
    float_ones = {layer.name for layer in convolutions if not isinstance(layer, lq.layers.QuantConv2D)}
    assert float_ones == set(output_names(model)) and len(convolutions) > 2 * len(float_ones)
    assert all(layer.kernel_size == (1, 1) for layer in convolutions if layer.name in float_ones)
    binary = [layer for layer in convolutions if layer.name not in float_ones]
    assert all(layer.input_quantizer is not None and layer.kernel_quantizer is not None for layer in binary)


def test_maps_that_lost_their_place_are_refused() -> None:
    network = build_backbone("xnor_net", 64, 3, {})
    with pytest.raises(NetworkError, match="its cells have no known place"):
        detector(network, 2, height=64, width=64)


@pytest.mark.parametrize(
    ("sizes", "error", "words"),
    [
        ({"height": 100}, ConfigError, "height of a detector's input is 100. Give a multiple of 32"),
        ({"width": 0}, ConfigError, "width of a detector's input is 0"),
        ({"neck_width": 40}, ConfigError, "40 wide"),
        ({"classes": 0}, ConfigError, "0 classes"),
    ],
)
def test_odd_sizes_are_refused(
    backbone: keras.Model, sizes: dict[str, Any], error: type[BsslError], words: str
) -> None:
    with pytest.raises(error, match=words):
        detector(backbone, **{"classes": 2, "height": 64, "width": 64, "neck_width": 32} | sizes)


def test_a_network_without_such_maps_is_refused() -> None:
    image = keras.layers.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same")(image)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x), name="shallow")
    with pytest.raises(NetworkError, match="shallow has maps of strides 2, and a detector needs 8, 16 or 32"):
        detector(model, 2, height=32, width=32)


def test_a_converted_detector_finds_the_boxes_of_keras(backbone: keras.Model) -> None:
    height, width, random = 64, 96, np.random.default_rng(0)
    model = detector(backbone, 3, height=height, width=width, neck_width=32)
    for variable in model.weights:
        # As after some training: no statistics at their first values, and scores that tell cells apart.
        if "moving_variance" in variable.name:
            variable.assign(random.uniform(0.5, 2, variable.shape))
        elif "gamma" in variable.name or "moving_mean" in variable.name:
            variable.assign(variable + random.normal(0, 0.3, variable.shape))
        elif "scores_" in variable.name and "bias" in variable.name:
            variable.assign(random.normal(0, 0.5, variable.shape))
    converted = convert(model, "x86_64", outputs=output_names(model))
    image = random.normal(size=(1, height, width, 3)).astype(np.float32)
    of_keras = dict(zip(output_names(model), (one.numpy() for one in model(image)), strict=True))
    of_lce = dict(zip(names_of_converted(converted), LceInterpreter(converted, 1).run([image]), strict=True))
    assert of_keras.keys() == of_lce.keys()
    both = []
    for outputs in (of_keras, of_lce):
        pairs = {stride: (outputs[f"scores_{stride}"][0], outputs[f"boxes_{stride}"][0]) for stride in (8, 16)}
        both.append(suppress(candidates(pairs, 0.3), 0.5, 20))
        # Rounding of float32, in another order.
        np.testing.assert_allclose(outputs["scores_8"], of_keras["scores_8"], atol=1e-4)
    assert len(both[0]) > 5 and both[0].classes.tolist() == both[1].classes.tolist()
    np.testing.assert_allclose(both[1].boxes, both[0].boxes, atol=0.01)
