"""Export and check of a network of larq-zoo with a weights file: a small one in the place of larq-zoo's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf.backend import keras, lq
from bssl_tf.errors import ConfigError, ConversionError, UsageError
from bssl_tf.keras_files import models as keras_models
from bssl_tf.workflows.check import check
from bssl_tf.workflows.export import export
from bssl_tf_deploy import load
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.library import host_target
from tests.converters.networks import settle_norms, write_run_folder

SIZE = 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network(seed: int, classes: int = 3) -> keras.Model:
    keras.utils.set_random_seed(seed)
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(32, 3, padding="same", use_bias=False)(image))
    settings: dict[str, Any] = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "pad_values": 1.0}
    y = lq.layers.QuantConv2D(32, 3, padding="same", use_bias=False, kernel_constraint="weight_clip", **settings)(x)
    x = keras.layers.Add()([keras.layers.BatchNormalization()(y), x])
    x = keras.layers.Dense(classes)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, keras.layers.Activation("softmax")(x), name="small")
    settle_norms(model, np.random.default_rng(1).normal(0, 1, (64, SIZE, SIZE, 3)).astype(np.float32), 7)
    return model


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_models, "zoo_networks", lambda: {"Small": lambda weights: network(2)})


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder, rng = tmp_path / "pictures", np.random.default_rng(5)
    for name in ("ant", "bee", "cat"):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_a_bundle_says_what_the_weights_say_of_pixels_as_larq_zoo_takes_them(
    zoo: None, pictures: Path, tmp_path: Path
) -> None:
    trained = network(1)
    trained.save_weights(tmp_path / "trained.h5")
    call: dict[str, Any] = {"target": host_target(), "data": pictures, "images": 24}
    export("larq_zoo:Small", weights=tmp_path / "trained.h5", out=tmp_path / "bundle", **call)
    bundle = read_bundle(tmp_path / "bundle")
    assert (bundle.manifest.preprocessing.mean, bundle.manifest.preprocessing.std) == (MEAN, STD)
    predictor = load(bundle, runtime="lce")
    for file in sorted((bundle.path / "examples").iterdir()):
        image = (np.asarray(Image.open(file)) / 255 - MEAN) / STD
        scores = trained(image[np.newaxis].astype(np.float32), training=False).numpy()[0]
        [best] = predictor.classify([file])
        assert dict(best) == pytest.approx(
            dict(zip(bundle.manifest.table.labels, scores.tolist(), strict=True)), rel=1e-3
        )
    # What is said wins, each for itself.
    export("larq_zoo:Small", mean=(0.5,), out=tmp_path / "other", **call)
    preprocessing = read_bundle(tmp_path / "other").manifest.preprocessing
    assert (preprocessing.mean, preprocessing.std) == ((0.5,) * 3, STD)


def test_check_takes_weights_too(zoo: None, tmp_path: Path) -> None:
    network(1).save_weights(tmp_path / "trained.h5")
    network(1, classes=4).save_weights(tmp_path / "four.h5")
    found = check("larq_zoo:Small", weights=tmp_path / "trained.h5")
    assert found.sound and found.binary is not None and found.binary.binary_convolutions == 1
    with pytest.raises(ConversionError, match="has 32x3 and 3, and the file 32x4 and 4 for dense") as caught:
        check("larq_zoo:Small", convert=False, weights=tmp_path / "four.h5")
    assert "\n" not in str(caught.value)


def test_what_has_weights_of_its_own_takes_none(tmp_path: Path) -> None:
    network(1).save(tmp_path / "model.h5")
    with pytest.raises(ConfigError, match=r"has weights of its own\. --weights is for"):
        check(tmp_path / "model.h5", weights=tmp_path / "model.h5")
    run = write_run_folder(tmp_path / "run")
    with pytest.raises(UsageError, match="--weights does not go with a run folder"):
        export(run, target=host_target(), weights=tmp_path / "model.h5")
