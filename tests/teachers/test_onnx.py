"""An ONNX file as a teacher gives the numbers of its network, whatever its layout, pixels and outputs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from bssl_tf.backend import keras, tf
from bssl_tf.errors import ConversionError, NetworkError
from bssl_tf.keras_files.models import open_file
from bssl_tf.models.float_resnet import float_resnet
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.teachers.inputs import TeacherOptions
from bssl_tf.teachers.teacher import Teacher, load_teacher
from tests.teachers.onnx_models import UINT8, Linear, from_keras, model, save, tensor, value

STUDENT = Preprocessing(8, 3, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
IMAGENET = (np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32))
NORMALISED = TeacherOptions("normalized")


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (3, 8, 8, 3), np.uint8)


@pytest.fixture
def linear(rng: np.random.Generator) -> Linear:
    return Linear(rng)


def features(teacher: Teacher, pixels: np.ndarray) -> np.ndarray:
    """In a graph, of the student's views of these pixels."""
    student = teacher.views
    assert student is not None
    made: np.ndarray = tf.function(teacher.features)(tf.constant(student.normalise(pixels))).numpy()
    return made


def transposed(*order: int) -> onnx.NodeProto:
    return helper.make_node("Transpose", ["image"], ["ready"], perm=order)


def arithmetic(*steps: tuple[str, Any], last: str = "ready") -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes from `image` to `last`, each with a constant."""
    nodes, weights, name = [], [], "image"
    for number, (kind, constant) in enumerate(steps):
        output = last if number + 1 == len(steps) else f"step{number}"
        nodes.append(helper.make_node(kind, [name, f"constant{number}"], [output]))
        weights.append(tensor(f"constant{number}", constant))
        name = output
    return nodes, weights


def test_an_onnx_model_in_pytorchs_layout_gives_numpys_numbers(
    linear: Linear, pixels: np.ndarray, tmp_path: Path
) -> None:
    teacher = load_teacher(str(save(tmp_path / "t.onnx", linear.made())), STUDENT, TeacherOptions("imagenet"))
    mean, std = IMAGENET
    wanted = linear.features((pixels / np.float32(255) - mean) / std)
    np.testing.assert_allclose(features(teacher, pixels), wanted, rtol=1e-4, atol=1e-5)
    assert (teacher.feature_width, teacher.embedding_width, teacher.own_image_size) == (5, 5, 8)
    about = teacher.describe()
    assert (about["layout"], about["output"], about["image_size"], about["channels"]) == ("nchw", "features", 8, 3)
    np.testing.assert_array_equal(teacher.embed(STUDENT.normalise(pixels)), teacher.features(STUDENT.normalise(pixels)))


def test_tensorflows_layout_and_a_symbolic_one_are_found(linear: Linear, pixels: np.ndarray, tmp_path: Path) -> None:
    given = STUDENT.normalise(pixels)
    last = linear.made([transposed(0, 3, 1, 2)], image=linear.image(last=True))
    nothing_fixed = linear.made([transposed(0, 3, 1, 2)], image=value("image", ["N", "a", "b", "c"]))
    for made in (last, nothing_fixed):
        teacher = load_teacher(str(save(tmp_path / "t.onnx", made)), STUDENT, NORMALISED)
        assert teacher.describe()["layout"] == "nhwc"
        np.testing.assert_allclose(teacher.features(given), linear.features(given), rtol=1e-4, atol=1e-5)
    # A convolution takes channels first.
    conv = [helper.make_node("Conv", ["image", "one"], ["ready"])]
    one = tensor("one", np.eye(3)[:, :, None, None])
    symbolic = linear.made(conv, [one], image=value("image", ["N", "a", "b", "c"]))
    teacher = load_teacher(
        str(save(tmp_path / "t.onnx", symbolic)), STUDENT, TeacherOptions("normalized", image_size=8)
    )
    assert teacher.describe()["layout"] == "nchw"
    np.testing.assert_allclose(teacher.features(given), linear.features(given), rtol=1e-4, atol=1e-5)


def test_a_layout_that_cannot_be_seen_is_asked_for(linear: Linear, pixels: np.ndarray, tmp_path: Path) -> None:
    path = str(save(tmp_path / "t.onnx", linear.made(image=value("image", ["N", "a", "b", "c"]))))
    with pytest.raises(NetworkError, match=r"--teacher-layout nchw \(as from PyTorch\)"):
        load_teacher(path, STUDENT, NORMALISED)
    teacher = load_teacher(path, STUDENT, TeacherOptions("normalized", image_size=8, layout="nchw"))
    given = STUDENT.normalise(pixels)
    np.testing.assert_allclose(teacher.features(given), linear.features(given), rtol=1e-4, atol=1e-5)
    with pytest.raises(NetworkError, match="not square images of 1 or 3 channels"):
        load_teacher(str(save(tmp_path / "t.onnx", linear.made())), STUDENT, TeacherOptions(layout="nhwc"))


# (steps of arithmetic at the head, metadata, mean and std of pixel / 255 that the model is to be given)
HEADS: list[tuple[list[tuple[str, Any]], dict[str, str], tuple[Any, Any]]] = [
    (
        [("Div", 255.0), ("Sub", IMAGENET[0].reshape(1, 3, 1, 1)), ("Div", IMAGENET[1].reshape(3, 1, 1))],
        {},
        (0, 1 / 255),
    ),
    ([("Mul", 1 / 127.5), ("Add", -1.0)], {}, (0, 1 / 255)),
    ([("Sub", IMAGENET[0].reshape(3, 1, 1)), ("Div", IMAGENET[1].reshape(3, 1, 1))], {}, (0, 1)),
    ([("Mul", 2.0), ("Sub", 1.0)], {}, (0, 1)),
    ([], {"Image__NominalPixelRange": "Normalized_1_1"}, (0.5, 0.5)),
    ([], {"Image__NominalPixelRange": "NominalRange_0_255"}, (0, 1 / 255)),
    ([], {"mean": "[0.485, 0.456, 0.406]", "std": "[0.229, 0.224, 0.225]"}, IMAGENET),
    ([], {"image_mean": "127.5", "image_std": "127.5"}, (0.5, 0.5)),
]


@pytest.mark.parametrize(("steps", "metadata", "constants"), HEADS)
def test_pixels_are_found_in_metadata_and_in_arithmetic(
    steps: list[tuple[str, Any]],
    metadata: dict[str, str],
    constants: tuple[Any, Any],
    linear: Linear,
    pixels: np.ndarray,
    tmp_path: Path,
) -> None:
    nodes, weights = arithmetic(*steps)
    teacher = load_teacher(str(save(tmp_path / "t.onnx", linear.made(nodes, weights, **metadata))), STUDENT)
    given = (pixels / np.float32(255) - constants[0]) / constants[1]
    inside = given.transpose(0, 3, 1, 2)
    for kind, constant in steps:
        apply: Any = {"Sub": np.subtract, "Add": np.add, "Mul": np.multiply, "Div": np.divide}[kind]
        inside = apply(inside, constant)
    wanted = linear.features(inside.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(features(teacher, pixels), wanted, rtol=1e-3, atol=1e-4)


def test_uint8_and_blue_first_are_served(linear: Linear, pixels: np.ndarray, tmp_path: Path) -> None:
    cast = [helper.make_node("Cast", ["image"], ["ready"], to=1)]
    made = linear.made(cast, image=linear.image(kind=UINT8), Image__BitmapPixelFormat="Bgr8")
    teacher = load_teacher(str(save(tmp_path / "t.onnx", made)), STUDENT)
    wanted = linear.features(pixels[..., ::-1].astype(np.float32))
    np.testing.assert_allclose(features(teacher, pixels), wanted, rtol=1e-4)


@pytest.mark.parametrize("steps", [[], [("Sub", 100.0)], [("Mul", 1e-5)], [("Mul", np.ones((1, 3, 8, 8)))]])
def test_pixels_that_cannot_be_seen_are_asked_for(steps: list[tuple[str, Any]], linear: Linear, tmp_path: Path) -> None:
    path = save(tmp_path / "t.onnx", linear.made(*arithmetic(*steps)))
    with pytest.raises(NetworkError, match=r"does not show how its pixels are scaled\. Add --teacher-pixels imagenet"):
        load_teacher(str(path), STUDENT)


def test_a_fixed_batch_and_any_number_of_images_go_together(
    linear: Linear, rng: np.random.Generator, tmp_path: Path
) -> None:
    """Models exported for one image, or two at a time, and those for any number, a few of which are run at once."""
    many = STUDENT.normalise(rng.integers(0, 256, (37, 8, 8, 3), np.uint8))
    for batch in (1, 2, "N"):
        path = save(tmp_path / f"{batch}.onnx", linear.made(image=linear.image(batch)))
        teacher = load_teacher(str(path), STUDENT, NORMALISED)
        np.testing.assert_allclose(teacher.features(many), linear.features(many), rtol=1e-4, atol=1e-5)


def outputs_model(linear: Linear, *names: tuple[str, list[str]]) -> onnx.ModelProto:
    """A model with tokens [N, 5, D], a map [N, C, 2, 2] and vectors [N, D], of which `names` are outputs."""
    nodes = [
        *linear.nodes(output="vectors"),
        helper.make_node("Unsqueeze", ["vectors", "axis"], ["one"]),
        helper.make_node("Expand", ["one", "shape"], ["same"]),
        helper.make_node("Mul", ["same", "ramp"], ["tokens"]),
        *(helper.make_node("Identity", [source], [name]) for name, [source] in names),
    ]
    weights = [
        *linear.weights(),
        tensor("axis", [1], np.int64),
        tensor("shape", [1, 5, 1], np.int64),
        tensor("ramp", np.arange(1, 6).reshape(1, 5, 1)),
    ]
    return model(nodes, [linear.image()], [value(name) for name, _ in names], weights)


def test_the_output_is_found_or_asked_for(linear: Linear, pixels: np.ndarray, tmp_path: Path) -> None:
    given = STUDENT.normalise(pixels)
    vectors = linear.features(given)
    pooled = given.reshape(3, 2, 4, 2, 4, 3).mean(axis=(1, 2, 3, 4))

    def made(*names: tuple[str, list[str]], output: str = "") -> Teacher:
        path = save(tmp_path / "t.onnx", outputs_model(linear, *names))
        return load_teacher(str(path), STUDENT, TeacherOptions("normalized", output=output))

    cases = [
        (made(("a", ["vectors"])), vectors),
        # Of several, the one with a vector for each image.
        (made(("a", ["tokens"]), ("b", ["vectors"])), vectors),
        # As transformers call them: the pooled output before the tokens.
        (made(("last_hidden_state", ["tokens"]), ("pooler_output", ["vectors"])), vectors),
        # Five tokens are a class token and four patches.
        (made(("tokens_", ["tokens"])), vectors),
        (made(("map", ["pooled"])), pooled),
        # Named, also inside the graph.
        (made(("a", ["vectors"]), ("b", ["vectors"]), output="b"), vectors),
        (made(("a", ["vectors"]), output="pooled"), pooled),
    ]
    for teacher, wanted in cases:
        np.testing.assert_allclose(teacher.features(given), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(
        NetworkError, match=r"which of them holds the features is unclear. Name one: --teacher-output a"
    ):
        made(("a", ["vectors"]), ("b", ["vectors"]))
    with pytest.raises(NetworkError, match=r"has no tensor .vektors.\. Did you mean vectors"):
        made(("a", ["vectors"]), output="vektors")


def test_a_real_network_from_keras_gives_keras_numbers(rng: np.random.Generator, tmp_path: Path) -> None:
    """`float_resnet` with statistics of its own. The same sums in another order: 1e-5 of the largest."""
    keras.utils.set_random_seed(3)
    network = float_resnet(64, 3, width=16)
    network.set_weights([one + 0.1 * np.abs(rng.standard_normal(one.shape)) for one in network.get_weights()])
    path = save(tmp_path / "t.onnx", from_keras(network))
    student = Preprocessing(64, 3, STUDENT.mean, STUDENT.std)
    teacher = load_teacher(str(path), student, NORMALISED)
    images = rng.standard_normal((5, 64, 64, 3)).astype(np.float32)
    wanted = network(images, training=False).numpy()
    np.testing.assert_allclose(teacher.features(images), wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    smaller = load_teacher(str(path), STUDENT, NORMALISED)
    resampled = tf.image.resize(images[:, :8, :8], [64, 64], antialias=True)
    wanted = network(resampled, training=False).numpy()
    np.testing.assert_allclose(smaller.features(images[:, :8, :8]), wanted, atol=2e-5 * np.abs(wanted).max())


def test_the_fingerprint_is_of_the_file_and_of_all_that_was_said(linear: Linear, tmp_path: Path) -> None:
    path = save(tmp_path / "t.onnx", outputs_model(linear, ("a", ["vectors"])))
    other = save(tmp_path / "other.onnx", outputs_model(linear, ("b", ["vectors"])))
    said = [NORMALISED, TeacherOptions("imagenet"), TeacherOptions("normalized", output="pooled")]
    prints = [load_teacher(str(path), STUDENT, options).fingerprint() for options in said]
    prints.append(load_teacher(str(other), STUDENT, NORMALISED).fingerprint())
    assert len(set(prints)) == 4
    again = load_teacher(str(path), STUDENT, NORMALISED)
    assert again.fingerprint() == prints[0]
    assert again.labels_used is not None and "t.onnx" in again.labels_used


def test_what_does_not_take_images_is_named(linear: Linear, tmp_path: Path) -> None:
    two = model(
        [helper.make_node("Add", ["image", "text"], ["sum"])],
        [linear.image(), value("text", ["N", 3, 8, 8])],
        [value("sum")],
        [],
    )
    flat = model([helper.make_node("Relu", ["x"], ["y"])], [value("x", ["N", 10])], [value("y")], [])
    oblong = linear.made(image=value("image", ["N", 3, 8, 16]))
    for made, message in (
        (two, r"takes image \[\?, 3, 8, 8\], text \[\?, 3, 8, 8\], not images alone"),
        (flat, r"takes x \[\?, 10\], not images alone"),
        (oblong, "not square images of 1 or 3 channels"),
    ):
        with pytest.raises(NetworkError, match=message):
            load_teacher(str(save(tmp_path / "t.onnx", made)), STUDENT, NORMALISED)


def test_check_and_export_name_it_as_a_teacher(linear: Linear, tmp_path: Path) -> None:
    path = save(tmp_path / "t.onnx", linear.made())
    with pytest.raises(ConversionError, match=r"is an ONNX model, and LCE converts Keras 2 models.*--teacher"):
        open_file(path)


def test_without_the_packages_the_command_that_installs_them_is_named(
    linear: Linear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "t.onnx", linear.made())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NetworkError, match=re.escape("pip install 'bssl-tf[onnx]'")):
        load_teacher(str(path), STUDENT)
