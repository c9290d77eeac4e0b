"""The command line as a user meets it: help, light imports, errors in one line with their own status."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bssl_tf.cli.main import COMMANDS
from bssl_tf.zoo import zoo_folder
from tests.conftest import light_start

HEAVY = ("tensorflow", "tf_keras", "keras", "larq", "larq_compute_engine", "sklearn", "tensorflow_datasets")


def test_import_and_help_are_light_and_fast() -> None:
    """Half a second on an idle machine."""
    printed, seconds = light_start(HEAVY, "--help")
    assert seconds < 0.5
    for name in COMMANDS:
        assert name in printed


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_of_each_command_is_light(name: str) -> None:
    printed, _ = light_start(HEAVY, name, "--help", runs=1)
    assert f"{name} [OPTIONS]" in printed


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["pretain"], 2, "No such command 'pretain'. Did you mean 'pretrain'?"),
        (["photos"], 2, "No such command 'photos'"),
        (["teacher"], 2, "Missing option '--out'"),
        (["teacher", "--out", "{tmp}", "--epochs", "many"], 2, "'many' is not a valid integer"),
        (["teacher", "--out", "{tmp}"], 3, "no data set is named. Pass --data embedded"),
        (["teacher", "--out", "{tmp}", "--preset", "demmo"], 3, "Did you mean 'demo'"),
        (["teacher", "--out", "{tmp}", "--set", "epochs"], 3, "is not KEY=VALUE"),
        (["teacher", "--out", "{tmp}", "--set", "training.epoch=1"], 3, "Did you mean training.epochs?"),
        (["teacher", "--out", "{tmp}", "--data", "embedded", "--epochs", "0"], 3, "training.epochs is 0"),
        (["teacher", "--out", "{tmp}", "--data", "embedded", "--set", "training.seed=-1"], 3, "training.seed is -1"),
        (["teacher", "--out", "{tmp}", "--data", "embedded", "--set", "training.schedule=cos"], 3, "'cosine'"),
        (["teacher", "--out", "{tmp}", "--data", "embedded", "--set", "augmentation.name=light"], 3, "'lite'"),
        (["teacher", "--out", "{tmp}", "--data", "embedded", "--set", "augmentation.min_area=7"], 3, "min_area"),
        (["teacher", "--out", "{tmp}", "--data", "embedded", "--set", "moco.queue_size=100"], 3, "multiple of batch"),
        (
            ["teacher", "--out", "{tmp}", "--data", "embedded", "--set", "training.warmup_epochs=300"],
            3,
            "300, of 200 epochs in all",
        ),
        (["teacher", "--out", "{tmp}", "--data", "embedded", "--set", "training.learning_rate=inf"], 3, "is inf"),
        (["teacher", "--out", "{tmp}", "--data", "embedded", "--limit", "9"], 4, "fewer than one batch of 256"),
        (["teacher", "--out", "{tmp}", "--data", "embedded", "--backbone", "resnet"], 12, "no network is called"),
        (["teacher", "--out", "{tmp}", "--data", "./none"], 4, "none"),
        (["pretrain", "--out", "{tmp}", "--data", "embedded"], 12, "no teacher was named. Train one with"),
        (
            ["pretrain", "--out", "{tmp}", "--data", "embedded", "--set", "training.warmup_epochs=1"],
            3,
            "needs the schedule",
        ),
        (["pretrain", "--out", "{tmp}", "--data", "embedded", "--method", "s2bn"], 3, "Did you mean 's2bnn'?"),
        (["pretrain", "--out", "{tmp}", "--data", "embedded", "--teacher", "none"], 12, "there is no teacher at none"),
        (["evaluate", "{tmp}"], 5, "is not a run folder"),
    ],
)
def test_a_mistake_is_one_line_with_its_status_and_leaves_no_run(
    arguments: list[str], status: int, message: str, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    out = tmp_path / "run"
    done = bssl_tf(*[argument.replace("{tmp}", str(out)) for argument in arguments])
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (out / "config.toml").exists()
    if status > 2:
        assert done.stderr.strip().splitlines()[-1].startswith("error[")


def test_the_students_width_is_checked_before_a_run_is_made(
    tiny_teacher: Path, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    out = tmp_path / "run"
    done = bssl_tf("pretrain", "--out", out, "--data", "embedded", "--teacher", tiny_teacher, "--width", "33")
    assert done.returncode == 3 and "width 33 is not a multiple of 32" in done.stderr
    assert not out.exists()


def test_ctrl_c_before_training_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bssl_tf", "teacher", "--data", "embedded", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # While TensorFlow is being loaded, which takes seconds.
    while process.poll() is None and "libtensorflow" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "error[interrupted]" in stderr and "Traceback" not in stderr


def test_evaluate_goes_on_without_the_teacher_and_says_so(
    tiny_student: Path, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    run = shutil.copytree(tiny_student, tmp_path / "run")
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(re.sub(r'^teacher = ".*"$', 'teacher = "gone"', text, flags=re.M))
    done = bssl_tf("evaluate", run)
    assert done.returncode == 0, done.stderr
    assert "no row for the teacher: there is no teacher at gone" in done.stderr
    assert "float teacher" not in done.stdout


def test_debug_shows_the_traceback(tmp_path: Path, bssl_tf: Callable[..., Any]) -> None:
    done = bssl_tf("--debug", "evaluate", tmp_path)
    assert done.returncode == 5
    assert "Traceback" in done.stderr


def test_evaluate_shows_the_student_beside_its_controls(tiny_student: Path, bssl_tf: Callable[..., Any]) -> None:
    done = bssl_tf("evaluate", tiny_student)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line[:28].strip() for line in lines[2:-1]] == [
        "student",
        "control: untrained student",
        "control: raw pixels",
        "float teacher",
    ]
    record = json.loads((tiny_student / "evaluation.json").read_text())
    assert lines[-1] == record["verdict"]["sentence"] and "linear-probe" in lines[-1]
    low, high = record["rows"][0]["intervals"]["knn-20"].values()
    assert f"({low:.1f} to {high:.1f})" in lines[2] or f"({high:.1f} to {low:.1f})" in lines[2]


def test_another_protocol_joins_what_is_known_and_answers_give_every_score_again(
    tiny_student: Path, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    from bssl_tf.evaluation.predictions import read_predictions
    from bssl_tf.evaluation.records import belong_together, read_evaluation

    run = shutil.copytree(tiny_student, tmp_path / "run")
    before = read_evaluation(run)
    done = bssl_tf("evaluate", run, "--protocol", "linear-probe-sgd", "--no-controls")
    assert done.returncode == 0, done.stderr
    after = read_evaluation(run)
    assert before is not None and after is not None and belong_together(after, read_predictions(run))
    assert after.rows[0].scores.keys() == {"knn-20", "linear-probe", "linear-probe-sgd"}
    assert after.rows[1:] == before.rows[1:] and after.verdict == before.verdict
    assert after.rows[0].linear_probe == before.rows[0].linear_probe is not None
    (run / "predictions.safetensors").write_bytes(b"")
    done = bssl_tf("evaluate", run, "--protocol", "knn-20", "--no-controls")
    assert done.returncode == 0 and "the previous evaluation is not kept" in done.stderr
    alone = read_evaluation(run)
    assert alone is not None and len(alone.rows) == 1 and alone.verdict.outcome == "unknown"


def test_an_unfinished_run_is_refused_by_evaluate(
    tiny_student: Path, tmp_path: Path, bssl_tf: Callable[..., Any]
) -> None:
    (tmp_path / "config.toml").write_text((tiny_student / "config.toml").read_text())
    done = bssl_tf("evaluate", tmp_path)
    assert done.returncode == 5 and "is not finished. Finish it with" in done.stderr


@pytest.mark.parametrize(
    ("missing", "message"),
    [("tensorflow", "TensorFlow or tf-keras cannot be loaded"), ("larq", "larq cannot be loaded")],
)
def test_a_missing_library_is_one_clear_line(missing: str, message: str, tmp_path: Path) -> None:
    program = (
        f"import sys\nsys.modules[{missing!r}] = None\nfrom bssl_tf.cli.main import main\n"
        f"sys.argv = ['bssl-tf', 'teacher', '--data', 'embedded', '--out', {str(tmp_path / 'run')!r}]\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 11
    assert message in done.stderr and "make setup" in done.stderr and "Traceback" not in done.stderr


def test_keras_3_loaded_first_is_refused() -> None:
    program = (
        "import os\nos.environ['TF_USE_LEGACY_KERAS'] = '0'\n"
        "import tensorflow as tf\ntf.keras.Model\nimport bssl_tf.backend"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "Keras 3 is active" in done.stderr and "larq needs Keras 2" in done.stderr


@pytest.mark.parametrize(("module", "limit"), [("bssl_tf", 500_000), ("bssl_tf_deploy.cli", 150_000)])
def test_a_limited_address_space_is_not_called_a_broken_installation(module: str, limit: int) -> None:
    """In KiB; of a library that needs more, the loader says that it failed to map a segment."""
    bundle = zoo_folder() / "fashion-mnist-28" / "bundle"
    image = next((bundle / "examples").iterdir())
    # A file that is there, since what is not is found out without TensorFlow.
    arguments = ["evaluate", __file__] if module == "bssl_tf" else ["run", bundle, image]
    program = f"import sys; sys.argv[0] = 'it'; from {module} import main; main()"
    if module == "bssl_tf":
        program = program.replace("from bssl_tf import", "from bssl_tf.cli.main import")
    command = ["bash", "-c", f'ulimit -v {limit}; exec "$@"', "bash", sys.executable, "-c", program, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 15, done.stderr
    assert f"within an address space of {limit // 1024} MiB" in done.stderr and "ulimit -v unlimited" in done.stderr
