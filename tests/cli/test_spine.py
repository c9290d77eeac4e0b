"""The whole way with the real command line: a student that was trained here, converted, run, timed, summed up."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bssl_tf.bench_records import append_benchmarks, read_benchmarks
from bssl_tf.cli.evaluate import command as evaluate
from bssl_tf.cli.summary import command as summary
from bssl_tf.evaluation.records import read_evaluation
from bssl_tf.files import read_records
from bssl_tf_deploy.record import BINARY
from tests.edited import edited
from tests.reports.run_folders import benchmark, evaluation

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory, bssl_tf: Command) -> Path:
    """A run with a bundle and a benchmark in it."""
    run = shutil.copytree(tiny_student, tmp_path_factory.mktemp("spine") / "run")
    done = bssl_tf("export", run, "--target", "arm64", "--out", run / "bundle")
    assert done.returncode == 0, done.stderr
    done = bssl_tf("bench", run / "bundle", "--repetitions", "5")
    assert done.returncode == 0, done.stderr
    return run


def test_the_bundle_is_binary_and_says_what_keras_says(run: Path) -> None:
    manifest = json.loads((run / "bundle" / "manifest.json").read_text())
    assert manifest["binary"]["binary_convolutions"] == 3
    assert manifest["binary"]["float_convolutions"] == 1
    assert manifest["binary"]["fully_connected"] == 1
    assert manifest["parity"]["images"] == 128


def test_keras_and_lce_agree_on_500_real_test_images(run: Path) -> None:
    from bssl_tf.data.load import load_data
    from bssl_tf.data.preprocessing import evaluation_batches
    from bssl_tf.evaluation.linear_probe import load_probe
    from bssl_tf.models.saved import load_weights, read_network
    from bssl_tf_converters.lce.converter import LceInterpreter
    from bssl_tf_converters.lce.parity import compare
    from bssl_tf_deploy.bundle import read_bundle

    network, probe = read_network(run / "student"), load_probe(run / "probe")
    student = network.build()
    load_weights(run / "student", {"student": student})
    test = load_data("embedded", image_size=28, limit=500).test
    assert test is not None
    images = np.concatenate(list(evaluation_batches(test, network.preprocessing, 500)))
    expected = student(images, training=False).numpy() @ probe.weights + probe.bias
    found = LceInterpreter(read_bundle(run / "bundle").model).predict(images)
    parity = compare({"logits": expected}, {"logits": found})
    assert parity.images == 500
    # One image may carry a value within rounding of zero whose sign flips (see bssl_tf_converters.lce.parity).
    assert parity.agreement >= 0.998
    assert parity.share_within_tolerance >= 0.98
    assert parity.outputs["logits"].median_abs_difference < parity.outputs["logits"].tolerance / 10


def test_it_classifies_the_images_in_it(run: Path, bssl_tf: Command) -> None:
    images = sorted((run / "bundle" / "examples").glob("*.png"))
    done = bssl_tf("run", run / "bundle", *images, "--json")
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    assert [record["image"] for record in records] == [str(image) for image in images]
    for record in records:
        scores = [entry["score"] for entry in record["classes"]]
        assert scores == sorted(scores, reverse=True) and 0 < sum(scores) <= 1.0001


def test_the_benchmark_has_both_networks_and_its_conditions(run: Path) -> None:
    [record] = read_benchmarks(run / "bench.jsonl")
    assert record.command and record.command.startswith(f"bssl-tf bench {run}/bundle --threads 1")
    assert record.time and record.versions and record.machine.processor
    [timed] = record.runs
    binary, reference = timed.networks["binary"], timed.networks["float32"]
    assert timed.threads == 1 and (binary.role, reference.role) == ("subject", "stock")
    for network in (binary, reference):
        assert network.latency and network.latency.p50_ms and network.latency.calls == 5
    assert reference.model_size_bytes > 5 * binary.model_size_bytes


def test_the_summary_is_short_and_has_it_all(run: Path, bssl_tf: Command) -> None:
    done = bssl_tf("summary", run)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) <= 15
    for pattern in (
        r"^teacher +\S+: 28 px, grey, \d+ features$",
        r"^embedded: 128 training and 128 test images, 10 classes; ",
        r"^features +width +knn-20 +linear-probe$",
        r"^student +\d+( +\d+\.\d \(\d+\.\d to \d+\.\d\)){2}$",
        r"^control: raw pixels +\d+ +\d+\.\d \(",
        r"^bundle +for arm64, \d+\.\d KiB, 3 binary and 1 float convolutions$",
        r"^  top-1 of this model +\d+\.\d % of 128 test images$",
        r"^  median latency, 1 thread +\d+\.\d+ ms \(float32 \d+\.\d+ ms, \d+\.\d KiB",
        r"student.*: linear-probe \d+\.\d % \(95 % interval .*points against the untrained student .*adjusted p .*\.$",
    ):
        assert re.search(pattern, done.stdout, re.M), (pattern, done.stdout)


def test_the_summary_of_a_fresh_run_names_the_next_step(tiny_teacher: Path, bssl_tf: Command) -> None:
    done = bssl_tf("summary", tiny_teacher)
    assert done.returncode == 0
    assert f"bssl-tf pretrain --teacher {tiny_teacher}" in done.stdout


def test_a_bundle_that_was_timed_alone_has_its_latency_in_the_summary(tmp_path: Path) -> None:
    record = benchmark()
    alone = [dataclasses.replace(one, networks={BINARY: one.networks[BINARY]}) for one in record.runs]
    (tmp_path / "config.toml").write_text('command = "pretrain"\n')
    append_benchmarks(tmp_path / "bench.jsonl", dataclasses.replace(record, runs=tuple(alone)))
    done = CliRunner().invoke(summary, [str(tmp_path)])
    assert done.exit_code == 0 and re.search(
        r"^bundle-arm64 .*\n  median latency, 1 thread +0\.250 ms$", done.output, re.M
    )


def test_the_verdict_is_the_last_word_of_the_summary_and_of_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text('command = "pretrain"\n')
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "network.json").write_text("{}")
    (tmp_path / "evaluation.json").write_text(edited(evaluation(labels_used="ImageNet's labels")))
    found = read_evaluation(tmp_path)
    assert found is not None
    monkeypatch.setattr("bssl_tf.workflows.evaluate.evaluate", lambda *arguments, **options: found)
    for command in (summary, evaluate):
        lines = CliRunner().invoke(command, [str(tmp_path)]).output.splitlines()
        place = lines.index(found.verdict.sentence)
        assert lines[place - 1] == "Trained with the help of ImageNet's labels."
        # What follows is advice, on stderr.
        assert all(line.startswith(("next: ", "to export it")) for line in lines[place + 1 :])


def test_the_summary_takes_from_an_evaluation_whose_labels_were_used(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('command = "pretrain"\nlabels_used = "the labels of a"\n')
    assert "the help of the labels of a." in CliRunner().invoke(summary, [str(tmp_path)]).output
    for used, said in ((None, []), ("the labels of b", ["Trained with the help of the labels of b."])):
        (tmp_path / "evaluation.json").write_text(edited(evaluation(labels_used=used)))
        lines = CliRunner().invoke(summary, [str(tmp_path)]).output.splitlines()
        assert [line for line in lines if "with the help of" in line] == said


@pytest.mark.parametrize("trained_by", ["teacher", "pretrain"])
def test_the_summary_of_an_unfinished_run_names_the_command_that_finishes_it(trained_by: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'command = "{trained_by}"\n')
    done = CliRunner().invoke(summary, [str(tmp_path)])
    assert done.exit_code == 0 and f"bssl-tf {trained_by} --out {tmp_path} --resume" in done.output


def test_the_summary_of_no_run_or_a_damaged_one_is_one_clear_line(run: Path, tmp_path: Path, bssl_tf: Command) -> None:
    done = bssl_tf("summary", tmp_path)
    assert done.returncode == 5 and "is not a run folder" in done.stderr
    damaged = shutil.copytree(run, tmp_path / "run")
    (damaged / "evaluation.json").write_text(edited({"rows": [{}]}))
    done = bssl_tf("summary", damaged)
    assert done.returncode == 5 and "is damaged" in done.stderr and "Traceback" not in done.stderr


def test_export_without_a_probe_names_the_next_step(tiny_student: Path, tmp_path: Path, bssl_tf: Command) -> None:
    run = shutil.copytree(tiny_student, tmp_path / "run")
    shutil.rmtree(run / "probe")
    done = bssl_tf("export", run, "--target", "arm64")
    assert done.returncode == 5
    assert f"Fit one with `bssl-tf evaluate {run}`; add --data FOLDER with labelled images" in done.stderr


def test_evaluate_on_labelled_photos_of_ones_own(tiny_student: Path, tmp_path: Path, bssl_tf: Command) -> None:
    """The README's second step: another data set than the one that was trained on, in folders of classes."""
    from PIL import Image

    from bssl_tf.data.load import load_data

    run = shutil.copytree(tiny_student, tmp_path / "run")
    data = load_data("embedded", image_size=28, limit=120).train
    labels = data.require_labels()
    for index in range(len(data)):
        folder = tmp_path / "labelled" / data.class_names[labels[index]].replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.images[index, ..., 0]).resize((40, 50)).convert("RGB").save(folder / f"{index}.jpg")
    done = bssl_tf("evaluate", run, "--data", tmp_path / "labelled", "--record", tmp_path / "records.jsonl")
    assert done.returncode == 0, done.stderr
    [record] = read_records(tmp_path / "records.jsonl")
    assert shlex.split(record["command"])[:5] == ["bssl-tf", "evaluate", str(run), "--data", str(tmp_path / "labelled")]
    assert record["classes"] == 10 and record["train_images"] + record["test_images"] == 120
    done = bssl_tf("export", run, "--target", "x86_64", "--images", "20")
    assert done.returncode == 0, done.stderr
    made = json.loads((run / "bundle-x86_64" / "manifest.json").read_text())
    assert (made["training"]["data"], made["table"]["probe"]["data"]) == ("embedded", "labelled")

    (tmp_path / "labelled").rename(tmp_path / "elsewhere")
    done = bssl_tf("export", run, "--target", "x86_64", "--overwrite")
    assert done.returncode == 4
    assert f"{tmp_path / 'labelled'} does not exist. {run / 'probe/probe.json'} names it" in done.stderr
    assert f"`bssl-tf evaluate {run} --data FOLDER`" in done.stderr


def test_evaluate_says_where_a_lost_folder_was_named_and_what_few_test_images_are_worth(
    tiny_student: Path, tmp_path: Path, bssl_tf: Command
) -> None:
    done = bssl_tf("evaluate", tiny_student, "--limit", "24", "--no-controls", "--no-save", "--protocol", "knn-20")
    assert done.returncode == 0, done.stderr
    assert "warning: with 24 test images, one image more or less is 4.2 points of accuracy" in done.stderr

    run = shutil.copytree(tiny_student, tmp_path / "run")
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace('source = "embedded"', 'source = "../my photos/all"'))
    done = bssl_tf("evaluate", run)
    assert done.returncode == 4
    assert f"../my photos/all does not exist. {run / 'config.toml'} names it" in done.stderr
    assert "pass --data" in done.stderr


def test_evaluate_without_labels_is_one_clear_line(tiny_student: Path, tmp_path: Path, bssl_tf: Command) -> None:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for index in range(4):
        Image.new("L", (30, 30), index).save(tmp_path / "photos" / f"{index}.png")
    done = bssl_tf("evaluate", tiny_student, "--data", tmp_path / "photos")
    assert done.returncode == 4
    assert "has no labels, and evaluation needs some. Pass --data with a labelled set" in done.stderr
