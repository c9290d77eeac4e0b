"""What `bssl-tf launch` gives its workers, and how it ends with them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bssl_tf.errors import UsageError, WorkerError
from bssl_tf.files import read_json, read_records
from bssl_tf.workflows.launch import launch
from tests.conftest import TINY_STUDENT

INDEX = "import json, os, sys, time; index = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"


def python(program: str) -> list[str]:
    return [sys.executable, "-c", INDEX + program]


def test_every_worker_has_its_own_tf_config(tmp_path: Path) -> None:
    write = f"open(f'{tmp_path}/{{index}}', 'w').write(os.environ['TF_CONFIG'])"
    assert launch(python(write), 3) == 0
    found = [json.loads((tmp_path / str(index)).read_text()) for index in range(3)]
    (cluster,) = {json.dumps(one["cluster"]) for one in found}
    addresses = json.loads(cluster)["worker"]
    assert len(set(addresses)) == 3 and all(one.startswith("127.0.0.1:") for one in addresses)
    assert [one["task"] for one in found] == [{"type": "worker", "index": index} for index in range(3)]


def test_the_chief_speaks_for_all(capfd: pytest.CaptureFixture[str]) -> None:
    assert launch(python("print('out', index); print('err', index, file=sys.stderr)"), 2) == 0
    assert capfd.readouterr() == ("out 0\n", "err 0\n")


def test_the_chiefs_failure_is_the_status_and_ends_the_others() -> None:
    began = time.monotonic()
    assert launch(python("sys.exit(13) if index == 0 else time.sleep(60)"), 2) == 13
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("death", "message", "status"),
    [
        ("sys.exit('error[data]: gone')", r"worker 1 ended with status 1 \(error\[data\]: gone\)", 1),
        ("os.kill(os.getpid(), 9)", "worker 1 was killed by SIGKILL", 137),
    ],
)
def test_another_workers_failure_is_named(death: str, message: str, status: int) -> None:
    began = time.monotonic()
    with pytest.raises(WorkerError, match=message) as error:
        launch(python(f"if index == 0: time.sleep(60)\n{death}"), 2)
    assert error.value.exit_status == status
    assert time.monotonic() - began < 30


def test_sigterm_reaches_all_workers(tmp_path: Path) -> None:
    program = (
        "import signal\n"
        f"def end(*_): open(f'{tmp_path}/ended{{index}}', 'w'); sys.exit(130)\n"
        f"signal.signal(signal.SIGTERM, end); open(f'{tmp_path}/ready{{index}}', 'w'); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-m", "bssl_tf", "launch", "--workers", "2", *python(program)])
    limit = time.monotonic() + 60
    while len(list(tmp_path.glob("ready*"))) < 2 and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert len(list(tmp_path.glob("ended*"))) == 2


def test_after_ctrl_c_the_chief_has_time_to_save_and_says_how_it_ended(tmp_path: Path) -> None:
    """The other workers end first; a second signal would cut short what the chief writes."""
    program = (
        "import signal; asked = []\n"
        "for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, lambda *_: asked.append(1))\n"
        f"open(f'{tmp_path}/ready{{index}}', 'w')\n"
        "while not asked: time.sleep(0.01)\n"
        "if index == 0: time.sleep(1); sys.exit(129 + len(asked))\n"
        "sys.exit(130)"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "bssl_tf", "launch", "--workers", "2", *python(program)], stderr=subprocess.PIPE
    )
    limit = time.monotonic() + 60
    while len(list(tmp_path.glob("ready*"))) < 2 and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and not said


def test_what_a_worker_writes_may_be_of_any_bytes() -> None:
    """Enough of it to fill a pipe, which would stop a worker that is not read."""
    with pytest.raises(WorkerError, match=r"worker 1 ended with status 3 \(the cause\)"):
        launch(
            python(
                "if index == 0: time.sleep(60)\n"
                "sys.stderr.buffer.write(b'\\xff\\n' * 200_000 + b'the cause\\n'); sys.exit(3)"
            ),
            2,
        )


def test_what_cannot_be_launched_is_one_clear_line() -> None:
    with pytest.raises(UsageError, match="1 workers"):
        launch(["true"], 1)
    with pytest.raises(UsageError, match="no-such-program cannot be started"):
        launch(["no-such-program"], 2)


@pytest.mark.slow
def test_two_workers_write_one_run_with_the_losses_of_one(tiny_teacher: Path, tmp_path: Path) -> None:
    """Of the command as a user starts it, teacher and all; a second start finds nothing to do."""
    records = {}
    for workers, launcher in ((1, []), (2, ["launch", "--workers", "2", sys.executable, "-m", "bssl_tf"])):
        out = tmp_path / str(workers)
        kind = "multiworker" if workers == 2 else "none"
        train = ["pretrain", "--out", str(out), "--teacher", str(tiny_teacher), *TINY_STUDENT, "--distribute", kind]
        for resume in ([], ["--resume"]):
            command = [sys.executable, "-m", "bssl_tf", *launcher, *train, *resume]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines() == [str(out / "student")]
        records[workers] = [record for record in read_records(out / "metrics.jsonl") if "loss" in record]
        assert (out / "student" / "weights.safetensors").exists()
        assert read_json(out / "environment.json")["devices"] == workers
    assert len(records[2]) == len(records[1]) == 4
    # Signs flip by rounding, so only the first epochs agree closely.
    assert records[2][0]["loss"] == pytest.approx(records[1][0]["loss"], rel=1e-2)
