from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.backend import keras
from bssl_tf.models.xnor_net import xnor_net
from tests.models.zoo import features, kernel_shapes, with_the_zoo_s_numbers, zoo_network


def test_it_is_the_zoo_s_network_at_224_px() -> None:
    theirs, ours = zoo_network("literature", "XNORNet"), xnor_net(224, 3)
    # Ours has scales in its batch norms, one for each of their channels; the zoo's classifier has no bias.
    scales = 96 + 96 + 256 + 384 + 384 + 256 + 4096 + 4096
    assert ours.count_params() - scales + 4096 * 1000 == theirs.count_params()
    assert kernel_shapes(ours) == kernel_shapes(theirs)[:-1]
    images = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)
    expected = features(theirs)(images, training=False)
    result = with_the_zoo_s_numbers(ours, theirs)(images, training=False)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "stem", "last"), [(28, 28, 2), (32, 32, 3), (64, 32, 3), (96, 48, 5), (128, 32, 3), (224, 56, 6)]
)
def test_the_first_wide_layer_spans_the_last_map(size: int, stem: int, last: int) -> None:
    model = xnor_net(size, 3, width=64)
    assert model.get_layer("stem_conv").output_shape[1] == stem
    assert model.get_layer("conv5_pool").output_shape[1:3] == (last, last)
    assert model.get_layer("wide6_conv").kernel_size == (last, last)
    assert model.get_layer("wide7_conv").output_shape == (None, 1, 1, 1024)


def test_on_larger_images_alexnet_s_wide_layers_slide() -> None:
    model = xnor_net(320, 3, width=64)
    assert model.get_layer("wide6_conv").kernel_size == (6, 6)
    assert model.get_layer("wide7_conv").output_shape == (None, 4, 4, 1024)
    assert model.output_shape == (None, 1024)


def test_a_norm_stands_in_front_of_each_sign() -> None:
    """Behind the stem's ReLU there is no negative number, and without it every sign would be +1."""
    model = xnor_net(32, 3, width=64)
    for name in ("conv2", "conv3", "conv4", "conv5", "wide6", "wide7"):
        producer = model.get_layer(f"{name}_conv").input.node.layer
        assert isinstance(producer, keras.layers.BatchNormalization)
