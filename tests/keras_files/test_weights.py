"""Weights files come back as they were saved, and one that does not fit or means harm is one line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest

from bssl_tf.backend import keras, lq
from bssl_tf.errors import ConfigError, ConversionError
from bssl_tf.keras_files import models as keras_models
from bssl_tf.keras_files.models import open_model, zoo_networks
from bssl_tf.keras_files.weights import load_weights_file
from tests.conftest import require_or_skip

layers = keras.layers


def network(seed: int, *, classes: int = 3, depth: int = 2, names: str = "layer", turned: bool = False) -> keras.Model:
    """Binary convolutions of one shape and a classifier, with random weights; `turned` swaps two names."""
    keras.utils.set_random_seed(seed)
    numbers = list(range(depth))
    x = image = keras.Input((8, 8, 32))
    for number in reversed(numbers) if turned else numbers:
        quantized: dict[str, Any] = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        x = lq.layers.QuantConv2D(32, 3, **quantized, kernel_constraint="weight_clip", name=f"{names}_{number}")(x)
        x = layers.BatchNormalization(name=f"{names}_norm_{number}")(x)
    x = layers.Dense(classes, name=f"{names}_top")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x, name="small")
    rng = np.random.default_rng(seed)
    # Variances stay above zero.
    signs = {4: (-1, 1), 2: (-1, 1), 1: (1,)}
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights([rng.uniform(0.1, 1, shape) * rng.choice(signs[len(shape)], shape) for shape in shapes])
    return model


def without_top(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.layers[-2].output, name=model.name)


def answers(model: keras.Model) -> np.ndarray:
    images = np.random.default_rng(0).normal(0, 1, (4, 8, 8, 32)).astype(np.float32)
    return np.asarray(model(images))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of `network(1)`. Not to be changed."""
    path = tmp_path_factory.mktemp("weights") / "small.h5"
    network(1).save_weights(path)
    return path


@pytest.mark.parametrize("names", ["layer", "other"])
@pytest.mark.parametrize("form", ["weights", "model", "binarised"])
def test_weights_come_back(names: str, form: str, tmp_path: Path) -> None:
    model, path = network(1), tmp_path / "file.h5"
    if form == "model":
        model.save(path)
    else:
        with lq.context.quantized_scope(form == "binarised"):
            model.save_weights(path)
    with h5py.File(path) as file:
        kernel = (file["model_weights"] if form == "model" else file)["layer_0/layer_0/kernel:0"][()]
    assert (set(np.unique(kernel)) == {-1.0, 1.0}) == (form == "binarised")
    loaded = network(2, names=names)
    assert not np.allclose(answers(loaded), answers(model))
    load_weights_file(loaded, path)
    np.testing.assert_array_equal(answers(loaded), answers(model))


def test_names_win_over_the_order(saved: Path) -> None:
    turned = network(2, turned=True)
    load_weights_file(turned, saved)
    for name in ("layer_0", "layer_1", "layer_norm_1", "layer_top"):
        for mine, theirs in zip(turned.get_layer(name).weights, network(1).get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: network(2, classes=5), r"layer layer_top has 32x5 and 5, and the file 32x3 and 3 for layer_top"),
        (lambda: network(2, classes=5, names="x"), r"layer x_top has 32x5 and 5, and the file 32x3 and 3 for layer_t"),
        (lambda: network(2, depth=1), r"layer layer_top has 32x3 and 3, and the file 3x3x32x32 and 32 for layer_1"),
        (lambda: network(2, depth=3), r"layer layer_2 has 3x3x32x32 and 32, and the file 32x3 and 3 for layer_top"),
        (lambda: without_top(network(2)), r"small has no layer for layer_top"),
    ],
    ids=["classes", "classes by order", "fewer", "more", "without top"],
)
def test_what_does_not_fit_names_the_first_layer_and_changes_nothing(
    made: Callable[[], keras.Model], message: str, saved: Path
) -> None:
    model = made()
    before = model.get_weights()
    with pytest.raises(ConversionError, match=f"does not fit .*{message}") as caught:
        load_weights_file(model, saved)
    assert "\n" not in str(caught.value)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def replaced(file: h5py.File, **settings: Any) -> None:
    """The last weight of the file becomes a data set of another making."""
    group = file["layer_top/layer_top"]
    del group["bias:0"]
    group.create_dataset("bias:0", (3,), **settings)


def version(text: str) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.modify("keras_version", text)


def linked(file: h5py.File) -> None:
    del file["layer_top/layer_top/bias:0"]
    file["layer_top/layer_top/bias:0"] = h5py.ExternalLink("other.h5", "secret")


def linked_group(file: h5py.File) -> None:
    """Reading it would wait for somebody who writes into the pipe."""
    pipe = Path(file.filename).with_name("pipe.h5")
    os.mkfifo(pipe)
    del file["layer_top"]
    file["layer_top"] = h5py.ExternalLink(str(pipe), "/")


def chunked(file: h5py.File) -> None:
    """A few weights in a chunk of 4 GiB, which gzip makes small."""
    group = file["layer_top/layer_top"]
    shape = group["kernel:0"].shape
    del group["kernel:0"]
    group.create_dataset("kernel:0", shape, "f4", maxshape=(None, None), chunks=(2**10, 2**20 - 1), compression="gzip")


def virtual(file: h5py.File) -> None:
    del file["layer_top/layer_top/bias:0"]
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "secret", (3,))
    file["layer_top/layer_top"].create_virtual_dataset("bias:0", layout)


def enormous(file: h5py.File) -> None:
    group = file["layer_top/layer_top"]
    del group["kernel:0"]
    group.create_dataset("kernel:0", (2**40, 2**20), "f4", chunks=(1, 1024))


def nan(file: h5py.File) -> None:
    file["layer_top/layer_top/bias:0"][...] = np.nan


def nowhere(file: h5py.File) -> None:
    file["layer_top"].attrs["weight_names"] = [b"layer_top/none:0"]


def nameless(file: h5py.File) -> None:
    del file.attrs["layer_names"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (enormous, "and the file 1099511627776x1048576 and 3 for layer_top"),
        (lambda file: replaced(file, dtype="f4", external=[("secret.txt", 0, 12)]), "no numbers of its own"),
        (linked, "points at other files"),
        (linked_group, "points at other files"),
        (chunked, r"has chunks of \(1024, 1048575\) for layer layer_top"),
        (virtual, "no numbers of its own for layer layer_top"),
        (lambda file: replaced(file, dtype="S4"), "no numbers of its own"),
        (lambda file: replaced(file, dtype=h5py.string_dtype()), "no numbers of its own"),
        (nan, "has NaN or infinity for layer layer_top"),
        (nowhere, "cannot be read as HDF5"),
        (nameless, "has no weights by layer"),
        (version("1.2"), r"was saved by Keras 1\.2"),
        (version("3.1"), r"was saved by Keras 3\.1"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_means_harm_or_is_damaged_is_one_line(
    change: Callable[[h5py.File], None], message: str, saved: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copy(saved, tmp_path))
    # What a link or an outside file would bring in is there, and of the right size.
    (tmp_path / "secret.txt").write_bytes(b"secretsecret")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.ones(3, np.float32)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ConversionError, match=message) as caught:
        load_weights_file(network(2), path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_file_that_was_cut_is_one_line(kept: float, saved: Path, tmp_path: Path) -> None:
    path, content = tmp_path / "cut.h5", saved.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    for file in (path, tmp_path / "none.h5"):
        with pytest.raises(ConversionError) as caught:
            load_weights_file(network(2), file)
        assert "\n" not in str(caught.value)


def test_only_networks_of_larq_zoo_take_weights(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_models, "zoo_networks", lambda: {"Small": lambda weights: network(2)})
    np.testing.assert_array_equal(answers(open_model("larq_zoo:Small", saved)), answers(network(1)))
    network(1).save(tmp_path / "model.h5")
    with pytest.raises(ConfigError, match=r"model\.h5 has weights of its own"):
        open_model(str(tmp_path / "model.h5"), saved)


@pytest.mark.slow
def test_a_real_network_of_larq_zoo_takes_its_file_as_it_does_itself(tmp_path: Path) -> None:
    networks = zoo_networks()
    require_or_skip(bool(networks), "needs larq-zoo")
    keras.utils.set_random_seed(1)
    networks["BinaryDenseNet28"](weights=None).save_weights(tmp_path / "file.h5")
    theirs = networks["BinaryDenseNet28"](weights=str(tmp_path / "file.h5"))
    ours = open_model("larq_zoo:BinaryDenseNet28", tmp_path / "file.h5")
    for one, other in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    networks["BinaryDenseNet28"](weights=None, num_classes=10).save_weights(tmp_path / "ten.h5")
    with pytest.raises(ConversionError, match=r"layer dense\S* has \d+x1000 and 1000, and the file \d+x10 and 10"):
        open_model("larq_zoo:BinaryDenseNet28", tmp_path / "ten.h5")


def test_pixels_are_normalised_as_larq_zoo_does() -> None:
    larq_zoo = pytest.importorskip("larq_zoo")
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    flat = np.broadcast_to(pixels[:1, :1], pixels.shape).copy()
    theirs = larq_zoo.preprocess_input(flat)
    ours = (flat[:224, :224] / 255 - keras_models.ZOO_MEAN) / keras_models.ZOO_STD
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
