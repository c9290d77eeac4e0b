from __future__ import annotations

import numpy as np
import pytest

from bssl_tf.backend import keras, tf
from bssl_tf.models.binarization import binary_layers, named_weights
from bssl_tf.models.counts import count
from bssl_tf.models.layers import BlurKernel, LearnedShift
from bssl_tf.models.reactnet import reactnet_a

# MobileNet v1's blocks at 224 px, as (channels in, channels out, stride).
MOBILENET_BLOCKS = [
    *((32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)),
    *[(512, 512, 1)] * 5,
    *((512, 1024, 2), (1024, 1024, 1)),
]


def test_size_and_work_are_the_published_figures() -> None:
    model = reactnet_a(224, 3)
    counts, classifier = count(model), 1024 * 1000
    assert f"{(counts.parameters + classifier + 1000) / 1e6:.1f}" == "29.4"
    assert f"{counts.binary_macs / 1e9:.2f}" == "4.82"
    assert f"{(counts.float_macs + classifier) / 1e6:.1f}" == "11.9"
    assert len(binary_layers(model)) == 31
    assert model.get_layer("features").input_shape == (None, 7, 7, 1024)


def reference(weights: dict[str, np.ndarray], x: np.ndarray, stem_stride: int, strides: list[int]) -> np.ndarray:
    """ReActNet-A written out, from float32 images [B, S, S, C] to features."""

    def norm(y: np.ndarray, name: str) -> np.ndarray:
        gamma, beta, mean, variance = (
            weights[f"{name}_norm/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (y - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def binary(y: np.ndarray, name: str, stride: int) -> np.ndarray:
        kernel = weights[f"{name}_conv/kernel"]
        scale = np.abs(kernel).mean(axis=(0, 1, 2))
        signs = np.where(y >= 0, 1.0, -1.0).astype(np.float32)
        if len(kernel) == 3:
            # What same padding adds in all; the odd one comes last.
            total = max((-(-y.shape[1] // stride) - 1) * stride + 3 - y.shape[1], 0)
            sides = (total // 2, total - total // 2)
            signs = np.pad(signs, ((0, 0), sides, sides, (0, 0)), constant_values=1.0)
        return tf.nn.conv2d(signs, np.where(kernel >= 0, 1.0, -1.0).astype(np.float32), stride, "VALID").numpy() * scale

    def rprelu(y: np.ndarray, name: str) -> np.ndarray:
        y = y + weights[f"{name}_shift_in/shift"]
        y = np.where(y > 0, y, y * weights[f"{name}_prelu/alpha"])
        return y + weights[f"{name}_shift_out/shift"]

    x = norm(tf.nn.conv2d(x, weights["stem_conv/kernel"], stem_stride, "SAME").numpy(), "stem")
    for number, ((inputs, outputs, _), stride) in enumerate(zip(MOBILENET_BLOCKS, strides, strict=True), start=1):
        name = f"block{number}"
        shortcut = x if stride == 1 else tf.nn.avg_pool2d(x, 2, 2, "SAME").numpy()
        shifted = x + weights[f"{name}_spatial_threshold/shift"]
        x = norm(binary(shifted, f"{name}_spatial", stride), f"{name}_spatial") + shortcut
        x = rprelu(x, f"{name}_spatial")
        shifted = x + weights[f"{name}_channel_threshold/shift"]
        branches = [f"{name}_channel"] if inputs == outputs else [f"{name}_channel1", f"{name}_channel2"]
        x = np.concatenate([norm(binary(shifted, branch, 1), branch) + x for branch in branches], axis=-1)
        x = rprelu(x, f"{name}_channel")
    return x.mean(axis=(1, 2))


@pytest.mark.parametrize(("size", "stem_stride", "second"), [(28, 1, 1), (64, 2, 1), (128, 2, 2)])
def test_it_computes_what_the_paper_writes(size: int, stem_stride: int, second: int) -> None:
    keras.utils.set_random_seed(size)
    model = reactnet_a(size, 1)
    assert model.get_layer("features").input_shape == (None, 4, 4, 1024)
    rng = np.random.default_rng(size)
    for name, weight in named_weights(model).items():
        if not name.endswith("kernel"):
            low = 0.5 if name.endswith(("gamma", "variance")) else -0.5
            weight.assign(rng.uniform(low, low + 1, weight.shape))
    weights = {name: weight.numpy() for name, weight in named_weights(model).items()}
    strides = [stride for _, _, stride in MOBILENET_BLOCKS]
    strides[1] = second
    x = rng.normal(size=(3, size, size, 1)).astype(np.float32)
    result, expected = model(x, training=False).numpy(), reference(weights, x, stem_stride, strides)
    # Where a value is within rounding of its threshold, sums in another order may flip a sign: in one image of ten.
    same = np.isclose(result, expected, rtol=1e-4, atol=1e-4).all(axis=1)
    assert same.sum() >= 2, np.abs(result - expected).max(axis=1)


def test_a_new_network_has_prelu_s_usual_slope_and_no_shift() -> None:
    weights = named_weights(reactnet_a(32, 3))
    slopes = [weight.numpy() for name, weight in weights.items() if name.endswith("alpha")]
    shifts = [weight.numpy() for name, weight in weights.items() if name.endswith("shift")]
    assert len(slopes) == 2 * 13 and all(np.all(slope == 0.25) for slope in slopes)
    assert len(shifts) == 6 * 13 and not any(np.any(shift) for shift in shifts)


def test_our_layers_survive_keras_s_own_format(tmp_path: object) -> None:
    image = keras.Input((6, 6, 3))
    x = LearnedShift(name="threshold")(image)
    x = keras.layers.DepthwiseConv2D(3, depthwise_initializer=BlurKernel(), name="blur")(x)
    model = keras.Model(image, x)
    model.get_layer("threshold").set_weights([np.array([1.0, -2.0, 3.0], np.float32)])
    model.save(f"{tmp_path}/model.keras")
    again = keras.models.load_model(f"{tmp_path}/model.keras")
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(again(x), model(x))
    np.testing.assert_allclose(model.get_layer("threshold")(x), x + np.array([1.0, -2.0, 3.0], np.float32))
