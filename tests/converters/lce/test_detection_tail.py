"""TFLite's operator for boxes at the end of a model: the boxes that numpy makes of the same outputs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tflite

from bssl_tf.backend import keras
from bssl_tf.errors import ConversionError
from bssl_tf_converters.lce import detection_tail
from bssl_tf_converters.lce.converter import LceInterpreter, convert, output_names
from bssl_tf_converters.lce.detection_tail import OPERATOR, append_tail
from bssl_tf_converters.tflite.model import operator_histogram, read_model
from bssl_tf_deploy import manifest as m
from bssl_tf_deploy.library import own_library
from bssl_tf_deploy.litert import LiteRtInterpreter
from bssl_tf_deploy.tasks.detection import FINAL_OUTPUTS, Detection, Table, final_outputs
from bssl_tf_deploy.tasks.task import View

HEIGHT, WIDTH, STRIDES, LABELS = 64, 96, (8, 16), ("a", "b", "c")
MOST = {"float32": 20, "int8": 300}
TABLES = {kind: Table(LABELS, STRIDES, "letterbox", 0.3, 0.6, most, None) for kind, most in MOST.items()}
TABLE = TABLES["float32"]
NAMES = tuple(f"{part}_{stride}" for stride in STRIDES for part in ("scores", "boxes"))


def head() -> keras.Model:
    """Maps of random numbers, of which some tens of boxes overlap."""
    image = keras.layers.Input((HEIGHT, WIDTH, 3), name="image")
    outputs = []
    for stride in STRIDES:
        for part, last, spread in (("scores", 3, 1.5), ("boxes", 4, 0.4)):
            initial = keras.initializers.RandomNormal(stddev=spread, seed=stride + last)
            layer = keras.layers.Conv2D(
                last,
                stride,
                strides=stride,
                kernel_initializer=keras.initializers.RandomNormal(stddev=spread / stride, seed=stride * last),
                bias_initializer=initial,
                name=f"{part}_{stride}",
            )
            outputs.append(layer(image))
    return keras.Model(image, outputs, name="head")


def images(count: int = 6) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, HEIGHT, WIDTH, 3)).astype(np.float32)


@functools.cache
def made(kind: str) -> tuple[bytes, bytes]:
    """The model before and after."""
    options: dict[str, Any] = {"calibration": images(20), "int8_ends": True} if kind == "int8" else {}
    model = convert(head(), "arm64", outputs=NAMES, **options)
    return model, append_tail(model, TABLES[kind], (WIDTH, HEIGHT))


def ran(model: bytes, interpreter: Any, given: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(output_names(model), interpreter.run([given]), strict=True))


def same(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> None:
    assert tuple(found) == FINAL_OUTPUTS and expected.keys() == found.keys()
    assert expected["count"].min() > 3 and len(set(expected["classes"].ravel())) == 3
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=detection_tail.TOLERANCE, err_msg=name)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_the_operator_gives_the_boxes_of_numpy_in_every_interpreter(kind: str) -> None:
    plain, model = made(kind)
    given = images()
    before = LceInterpreter(plain)
    [quantization] = before.input_quantizations
    assert (quantization is not None) == (kind == "int8")
    if quantization is not None:
        given = quantization.integers(given)
    interpreters: list[Callable[[bytes], Any]] = [LceInterpreter, LiteRtInterpreter]
    if (library := own_library()) is not None:
        interpreters.append(functools.partial(LiteRtInterpreter, library=library))
    for interpreter in interpreters:
        # Of its own outputs, so that only decoding and suppression can differ.
        expected = final_outputs(ran(plain, interpreter(plain), given), TABLES[kind], (WIDTH, HEIGHT))
        found = ran(model, interpreter(model), given)
        if kind == "int8":
            # Many boxes have one score, and may come in any order.
            assert not detection_tail._off(expected, found, detection_tail.TOLERANCE).any()
        else:
            same(expected, found)
    # Of floats so few are given that some are left; of int8 all.
    assert np.all((expected["count"] == MOST["float32"]) if kind == "float32" else (expected["count"] < MOST["int8"]))


def test_apps_find_four_outputs_in_their_order_and_nothing_else_has_changed() -> None:
    plain, model = made("float32")
    read = read_model(model)
    assert [one.shape for one in read.outputs] == [(1, 20, 4), (1, 20), (1, 20), (1,)]
    assert all(one.dtype == "float32" for one in read.outputs) and len(read.inputs) == 1
    graph = tflite.Model.GetRootAsModel(model, 0).Subgraphs(0)
    names = [graph.Tensors(int(place)).Name().decode() for place in graph.OutputsAsNumpy()]
    assert names == [OPERATOR, f"{OPERATOR}:1", f"{OPERATOR}:2", f"{OPERATOR}:3"]
    before, after = operator_histogram(plain), operator_histogram(model)
    assert after[OPERATOR] == 1 and all(after[name] >= count for name, count in before.items())
    # Kernels read constants sixteen bytes at a time.
    found = tflite.Model.GetRootAsModel(model, 0)
    places = [found.Buffers(number) for number in range(found.BuffersLength())]
    starts = [one._tab.Vector(one._tab.Offset(4)) for one in places if one.DataLength()]
    assert len(starts) > 10 and all(start % 16 == 0 for start in starts)


def test_boxes_on_the_picture_are_those_of_the_maps() -> None:
    plain, model = made("float32")
    preprocessing = m.Preprocessing(HEIGHT, WIDTH, 3, (0.0,) * 3, (1.0,) * 3)
    view = View(-0.25, 0.0, 1.25, 1.0, 640, 480)
    answers = []
    for one in (plain, model):
        outputs = ran(one, LceInterpreter(one), images(1))
        signature = tuple(m.TensorSignature(name, (1, *array.shape[1:]), "float32") for name, array in outputs.items())
        about = dataclasses.make_dataclass("About", ["table", "preprocessing", "outputs"])(
            TABLE, preprocessing, signature
        )
        answers.append(Detection().decode({name: array[0] for name, array in outputs.items()}, about, view, 100))
    assert len(answers[0]) > 3 and [one.label for one in answers[0]] == [one.label for one in answers[1]]
    np.testing.assert_allclose([one[1:] for one in answers[1]], [one[1:] for one in answers[0]], atol=0.01)


def test_an_operator_that_finds_other_boxes_is_refused() -> None:
    found = final_outputs(ran(made("float32")[0], LceInterpreter(made("float32")[0]), images()), TABLE, (WIDTH, HEIGHT))
    detection_tail._require_same(found, found)
    for name, by in (("boxes", 0.01), ("classes", 1.0), ("scores", 0.01), ("count", -1.0)):
        with pytest.raises(ConversionError, match="other boxes than numpy on 6 of 6 images"):
            detection_tail._require_same(found, found | {name: found[name] + np.float32(by)})
    # Two of one score may change places.
    turned = {name: array.copy() for name, array in found.items()}
    turned["scores"][:, :2] = turned["scores"][:, :1]
    swapped = {name: array[:, [1, 0, *range(2, 20)]] if array.ndim > 1 else array for name, array in turned.items()}
    detection_tail._require_same(turned, swapped)
    # And of those of the last score others may be given, where there are more than places.
    assert np.all(found["count"] == 20)
    cut = {name: array.copy() for name, array in found.items()}
    cut["scores"][:, -2] = cut["scores"][:, -1]
    other = {name: array.copy() for name, array in cut.items()}
    other["boxes"][:, -2:] += 0.1
    detection_tail._require_same(cut, other)
    with pytest.raises(ConversionError, match="other boxes"):
        detection_tail._require_same(found | {"count": found["count"] - 1}, other | {"count": found["count"] - 1})
