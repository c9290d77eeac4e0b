"""A phone with our runner: `fake_adb` is the way there, `fake_runner` the processor; all else is the real thing."""

from __future__ import annotations

import platform
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from bssl_tf.bench_records import read_benchmarks as strict_benchmarks
from bssl_tf.devices import android_runner
from bssl_tf.devices.adb import AdbConnection
from bssl_tf.devices.answers import PhoneState, Sensor
from bssl_tf.devices.phone import PhoneFolder
from bssl_tf.errors import DeviceError
from bssl_tf_deploy.bundle import write_bundle
from bssl_tf_deploy.manifest import TensorSignature
from bssl_tf_deploy.preprocess import normalise
from bssl_tf_deploy.record import Golden, State
from tests.conftest import require_or_skip
from tests.converters.tflite.tflite_files import Op, T, model_file
from tests.deploy.bundles import LABELS, PIXELS, SIZE, manifest
from tests.deploy.native.test_runner import built_runner
from tests.devices.test_android import harness as harness
from tests.devices.test_android import phone as phone
from tests.devices.test_ssh import fails
from tests.native import ROOT
from tests.tflite_c import tflite_c_library

BUNDLE = ROOT / "bssl_tf" / "zoo" / "fashion-mnist-28" / "bundle"
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def mean_of(shape: tuple[int, ...], channels: int, dtype: int) -> bytes:
    """A network whose output is the mean of each channel."""
    axes = T((2,), schema.TensorType.INT32, data=np.array([1, 2], np.int32).tobytes())
    cast = [Op(schema.BuiltinOperator.CAST, [0], [1])] if dtype != schema.TensorType.FLOAT32 else []
    tensors = [T(shape, dtype), T(shape), axes, T((1, channels))]
    mean = Op(schema.BuiltinOperator.MEAN, [1 if cast else 0, 2], [3])
    return model_file(tensors, [*cast, mean], [0], [3])


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands in for the phone's runner and for its TensorFlow Lite."""
    require_or_skip(platform.machine() == "x86_64", "the library at hand is for x86-64")
    runner = built_runner("x86_64", tmp_path_factory.mktemp("host") / "runner")
    return {"HOST_RUNNER": str(runner), "HOST_TFLITE": str(tflite_c_library("amd64"))}


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Gradle has it, with a real library for ARM."""
    file = tmp_path_factory.mktemp("gradle") / "tensorflow-lite.aar"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("AndroidManifest.xml", "<manifest/>")
        archive.write(tflite_c_library("arm64"), "jni/arm64-v8a/libtensorflowlite_jni.so")
    return file


@pytest.fixture
def bench(phone: Path, harness: Command, host: dict[str, str], package: Path, tmp_path: Path) -> Command:
    def call(*arguments: Any, bundle: Path = BUNDLE, **more: str) -> subprocess.CompletedProcess[str]:
        place = ["--tflite-library", package, "--remote-dir", phone / "phone" / "a b", "--budget", "0.05"]
        place += ["--record", tmp_path / "record.jsonl"]
        return harness("bench", bundle, "--device", "adb", "--no-float", *place, *arguments, **host, **more)

    return call


def test_a_phone_gives_the_record_of_a_board_and_is_left_as_it_was(phone: Path, bench: Command, tmp_path: Path) -> None:
    beside = tmp_path / "mean.tflite"
    beside.write_bytes(mean_of((1, 28, 28, 1), 1, schema.TensorType.FLOAT32))
    # More threads than cores are taken as a board takes them; a name may be any.
    done = bench("--threads", "2", "--beside", f"mean={beside}", "--beside", f"model={beside}", "--sustained", "9")
    assert done.returncode == 0, done.stderr
    assert "--sustained works on boards only" in done.stderr and "--budget is ignored" not in done.stderr
    # Printed as a board's, but for Python.
    assert "95 % of p50" in done.stdout and "golden outputs: as expected for 4 images" in done.stdout
    assert "bssl-tf runtime" in done.stdout and "TensorFlow Lite 2.9.0" in done.stdout and "Python" not in done.stdout
    [record] = strict_benchmarks(tmp_path / "record.jsonl")
    assert record.golden == Golden(4, (2,))
    assert record.machine.system == "Android 14" and not record.machine.emulated
    assert record.versions["TensorFlow Lite"] == "2.9.0"
    assert record.conditions.before is not None and record.conditions.after is not None
    [run] = record.runs
    assert run.threads == 2 and list(run.networks) == ["binary", "mean", "model"]
    assert [network.role for network in run.networks.values()] == ["subject", "beside", "beside"]
    assert "the rest TensorFlow Lite 2.9.0" in run.networks["binary"].kernel
    for network in run.networks.values():
        row, start = network.latency, network.start
        assert row and start and row.p50_ms and row.p50_low_ms and row.p50_high_ms
        durations = row.durations_ns
        assert row.p50_ms == pytest.approx(np.median(durations) / 1e6) and row.min_ms == min(durations) / 1e6
        assert 0 < row.p50_low_ms <= row.p50_ms <= row.p50_high_ms and row.calls == len(durations) >= 20
        assert start.load_ms and start.first_ms
        assert start.memory_before_kib and start.peak_memory_kib
        assert 0 < start.memory_before_kib < start.peak_memory_kib
    binary, mean, _ = run.networks.values()
    assert binary.latency and mean.latency and binary.latency.calls == mean.latency.calls
    assert (binary.model_size_bytes, mean.model_size_bytes) == (111948, beside.stat().st_size)
    assert not list((phone / "phone").iterdir())
    # Reports read it as they read a board's.
    from bssl_tf.reports.benchmarks import read_benchmarks

    (tmp_path / "record.jsonl").rename(tmp_path / "bench-devices.jsonl")
    read = {one.name: one for one in read_benchmarks(tmp_path)[0]}
    assert read["binary"].p50_ms == binary.latency.p50_ms
    assert mean.start and mean.start.peak_memory_kib and read["mean"].peak_mib == mean.start.peak_memory_kib / 1024


def test_a_network_that_takes_pixels_gets_pixels_and_those_beside_it_do_not(bench: Command, tmp_path: Path) -> None:
    shape = (1, SIZE, SIZE, 3)
    inputs = TensorSignature("pixels", shape, "uint8")
    about = manifest(inputs=(inputs,))
    model = mean_of(shape, 3, schema.TensorType.UINT8)
    outputs = PIXELS.astype(np.float32).mean((1, 2))
    write_bundle(tmp_path / "bundle", about, model, [PIXELS], [outputs], [LABELS[0]] * 4)
    # Not a number for whole pixels, which are far above what is normalised.
    p = about.preprocessing
    highest = float(normalise(PIXELS, p.mean, p.std).max())
    limit = T((), data=np.float32(highest + 1).tobytes())
    root = [Op(schema.BuiltinOperator.SUB, [1, 0], [2]), Op(schema.BuiltinOperator.SQRT, [2], [3])]
    (tmp_path / "root.tflite").write_bytes(model_file([T(shape), limit, T(shape), T(shape)], root, [0], [3]))
    done = bench("--beside", f"root={tmp_path / 'root.tflite'}", bundle=tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    assert "binary" in done.stdout and "root" in done.stdout


def test_a_network_beside_it_must_run_and_give_finite_numbers(bench: Command, phone: Path, tmp_path: Path) -> None:
    shape = (1, 28, 28, 1)
    root = Op(schema.BuiltinOperator.SQRT, [0], [1])
    (tmp_path / "root.tflite").write_bytes(model_file([T(shape), T(shape)], [root], [0], [1]))
    fails(bench("--beside", f"root={tmp_path / 'root.tflite'}"), 10, "root gives numbers that are not finite")
    (tmp_path / "cut.tflite").write_bytes((BUNDLE / "model.tflite").read_bytes()[:50_000])
    fails(bench("--beside", f"cut={tmp_path / 'cut.tflite'}"), 10, "cut.tflite is no TensorFlow Lite model")
    small = model_file([T((1, 2)), T((1, 2))], [Op(schema.BuiltinOperator.SQRT, [0], [1])], [0], [1])
    (tmp_path / "small.tflite").write_bytes(small)
    fails(
        bench("--beside", f"small={tmp_path / 'small.tflite'}"),
        14,
        "the runner on adb stopped: inputs-beside does not have the 32 bytes",
    )
    assert not list((phone / "phone").iterdir())


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("wrong-output", 7, ("does not reproduce the golden outputs",)),
        ("killed", 14, ("was killed (signal 9)", "memory")),
        ("crashed", 14, ("was killed (signal 6)", "Use another version")),
        ("refused", 14, ("cannot execute the runner", "Permission denied", "--remote-dir")),
        ("no-record", 14, ("returned no record",)),
        ("no-durations", 14, ("returned no record",)),
        ("full-disk", 14, ("full disk", "Free space")),
    ],
)
def test_what_goes_wrong_there_is_one_line_and_no_times(
    phone: Path, bench: Command, tmp_path: Path, fault: str, status: int, words: tuple[str, ...]
) -> None:
    fails(bench(RUNNER_FAULT=fault), status, *words)
    assert not list((phone / "phone").iterdir()) and not (tmp_path / "record.jsonl").exists()


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


def test_a_library_that_is_none_for_a_phone_is_refused_before_anything_is_sent(
    phone: Path, bench: Command, host: dict[str, str]
) -> None:
    fails(bench("--tflite-library", phone / "none"), 3, "none is not a file", "--tflite-library")
    fails(bench("--tflite-library", host["HOST_TFLITE"]), 14, "not a shared library for 64-bit ARM")
    assert not (phone / "log").exists()


def test_the_devices_file_names_the_library_too(phone: Path, harness: Command, package: Path) -> None:
    devices = phone / "devices.toml"
    devices.write_text(f'[mine]\naddress = "adb:C3"\ntflite_library = "{package}"\n')
    # It is read and found good; then the phone is asked, and is not there.
    arguments = ("--device", "mine", "--devices-file", devices, "--no-float")
    fails(harness("bench", BUNDLE, *arguments), 14, "mine is not connected")
    devices.write_text('[mine]\naddress = "adb:C3"\ntflite_library = "/nonexistent/library.so"\n')
    fails(harness("bench", BUNDLE, *arguments), 14, "/nonexistent/library.so cannot be read")
    # What is named on the command line goes before either.
    devices.write_text('[mine]\naddress = "adb:C3"\nbenchmark_model = "/nonexistent/tool"\n')
    fails(harness("bench", BUNDLE, *arguments, "--tflite-library", package), 14, "mine is not connected")
    done = harness("bench", BUNDLE, "--device", "local", "--tflite-library", package)
    fails(done, 2, "none of the devices can use --tflite-library", "name a phone")


def test_a_phones_state_is_told_in_the_words_of_a_board() -> None:
    sensors = [("battery", 99000), ("cpu-0-0-usr", 41500), ("BIG", 52000), ("cpuss-1", -273000), ("cpu", 900000)]
    raw = PhoneState(
        governors=("schedutil", "performance", "schedutil"),
        clock_khz=(300000, 2400000),
        clock_max_khz=(),
        sensors=tuple(Sensor(*one) for one in sensors),
    )
    found = State(governors=("performance", "schedutil"), clock_mhz=2400.0, temperature_c=52.0)
    assert android_runner._state(raw) == found
    assert android_runner._state(PhoneState((), (), (), ())) == State()


@pytest.mark.parametrize(
    "out",
    [
        *("", "{}", '{"bssl_tf_runner":1,"tflite":', '{"bssl_tf_runner":2,"load_ns":1}', "[]"),
        '{"bssl_tf_runner":1,"load_ns":1}',
        '{"bssl_tf_runner":1,"load_ns":1,"first_ns":-1,"memory_before_kib":0,"peak_memory_kib":0}',
        '{"bssl_tf_runner":1,"load_ns":true,"first_ns":1,"memory_before_kib":0,"peak_memory_kib":0}',
        '{"bssl_tf_runner":1,"load_ns":1.5,"first_ns":1,"memory_before_kib":0,"peak_memory_kib":0}',
        '{"bssl_tf_runner":1,"load_ns":1}\n{"bssl_tf_runner":1,"load_ns":1}',
    ],
)
def test_what_is_no_record_is_not_taken_for_one(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bundle:
        golden_images = 4

    monkeypatch.setattr(AdbConnection, "shell", lambda *arguments, timeout_s: (0, out))
    some: Any = Bundle()
    with pytest.raises(DeviceError, match="adb returned no record"):
        android_runner._start(PhoneFolder(AdbConnection("adb"), "/folder"), some, "binary", 1)
