"""ONNX files that a stranger made give one line each: cut, bloated, endless, or pointing elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import external_data_helper, helper

from bssl_tf.errors import NetworkError
from bssl_tf.preprocessing import Preprocessing
from bssl_tf.teachers import onnx_file
from bssl_tf.teachers.inputs import TeacherOptions
from bssl_tf.teachers.teacher import Teacher, load_teacher
from tests.teachers.onnx_models import Linear, model, save, tensor, value

STUDENT = Preprocessing(8, 3, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
LINEAR = Linear(np.random.default_rng(0))


def load(path: Path) -> Teacher:
    return load_teacher(str(path), STUDENT, TeacherOptions("normalized"))


def refused(path: Path, message: str) -> None:
    with pytest.raises(NetworkError) as error:
        load(path)
    assert re.search(message, str(error.value)), str(error.value)
    assert "\n" not in str(error.value) and str(error.value).isprintable()


def test_a_cut_or_garbled_file_is_one_clear_line(tmp_path: Path, rng: np.random.Generator) -> None:
    whole = LINEAR.made().SerializeToString()
    path = tmp_path / "t.onnx"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        refused(path, r"t\.onnx (is not an ONNX model, or is damaged|takes|has|does not|gives)|cannot load .*t\.onnx")
    for content in (b"\x08", b"\xff" * 100, b"PK\x03\x04", b"version https://git-lfs.github.com/spec/v1\n", b"<html>"):
        path.write_bytes(content)
        refused(path, r"t\.onnx is (not an ONNX model|a Git LFS pointer|a web page)")
    for _ in range(200):
        garbled = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            garbled[place] = rng.integers(256)
        path.write_bytes(garbled)
        try:
            load(path)
        except NetworkError as error:
            assert "\n" not in str(error)


def test_what_is_not_a_regular_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    refused(tmp_path / "pipe.onnx", "cannot be read .Not a regular file")
    path = save(tmp_path / "t.onnx", LINEAR.made())
    monkeypatch.setattr(onnx_file, "_MAX_FILE_BYTES", 100)
    refused(path, "cannot be read .Larger than 100 bytes")


def external(location: str, **more: str) -> onnx.ModelProto:
    """The model with its matrix in another file."""
    made = LINEAR.made()
    [matrix] = made.graph.initializer
    external_data_helper.set_external_data(matrix, location)
    for key, text in more.items():
        matrix.external_data.append(onnx.StringStringEntryProto(key=key, value=text))
    matrix.ClearField("raw_data")
    return made


def test_weights_in_a_file_beside_it_are_read_and_belong_to_its_fingerprint(tmp_path: Path) -> None:
    path, numbers = tmp_path / "t.onnx", tmp_path / "t.onnx.data"
    save(path, external("t.onnx.data"))
    numbers.write_bytes(LINEAR.matrix.tobytes())
    images = STUDENT.normalise(np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8))
    teacher = load(path)
    np.testing.assert_allclose(teacher.features(images), LINEAR.features(images), rtol=1e-4, atol=1e-5)
    numbers.write_bytes((LINEAR.matrix + 1).tobytes())
    changed = load(path)
    assert changed.fingerprint() != teacher.fingerprint()
    assert not np.allclose(changed.features(images), LINEAR.features(images))
    numbers.write_bytes(LINEAR.matrix.tobytes()[:-4])
    refused(path, r"t\.onnx\.data is shorter than t\.onnx claims|cannot load")
    numbers.unlink()
    refused(path, r"t\.onnx\.data, which holds weights of t\.onnx, cannot be read \(No such file")


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../../../../etc/passwd",
        "a/../../x",
        "..",
        "",
        ".",
        "*/_ORT_MEM_ADDR_/*",
        "C:\\x",
        "a\nb",
        "//etc",
    ],
)
def test_weights_elsewhere_are_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "*" / "_ORT_MEM_ADDR_"
    folder.mkdir(parents=True)
    (folder / "*").write_bytes(LINEAR.matrix.tobytes())
    refused(save(tmp_path / "t.onnx", external(location)), "which is not a file beside it|cannot be read")


def test_a_link_to_elsewhere_and_a_pipe_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(LINEAR.matrix.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "linked").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    for location, message in (
        ("link", "which is not a file beside it"),
        ("linked/outside", "which is not a file beside it"),
        ("pipe", "cannot be read .Not a regular file"),
    ):
        refused(save(folder / "t.onnx", external(location)), message)


def test_weights_hidden_in_nodes_and_functions_are_found(tmp_path: Path) -> None:
    """In a constant, in a branch, in a function."""
    secret = tensor("secret", np.zeros(4))
    external_data_helper.set_external_data(secret, "/etc/passwd")
    secret.ClearField("raw_data")
    constant = helper.make_node("Constant", [], ["c"], value=secret)
    branch = helper.make_graph([constant], "branch", [], [value("c")])
    either = helper.make_node("If", ["condition"], ["c"], then_branch=branch, else_branch=branch)
    function = helper.make_function("mine", "F", [], ["c"], [constant], [helper.make_opsetid("", 17)])
    called = helper.make_node("F", [], ["c"], domain="mine")
    add = helper.make_node("Add", ["image", "c"], ["ready"])
    cases = [
        LINEAR.made([constant, add]),
        LINEAR.made([either, add], [tensor("condition", True, np.bool_)]),
        LINEAR.made([called, add], functions=(function,), domains=("mine",)),
    ]
    for made in cases:
        refused(save(tmp_path / "t.onnx", made), "has its weights in '/etc/passwd'")


def test_operators_of_others_and_endless_ones_are_refused(tmp_path: Path) -> None:
    custom = LINEAR.made([helper.make_node("Backdoor", ["image"], ["ready"], domain="evil.com")], domains=("evil.com",))
    refused(save(tmp_path / "t.onnx", custom), r"needs the operator Backdoor of evil\.com, which is third-party code")
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [value("i", [], onnx.TensorProto.INT64), value("go", [], onnx.TensorProto.BOOL), value("x")],
        [value("again", [], onnx.TensorProto.BOOL), value("y")],
    )
    endless = helper.make_node("Loop", ["", "true", "image"], ["ready"], body=body)
    looping = LINEAR.made([endless], [tensor("true", True, np.bool_)])
    refused(save(tmp_path / "t.onnx", looping), r"has a loop \(Loop\)")
    opens = helper.make_node("EPContext", ["image"], ["ready"], domain="com.microsoft", ep_cache_context="/etc/passwd")
    refused(save(tmp_path / "t.onnx", LINEAR.made([opens], domains=("com.microsoft",))), "another program's file")


def test_functions_that_unfold_without_end_are_refused(tmp_path: Path) -> None:
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]

    def function(name: str, callee: str) -> onnx.FunctionProto:
        nodes = [helper.make_node(callee, [a], [b], domain="mine") for a, b in (("x", "y"), ("y", "z"))]
        return helper.make_function("mine", name, ["x"], ["z"], nodes, opset)

    leaf = helper.make_function("mine", "F0", ["x"], ["z"], [helper.make_node("Relu", ["x"], ["z"])], opset)
    doubling = (leaf, *(function(f"F{number}", f"F{number - 1}") for number in range(1, 40)))
    itself = (function("F39", "F39"),)
    for functions in (doubling, itself):
        made = LINEAR.made(
            [helper.make_node("F39", ["image"], ["ready"], domain="mine")], functions=functions, domains=("mine",)
        )
        refused(save(tmp_path / "t.onnx", made), "unfolds to more than 500,000 nodes")


def test_a_file_of_many_small_parts_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but empty nodes, two bytes each, which would need a hundred times that in memory."""
    monkeypatch.setattr(onnx_file, "_MAX_STRUCTURE_BYTES", 10_000)
    monkeypatch.setattr(onnx, "load_model_from_string", lambda content: pytest.fail("parsed"))
    nodes = b"\x0a\x00" * 10_000

    def varint(number: int) -> bytes:
        start = b""
        while number > 127:
            start, number = start + bytes([number & 127 | 128]), number >> 7
        return start + bytes([number])

    def message(field: int, content: bytes) -> bytes:
        return varint(field << 3 | 2) + varint(len(content)) + content

    path = tmp_path / "t.onnx"
    for content in (
        message(7, nodes),
        message(7, message(1, message(5, message(6, nodes)))),
        message(25, message(7, b"") * 10_000),
        b"\x42\x00" * 10_000,
    ):
        path.write_bytes(content)
        refused(path, "has more than 10,000 bytes besides its weights")
    nested = b""
    for _ in range(200):
        nested = message(1, message(5, message(6, nested)))
    path.write_bytes(message(7, nested))
    refused(path, "is not an ONNX model, or is damaged")
    path.write_bytes(message(7, b"\x0a\x00") + bytes(2_000_000))  # a file system's zeros; no field has the number 0
    refused(path, "is not an ONNX model, or is damaged")


def test_a_large_matrix_is_not_structure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "_MAX_STRUCTURE_BYTES", 2_000)
    wide = Linear(np.random.default_rng(0), width=5000)
    assert load(save(tmp_path / "t.onnx", wide.made())).feature_width == 5000


@pytest.mark.parametrize("early", [True, False])
def test_a_small_file_cannot_ask_for_all_memory(early: bool, tmp_path: Path) -> None:
    """A constant of 2^36 numbers, computable while loading or only while running."""
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["many"]),
        helper.make_node("ReduceSum", ["many"], ["sum"], keepdims=0),
        helper.make_node("Add", ["image", "sum"], ["ready"]),
    ]
    if not early:
        nodes[0].input[0] = "late"
        nodes = [
            helper.make_node("Shape", ["image"], ["shape"]),
            helper.make_node("ReduceMin", ["shape"], ["least"], keepdims=1),
            helper.make_node("Mul", ["least", "size"], ["late"]),
            *nodes,
        ]
    path = save(tmp_path / "t.onnx", LINEAR.made(nodes, [tensor("size", [1 << 36], np.int64)]))
    refused(path, "does not run on images of 8 px")


def test_outputs_that_are_not_vectors_are_named(tmp_path: Path) -> None:
    """For each image, that is: not for the batch, not of text, not of five dimensions."""
    cases: list[tuple[Callable[[], list[onnx.NodeProto]], str]] = [
        (lambda: [helper.make_node("ReduceMean", ["image"], ["y"], axes=[0, 1], keepdims=0)], r"gives \[8, 8\] for 16"),
        (
            lambda: [helper.make_node("Unsqueeze", ["image", "axis"], ["y"])],
            "which of them holds the features is unclear|not one",
        ),
        (lambda: [helper.make_node("Shape", ["image"], ["y"])], "which of them holds the features is unclear"),
    ]
    for nodes, message in cases:
        made = model(nodes(), [LINEAR.image()], [onnx.ValueInfoProto(name="y")], [tensor("axis", [0], np.int64)])
        refused(save(tmp_path / "t.onnx", made), message)
