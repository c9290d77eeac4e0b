"""`bssl-tf report` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bssl_tf.files import read_json
from bssl_tf_deploy.files import without_checksum
from tests.edited import edited
from tests.reports.run_folders import student_run, teacher_run

Command = Callable[..., "subprocess.CompletedProcess[str]"]
HEAVY = ("tensorflow", "tf_keras", "keras", "larq", "larq_compute_engine", "sklearn", "matplotlib")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return student_run(tmp_path / "a run")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("form", "beginning"),
    [("table", "a run: report\n"), ("markdown", "# a run: report\n"), ("csv", "table,row,"), ("json", "{")],
)
def test_tables_go_to_the_screen_or_to_a_file(
    run: Path, form: str, beginning: str, bssl_tf: Command, tmp_path: Path
) -> None:
    done = bssl_tf("report", run, "--format", form)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(beginning)
    done = bssl_tf("report", run, "--format", form, "--out", tmp_path / "new" / "file")
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "new" / "file").read_text().startswith(beginning)


def test_json_has_what_is_in_the_run(run: Path, bssl_tf: Command) -> None:
    done = bssl_tf("report", run, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert list(found["tables"]) == ["result-0", "accuracy", "bundles", "latency", "emulated", "training", "runs"]
    [about] = found["tables"]["runs"]
    assert (about["method"], about["data"], about["image size (px)"], about["state"]) == (
        *("bssl", "embedded", 28, "finished"),
    )
    assert len(found["tables"]["training"]) == 4 and found["tables"]["training"][3]["loss"] == 0.75
    assert {
        row["threads"]: row["p50 (ms)"]
        for row in found["tables"]["latency"]
        if (row["network"], row["where"]) == ("same shape in float32", "local")
    } == {
        1: 0.5,
        2: 0.5,
    }
    best = [row["top-1 (%)"] for row in found["tables"]["accuracy"] if row["protocol"] == "linear-probe"]
    assert best == [60.0, 40.0, 30.0]
    assert found["tables"]["bundles"][0]["int8 convolutions and dense"] == 0
    size = (run / "bundle-arm64" / "model.tflite").stat().st_size
    assert found["tables"]["bundles"][0]["model size (KiB)"] == size / 1024


def test_a_page_is_made_without_tensorflow_and_the_run_gets_no_other_file(run: Path, tmp_path: Path) -> None:
    manifest = without_checksum(json.loads((run / "bundle-arm64" / "manifest.json").read_text()))
    manifest["table"]["accuracy"] = {"images": 200, "top1_percent": 90.0, "keras_top1_percent": 91.0}
    (run / "bundle-arm64" / "manifest.json").write_text(edited(manifest))
    before = contents(run)
    program = (
        "import sys\nfrom bssl_tf.cli.main import main\n"
        f"sys.argv = ['bssl-tf', 'report', {str(run)!r}, '--no-images']\n"
        f"try:\n    main()\nfinally:\n    print([m for m in {HEAVY[:-1]!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert done.stderr.startswith(f"{run.resolve() / 'report.html'}: ") and "open it in a browser" in done.stderr
    page = (run / "report.html").read_text()
    for chapter in ("Overview", "Accuracy", "Accuracy against size and latency", "Bundles", "Latency", "Training"):
        assert f">{chapter}</h2>" in page
    assert "Views</h2>" not in page
    (run / "report.html").unlink()
    assert contents(run) == before


def test_of_several_runs_the_page_is_here(tmp_path: Path) -> None:
    runs = [student_run(tmp_path / name, bundle=False) for name in ("a", "b")]
    command = [sys.executable, "-m", "bssl_tf", "report", *map(str, runs), "--no-images"]
    here = tmp_path / "here"
    here.mkdir()
    done = subprocess.run(command, capture_output=True, text=True, cwd=here)
    assert done.returncode == 0 and done.stderr.startswith(f"{here.resolve() / 'report.html'}: "), done.stderr
    assert (here / "report.html").is_file() and not any((run / "report.html").exists() for run in runs)


def test_data_that_is_not_found_is_said_with_the_next_step(tmp_path: Path, bssl_tf: Command) -> None:
    run = student_run(tmp_path / "run", bundle=False)
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace('source = "embedded"', 'source = "lost/photos"'))
    done = bssl_tf("report", run)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stderr.splitlines() if "no pictures of run" in line]
    assert "lost/photos does not exist" in line and "pass --no-images" in line
    assert "lost/photos does not exist" in (run / "report.html").read_text()


def test_pictures_that_cannot_be_made_are_named(tmp_path: Path, bssl_tf: Command) -> None:
    """The student's network.json is empty, and the teacher's training is not finished; its views can be shown."""
    runs = [student_run(tmp_path / "student"), teacher_run(tmp_path / "teacher")]
    done = bssl_tf("report", *runs, "--images", "2", "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img ") == 2 * 5
    assert "does not describe a network" in page and "not finished, so there is no network yet" in page


def test_a_trained_run_is_shown_whole(tiny_student: Path, tiny_teacher: Path, bssl_tf: Command, tmp_path: Path) -> None:
    before = contents(tiny_student)
    done = bssl_tf("report", tiny_student, tiny_teacher, "--images", "3", "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text()
    # Pictures and 4 views each, once for both runs or not, and pictures and 5 neighbours each, for both.
    mistakes = page.count('alt="test image ')
    assert page.count("<img ") - mistakes in (3 * 5 + 2 * 3 * 6, 2 * 3 * 5 + 2 * 3 * 6)
    assert page.count("t-SNE (perplexity") == 2
    assert contents(tiny_student) == before
    top1 = read_json(tiny_student / "evaluation.json")["rows"][0]["scores"]["linear-probe"][0]
    assert f"{top1:.2f}" in page


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "Missing argument 'RUN...'"),
        (["{tmp}"], 5, "is not a run folder"),
        (["{tmp}/none"], 5, "is not a run folder"),
        (["{tmp}", "--format", "pdf"], 2, "'pdf' is not one of"),
        (["{tmp}", "--images", "0"], 2, "0 is not in the range"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], status: int, message: str, tmp_path: Path, bssl_tf: Command
) -> None:
    done = bssl_tf("report", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr and "Traceback" not in done.stderr


def test_a_place_that_cannot_be_written_is_one_line(run: Path, tmp_path: Path, bssl_tf: Command) -> None:
    (tmp_path / "file").touch()
    done = bssl_tf("report", run, "--format", "csv", "--out", tmp_path / "file" / "report.csv")
    assert done.returncode == 8 and done.stderr.startswith("error[storage]") and done.stderr.count("\n") == 1
