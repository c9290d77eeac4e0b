"""A phone whose programs answer with anything: figures of it, or one line; no traceback, in bounded memory and time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bssl_tf.cli.main import main
from bssl_tf.devices import adb, phone
from bssl_tf.devices.adb import AdbConnection
from bssl_tf.devices.android_benchmark_model import figures
from bssl_tf.devices.answers import Ran, Started, Timed, number, read_runner
from bssl_tf.devices.connection import open_pipes
from bssl_tf.errors import DeviceError
from bssl_tf_deploy.strict import StrictError

ABI, MODEL, CORES = "getprop ro.product.cpu.abi", "getprop ro.product.model", "nproc"
MEMORY, DISK = "cat /proc/meminfo", "df -k /data/local/tmp"
SOUND = {
    ABI: b"arm64-v8a\n",
    MODEL: b"Pixel\n",
    CORES: b"8\n",
    MEMORY: b"MemTotal:    7654321 kB\n",
    DISK: b"Filesystem 1K-blocks Used Available Use% Mounted on\n/dev/x 100 1 4194304 1% /data\n",
}
NUMBERS = (b"", b"\xc2\xb2", b"9" * 5000, b"-1", b"0", b"1e9", b"nan", b"\xd9\xa3", b"0x8", b"8 8", b"\xff\x00")


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    def call(**odd: bytes) -> tuple[Any, str, str]:
        answers = SOUND | odd

        def start(self: AdbConnection, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
            (tmp_path / "answer").write_bytes(answers.get(" ".join(arguments), b""))
            return open_pipes(["cat", str(tmp_path / "answer")])

        monkeypatch.setattr(AdbConnection, "start", start)
        monkeypatch.setattr(AdbConnection, "client", lambda self, *arguments: "device")
        monkeypatch.setattr(sys, "argv", ["bssl-tf", "devices", "adb"])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        *((CORES, one) for one in NUMBERS),
        *((MEMORY, b"MemTotal: " + one + b" kB\n") for one in NUMBERS),
        *((DISK, b"Filesystem\n/dev/x 100 1 " + one + b" 1% /data\n") for one in NUMBERS),
        (MODEL, b"\x1b[2J\nlocal: forged \xe2\x80\xae"),
        (MODEL, bytes(range(256))),
        (MODEL, b"x" * (1 << 20)),
        (MEMORY, bytes(range(256)) * 64),
    ],
)
def test_an_odd_answer_is_left_out_or_shown_in_one_line(devices: Any, command: str, answer: bytes) -> None:
    status, out, said = devices(**{command: answer})
    assert (status, said) == (0, "")
    assert out.count("\n") == 1 and out.rstrip("\n").isprintable() and len(out) < 20_000


@pytest.mark.parametrize("answer", [b"", b"armeabi-v7a\n", b"\x1b[2Jarm64-v8a", b"\xff" * 100, b"x\n" * 1000])
def test_a_phone_of_another_kind_is_one_line(devices: Any, answer: bytes) -> None:
    status, out, said = devices(**{ABI: answer})
    assert status == 14 and out == ""
    assert said.startswith("error[device]: ") and said.count("\n") == 1 and said.rstrip("\n").isprintable()


def test_an_answer_without_end_is_cut(devices: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb, "MAX_ANSWER_BYTES", 1 << 12)
    status, _, said = devices(**{MODEL: b"x" * (1 << 14)})
    assert status == 14 and "sent more than" in said


def test_a_program_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb, "MAX_ANSWER_BYTES", 1 << 20)
    monkeypatch.setattr(AdbConnection, "start", lambda self, arguments: open_pipes(arguments))
    connection = AdbConnection("adb")
    with pytest.raises(DeviceError, match="sent more than"):
        connection.shell("cat", "/dev/zero")
    with pytest.raises(DeviceError, match="does not answer"):
        connection.shell("sleep", "30", timeout_s=0.2)
    assert connection.shell("printf", "x") == (0, "x")


@pytest.mark.parametrize("command", [["sleep", "30"], ["cat", "/dev/zero"], ["echo", "hello"], ["true"]])
def test_a_folder_that_is_never_ready_is_one_line(monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.setattr(phone, "READY_TIMEOUT_S", 0.5)
    monkeypatch.setattr(AdbConnection, "start", lambda self, arguments: open_pipes(command))
    with (
        pytest.raises(DeviceError, match="the connection to adb ended"),
        phone.phone_folder(AdbConnection("adb"), "/x"),
    ):
        pass


STATE = {"governors": ["x"], "clock_khz": [1], "clock_max_khz": [2], "sensors": [["cpu", 41000]]}
BEGINNING = {"bssl_tf_runner": 1, "tflite": "2.19"}
TENSOR = {"type": 1, "shape": [1, 10]}
RECORDS: list[tuple[type, dict[str, Any]]] = [
    (Ran, BEGINNING | {"input": TENSOR, "output": TENSOR, "runtime": "1", "kernels": "dot"}),
    (Started, BEGINNING | {"load_ns": 1, "first_ns": 2, "memory_before_kib": 0, "peak_memory_kib": 3}),
    (Timed, BEGINNING | {"before": STATE, "after": STATE, "networks": [{"first_ns": 1, "durations_ns": [1, 2]}]}),
]
ODD: list[Any] = [None, True, -1, 1.5, 10**400, "1", [], {}, [[]], [None], float("nan"), {"x": 1}]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where values stand in JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    if not path:
        return other
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], other)
    return copy


@pytest.mark.parametrize(("kind", "record"), RECORDS)
def test_a_record_of_the_runner_is_read_strictly(kind: type, record: dict[str, Any]) -> None:
    assert read_runner(kind, json.dumps(record)) is not None
    refused = 0
    for path in places(record):
        for odd in ODD:
            # What is read has the types of the class, whatever came.
            try:
                read_runner(kind, json.dumps(replaced(record, path, odd)))
            except StrictError:
                refused += 1
    assert refused > 0.8 * len(places(record)) * len(ODD)
    for key in record.keys() - {"runtime", "kernels"}:
        with pytest.raises(StrictError, match="missing key"):
            read_runner(kind, json.dumps({name: one for name, one in record.items() if name != key}))
    for text in ("", "[" * 100_000, "null", json.dumps(record | {"x": 1}), "1" * 5000):
        with pytest.raises(StrictError):
            read_runner(kind, text)


def test_numbers_are_read_whole_and_within_reason() -> None:
    assert [number(text) for text in ("8\n", " 0 ", "", "²", "-1", "1.0", "9" * 16)] == [8, 0, *[None] * 5]
    assert number("9", most=8) is None


@pytest.mark.parametrize("value", ["1.2.3", "x", "0x1", "--1"])
def test_figures_that_are_not_numbers_are_one_line(value: str) -> None:
    times = f"count=5 first=1 curr=1 min=1 max=2 avg={value} std=0"
    start = "Inference timings in us: Init: 1, First inference: 2, Warmup (avg): 3, Inference (avg): 4"
    with pytest.raises(DeviceError, match="not numbers"):
        figures([f"{times}\n{start}"])
