"""A device behind a real sshd: what a benchmark gives, and what is left when something goes wrong."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bssl_tf.bench_records import read_benchmarks
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.files import without_checksum
from bssl_tf_deploy.record import Record
from tests.conftest import require_or_skip
from tests.devices.conftest import Command
from tests.devices.sshd import Device
from tests.edited import edited
from tests.native import require_rig

QUICK = ("--no-float", "--budget", "0.5")


def fails(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """One line that says what happened, and its status."""
    assert done.returncode == status, done.stderr
    error = done.stderr.splitlines()[-1]
    for word in words:
        assert word in error, done.stderr
    assert "Traceback" not in done.stderr and not done.stdout
    assert [line for line in done.stderr.splitlines() if line.startswith("error[")] == [error]


def processes_in(folder: Path) -> list[str]:
    """Command lines of processes that work in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str((process / "cwd").readlink()).startswith(str(folder)):
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


def gone(home: Path) -> bool:
    """Whether all that is ours goes from a device within seconds."""
    for _ in range(100):
        # While folders go, listing them fails.
        with contextlib.suppress(FileNotFoundError):
            left = [path for path in home.rglob("*") if path != home / ".cache"]
            if not left and not processes_in(home):
                return True
        time.sleep(0.1)
    return False


def test_a_benchmark_gives_figures_with_their_conditions_and_keeps_only_the_runtime(
    board: Device, harness: Command, real_bundle: Path, tmp_path: Path
) -> None:
    record_file = tmp_path / "devices.jsonl"
    arguments = ("bench", real_bundle, "--device", board.address, *QUICK, "--all-threads", "--sustained", "1")
    done = harness(*arguments, "--json", "--record", record_file)
    assert done.returncode == 0, done.stderr
    [record] = map(Record.from_dict, json.loads(done.stdout))
    assert read_benchmarks(record_file) == [record]
    assert record.golden is not None and not record.machine.emulated
    assert record.machine.address == board.address
    assert record.versions.keys() == {"ai-edge-litert", "bssl-tf runtime", "numpy"}
    counts = [run.threads for run in record.runs]
    assert counts[0] == 1 and counts[-1] == record.machine.cores
    for run in record.runs:
        row, start = run.networks["binary"].latency, run.networks["binary"].start
        assert row and start and row.p50_ms and row.min_ms and row.p50_low_ms and row.p50_high_ms
        assert row.calls == len(row.durations_ns) >= 20
        assert row.p50_ms == pytest.approx(np.median(row.durations_ns) / 1e6)
        assert 0 < row.min_ms <= row.p50_low_ms <= row.p50_ms <= row.p50_high_ms
        assert row.p90_ms and row.p99_ms and row.p50_ms <= row.p90_ms <= row.p99_ms
        assert start.load_ms and start.first_ms
        assert start.peak_memory_kib and start.memory_before_kib and start.peak_memory_kib > start.memory_before_kib
    assert record.sustained and record.sustained.windows and record.sustained.last_over_first_p50 > 0
    [folder] = (board.home / ".cache").iterdir()
    assert {path.name.partition("-")[0] for path in folder.iterdir()} == {".bssl", "env"}
    [environment] = folder.glob("env-*")
    made = environment.stat().st_ino
    # Again: what is there is used.
    done = harness(*arguments)
    assert done.returncode == 0 and "installing" not in done.stderr
    assert environment.stat().st_ino == made and "95 % of p50" in done.stdout
    assert "bssl-tf runtime" in harness("devices", board.address).stdout
    done = harness("devices", board.address, "--clean")
    assert (done.returncode, done.stdout) == (0, f"{board.address}: removed\n")
    assert harness("devices", board.address, "--clean").stdout == f"{board.address}: nothing was there\n"


def test_benchmark_model_adds_times_by_operator(
    board: Device, harness: Command, real_bundle: Path, tmp_path: Path
) -> None:
    tool = tmp_path / "benchmark_model"
    script = Path(__file__).parent / "fake_benchmark_model.py"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    arguments = ("bench", real_bundle, "--device", board.address, "--no-float", "--budget", "0.1", "--clean")
    done = harness(*arguments, "--benchmark-model", tool)
    assert done.returncode == 0, done.stderr
    _, _, table = done.stdout.partition("operators, profiled by benchmark_model")
    assert [line.split()[0] for line in table.splitlines()[1:]] == ["BsslDelegate", "FULLY_CONNECTED"]
    tool.write_bytes(b"of another machine")
    fails(harness(*arguments, "--benchmark-model", tool), 10, "benchmark_model does not run on", "Exec format error")


def test_asking_a_device_about_itself_leaves_nothing(board: Device, harness: Command, tmp_path: Path) -> None:
    file = tmp_path / "devices.toml"
    file.write_text(f'[board]\naddress = "{board.address}"\n[lost]\naddress = "ssh://127.0.0.1:9"\n')
    done = harness("devices", "--devices-file", file, "--json")
    here, there, lost = json.loads(done.stdout)
    assert done.returncode == 14
    assert (here["device"], there["device"], lost["device"]) == ("local", "board", "lost")
    assert "does not accept ssh connections" in lost["error"]
    for key in ("architecture", "cores", "processor", "memory_mib", "python", "glibc"):
        assert here["machine"][key] == there["machine"][key]
    assert here["target"] == there["target"]
    assert gone(board.home)


def test_names_are_never_read_by_a_shell(board: Device, harness: Command, real_bundle: Path, tmp_path: Path) -> None:
    trap = tmp_path / "x; touch trapped; $(touch trapped) `touch trapped` 'a \"b"
    shutil.copytree(real_bundle, trap)
    place = board.home / "a b; touch trapped; $(touch trapped) 'c"
    done = harness("bench", trap, "--device", board.address, "--remote-dir", place, "--clean", *QUICK)
    assert done.returncode == 0, done.stderr
    assert not list(board.home.rglob("trapped")) and not list(tmp_path.rglob("trapped"))


def test_a_wrong_key_is_one_line(board: Device, harness: Command) -> None:
    config = board.folder / "ssh_config"
    config.write_text(config.read_text().replace(f"{board.folder}/user\n", f"{board.folder}/stranger\n"))
    fails(harness("devices", board.address), 14, "rejects the key or the user", "ssh-copy-id")


def test_an_unknown_host_key_is_refused(board: Device, harness: Command) -> None:
    (board.folder / "known_hosts").write_text("")
    fails(harness("devices", board.address), 14, "host key that is not known", "fingerprint")
    assert (board.folder / "known_hosts").read_text() == ""


def test_a_changed_host_key_is_refused(board: Device, harness: Command) -> None:
    other = (board.folder / "stranger.pub").read_text().split()
    (board.folder / "known_hosts").write_text(f"[127.0.0.1]:{board.port} {other[0]} {other[1]}\n")
    fails(harness("devices", board.address), 14, "a different host key than before", "ssh-keygen -R")


def test_nobody_listens(board: Device, harness: Command) -> None:
    fails(harness("devices", "ssh://127.0.0.1:9"), 14, "does not accept ssh connections", "port")
    fails(harness("devices", "ssh://no-such-host.invalid"), 14, "name that cannot be resolved")


def test_an_old_python_is_one_line(board: Device, harness: Command, real_bundle: Path) -> None:
    # The arguments are -I -u -c PROGRAM.
    program = "import sys; sys.version_info = (3, 9, 18); exec(sys.argv[1])"
    board.python(f'exec {sys.executable} -c {shlex.quote(program)} "$4"')
    fails(harness("bench", real_bundle, "--device", board.address, *QUICK), 14, "Python 3.9, but 3.10", "newer system")


def test_no_python_is_one_line(board: Device, harness: Command) -> None:
    board.python("exit 127")
    fails(harness("devices", board.address), 14, "has no python3", "Install Python")


def test_another_architecture_is_one_line(board: Device, harness: Command, real_bundle: Path) -> None:
    require_or_skip(shutil.which("setarch") is not None, "setarch (util-linux) is not installed")
    board.python(f'exec setarch i686 {sys.executable} "$@"')
    fails(harness("bench", real_bundle, "--device", board.address, *QUICK), 14, "no runtime for", "i686", "64-bit")


def test_what_a_login_prints_first_does_no_harm(board: Device, harness: Command) -> None:
    board.python(f'echo "Welcome to the board"; echo; exec {sys.executable} "$@"')
    assert harness("devices", board.address).returncode == 0
    board.python("while :; do echo a program that talks and talks and is no Python; done")
    fails(harness("devices", board.address), 14, "ended", "something other than our program")


def test_a_bundle_that_was_changed_before_is_never_sent(
    board: Device, harness: Command, real_bundle: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(real_bundle, tmp_path / "copy")
    with (copy / "model.tflite").open("r+b") as file:
        file.seek(100)
        file.write(b"xxxx")
    fails(harness("bench", copy, "--device", board.address, *QUICK), 7, "model.tflite was changed")


def test_no_time_is_printed_when_the_golden_outputs_differ_there(
    board: Device, harness: Command, real_bundle: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(real_bundle, tmp_path / "copy")
    bundle = read_bundle(copy)
    arrays = {"input/image": bundle.golden_inputs[0], "output/logits": -bundle.golden_outputs[0]}
    np.savez(copy / "golden.npz", **arrays)
    manifest = without_checksum(json.loads((copy / "manifest.json").read_text()))
    import hashlib

    content = (copy / "golden.npz").read_bytes()
    manifest["files"]["golden.npz"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (copy / "manifest.json").write_text(edited(manifest))
    fails(harness("bench", copy, "--device", board.address, *QUICK), 7, "does not reproduce the golden outputs")
    assert gone(board.home)


@contextlib.contextmanager
def measuring(board: Device, bundle: Path) -> Iterator[subprocess.Popen[str]]:
    """A benchmark that is in the middle of it."""
    command = [sys.executable, "-m", "bssl_tf", "bench", str(bundle), "--device", board.address]
    process = subprocess.Popen(
        [*command, "--no-float", "--budget", "0.1", "--sustained", "600"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PATH": board.path},
    )
    try:
        for _ in range(600):
            if any("measure" in line for line in processes_in(board.home)):
                break
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_pulled_cable_leaves_nothing_on_the_device(board: Device, real_bundle: Path) -> None:
    with measuring(board, real_bundle) as process:
        assert (board.home / ".cache" / "bssl-tf-device" / "run" / "bundle" / "model.tflite").exists()
        sessions = board.sessions()
        assert sessions
        for session in sessions:
            with contextlib.suppress(ProcessLookupError):
                os.kill(session, signal.SIGKILL)
        out, said = process.communicate(timeout=60)
        fails(subprocess.CompletedProcess([], process.returncode, out, said), 14, "closed the connection", "cable")
        assert gone(board.home)


def test_ctrl_c_leaves_nothing_on_the_device(board: Device, real_bundle: Path) -> None:
    with measuring(board, real_bundle) as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130 and "Traceback" not in said, said
        assert gone(board.home)


def test_a_killed_harness_leaves_nothing_on_the_device(board: Device, real_bundle: Path) -> None:
    with measuring(board, real_bundle) as process:
        process.kill()
        process.communicate()
        assert gone(board.home)


def test_two_sessions_do_not_disturb_each_other(board: Device, harness: Command, real_bundle: Path) -> None:
    with measuring(board, real_bundle):
        fails(harness("bench", real_bundle, "--device", board.address, *QUICK), 14, "in use", "Wait")
    assert gone(board.home)


def small_disk(board: Device, size: str, listing: Path) -> None:
    """A device whose home is a file system of its own, and what is on it at the end."""
    inside = (
        f'mount -t tmpfs -o size={size} tmpfs "$HOME" && {{ {sys.executable} "$@"; status=$?; '
        f'find "$HOME" -mindepth 1 > {shlex.quote(str(listing))}; exit $status; }}'
    )
    board.python(f'exec unshare -rm sh -c {shlex.quote(inside)} sh "$@"')
    probe = ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs tmpfs {shlex.quote(str(board.home))}"]
    able = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    require_or_skip(able, "no user namespace may mount a small disk here")


def test_a_disk_that_is_too_small_is_one_line(
    board: Device, harness: Command, real_bundle: Path, tmp_path: Path
) -> None:
    small_disk(board, "1m", tmp_path / "left")
    done = harness("bench", real_bundle, "--device", board.address, *QUICK)
    fails(done, 14, "the disk of", "MB are needed", "--remote-dir")
    assert (tmp_path / "left").read_text() == ""


def test_a_disk_that_fills_up_on_the_way_is_one_line(
    board: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from bssl_tf.devices import find_device
    from bssl_tf.devices.python_device import PythonDevice
    from bssl_tf.devices.session import open_session
    from bssl_tf.errors import DeviceError

    small_disk(board, "1m", tmp_path / "left")
    monkeypatch.setenv("PATH", board.path)
    device = find_device(board.address)
    assert isinstance(device, PythonDevice)
    with open_session(device) as session:
        session.ask({"do": "open", "folder": session.folder})
        session.put("small", bytes(100_000))
        with pytest.raises(DeviceError, match=r"disk of .* is full"):
            session.put("large", os.urandom(3_000_000))
        # The session stands.
        session.put("small again", bytes(100_000))
    assert (tmp_path / "left").read_text() == ""


@pytest.mark.slow  # Over a minute of silence.
def test_a_cable_that_is_pulled_without_a_word_leaves_nothing(board: Device, real_bundle: Path) -> None:
    with measuring(board, real_bundle) as process:
        stopped = board.sessions()
        for session in stopped:
            os.kill(session, signal.SIGSTOP)
        try:
            out, said = process.communicate(timeout=90)
            fails(subprocess.CompletedProcess([], process.returncode, out, said), 14, "stopped responding", "cable")
            # The agent hears nothing, not even the end: it waits for a minute.
            for _ in range(8):
                if gone(board.home):
                    break
            assert gone(board.home)
        finally:
            for session in stopped:
                os.kill(session, signal.SIGCONT)


@pytest.mark.slow  # Wheels are fetched, and unpacked by an emulated processor.
def test_an_arm64_board_without_packages_gets_wheels(board: Device, harness: Command, real_bundle: Path) -> None:
    rig = require_rig()
    python = rig.folder / "root" / "usr" / "bin" / "python3.11"
    view = rig.folder / "cpu" / "cortex-a72"
    # By its own name, so that children are emulated too.
    board.python(f'exec qemu-aarch64 -0 {board.bin}/python3 -cpu cortex-a72 -L {view} {python} "$@"')
    done = harness(
        "bench", real_bundle, "--device", board.address, "--no-float", "--budget", "0", "--clean", timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert "from bssl-tf runtime neon" in done.stdout and "Linux aarch64" in done.stdout


@pytest.mark.slow  # Wheels are fetched.
def test_a_board_without_packages_gets_wheels(
    board: Device, harness: Command, real_bundle: Path, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    board.python(f'exec {tmp_path}/bare/bin/python "$@"')
    done = harness("bench", real_bundle, "--device", board.address, *QUICK, "--clean")
    assert done.returncode == 0, done.stderr
    assert "ai-edge-litert" in done.stdout and "MB" in done.stderr
