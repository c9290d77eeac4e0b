"""Makes a network with random weights and converts it: for LCE, with float and with int8 ends; in float32; in int8."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cache
from benchmarks.agreement import agreement
from benchmarks.networks import BINARY, BINARY_INT8, FLOAT32, MOBILENET, MOBILENET_V3, Network
from bssl_tf.backend import keras, lq
from bssl_tf.errors import ConversionError
from bssl_tf.models.efficientnet_lite0 import efficientnet_lite0
from bssl_tf.models.layers import LearnedShift
from bssl_tf.models.opponents import settle
from bssl_tf.models.registry import build_backbone
from bssl_tf_converters.lce import converter as lce
from bssl_tf_converters.lce.deployable import with_classifier
from bssl_tf_converters.lce.float_reference import convert_float, float_twin
from bssl_tf_converters.tflite.model import operator_histogram

_CLASSES = 1000
_SETTLING_IMAGES = 8
_CHECKED_IMAGES = 32
_CALIBRATION_IMAGES = 8


def convert_missing(folder: Path, network: Network) -> dict[str, Any]:
    """Makes those models of `network` that `folder` lacks.

    Returns:
        What was made: kind -> what its JSON file says beside versions.

    Raises:
        ConversionError: a converter refuses the network, or LCE's interpreter does not give what Keras gives.
        StorageError: a file cannot be written.
    """
    missing = [kind for kind in network.kinds if cache.load(folder, network.name, kind) is None]
    made: dict[str, Any] = {}
    if not missing:
        return made
    model = _keras_model(network)
    twin: keras.Model | None = None
    for kind in missing:
        start = time.perf_counter()
        about: dict[str, Any] = {}
        if kind == BINARY:
            content = lce.convert(model, "x86_64")
            about = _parity(model, content, network)
        elif kind == BINARY_INT8:
            content = lce.convert(model, "x86_64", calibration=_calibration(network), int8_ends=True)
        else:
            if twin is None:
                twin = model if BINARY not in network.kinds else float_twin(model)
                # With latent weights the activations have other statistics than with signs.
                settle(twin, cache.images(network.shape, _SETTLING_IMAGES))
                _temper(twin, network)
            content = convert_float(twin, None if kind == FLOAT32 else _calibration(network), int8_ends=True)
        about |= {"convert_s": round(time.perf_counter() - start, 1), "operators": operator_histogram(content)}
        cache.store(folder, network.name, kind, content, about)
        made[kind] = about
    return made


def _keras_model(network: Network) -> keras.Model:
    keras.utils.set_random_seed(cache.SEED)
    if network.source == "stack":
        model = _stack(network)
    elif network.source == "reactnet":
        model = _with_random_classifier(build_backbone("reactnet_a", network.shape[0], network.shape[2], {}))
    elif network.source == "opponent":
        model = _opponent(network)
    else:
        model = _zoo(network)
    _randomise(model)
    settle(model, cache.images(network.shape, _SETTLING_IMAGES))
    _temper(model, network)
    return model


def _opponent(network: Network) -> keras.Model:
    """One of `networks.OPPONENTS` with its ImageNet classifier."""
    whole = {"input_shape": network.shape, "weights": None, "classes": _CLASSES}
    if network.name == MOBILENET:
        return keras.applications.MobileNetV2(**whole)
    if network.name == MOBILENET_V3:
        return keras.applications.MobileNetV3Small(**whole, include_preprocessing=False)
    return _with_random_classifier(efficientnet_lite0(network.shape[0], network.shape[2]))


def _with_random_classifier(backbone: keras.Model) -> keras.Model:
    weights = np.random.default_rng(cache.SEED).normal(0, 0.05, (backbone.output_shape[-1], _CLASSES))
    return with_classifier(backbone, weights.astype(np.float32), np.zeros(_CLASSES, np.float32))


def _stack(network: Network) -> keras.Model:
    image = keras.layers.Input(network.shape, name="image")
    x = keras.layers.Conv2D(network.shape[2], 1)(image) if network.has_stem else image
    for _ in range(network.layers):
        y = lq.layers.QuantConv2D(
            network.shape[2],
            3,
            padding="same",
            pad_values=1.0,
            use_bias=False,
            activation="relu",
            input_quantizer="ste_sign",
            kernel_quantizer="ste_sign",
            kernel_initializer="glorot_normal",
        )(x)
        x = keras.layers.Add()([keras.layers.BatchNormalization()(y), x])
    return keras.Model(image, x, name="stack")


def _zoo(network: Network) -> keras.Model:
    try:
        import larq_zoo
    except ImportError as error:
        raise ConversionError(f"larq-zoo cannot be loaded ({error})", "Run `make setup`") from error
    builder = getattr(larq_zoo.sota, network.name, None) or getattr(larq_zoo.literature, network.name)
    return builder(input_shape=network.shape, weights=None)


def _randomise(model: keras.Model) -> None:
    """Draws what starts as 0 or 1 in every channel: a converter would fold it away, or take its uniformity for granted.

    One batch norm scale in four is negative, which turns a threshold round.
    """
    rng = np.random.default_rng(cache.SEED)
    for layer in model.submodules:
        if isinstance(layer, keras.layers.BatchNormalization):
            if layer.gamma is not None:
                signs = rng.choice([1, 1, 1, -1], layer.gamma.shape)
                layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape) * signs)
            if layer.beta is not None:
                layer.beta.assign(rng.normal(0, 0.3, layer.beta.shape))
        elif isinstance(layer, LearnedShift):
            layer.shift.assign(rng.normal(0, 0.3, layer.shift.shape))
        elif isinstance(layer, keras.layers.PReLU):
            layer.alpha.assign(rng.uniform(0.05, 0.4, layer.alpha.shape))


def _temper(model: keras.Model, network: Network) -> None:
    """Scales the classifier so that logits are spread by about 1: a saturated softmax hides every difference."""
    last = model.layers[-1]
    softmax = getattr(last, "activation", None) is keras.activations.softmax
    if not (softmax and isinstance(last, keras.layers.Activation)) and not isinstance(last, keras.layers.Softmax):
        return
    classifier = last.input._keras_history.layer
    # Behind a batch norm the spread is right already.
    if isinstance(classifier, keras.layers.Dense):
        logits = keras.Model(model.input, last.input)
        spread = float(np.std(logits(cache.images(network.shape, _SETTLING_IMAGES), training=False).numpy()))
        classifier.set_weights([weights / max(spread, 1.0) for weights in classifier.get_weights()])


def _parity(model: keras.Model, content: bytes, network: Network) -> dict[str, Any]:
    """How LCE's interpreter agrees with Keras. Raises `ConversionError` where it agrees on fewer than two images.

    In a deep network of random weights a single flipped sign (see `parity`) grows until it moves the logits by as much
    as a fault would, and the two round differently in every layer, so that most images may have one. A fault moves
    them all: two images that agree within rounding prove that there is none.
    """
    batch = cache.images(network.shape, _CHECKED_IMAGES, cache.SEED + 1)
    interpreter = lce.LceInterpreter(content)
    outputs = np.concatenate([interpreter.predict(batch[i : i + 1]) for i in range(len(batch))])
    expected = np.concatenate([model(batch[i : i + 4], training=False).numpy() for i in range(0, len(batch), 4)])
    found = agreement(expected.reshape(len(batch), -1), outputs.reshape(len(batch), -1))
    fault = found.fault(min_share_of_images=2 / _CHECKED_IMAGES)
    if fault is not None:
        raise ConversionError(
            f"{network.name} gives other numbers in LCE than in Keras: {fault}",
            "Convert it layer by layer to find the one that differs",
        )
    return {"keras_" + name: value for name, value in dataclasses.asdict(found).items()}


def _calibration(network: Network) -> np.ndarray:
    return cache.images(network.shape, _CALIBRATION_IMAGES, cache.SEED + 2)
