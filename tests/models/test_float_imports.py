from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bssl_tf.backend import keras
from bssl_tf.errors import ConfigError
from bssl_tf.models.efficientnet_lite0 import efficientnet_lite0
from bssl_tf.models.resnet import resnet18, resnet34, resnet50

Builder = Callable[[int, int], keras.Model]


# Without the classifiers: 11,689,512 and 21,797,672 - 513,000 parameters, 25,557,032 - 2,049,000, and 4,652,008 -
# 1,281,000.
@pytest.mark.parametrize(
    ("build", "features", "parameters"),
    [
        (resnet18, 512, 11_176_512),
        (resnet34, 512, 21_284_672),
        (resnet50, 2048, 23_508_032),
        (efficientnet_lite0, 1280, 3_371_008),
    ],
)
def test_the_network_has_the_published_size(build: Builder, features: int, parameters: int) -> None:
    model = build(224, 3)
    assert model.output_shape == (None, features)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == parameters
    assert model.get_layer("features").input_shape[1:3] == (7, 7)


@pytest.mark.parametrize("build", [resnet18, resnet34, resnet50, efficientnet_lite0])
def test_the_smallest_pictures_give_one_vector_each_and_smaller_ones_are_refused(build: Builder) -> None:
    features = build(32, 1)(np.ones((2, 32, 32, 1), np.float32)).numpy()
    assert len(features) == 2 and np.all(np.isfinite(features))
    with pytest.raises(ConfigError, match="Choose 32 px or more"):
        build(31, 3)


def test_resnet50_halves_the_picture_in_its_3x3_convolutions() -> None:
    convolutions = [layer for layer in resnet50(64, 3).layers if isinstance(layer, keras.layers.Conv2D)]
    halving = [layer.name for layer in convolutions if layer.strides == (2, 2)]
    blocks = [f"stage{stage}_block1" for stage in (2, 3, 4)]
    assert sorted(halving) == sorted(["stem_conv", *(f"{b}_conv2" for b in blocks), *(f"{b}_shortcut" for b in blocks)])
