from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bssl_tf.backend import keras, lq, tf
from bssl_tf.checkpoints import read_tensors, write_tensors
from bssl_tf.errors import BsslError, ConfigError, NetworkError, RunFolderError
from bssl_tf.models.binarization import binarize, binary_layers
from bssl_tf.models.binary_resnet import binary_resnet
from bssl_tf.models.float_resnet import float_resnet
from bssl_tf.models.heads import mlp_head
from bssl_tf.models.registry import build_backbone
from bssl_tf.models.saved import Network, load_weights, read_network, save_network
from bssl_tf.preprocessing import Preprocessing
from bssl_tf_converters.lce.float_reference import float_twin
from tests.edited import edited


@pytest.mark.parametrize(("size", "channels", "features"), [(28, 1, 128), (32, 3, 128), (64, 3, 128), (224, 3, 256)])
def test_binary_resnet_is_laid_out_for_lce(size: int, channels: int, features: int) -> None:
    model = binary_resnet(size, channels)
    assert model.input_shape == (None, size, size, channels)
    assert model.output_shape == (None, features)
    floats = [layer for layer in model.layers if type(layer) is keras.layers.Conv2D]
    assert [layer.name for layer in floats] == ["stem_conv"]
    assert not [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    convolutions = [layer for layer in model.layers if isinstance(layer, lq.layers.QuantConv2D)]
    assert convolutions == binary_layers(model)
    for layer in convolutions:
        assert layer.padding == "same" and layer.pad_values == 1.0
        assert layer.filters % 32 == 0 and layer.input_shape[-1] % 32 == 0


def test_binary_resnet_sees_only_signs_of_weights_and_activations() -> None:
    layer = binary_layers(binary_resnet(28, 1))[0]
    x = np.random.default_rng(0).standard_normal((2, 14, 14, 32)).astype(np.float32)
    # Doubling activations changes nothing; weights act through their sign and one mean for each output channel.
    np.testing.assert_array_equal(layer(x), layer(2 * x))
    kernel = layer.kernel.numpy()
    scale = np.abs(kernel).mean(axis=(0, 1, 2))
    signs = np.where(x >= 0, 1.0, -1.0).astype(np.float32)
    padded = np.pad(signs, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
    expected = tf.nn.conv2d(padded, np.where(kernel >= 0, 1.0, -1.0).astype(np.float32) * scale, 1, "VALID")
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_stage_one_keeps_weights_float_and_activations_binary() -> None:
    model = binary_resnet(28, 1)
    first = binarize(model, weights=False)
    assert binary_layers(first) == []
    convolutions = [layer for layer in first.layers if isinstance(layer, lq.layers.QuantConv2D)]
    assert convolutions and all(layer.input_quantizer is not None for layer in convolutions)
    for a, b in zip(model.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(binary_layers(binarize(model, weights=True))) == len(binary_layers(model))


def test_float_twin_has_the_same_convolutions_in_float() -> None:
    model = binary_resnet(32, 3)
    twin = float_twin(model)
    assert twin.output_shape == model.output_shape
    assert not [layer for layer in twin.layers if isinstance(layer, lq.layers.QuantConv2D)]
    shapes = [layer.kernel.shape for layer in model.layers if hasattr(layer, "kernel")]
    assert shapes == [layer.kernel.shape for layer in twin.layers if hasattr(layer, "kernel")]


@pytest.mark.parametrize("size", [28, 32, 64, 224])
def test_float_resnet_gives_one_vector_an_image(size: int) -> None:
    model = float_resnet(size, 3, width=8)
    assert model(np.zeros((2, size, size, 3), np.float32)).shape == (2, 8 * (8 if size == 224 else 4))


@pytest.mark.parametrize("use_batch_norm", [True, False])
def test_head_has_nothing_behind_its_last_layer(use_batch_norm: bool) -> None:
    head = mlp_head("head", 5, (7, 3), use_batch_norm=use_batch_norm)
    assert isinstance(head.layers[-1], keras.layers.Dense)
    assert head.layers[-1].use_bias
    norms = [layer for layer in head.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == use_batch_norm


@pytest.mark.parametrize(
    ("name", "size", "arguments", "kind", "message"),
    [
        ("binary_resnt", 28, {}, NetworkError, "Did you mean binary_resnet?"),
        ("binary_resnet", 28, {"wide": 3}, NetworkError, "does not take these arguments"),
        ("binary_resnet", 28, {"width": 33}, ConfigError, "not a multiple of 32"),
        ("binary_resnet", 28, {"depth": 0}, ConfigError, "depth 0"),
        ("binary_resnet", 8, {}, ConfigError, "too small"),
        ("float_resnet", 8, {}, ConfigError, "too small"),
        ("float_resnet", 28, {"width": -1}, ConfigError, "must be positive"),
    ],
)
def test_a_wrong_network_is_named(
    name: str, size: int, arguments: dict[str, int], kind: type[BsslError], message: str
) -> None:
    with pytest.raises(kind) as error:
        build_backbone(name, size, 1, arguments)
    assert message in str(error.value)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    network = Network("binary_resnet", Preprocessing(28, 1, (0.3,), (0.2,)), {"depth": 1})
    save_network(tmp_path, network, {"student": network.build()})
    return tmp_path


def test_a_saved_network_is_the_same_again(saved: Path) -> None:
    network = read_network(saved)
    model, again = network.build(), network.build()
    load_weights(saved, {"student": model})
    load_weights(saved, {"student": again})
    x = np.random.default_rng(0).standard_normal((3, 28, 28, 1)).astype(np.float32)
    np.testing.assert_array_equal(model(x), again(x))


@pytest.mark.parametrize("text", ["", "[]", "{", edited({"format": 2}), edited({"format": 1}), "\0", "{" * 100_000])
def test_a_damaged_description_is_one_clear_line(saved: Path, text: str) -> None:
    (saved / "network.json").write_text(text)
    with pytest.raises((NetworkError, RunFolderError)) as error:
        read_network(saved)
    assert "network.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_truncated_or_foreign_weight_file_is_one_clear_line(saved: Path) -> None:
    path, model = saved / "weights.safetensors", read_network(saved).build()
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:100], b"", b"\xff" * 64, b"\x80\x04\x95pickle"):
        path.write_bytes(damaged)
        with pytest.raises(RunFolderError, match="not a complete safetensors file"):
            load_weights(saved, {"student": model})
    path.unlink()
    with pytest.raises(RunFolderError, match="is missing"):
        load_weights(saved, {"student": model})


def test_weights_that_do_not_fit_are_named(saved: Path) -> None:
    path, model = saved / "weights.safetensors", read_network(saved).build()
    tensors, metadata = read_tensors(path)
    name = "student/stem_conv/kernel"
    for changed, message in (
        ({k: v for k, v in tensors.items() if k != name}, "tensor 'student/stem_conv/kernel' is missing"),
        (tensors | {name: tensors[name][:1]}, "tensor 'student/stem_conv/kernel' is float32[1, 3, 1, 32], not"),
        (tensors | {name: tensors[name].astype(np.float64)}, "is float64[3, 3, 1, 32], not float32"),
        (tensors | {"student/more": tensors[name]}, "tensor 'student/more' is unknown"),
    ):
        write_tensors(path, changed, metadata)
        with pytest.raises(RunFolderError) as error:
            load_weights(saved, {"student": model})
        assert message in str(error.value)
