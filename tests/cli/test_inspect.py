"""`bssl-tf inspect` as a user meets it: a table, JSON, and one line for what is not a model."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from flatbuffers import flexbuffers

from tests.conftest import light_start
from tests.converters.tflite.tflite_files import Op, T, model_file
from tests.deploy.bundles import write

Command = Callable[..., "subprocess.CompletedProcess[str]"]
BUILTIN, TYPE = schema.BuiltinOperator, schema.TensorType
HEAVY = ("tensorflow", "tf_keras", "keras", "larq", "larq_compute_engine", "sklearn", "PIL")


def small_model() -> bytes:
    """Sign, binary convolution of 64 channels, shortcut, dense layer."""
    tensors = [
        T((1, 8, 8, 64), name="serving_default_image:0"),
        T((1, 8, 8, 2), TYPE.INT32, "net/conv_1/ste_sign/Sign_1;net/conv"),
        T((64, 3, 3, 2), TYPE.INT32, "arith.constant", bytes(64 * 9 * 8)),
        T((64,), name="arith.constant1", data=bytes(256)),
        T((1, 8, 8, 64), name="net/norm_1/FusedBatchNormV3;net/con"),
        T((1, 8, 8, 64), name="net/add_1/add"),
        T((10, 4096), name="net/logits/MatMul/kernel", data=bytes(4 * 10 * 4096)),
        T((1, 10), name="StatefulPartitionedCall:0"),
    ]
    operators = [
        Op("LceQuantize", [0], [1]),
        Op("LceBconv2d", [1, 2, 3, 3, -1], [4], bytes(flexbuffers.Dumps({"channels_in": 64}))),
        Op(BUILTIN.ADD, [4, 0], [5]),
        Op(BUILTIN.FULLY_CONNECTED, [5, 6, -1], [7]),
    ]
    return model_file(tensors, operators, [0], [7])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.tflite"
    path.write_bytes(small_model())
    return path


TABLE = """\
: 166 KiB, 4 operators
input   1x8x8x64 float32  serving_default_image:0
output  1x10 float32  StatefulPartitionedCall:0

#  operator         layer                      output                     MACs   weights     alive
0  LceQuantize      conv_1/ste_sign            1x8x8x2 int32                 -         -  16.5 KiB
1  LceBconv2d       norm_1                     1x8x8x64 float32  2.36 M binary  4.75 KiB  32.5 KiB
2  ADD              add_1                      1x8x8x64 float32              -         -    48 KiB
3  FULLY_CONNECTED  StatefulPartitionedCall:0  1x10 float32         41 k float   160 KiB    32 KiB

MACs       2.36 M binary, 41 k float
weights    4.5 KiB binary, 160 KiB float
memory     48 KiB of activations at the peak, operator 2 (ADD); scratch memory and the interpreter are extra
operators  1 ADD, 1 FULLY_CONNECTED, 1 LceBconv2d, 1 LceQuantize
"""


def test_the_table(model: Path, bssl_tf: Command) -> None:
    done = bssl_tf("inspect", model)
    assert (done.returncode, done.stderr) == (0, "")
    head, rest = done.stdout[: len(str(model))], done.stdout[len(str(model)) :]
    assert head == str(model)
    assert rest == TABLE


def test_json_has_exact_numbers_under_sorted_keys(model: Path, bssl_tf: Command) -> None:
    done = bssl_tf("inspect", model, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert done.stdout == json.dumps(found, indent=2, sort_keys=True) + "\n"
    binary, dense, activation = 8 * 8 * 64 * 9 * 64, 4096 * 10, 4 * 8 * 8 * 64
    assert {key: value for key, value in found.items() if key not in ("operators", "inputs", "outputs")} == {
        "file": str(model),
        "file_bytes": model.stat().st_size,
        "graphs": 1,
        "histogram": {"ADD": 1, "FULLY_CONNECTED": 1, "LceBconv2d": 1, "LceQuantize": 1},
        "macs": {"binary": binary, "float": dense, "integer": 0},
        "unknown_macs": 0,
        "weight_bytes": {"binary": 64 * 9 * 8, "float": 256 + 4 * dense, "integer": 0},
        "peak_bytes": 3 * activation,
        "peak_operator": 2,
        "unknown_sizes": 0,
        "dynamic": False,
    }
    assert found["operators"][1] == {
        "index": 1,
        "operator": "LceBconv2d",
        "layer": "norm_1",
        "outputs": [{"name": "net/norm_1/FusedBatchNormV3;net/con", "shape": [1, 8, 8, 64], "dtype": "float32"}],
        "arithmetic": "binary",
        "macs": binary,
        "weight_bytes": {"binary": 64 * 9 * 8, "float": 256, "integer": 0},
        "alive_bytes": 2 * activation + 8 * 8 * 2 * 4,
    }


def test_a_bundle_is_inspected_by_its_model_and_checked(model: Path, tmp_path: Path, bssl_tf: Command) -> None:
    bundle = write(tmp_path / "bundle", small_model())
    done = bssl_tf("inspect", bundle)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{bundle}{TABLE}"
    (bundle / "model.tflite").write_bytes(b"x" * model.stat().st_size)
    done = bssl_tf("inspect", bundle)
    assert done.returncode == 7 and "error[bundle]" in done.stderr


def test_what_is_not_known_is_said(tmp_path: Path, bssl_tf: Command) -> None:
    tensors = [
        T((1, 4), name="one", signature=(-1, 4)),
        T((2,), TYPE.STRING, "two"),
        T((1, 4), name="\x1b[31mred\n", signature=(-1, 4)),
        *(T((1, 4), TYPE.INT8, f"net/{'very_' * 30}long/part_{number}/op") for number in range(2)),
    ]
    operators = [Op("FlexErf", [0, 1], [2, 3]), Op(BUILTIN.WHILE, [2], [4])]
    path = tmp_path / "odd.tflite"
    path.write_bytes(model_file(tensors, operators, [0, 1], [2, 4], graphs=2))
    done = bssl_tf("inspect", path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines[1:])) <= 120
    assert "\x1b" not in done.stdout
    assert lines[1:4] == ["input   ?x4 float32  one", "input   2 string  two", "output  ?x4 float32  \\x1b[31mred\\n"]
    assert lines[4].startswith("output  1x4 int8  net/very_") and lines[4].endswith("_long/part_1/op")
    assert lines[7].split() == ["0", "FlexErf", "\\x1b[31mred\\n", "?x4", "float32", "+1", "?", "-", "36", "B"]
    for said in (
        "MACs       not known",
        "memory     at least 36 B of activations at the peak, operator 0 (FlexErf)",
        "note       the MACs of 2 operators, marked ?, are not known and not counted",
        "note       the file has 2 graphs; everything above is for the first",
        "note       sizes marked ? are known only when it runs, and count as 1 above",
    ):
        assert any(line.startswith(said) for line in lines), said


def one_line(done: subprocess.CompletedProcess[str], status: int, *said: str) -> None:
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("error[") and line.endswith(".")
    for text in said:
        assert text in line


def test_what_is_no_model_is_one_line_with_its_status(model: Path, tmp_path: Path, bssl_tf: Command) -> None:
    content = model.read_bytes()
    for name, garbled, why in (
        ("empty", b"", "0 bytes"),
        ("cut", content[: len(content) // 2], "the file may be truncated"),
        ("text", b"Not a model at all.\n" * 20, "the identifier TFL3 is missing"),
        ("long", content[:8] + b"\xff" * 400, "not a valid TFLite model"),
    ):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(garbled)
        one_line(bssl_tf("inspect", path), 6, "error[conversion]", str(path), why, "Give a .tflite file or a bundle")
    one_line(bssl_tf("inspect", tmp_path / "none.tflite"), 6, "does not exist", "Give a .tflite file or a bundle")
    one_line(bssl_tf("inspect", "x" * 5000), 6, "cannot be read")
    os.mkfifo(tmp_path / "pipe")
    one_line(bssl_tf("inspect", tmp_path / "pipe", timeout=30), 6, "cannot be read (Not a regular file)")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**33)  # a hole, on a file system that has them
    one_line(bssl_tf("inspect", tmp_path / "huge", timeout=30), 6, "Larger than 2,147,483,647 bytes")
    one_line(bssl_tf("inspect", tmp_path), 7, "error[bundle]", "is not a bundle")
    if os.geteuid() != 0:
        model.chmod(0)
        one_line(bssl_tf("inspect", model), 6, "cannot be read (Permission denied)", "Check the permissions")


def test_mutated_files_through_the_command_within_a_gigabyte(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    content = small_model()
    statuses = set()
    for number in range(8):
        changed = bytearray(content)
        for _ in range(1 + number):
            changed[rng.integers(0, 4000) - 4000] = rng.integers(256)
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(changed)
        done = subprocess.run(
            [sys.executable, "-m", "bssl_tf", "inspect", str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)),
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )
        statuses.add(done.returncode)
        if done.returncode:
            one_line(done, 6, "not a valid TFLite model")
            assert "MemoryError" not in done.stderr
    assert statuses == {0, 6}


def test_it_loads_no_tensorflow_and_starts_fast(model: Path) -> None:
    """A third of a second on an idle machine."""
    _, seconds = light_start(HEAVY, "inspect", str(model))
    assert seconds < 1.0
