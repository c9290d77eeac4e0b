"""Networks from elsewhere: of another package, with quantisers of other kinds, with models in them."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from bssl_tf.backend import keras, lq, tf
from bssl_tf.checkpoints import read_tensors
from bssl_tf.errors import NetworkError
from bssl_tf.models import registry
from bssl_tf.models.binarization import (
    binarize,
    binary_layers,
    named_weights,
    quantizes_weights,
    sign_kernels,
    take_weights,
)
from bssl_tf.models.precision import HalfPrecisionQuantConv2D, in_precision
from bssl_tf.models.saved import Network, load_weights, read_network, save_network
from bssl_tf.preprocessing import Preprocessing

layers = keras.layers
PREPROCESSING = Preprocessing(12, 1, (0.5,), (0.5,))


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, entry: str = "packed = netpack.network:network") -> None:
    """Lays the package into `folder` as pip does, for this process to import from."""
    shutil.copytree(Path(__file__).parent / "package" / "netpack", folder / "netpack")
    info = folder / "netpack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: netpack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{entry}\n")
    monkeypatch.syspath_prepend(str(folder))
    for name in ("netpack", "netpack.network"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()


def images(channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 12, 12, channels)).astype(np.float32)


def test_a_network_of_another_package_may_have_code_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    assert registry.names() == [*registry.BACKBONES, "packed"]
    network = Network("packed", PREPROCESSING, {"width": 64})
    model = network.build()
    assert model.output_shape == (None, 64)
    named_weights(model)["conv/scale"].assign(0.25)
    save_network(tmp_path / "saved", network, {"student": model})
    again = read_network(tmp_path / "saved").build()
    load_weights(tmp_path / "saved", {"student": again})
    np.testing.assert_array_equal(again(images()), model(images()))

    # The learned scale goes with its quantiser, and what a stage without it has learnt comes back.
    first = binarize(model, weights=False)
    assert not quantizes_weights(first) and len(first.weights) == len(model.weights) - 1
    first.get_layer("stem").kernel.assign_add(np.ones(first.get_layer("stem").kernel.shape))
    second = binarize(network.build(), weights=True)
    take_weights(second, first)
    np.testing.assert_array_equal(second.get_layer("stem").kernel, first.get_layer("stem").kernel)
    assert float(named_weights(second)["conv/scale"]) == 1.0

    # Without the package the message names what is missing.
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(tmp_path)])
    with pytest.raises(NetworkError, match=r"no network is called 'packed'.*install the package that provides it"):
        read_network(tmp_path / "saved").build()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("packed = netpack.nothing:network", "network packed cannot be loaded from netpack.nothing:network"),
        ("packed = netpack.network:NOTHING", "netpack.network:NOTHING is not a function that builds a network"),
        ("packed = netpack.network:any_size", r"packed takes \[any, any, 1\], and was to be built for \[12, 12, 1\]"),
    ],
)
def test_a_broken_package_is_named(entry: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, entry)
    with pytest.raises(NetworkError, match=message):
        registry.build_backbone("packed", 12, 1, {})


def test_what_keras_cannot_copy_is_told_with_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "packed = netpack.network:not_copied")
    model = registry.build_backbone("packed", 12, 1, {})
    with pytest.raises(NetworkError, match=r"layers of not_copied cannot be copied.*register_keras_serializable"):
        binarize(model, weights=True)


def nested(kernel: str = "magnitude_aware_sign") -> keras.Model:
    """Two inner models whose layers are called alike, one of them twice in use; a wrapper; a depthwise quantiser."""

    def inner(name: str) -> keras.Model:
        image = keras.Input((12, 12, 32))
        x = lq.layers.QuantConv2D(
            32,
            3,
            padding="same",
            input_quantizer="ste_sign",
            kernel_quantizer=kernel,
            kernel_constraint="weight_clip",
            name="conv",
        )(image)
        return keras.Model(image, layers.BatchNormalization(name="norm")(x), name=name)

    image = keras.Input((12, 12, 1), name="image")
    x = layers.Conv2D(32, 1, name="stem")(image)
    shared = inner("shared")
    x = layers.Add(name="add")([shared(x), shared(inner("other")(x))])
    x = lq.layers.QuantDepthwiseConv2D(
        3, depthwise_quantizer="dorefa_quantizer", depthwise_constraint=keras.constraints.MaxNorm(2.0), name="depth"
    )(x)
    x = layers.Reshape((1, 10, 10, 32), name="sequence")(x)
    wrapped = lq.layers.QuantConv2D(32, 1, input_quantizer="ste_sign", kernel_quantizer=kernel, name="wrapped")
    x = layers.TimeDistributed(wrapped, name="each")(x)
    return keras.Model(image, layers.Flatten(name="flat")(x)[:, ::100], name="nested")


def test_quantisers_go_off_and_on_at_any_depth_and_weights_have_names_of_their_own() -> None:
    model = nested()
    first, second = binarize(model, weights=False), binarize(model, weights=True)
    assert quantizes_weights(model) and not quantizes_weights(first) and quantizes_weights(second)
    assert len(binary_layers(model)) == len(binary_layers(second)) == 3 and not binary_layers(first)
    names = list(named_weights(model))
    assert {"shared/conv/kernel", "other/conv/kernel", "each/kernel"} <= set(names)
    for copy in (first, second):
        assert list(named_weights(copy)) == names
        for mine, theirs in zip(copy.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(second(images()), model(images()))
    assert np.abs(first(images()) - model(images())).max() > 0
    # Clipping belongs to the quantiser, another constraint does not.
    assert first.get_layer("shared").get_layer("conv").kernel_constraint is None
    assert isinstance(second.get_layer("shared").get_layer("conv").kernel_constraint, lq.constraints.WeightClip)
    assert isinstance(first.get_layer("depth").depthwise_constraint, keras.constraints.MaxNorm)
    # What is trained is the whole of it.
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(first(images(), training=True) ** 2)
    assert all(gradient is not None for gradient in tape.gradient(loss, first.trainable_variables))


def test_half_precision_reaches_models_in_the_model_and_no_quantiser_of_another_kind() -> None:
    half = in_precision(nested(), "float16")
    assert isinstance(half.get_layer("other").get_layer("conv"), HalfPrecisionQuantConv2D)
    assert half.get_layer("stem").compute_dtype == "float16" and half.get_layer("depth").compute_dtype == "float32"
    assert list(named_weights(half)) == list(named_weights(nested()))


@pytest.mark.parametrize(("kernel", "packed"), [("approx_sign", 3), ("magnitude_aware_sign", 3), ("ste_tern", 0)])
def test_only_signs_are_packed(kernel: str, packed: int, tmp_path: Path) -> None:
    """Of ternary weights, or of others that are more than a sign, the zoo keeps all."""
    model = nested(kernel)
    assert len(sign_kernels(model)) == packed
    save_network(tmp_path, Network("nested", PREPROCESSING), {"student": model}, packed=True)
    assert sum(name.endswith("/signs") for name in read_tensors(tmp_path / "weights.safetensors")[0]) == packed
    again = nested(kernel)
    load_weights(tmp_path, {"student": again})
    np.testing.assert_allclose(again(images()), model(images()), rtol=1e-4, atol=1e-4)
