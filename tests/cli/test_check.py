"""`bssl-tf check` as a user meets it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bssl_tf.backend import keras, lq
from tests.converters.networks import write_run_folder

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .h5 file whose first layer pads with -1, and whose second has 40 input channels."""
    image = keras.Input((8, 8, 32))
    x = image
    for name, filters, pad in (("first", 40, -1.0), ("second", 32, 1.0)):
        settings: dict[str, Any] = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "pad_values": pad}
        x = lq.layers.QuantConv2D(filters, 3, padding="same", kernel_constraint="weight_clip", name=name, **settings)(x)
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    path = tmp_path_factory.mktemp("models") / "faulty.h5"
    model.save(path)
    return path


def test_errors_are_listed_by_layer_and_give_status_6(faulty: Path, bssl_tf: Command) -> None:
    done = bssl_tf("check", faulty)
    assert done.returncode == 6
    assert done.stdout.splitlines() == [
        "layer first",
        "  error pad-value: pads with -1, which LCE would convert to float",
        "    Set pad_values to 1 (fast) or 0",
        "layer second",
        "  warning channel-grain: has 40 input channels, which cost as much as 64",
        "    Make them a multiple of 32",
        "1 error, 1 warning",
    ]
    assert "error[conversion]: layer first pads with -1" in done.stderr and "[pad-value]" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_allowed_error_is_a_warning_and_the_rest_is_converted(faulty: Path, bssl_tf: Command) -> None:
    done = bssl_tf("check", faulty, "--allow", "pad-value", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert [(one["code"], one["severity"], one["layer"]) for one in record["findings"]] == [
        ("pad-value", "warning", "first"),
        ("channel-grain", "warning", "second"),
    ]
    assert record["binary"]["binary_convolutions"] == record["binary"]["float_convolutions"] == 1


def test_a_run_folder_without_findings(tmp_path: Path, bssl_tf: Command) -> None:
    run = write_run_folder(tmp_path / "run")
    done = bssl_tf("check", run)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "0 errors, 0 warnings"
    assert lines[1].startswith("3 binary convolutions (LceBconv2d), 1 float, 1 float dense; ")
    assert "3 LceBconv2d" in lines[2]
    done = bssl_tf("check", run, "--no-convert")
    assert (done.returncode, done.stdout) == (0, "0 errors, 0 warnings\n")
    assert "converting" not in done.stderr


def test_the_list_of_checks(bssl_tf: Command) -> None:
    done = bssl_tf("check", "--list")
    assert done.returncode == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "Padding with a number other than 0 or 1" in rows["pad-value"]
    assert "error, always" in rows["ternary-input"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "Missing argument 'MODEL'"),
        (["{tmp}/none.h5"], 6, "there is no model at"),
        (["{tmp}", "--allow", "pad"], 3, "--allow pad: no check is called that. Choose from"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], status: int, message: str, tmp_path: Path, bssl_tf: Command
) -> None:
    done = bssl_tf("check", *[argument.replace("{tmp}", str(tmp_path)) for argument in arguments])
    assert done.returncode == status
    assert message in done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
