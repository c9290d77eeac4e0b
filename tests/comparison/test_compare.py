"""The real thing: a grid of tiny runs in processes of their own, cut and gone on with."""

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
from xml.etree import ElementTree

import pytest

from bssl_tf.comparison.grid import read_grid
from bssl_tf.comparison.records import FIELDS, load
from bssl_tf.comparison.report import figure, markdown

PRESET = """
[teacher]
data = { source = "embedded", limit = 64 }
backbone = { name = "float_resnet", width = 8 }
moco = { queue_size = 32, embedding_width = 16 }
training = { epochs = 1, batch_size = 32, warmup_epochs = 0.0, threads = 1 }

[pretrain]
data = { source = "embedded", limit = 64 }
backbone = { name = "binary_resnet", depth = 1 }
training = { epochs = 1, batch_size = 32, threads = 1 }

[compare]
protocols = ["linear-probe", "knn-20"]
transfer = [{ source = "tfds:absent" }, { source = "%s" }]
transfer_protocols = ["few-shot-svm"]

[[compare.rows]]
method = "s2bnn"
seeds = [0, 1]
headline = true

[[compare.rows]]
method = "supervised"
variant = "with labels"
"""

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, bssl_tf: Call) -> Path:
    """A folder in which the grid above was run, in two pieces."""
    place = tmp_path_factory.mktemp("compare")
    photos = place / "photos"
    from PIL import Image

    for label, grey in (("dark", 20), ("light", 220)):
        (photos / label).mkdir(parents=True)
        for number in range(12):
            Image.new("L", (30, 30), grey + number).save(photos / label / f"{number}.png")
    preset = place / "tiny.toml"
    preset.write_text(PRESET % photos)
    arguments = ("compare", preset, "--runs", place / "runs", "--results", place / "results")
    done = bssl_tf(*arguments, "--only", "supervised-with-labels")
    assert done.returncode == 0, done.stderr
    assert {record["method"] for record in load(place / "results" / "tiny.jsonl")} == {"supervised"}
    done = bssl_tf(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(place / "results" / "tiny.md")
    assert done.stderr.count("tfds:absent cannot be read; its columns stay empty") == 1
    return place


def test_records_hold_what_a_figure_needs(compared: Path) -> None:
    records = load(compared / "results" / "tiny.jsonl")
    students = [r for r in records if r["features"] == "student"]
    main = {(r["method"], r["seed"], r["protocol"]) for r in students if r["dataset"] == "embedded"}
    protocols = ("linear-probe", "knn-20")
    assert main == {(m, s, p) for m, s in (("s2bnn", 0), ("s2bnn", 1), ("supervised", 0)) for p in protocols}
    transfer = {(r["method"], r["seed"], r["protocol"]) for r in students if r["dataset"] != "embedded"}
    assert {(method, seed) for method, seed, _ in transfer} == {("s2bnn", 0)}
    assert {"few-shot-svm-1", "few-shot-svm-8"} <= {protocol for *_, protocol in transfer}
    for record in records:
        assert set(FIELDS) <= set(record)
        assert 0 <= record["top1"] <= 100
        if record["features"] == "student":
            assert (
                record["epochs"] == 2
                and record["wall_s"] > 0
                and (record["teacher"] is None) == ("sup" in record["method"])
            )
        else:
            assert record["method"] is record["epochs"] is record["wall_s"] is None
    # The controls are measured once for each data set.
    controls = [r["features"] for r in records if r["protocol"] == "knn-20" and r["features"] != "student"]
    assert controls == ["control: untrained student", "control: raw pixels", "float teacher"]


def test_what_is_recorded_is_not_run_again(compared: Path, bssl_tf: Call) -> None:
    before = (compared / "results" / "tiny.jsonl").read_text()
    done = bssl_tf("compare", compared / "tiny.toml", "--runs", compared / "runs", "--results", compared / "results")
    assert done.returncode == 0, done.stderr
    assert (compared / "results" / "tiny.jsonl").read_text() == before
    # The missing set is looked for again, by the run that would be measured on it.
    assert [line for line in done.stderr.splitlines() if "seed" in line] == ["s2bnn, seed 0"]


def test_table_and_figure_come_from_the_records_alone(compared: Path, tmp_path: Path) -> None:
    grid, records = read_grid(str(compared / "tiny.toml")), load(compared / "results" / "tiny.jsonl")
    text = markdown(grid, records, "bssl-tf compare tiny")
    rows = [line for line in text.splitlines() if line.startswith("| s2bnn")]
    assert len(rows) == 2, "one line a data set"
    assert "±" in rows[0] and "| 2 | 2 |" in rows[0]
    assert "| supervised, with labels | 1 |" in text
    figure(grid, records, "linear-probe", tmp_path / "one.svg")
    figure(grid, records, "linear-probe", tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert ElementTree.parse(tmp_path / "one.svg").getroot().tag.endswith("svg")


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_what_is_recorded_stays(compared: Path, bssl_tf: Call, tmp_path: Path) -> None:
    preset = tmp_path / "broken.toml"
    preset.write_text((PRESET % "/nowhere").replace("depth = 1", "depth = 1, width = 33"))
    teacher = compared / "runs" / "teacher"
    only = ("--only", "s2bnn", "--only", "supervised-with-labels")
    done = bssl_tf("compare", preset, "--teacher", teacher, "--runs", tmp_path / "runs", "--results", tmp_path, *only)
    assert done.returncode == 5
    assert done.stderr.count("width 33 is not a multiple of 32") == 3, "one row does not stop the others"
    last = done.stderr.strip().splitlines()[-1]
    assert "these rows failed: s2bnn seed 0, supervised-with-labels seed 0, s2bnn seed 1" in last
    assert "failed with status 3" in done.stderr
    assert not (tmp_path / "broken.jsonl").exists()


def test_other_settings_and_another_teacher_are_not_taken_for_the_same(compared: Path, bssl_tf: Call) -> None:
    place = ("--runs", compared / "runs", "--results", compared / "results")
    before = (compared / "results" / "tiny.jsonl").read_text()
    done = bssl_tf("compare", compared / "tiny.toml", *place, "--set", "training.learning_rate=1e-2")
    assert done.returncode == 5
    assert "was trained with other settings: training.learning_rate is 0.0003 there and 0.01 here" in done.stderr
    assert (compared / "results" / "tiny.jsonl").read_text() == before


def test_a_comparison_that_is_stopped_lets_its_run_save(compared: Path, tmp_path: Path) -> None:
    preset = tmp_path / "long.toml"
    preset.write_text(
        (PRESET % "/nowhere").replace(
            "epochs = 1, batch_size = 32, threads = 1 }\n\n[compare]",
            "epochs = 500, batch_size = 32, threads = 1, checkpoint_every_s = 0.5 }\n\n[compare]",
        )
    )
    command = [
        "compare",
        preset,
        "--runs",
        tmp_path / "runs",
        "--results",
        tmp_path,
        "--only",
        "supervised-with-labels",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "bssl_tf", *map(str, command)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    checkpoints = tmp_path / "runs" / "supervised-with-labels-seed0" / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("step-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "which is saved" in stderr and "the comparison was stopped" in stderr


def test_unknown_rows_and_empty_reports_are_refused(compared: Path, bssl_tf: Call, tmp_path: Path) -> None:
    done = bssl_tf("compare", compared / "tiny.toml", "--only", "s2bn", "--results", tmp_path)
    assert (done.returncode, "has no row 's2bn'" in done.stderr) == (3, True)
    done = bssl_tf("compare", compared / "tiny.toml", "--report-only", "--results", tmp_path)
    assert (done.returncode, "has no records" in done.stderr) == (5, True)
    assert json.loads((compared / "results" / "tiny.jsonl").read_text().splitlines()[0])["preset"] == "tiny"
