"""`bssl-tf bench --device` on this machine and under an emulator."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema

from bssl_tf.bench_records import read_benchmarks
from bssl_tf.devices.android import MOST_NETWORKS
from bssl_tf.devices.android_benchmark_model import BenchmarkModel
from bssl_tf.errors import BsslError, ConfigError, DeviceError, StorageError
from bssl_tf.workflows import networks_beside
from bssl_tf_deploy import measure
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.record import Record
from tests.devices.test_android_runner import mean_of
from tests.devices.test_ssh import fails
from tests.native import require_rig


@pytest.fixture
def harness(tmp_path: Path) -> Any:
    """The command line, with a home of its own; the emulated system and what was fetched stay where they are."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")

    def call(*arguments: Any) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(cache)}
        environment.setdefault("BSSL_TF_CACHE", str(cache / "bssl-tf"))
        command = [sys.executable, "-m", "bssl_tf", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)

    (tmp_path / "home").mkdir()
    return call


def test_this_machine_times_both_networks_interleaved_and_another_device_may_fail(
    harness: Any, real_bundle: Path, tmp_path: Path
) -> None:
    # The bundle says of its network what `tests.deploy.bundles` made up; the float one is built from that.
    manifest = read_bundle(real_bundle).manifest
    devices = ("--device", "ssh://127.0.0.1:9", "--device", "local")
    done = harness("bench", real_bundle, *devices, "--budget", "0.3", "--json")
    assert done.returncode == 14
    assert done.stderr.count("error[device]: ssh://127.0.0.1:9 does not accept ssh connections") == 1
    [record] = map(Record.from_dict, json.loads(done.stdout))
    [run] = record.runs
    networks = run.networks
    assert {name: one.role for name, one in networks.items()} == {
        **{"binary": "subject", "float32": "stock", "int8": "stock"}
    }
    assert record.subject and record.subject.network == manifest.network.backbone
    assert record.subject.bundle == str(real_bundle) and record.commit and record.time
    assert record.command and record.command.startswith(f"bssl-tf bench {real_bundle} --device local --threads 1")
    assert networks["float32"].model_size_bytes > 5 * networks["binary"].model_size_bytes
    own, float32 = networks["binary"].latency, networks["float32"].latency
    assert own and float32 and len(own.durations_ns) == len(float32.durations_ns) > 0
    [profile] = run.profiles
    assert "LceBconv2d" in "".join(row.operator for row in profile.rows)
    # Two ways to the same figure, on a machine that has other work too.
    assert profile.call_ms and own.p50_ms and 0.3 < profile.call_ms / own.p50_ms < 3
    # TensorFlow, which makes the float network, leaves .keras.
    assert not list((tmp_path / "home").rglob("*bssl*"))


def test_a_model_of_ones_own_is_timed_beside_it(harness: Any, real_bundle: Path, tmp_path: Path) -> None:
    # A binary model is no model of builtin operators.
    shutil.copyfile(real_bundle / "model.tflite", tmp_path / "mine.tflite")
    arguments = ("bench", real_bundle, "--device", "local", "--no-float", "--budget", "0.1", "--beside")
    fails(harness(*arguments, f"mine={tmp_path / 'mine.tflite'}"), 10, "on local: LiteRT does not run this model")
    for wrong, words in (
        *(("mine", "'mine' is neither NAME=FILE nor one of mobilenet_v2, "), ("=x", "is not NAME=FILE")),
        ("mobilenet_v2_int8=x", "'mobilenet_v2_int8' cannot name a network"),
        *(("a/b=x", "'a/b' cannot name a network"), ("binary=x", "'binary' cannot name a network")),
    ):
        fails(harness(*arguments, wrong), 3, words)
    fails(harness(*arguments, "mine=/nonexistent"), 3, "cannot be read")


def test_this_process_times_a_model_of_ones_own_too(harness: Any, real_bundle: Path, tmp_path: Path) -> None:
    for name, side in (("mine", 28), ("small", 16)):
        content = mean_of((1, side, side, 1), 1, schema.TensorType.FLOAT32)
        (tmp_path / f"{name}.tflite").write_bytes(content)
    arguments = ("bench", real_bundle, "--no-float", "--repetitions", "3", "--beside")
    done = harness(*arguments, f"mine={tmp_path / 'mine.tflite'}", "--json", "--share", tmp_path / "board.jsonl")
    [shared] = read_benchmarks(tmp_path / "board.jsonl")
    assert str(tmp_path) not in shared.to_json() and list(shared.runs[0].networks) == ["binary"]
    assert "is free of paths, addresses and names of yours" in done.stderr
    [run] = Record.from_dict(json.loads(done.stdout)).runs
    assert {name: one.role for name, one in run.networks.items()} == {"binary": "subject", "mine": "beside"}
    assert all(one.latency and one.latency.calls == 3 for one in run.networks.values())
    said = harness(*arguments, f"mine={tmp_path / 'mine.tflite'}").stdout
    assert re.search(r"times (faster|slower) \(median\) and [\d.]+ times (smaller|larger) than mine", said)
    # The same on the device itself.
    program = [sys.executable, "-c", "from bssl_tf_deploy.cli import main; main()", "bench"]
    program += [str(real_bundle), "--repetitions", "3", "--json", "--beside"]
    done = subprocess.run(
        [*program, "mine", tmp_path / "mine.tflite"], capture_output=True, text=True, timeout=300, check=False
    )
    [run] = Record.from_dict(json.loads(done.stdout)).runs
    assert {name: one.role for name, one in run.networks.items()} == {"binary": "subject", "mine": "beside"}
    done = subprocess.run(
        [*program, "binary", tmp_path / "mine.tflite"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2 and "binary is the name of the bundle's own network" in done.stderr
    fails(harness(*arguments, f"small={tmp_path / 'small.tflite'}"), 10, "small does not take the bundle's input")
    fails(harness(*arguments, "mobilenet_v2"), 3, "mobilenet_v2 takes images of 32 px or more")


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (lambda file: networks_beside.read_models({"mine": file}), ConfigError),
        (measure.read_model, StorageError),
        (BenchmarkModel, DeviceError),
    ],
    ids=["--beside", "bssl-tf-deploy measure --beside", "--benchmark-model"],
)
def test_only_regular_files_are_read_where_a_model_or_a_program_is_named(read: Any, kind: type[BsslError]) -> None:
    """A pipe would be waited on for ever, and /dev/zero never ends; /dev/null stands for both."""
    with pytest.raises(kind, match=r"/dev/null cannot be read \(Not a regular file\)"):
        read(Path(os.devnull))


def test_devices_are_reached_before_the_networks_are_made(real_bundle: Path, tmp_path: Path) -> None:
    """An empty cache: what is made would be told, and kept there."""
    (tmp_path / "adb").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "adb").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"BSSL_TF_CACHE": str(tmp_path / "cache"), "PATH": path}
    for device, words in (("ssh://127.0.0.1:9", "does not accept ssh connections"), ("adb", "none was named")):
        command = [sys.executable, "-m", "bssl_tf", "bench", str(real_bundle), "--device", device]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
        fails(done, 14, words)
        assert "making" not in done.stderr and not (tmp_path / "cache").exists()


def test_more_networks_than_the_runner_on_a_phone_takes_are_refused(
    harness: Any, real_bundle: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(b"model")
    arguments = ["bench", real_bundle, "--device", "adb", "--tflite-library", model]
    for number in range(14):
        arguments += ["--beside", f"m{number}={model}"]
    fails(harness(*arguments), 3, "16 networks are to be timed next to", "adb takes at most 15", "fewer with --beside")
    # Without the two of the same shape they are fewer; then the library is looked at.
    fails(harness(*arguments, "--no-float"), 14, "neither a shared library nor")


def test_the_limit_is_that_of_the_runner() -> None:
    runner = Path(__file__).parents[2] / "deploy" / "native" / "runner" / "main.cc"
    assert f"kMaxNetworks = {MOST_NETWORKS};" in runner.read_text(encoding="utf-8")


def test_an_emulator_gives_answers_and_no_times(harness: Any, real_bundle: Path, tmp_path: Path) -> None:
    require_rig()
    done = harness("bench", real_bundle, "--device", "qemu-arm64", "--clean", "--json")
    assert done.returncode == 0, done.stderr
    [record] = map(Record.from_dict, json.loads(done.stdout))
    assert record.machine.emulated and record.golden is not None
    assert record.library and "neon" in record.library.kernels[0] and record.machine.architecture == "aarch64"
    assert record.runs == () and record.sustained is None
    assert "_ms" not in done.stdout and "durations" not in done.stdout
    if shutil.which("cc") is not None:
        [counted] = record.counts
        # 16 bytes of bits at a time: there are far more of all instructions than of those that count bits.
        assert counted.instructions > counted.vector > counted.cnt > 0 and counted.processor == "cortex-a72"
    assert [path.name for path in (tmp_path / "home").rglob("*")] == [".cache"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--device", "local", "--repetitions", "5"), "--repetitions does not go with --device"),
        (("--device", "local", "--runtime", "lce"), "--runtime does not go with --device"),
        (("--sustained", "5"), "--sustained needs --device: name one, --device local"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    harness: Any, real_bundle: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = harness("bench", real_bundle, *arguments)
    assert done.returncode == 2 and words in done.stderr


def test_an_unknown_device_is_refused_before_anything_is_made(harness: Any, real_bundle: Path) -> None:
    fails(harness("bench", real_bundle, "--device", "raspberry"), 3, "'raspberry' is not a device", "Give local")
