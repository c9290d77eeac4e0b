"""Networks and run folders for the tests of conversion, made once: random, but with the statistics of real images."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from bssl_tf.backend import keras
from bssl_tf.data.image_set import ImageSet
from bssl_tf.data.load import load_data
from bssl_tf.data.preprocessing import evaluation_views, fit_preprocessing
from bssl_tf.evaluation.linear_probe import LinearProbe, save_probe
from bssl_tf.methods.registry import read_run
from bssl_tf.models.registry import build_backbone
from bssl_tf.models.saved import Network, save_network
from bssl_tf.settings import DataConfig, PretrainConfig, write_config

DEPTH = 1


@functools.cache
def image_set() -> ImageSet:
    """The embedded test images."""
    test = load_data("embedded", image_size=28).test
    assert test is not None
    return test


def embedded_images(image_size: int, channels: int, count: int) -> np.ndarray:
    """float32 [count, S, S, C], spread over the embedded test images."""
    pictures = load_data("embedded", image_size=image_size, channels=channels, limit=count).test
    assert pictures is not None
    return evaluation_views(pictures, fit_preprocessing(pictures, image_size), np.arange(len(pictures)))


def settle_norms(model: keras.Model, images: np.ndarray, seed: int) -> None:
    """Gives batch norms random scales of both signs, random shifts, and the statistics of `images`."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, _, mean, variance = layer.get_weights()
            width = len(gamma)
            signs = rng.choice([1, 1, 1, -1], width)
            layer.set_weights([rng.uniform(0.5, 1.5, width) * signs, rng.normal(0, 0.5, width), mean, variance])
    for _ in range(20):
        model(images[rng.integers(0, len(images), 32)], training=True)


@functools.cache
def backbone(image_size: int, channels: int) -> keras.Model:
    """A binary_resnet that looks like a trained one."""
    keras.utils.set_random_seed(image_size)
    model = build_backbone("binary_resnet", image_size, channels, {"depth": DEPTH})
    settle_norms(model, embedded_images(image_size, channels, 64), image_size)
    return model


def random_probe(model: keras.Model, images: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights [D, K] and bias [K] whose logits are spread around zero."""
    features = model(images, training=False).numpy()
    width = features.shape[1]
    drawn = np.random.default_rng(0).normal(0, 1, (width, classes))
    weights = drawn / (features.std(axis=0)[:, np.newaxis] + 1e-3) / np.sqrt(width)
    return weights.astype(np.float32), (-features.mean(axis=0) @ weights).astype(np.float32)


def write_run_folder(run: Path, classes: int = 10) -> Path:
    """What `bssl-tf pretrain` and `bssl-tf evaluate` leave, as far as export reads it."""
    model = backbone(28, 1)
    images = embedded_images(28, 1, 64)
    weights, bias = random_probe(model, images, classes)
    data = DataConfig(source="embedded", image_size=28, channels=1)
    tables = {"data": dataclasses.asdict(data)}
    write_config(run / "config.toml", read_run(PretrainConfig, tables).tables())
    network = Network("binary_resnet", fit_preprocessing(image_set(), 28), {"depth": DEPTH})
    save_network(run / "student", network, {"student": model})
    save_probe(run / "probe", LinearProbe(weights, bias, image_set().class_names, 12.5, data))
    return run
