"""A phone, as far as it goes without one: `fake_adb` says what it stands in for, and what a phone has yet to show."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bssl_tf.devices.android_benchmark_model import figures
from bssl_tf.devices.operator_profile import profile
from bssl_tf.errors import DeviceError
from bssl_tf_deploy.record import Golden, OperatorTime, Record
from tests.devices.test_ssh import fails

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def program(file: Path, script: Path) -> Path:
    file.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    file.chmod(0o755)
    return file


@pytest.fixture
def phone(tmp_path: Path) -> Path:
    """$FAKE_ADB, with one phone."""
    for name in ("phone", "bin", "shim"):
        (tmp_path / name).mkdir()
    (tmp_path / "serials").write_text("A1B2 device\n")
    properties = {
        "ro.product.cpu.abi": "arm64-v8a",
        "ro.build.version.release": "14",
        "ro.product.manufacturer": "Maker",
        "ro.product.model": "Model 7",
    }
    cases = "\n".join(f"{key}) echo '{value}';;" for key, value in properties.items())
    (tmp_path / "bin" / "getprop").write_text(f'#!/bin/sh\ncase "$1" in\n{cases}\nesac\n')
    (tmp_path / "bin" / "getprop").chmod(0o755)
    program(tmp_path / "shim" / "adb", HERE / "fake_adb.py")
    return tmp_path


def environment(phone: Path) -> dict[str, str]:
    path = f"{phone / 'shim'}{os.pathsep}{os.environ.get('PATH', '')}"
    return os.environ | {"PATH": path, "FAKE_ADB": str(phone)}


@pytest.fixture
def harness(phone: Path) -> Command:
    """The command line, with an `adb` that knows the phone."""

    def call(*arguments: Any, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bssl_tf", *map(str, arguments)]
        settings = environment(phone) | more
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=settings)

    return call


@pytest.fixture
def bench(phone: Path, harness: Command, real_bundle: Path) -> Command:
    tool = program(phone / "benchmark_model", HERE / "fake_benchmark_model.py")

    def call(*arguments: Any, **more: str) -> subprocess.CompletedProcess[str]:
        place = ("--benchmark-model", tool, "--remote-dir", phone / "phone" / "a b")
        return harness("bench", real_bundle, "--device", "adb", "--no-float", *place, *arguments, **more)

    return call


def test_a_phone_is_checked_timed_and_left_as_it_was(phone: Path, bench: Command) -> None:
    done = bench("--json", "--threads", "2")
    assert done.returncode == 0, done.stderr
    [record] = map(Record.from_dict, json.loads(done.stdout))
    assert record.golden == Golden(4, (2,))
    assert str(record.machine).startswith("Maker Model 7, ") and record.machine.system == "Android 14"
    [run] = record.runs
    network = run.networks["binary"]
    row = network.latency
    assert row and row.min_ms and row.p50_ms and row.p95_ms and 0 < row.min_ms <= row.p50_ms <= row.p95_ms
    assert network.start and network.start.added_memory_mib == 4.25
    assert len(network.printed) == 3
    [profile] = run.profiles
    assert profile.source == "benchmark_model"
    assert [operator.operator for operator in profile.rows] == ["BsslDelegate", "FULLY_CONNECTED"]
    assert profile.rows[0] == OperatorTime("BsslDelegate", "", "[stage_0/conv/Conv2D]:3", mean_ms=0.125)
    assert not list((phone / "phone").iterdir())
    # What adb is told: nothing but options, and one line that a shell splits into what was meant.
    calls = [json.loads(line) for line in (phone / "log").read_text().splitlines()]
    assert {call[0] for call in calls} == {"get-state", "shell", "push"}
    assert all(call[1] == "-T" and len(call) == 3 for call in calls if call[0] == "shell")


def test_an_older_benchmark_model_has_no_median(bench: Command) -> None:
    done = bench(OLDER="1")
    assert done.returncode == 0, done.stderr
    assert "mean_ms" in done.stdout and "p50_ms" not in done.stdout and "stage_0/conv" in done.stdout


def test_nothing_is_timed_when_nobody_knows_whether_it_is_right(phone: Path, bench: Command) -> None:
    fails(bench(NO_OUTPUT="1"), 10, "writes no outputs", "--output_filepath")
    assert not list((phone / "phone").iterdir())


@pytest.mark.parametrize(
    ("serials", "words"),
    [
        ("", ("is not connected", "USB debugging")),
        ("A1 device\nB2 device\n", ("is one of several", "adb:SERIAL")),
        ("A1 unauthorized\n", ("does not trust this computer", "Unlock")),
        ("A1 offline\n", ("is offline", "reconnect")),
    ],
)
def test_a_phone_that_is_not_ready_is_one_line(
    phone: Path, harness: Command, serials: str, words: tuple[str, ...]
) -> None:
    (phone / "serials").write_text(serials)
    fails(harness("devices", "adb"), 14, *words)


def test_a_serial_chooses_the_phone(phone: Path, harness: Command) -> None:
    (phone / "serials").write_text("A1 device\nB2 device\n")
    done = harness("devices", "adb:B2")
    assert done.returncode == 0 and "Maker Model 7" in done.stdout, done.stderr
    fails(harness("devices", "adb:C3"), 14, "is not connected")


def test_a_32_bit_phone_is_one_line(phone: Path, harness: Command) -> None:
    (phone / "bin" / "getprop").write_text("#!/bin/sh\necho armeabi-v7a\n")
    fails(harness("devices", "adb"), 14, "armeabi-v7a", "64-bit ARM")


def test_without_adb_or_benchmark_model_it_says_what_to_get(
    phone: Path, harness: Command, bench: Command, real_bundle: Path
) -> None:
    words = ("none was named", "--benchmark-model", "--tflite-library")
    fails(harness("bench", real_bundle, "--device", "adb", "--no-float"), 14, *words)
    (phone / "shim" / "adb").unlink()
    fails(harness("devices", "adb", PATH="/nonexistent"), 14, "adb is not installed", "Debian: adb")


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [("refuse-push", 14, ("full disk", "Free space")), ("damage-push", 7, ("corrupted on the way", "SHA-256"))],
)
def test_what_goes_wrong_on_the_way_leaves_nothing(
    phone: Path, bench: Command, fault: str, status: int, words: tuple[str, ...]
) -> None:
    (phone / fault).write_text("")
    fails(bench(), status, *words)
    assert not list((phone / "phone").iterdir())


def test_a_killed_harness_leaves_nothing_on_the_phone(phone: Path, real_bundle: Path) -> None:
    """The lease's input ends, as adbd ends it when the cable is pulled."""
    tool = program(phone / "benchmark_model", HERE / "fake_benchmark_model.py")
    command = [sys.executable, "-m", "bssl_tf", "bench", str(real_bundle), "--device", "adb", "--no-float"]
    command += ["--benchmark-model", str(tool), "--remote-dir", str(phone / "phone" / "x")]
    process = subprocess.Popen(command, env=environment(phone), stderr=subprocess.PIPE)
    while not list((phone / "phone").glob("x-*/binary.tflite")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for _ in range(100):
        if not list((phone / "phone").iterdir()):
            break
        time.sleep(0.1)
    assert not list((phone / "phone").iterdir())


def test_clean_removes_what_a_phone_without_power_kept(phone: Path, harness: Command) -> None:
    prefix = phone / "phone" / "x"
    (phone / "phone" / "x-0123abcd" / "deep").mkdir(parents=True)
    (phone / "phone" / "x-89efab01").mkdir()
    # Someone's own, whose names merely begin like ours.
    others = {"other", "x-notes", "x-0123abcd-old", "x"}
    for name in others:
        (phone / "phone" / name).mkdir()
    assert harness("devices", "adb", "--clean", "--remote-dir", prefix).stdout == "adb: removed\n"
    assert {path.name for path in (phone / "phone").iterdir()} == others
    assert harness("devices", "adb", "--clean", "--remote-dir", prefix).stdout == "adb: nothing was there\n"


def test_figures_are_medians_over_the_runs() -> None:
    text = (
        "INFO: count=1 curr=900 p5=900 median=900 p95=900\n"
        "INFO: count=50 first=600 curr=500 min=400 max=700 avg={avg} std=10 p5=450 median={avg} p95=650\n"
        "INFO: Inference timings in us: Init: 5579, First inference: 1357, Warmup (avg): 1.3e+06, Inference (avg): 5\n"
    )
    found = figures([text.format(avg=value) for value in ("1.5e+03", "500", "700")])
    assert (found["mean_ms"], found["p50_ms"], found["p95_ms"], found["min_ms"]) == (0.7, 0.7, 0.65, 0.4)
    assert (found["load_ms"], found["first_ms"]) == (5.579, 1.357)
    with pytest.raises(DeviceError, match="printed no times"):
        figures(["nothing"])


def test_a_profile_without_a_table_has_no_operators() -> None:
    assert profile("").rows == () and profile("a, b\nnode type, name\n1, 2, 3\n").rows == ()
