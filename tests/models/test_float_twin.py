"""The float twin of a binary network: the same layers and weights, with nothing quantised."""

from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.backend import keras, lq, tf
from bssl_tf.models.binarization import binary_layers, copy_of, float_twin, quantizes_weights
from bssl_tf.models.layers import binary_conv
from bssl_tf.models.registry import build_backbone


def test_a_rectifier_takes_the_place_of_the_sign_and_padding_is_with_zeros() -> None:
    image = keras.layers.Input((6, 6, 4))
    inner = keras.Model(image, binary_conv(8, 3, "conv")(image))
    model = keras.Model(image, lq.quantizers.SteSign(name="sign")(inner(image)))
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    twin = float_twin(model)
    kernel = model.get_weights()[0]
    expected = tf.nn.relu(tf.nn.conv2d(tf.nn.relu(x), kernel, 1, "SAME"))
    np.testing.assert_allclose(twin(x).numpy(), expected.numpy(), atol=1e-6)
    # Weights of its own, which may grow beyond 1; and it can be copied itself, as precisions and replicas need.
    twin.set_weights([3 * kernel])
    np.testing.assert_array_equal(model.get_weights()[0], kernel)
    np.testing.assert_allclose(copy_of(twin)(x).numpy(), 3 * expected.numpy(), atol=1e-5)
    [kernel_of_twin] = twin.trainable_weights
    assert kernel_of_twin.constraint is None and model.trainable_weights[0].constraint is not None


@pytest.mark.parametrize(
    ("name", "sizes"), [("binary_resnet", {"depth": 1}), ("quicknet_small", {}), ("bireal_net18", {"width": 32})]
)
def test_networks_have_twins(name: str, sizes: dict[str, int]) -> None:
    model = build_backbone(name, 32, 3, sizes)
    twin = float_twin(model)
    assert binary_layers(model) and not binary_layers(twin) and not quantizes_weights(twin)
    assert [weight.shape for weight in twin.weights] == [weight.shape for weight in model.weights]
    assert np.isfinite(twin(np.ones((1, 32, 32, 3), np.float32)).numpy()).all()
