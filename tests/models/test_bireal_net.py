from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.backend import lq
from bssl_tf.models.bireal_net import bireal_net18
from bssl_tf.models.counts import count
from tests.models.zoo import features, kernel_shapes, with_the_zoo_s_numbers, zoo_network


def test_it_is_the_zoo_s_network_at_224_px() -> None:
    theirs, ours = zoo_network("literature", "BiRealNet"), bireal_net18(224, 3)
    assert ours.count_params() + 512 * 1000 + 1000 == theirs.count_params()
    assert kernel_shapes(ours) == kernel_shapes(theirs)[:-1]
    images = np.random.default_rng(0).normal(size=(2, 224, 224, 3)).astype(np.float32)
    expected = features(theirs)(images, training=False)
    np.testing.assert_allclose(with_the_zoo_s_numbers(ours, theirs)(images, training=False), expected, rtol=1e-4)


def test_binary_work_is_the_published_1_68_g() -> None:
    # As in table 1 of ReActNet (Liu et al., ECCV 2020).
    assert f"{count(bireal_net18(224, 3)).binary_macs / 1e9:.2f}" == "1.68"


@pytest.mark.parametrize(
    ("size", "stem", "last"), [(28, 28, 4), (32, 32, 4), (64, 32, 4), (96, 48, 6), (128, 32, 4), (224, 56, 7)]
)
def test_small_images_drop_strides_of_the_stem_only(size: int, stem: int, last: int) -> None:
    model = bireal_net18(size, 3, width=32)
    convolutions = [layer for layer in model.layers if isinstance(layer, lq.layers.QuantConv2D)]
    assert convolutions[0].input_shape[1] == stem
    assert [layer.strides[0] for layer in convolutions] == [1] * 4 + [2, 1, 1, 1] * 3
    assert model.get_layer("features").input_shape == (None, last, last, 256)


def test_real_values_pass_through_the_whole_network() -> None:
    model = bireal_net18(32, 3, width=32)
    for layer in model.layers:
        if layer.name.startswith("stage") and layer.name.endswith("_norm") and "shortcut" not in layer.name:
            layer.gamma.assign(np.zeros(layer.gamma.shape))  # silences the binary convolution
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    once, twice = model(x).numpy(), model(2 * x).numpy()
    assert np.abs(once).max() > 0.01
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-3, atol=1e-5)
