"""Run folders and benchmarks are read as far as they can be; what is wrong with them is named, never an error."""

from __future__ import annotations

import dataclasses
import html
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssl_tf.bench_records import append_benchmarks
from bssl_tf.bench_records import read_benchmarks as strict_benchmarks
from bssl_tf.errors import RunFolderError
from bssl_tf.evaluation.records import RAW_PIXELS, STUDENT
from bssl_tf.reports.benchmarks import read_benchmarks
from bssl_tf.reports.classes import class_section
from bssl_tf.reports.document import Figure, Group, Headline, Table
from bssl_tf.reports.fields import number, table, text, whole
from bssl_tf.reports.formats import FORMATS
from bssl_tf.reports.latency import latency_section
from bssl_tf.reports.page import as_html
from bssl_tf.reports.runs import read_runs
from bssl_tf.reports.sections import make_document
from bssl_tf.reports.training import training_section
from bssl_tf_deploy.files import without_checksum
from bssl_tf_deploy.record import Latency, Run
from bssl_tf_deploy.text import printable
from tests.edited import edited
from tests.reports.run_folders import (
    answers,
    benchmark,
    device_benchmark,
    emulated_benchmark,
    epochs,
    evaluation,
    rich_benchmark,
    student_run,
    teacher_run,
    with_network,
)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), ANYTHING), st.lists(st.sampled_from("abc"), min_size=1, max_size=3))
def test_fields_take_anything_and_give_one_type(record: dict[str, Any], path: list[str]) -> None:
    value = number(record, *path)
    assert value is None or (not isinstance(value, bool) and np.isfinite(float(value)))
    assert whole(record, *path) is None or isinstance(whole(record, *path), int)
    assert isinstance(text(record, *path), str) and isinstance(table(record, *path), dict)
    assert printable(text(record, *path)).isprintable()


def altered(record: Any, draw: st.DrawFn) -> Any:
    """`record` with some of its values, at any depth, replaced by anything or left out."""
    if isinstance(record, dict):
        kept = {key: altered(value, draw) for key, value in record.items() if draw(st.integers(0, 9))}
        return kept if draw(st.integers(0, 9)) else draw(ANYTHING)
    return record if draw(st.integers(0, 5)) else draw(ANYTHING)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Any, Any, list[Any]]:
    """An evaluation, a record of training and records of benchmarks that were tampered with."""
    records = [
        altered(record.to_dict(), draw)
        for record in (benchmark(), rich_benchmark(), device_benchmark(), emulated_benchmark())
    ]
    return altered(evaluation(), draw), altered({"epoch": 1, "loss": 2.0, "stage": "x", "seconds": 1.0}, draw), records


@settings(max_examples=40, deadline=None)
@given(damaged())
def test_a_report_is_made_of_whatever_the_records_hold(
    tmp_path_factory: pytest.TempPathFactory, found: tuple[Any, Any, list[Any]]
) -> None:
    run = tmp_path_factory.mktemp("run") / "run"
    student_run(run, bundle=False, evaluation=found[0], epochs=[found[1]], benchmarks=found[2])
    document = make_document(read_runs([run]), "command", "made")
    for form in FORMATS.values():
        assert form(document)
    json.loads(FORMATS["json"](document))
    assert {"result-0", "runs"} <= {table.name for table in document.tables()}


def test_the_benchmark_of_this_machine_with_and_without_every_call(tmp_path: Path) -> None:
    run = student_run(tmp_path / "run")
    (plain, float_plain, rich, *_), _, faults = read_benchmarks(run)
    assert (plain.name, plain.p50_ms, plain.run.threads, plain.durations_ms, plain.operators) == (
        *("binary", 0.25, 1, (), ()),
    )
    assert (float_plain.title, float_plain.network.model_size_bytes) == ("same shape in float32", 65536)
    assert plain.versions == "ai-edge-litert 2.3.0" and plain.command.startswith("bssl-tf bench") and not faults
    assert len(rich.durations_ms) == 200 and rich.durations_ms[0] == 1.0 and rich.run.threads == 2
    assert [(one.layer, one.milliseconds) for one in rich.operators] == [("conv_1", 0.1), ("add_1", 0.05)]


def test_the_record_of_a_device(tmp_path: Path) -> None:
    run = student_run(tmp_path / "run", benchmarks=[device_benchmark()])
    found, _, _ = read_benchmarks(run)
    assert [(one.name, one.run.threads) for one in found] == [
        *(("binary", 1), ("float32", 1), ("binary", 2), ("float32", 2)),
    ]
    assert {one.device for one in found} == {"kitchen: Cortex-A72, 4 cores, Linux aarch64"}
    assert [len(one.operators) for one in found] == [2, 0, 2, 0]
    # Our runtime's own for one thread, benchmark_model's for two.
    assert [(one.operator, one.layer, one.milliseconds) for one in found[0].operators] == [
        *(("CONV_2D", "stem", 0.2), ("LceBconv2d+ADD", "conv_1", 0.8)),
    ]
    assert [one.sustained is not None for one in found] == [False, False, True, False]
    sustained = found[2].sustained
    assert sustained is not None and sustained.slower and sustained.energy_mj_per_inference == 1.5
    first = found[2].operators[0]
    assert (first.operator, first.layer, first.output, first.milliseconds) == ("LceBconv2d", "", "conv_1/Conv2D", 0.7)
    assert (found[0].peak_mib, found[0].added_mib) == (3.0, 2.0)


def test_networks_beside_have_names_kernels_and_a_place(tmp_path: Path) -> None:
    record = device_benchmark()
    [run, _] = record.runs
    networks = dict.fromkeys(("float32", "int8", "mine"), run.networks["float32"])
    networks["mine"] = dataclasses.replace(networks["mine"], role="beside")
    record = dataclasses.replace(record, runs=(Run(1, {"binary": run.networks["binary"]} | networks),))
    found, _, _ = read_benchmarks(student_run(tmp_path / "run", benchmarks=[record, benchmark()]))
    assert [(one.title, one.record.machine.name, one.network.kernel) for one in found] == [
        ("binary", "kitchen", "ours, the rest XNNPACK"),
        ("same shape in float32", "kitchen", "XNNPACK"),
        ("same shape in int8", "kitchen", "XNNPACK"),
        ("mine", "kitchen", "XNNPACK"),
        ("binary", "local", "ours"),
        ("same shape in float32", "local", "XNNPACK"),
    ]
    # A model of the user's own keeps its name, whatever that is and whatever the command is.
    own = with_network(record, "int8", role="beside")
    found, _, _ = read_benchmarks(student_run(tmp_path / "own", benchmarks=[own]))
    assert [one.title for one in found] == ["binary", "same shape in float32", "int8", "mine"]


def test_an_emulated_run_has_no_times_and_the_report_states_that(tmp_path: Path) -> None:
    run = student_run(tmp_path / "run", benchmarks=[emulated_benchmark()])
    timed, [found], _ = read_benchmarks(run)
    assert timed == [] and found.count is not None
    assert (found.processor, found.count.instructions, found.kernel) == ("cortex-a72", 1_250_000, "neon_8x32")
    [table] = [one for one in make_document(read_runs([run]), "c", "m").tables() if one.name == "emulated"]
    assert "no times" in table.title and table.rows[0][4:7] == ("as expected", 1.25, 0.9)


def test_the_newest_benchmark_of_the_same_conditions_counts(tmp_path: Path) -> None:
    older = benchmark()
    newer = with_network(older, "binary", latency=Latency(p50_ms=0.125, calls=100))
    elsewhere = benchmark(machine=dataclasses.replace(older.machine, processor="another"))
    run = student_run(tmp_path / "run", benchmarks=[older, elsewhere, newer])
    found = {(one.device, one.name): one.p50_ms for one in read_benchmarks(run)[0]}
    assert found[(str(older.machine), "binary")] == 0.125
    assert found[(str(elsewhere.machine), "binary")] == 0.25
    assert len(found) == 4


def test_kernels_of_one_network_are_told_apart(tmp_path: Path) -> None:
    records = [benchmark(threads=threads) for threads in (1, 2)]
    slower = Latency(p50_ms=0.75, calls=100, min_ms=0.7, p90_ms=0.8, p99_ms=0.9)
    records += [with_network(record, "binary", kernel="LCE", latency=slower) for record in records]
    section = latency_section(read_runs([student_run(tmp_path / "run", benchmarks=records)]))
    shown = [block.table for block in section.blocks if isinstance(block, Figure)]
    assert len(shown) == 3
    for one in shown:
        assert one is not None
        labels = [str(row[0]) for row in one.rows]
        assert len(labels) == len(set(labels)) == 3
        assert all(sum(f"binary, {kernel}" in label for label in labels) == 1 for kernel in ("ours", "LCE"))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda record: record.pop("runs"), "record has the missing key 'runs'"),
        (lambda record: record.update(mood="good"), "record has the unknown key 'mood'"),
        (lambda record: record.update(format=0), "it is in format 0, and this version of bssl-tf reads 1"),
        (lambda record: record.pop("format"), "it is in format None"),
        (lambda record: record["runs"][0].update(threads="1"), "record.runs[0].threads is not of type int"),
        (lambda record: record["machine"].update(emulated=True), "record.runs is not empty, as it is of an emulated"),
        (
            lambda record: record["runs"][0]["networks"]["binary"].update(latency=None),
            "record.runs[0].networks.binary is not either timed or refused",
        ),
    ],
)
def test_a_line_that_is_no_record_is_named_and_the_others_are_read(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], fault: str
) -> None:
    wrong = benchmark().to_dict()
    change(wrong)
    run = student_run(tmp_path / "run", bundle=False, benchmarks=[benchmark(), wrong, rich_benchmark()])
    timed, _, faults = read_benchmarks(run)
    assert len(timed) == 4
    [named] = faults
    assert f"line 2 in {run}/bench.jsonl is not a benchmark record: {fault}" in named
    assert fault.split(",")[0] in "\n".join(make_document(read_runs([run]), "command", "made").missing())
    with pytest.raises(RunFolderError, match=r"line 2 in .* is not a benchmark record"):
        strict_benchmarks(run / "bench.jsonl")


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    records = [benchmark(), rich_benchmark(), device_benchmark(), emulated_benchmark()]
    append_benchmarks(tmp_path / "bench.jsonl", *records)
    assert strict_benchmarks(tmp_path / "bench.jsonl") == records
    assert strict_benchmarks(tmp_path / "none.jsonl") == []


def test_what_is_damaged_or_missing_is_named(tmp_path: Path) -> None:
    run = student_run(tmp_path / "run", benchmarks=[])
    (run / "evaluation.json").write_text("{")
    with (run / "metrics.jsonl").open("a") as file:
        file.write("not a record\n{}\n")
    (run / "bundle-arm64" / "model.tflite").write_bytes(b"changed")
    [found] = read_runs([run])
    document = make_document([found], "command", "made")
    said = "\n".join(document.missing())
    for part in ("evaluation.json", "metrics.jsonl: line 5 is not a record", "bundle-arm64: ", "no accuracy yet"):
        assert part in said
    assert f"bssl-tf evaluate {run}" in said and "bssl-tf export" in said
    assert len(found.epochs) == 4
    for line in as_html(document).split("<li>")[1:]:
        assert "</li>" in line


def test_records_that_cannot_be_read_are_named_and_nothing_waits(tmp_path: Path) -> None:
    run = student_run(tmp_path / "run", benchmarks=[])
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "metrics.jsonl")
    [found] = read_runs([run])
    said = "\n".join(make_document([found], "command", "made").missing())
    assert "metrics.jsonl: " in said and "Not a regular file" in said and not found.epochs


def test_the_command_behind_accuracies_is_the_one_that_was_called(tmp_path: Path) -> None:
    command = "bssl-tf evaluate 'my runs/x' --data photos"
    run = student_run(tmp_path / "run", evaluation=evaluation(command=command))
    assert command in html.unescape(as_html(make_document(read_runs([run]), "command", "made")))


def test_probes_are_drawn_over_the_epochs_they_are_behind(tmp_path: Path) -> None:
    trained = epochs()
    probed = [trained[1], trained[3]]
    records = [*trained, *({"step": one["step"], "probe": "knn-20", "top1": 50.0 + one["step"]} for one in probed)]
    # Where it cannot be what it says, it is not taken.
    records += [{"step": 10, "probe": "knn-20", "top1": "high"}, {"step": 20, "probe": 7, "top1": 1.0}]
    [run] = read_runs([student_run(tmp_path / "run", epochs=records)])
    assert [one.get("knn-20") for one in run.epochs] == [None, 70.0, None, 90.0]
    document = make_document([run], "command", "made")
    assert not [line for line in document.missing() if "probe over epochs" in line]
    group = training_section([run]).blocks[0]
    assert isinstance(group, Group)
    [figure] = [one for one in group.blocks if isinstance(one, Figure) and one.name.endswith("-probe")]
    assert [(row[0], row[2]) for row in figure.table.rows] == [(1, None), (2, 70.0), (3, None), (4, 90.0)]
    assert "Points over 4 epochs, n = 2." in figure.caption and "knn-20 70 to 90" in figure.alt
    assert "Probe while training" in as_html(document)


def test_a_run_that_is_not_finished_is_no_error(tmp_path: Path) -> None:
    run = teacher_run(tmp_path / "teacher")
    (run / "environment.json").unlink()
    [found] = read_runs([run])
    assert (found.finished, found.command, found.method) == (False, "teacher", "moco")
    assert "Loss and its parts" in as_html(make_document([found], "command", "made"))


def test_what_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"is not a run folder"):
        read_runs([tmp_path])


def test_names_are_short_and_tell_runs_apart(tmp_path: Path) -> None:
    runs = [teacher_run(tmp_path / place / name) for place, name in (("a", "x"), ("b", "x"), ("b", "y"))]
    found = read_runs([*runs, runs[0]])
    assert [run.name for run in found] == ["a/x", "b/x", "y"]


def test_accuracies_on_other_data_are_not_put_into_one_plot(tmp_path: Path) -> None:
    runs = [
        student_run(tmp_path / "a", bundle=False),
        student_run(tmp_path / "b", bundle=False, evaluation=evaluation(data="other", test_fingerprint="z")),
        student_run(tmp_path / "c", bundle=False),
    ]
    section = make_document(read_runs(runs), "command", "made").sections[1]
    titles = [getattr(block, "title", "") for block in section.blocks]
    assert titles.count("Accuracy by linear-probe, embedded") == 1
    assert titles.count("Accuracy by protocol, other") == 1


def test_it_opens_with_verdict_accuracy_latency_and_size_and_the_bundles_accuracy_is_its_own(tmp_path: Path) -> None:
    """The bundle's manifest has 90 % of 200 images; the float probe, 60 % of 50, is not drawn for it."""
    run = student_run(tmp_path / "run")
    manifest = without_checksum(json.loads((run / "bundle-arm64" / "manifest.json").read_text()))
    manifest["table"]["accuracy"] = {"images": 200, "top1_percent": 90.0, "keras_top1_percent": 91.0}
    (run / "bundle-arm64" / "manifest.json").write_text(edited(manifest))
    [found] = read_runs([run])
    document = make_document([found], "command", "made")
    headline = document.sections[0].blocks[0]
    assert isinstance(headline, Headline) and found.evaluation is not None
    assert found.evaluation.verdict.sentence in headline.sentence
    shown = {figure.label: (figure.value, figure.note) for figure in headline.figures}
    assert (
        shown["Accuracy of the student"][0] == "60.0 %" and "n = 50 test images" in shown["Accuracy of the student"][1]
    )
    value, note = shown["Accuracy of bundle-arm64"]
    assert value == "90.0 %" and "converted model" in note and "n = 200 test images" in note
    assert shown["Latency"][0] == "0.25 ms" and "n = 100 calls" in shown["Latency"][1]
    size = (run / "bundle-arm64" / "model.tflite").stat().st_size
    assert shown["Size"][0] == f"{size / 1024:.1f} KiB"
    drawn = [one for section in document.sections for one in section.blocks if getattr(one, "name", "") == "size-0"]
    assert isinstance(drawn[0], Figure) and drawn[0].table.rows[0][2] == 90.0
    page = html.unescape(as_html(document))
    assert page.index(found.evaluation.verdict.sentence) < page.index("Accuracy by protocol")
    for form in FORMATS.values():
        assert found.evaluation.verdict.sentence[:40] in form(document)


def test_confusions_and_classes_are_counted_from_the_answers(tmp_path: Path) -> None:
    [run] = read_runs([student_run(tmp_path / "run")])
    [group] = class_section([run]).blocks
    assert isinstance(group, Group)
    matrix, by_class, confusions = group.blocks
    assert isinstance(matrix, Figure) and isinstance(by_class, Figure) and isinstance(confusions, Table)
    # Of 50 images, class = place % 3, the first 30 are right and the others taken for the next class.
    assert matrix.table.rows == (("boot", 10, 7, 0), ("bag", 0, 10, 7), ("shirt", 6, 0, 10))
    assert {row[0]: (row[4], round(float(row[1] or 0), 1)) for row in by_class.table.rows} == {
        "boot": (17, 58.8), "bag": (17, 58.8), "shirt": (16, 62.5),
    }  # fmt: skip
    assert confusions.rows[0][:3] == ("boot", "bag", 7) and len(confusions.rows) == 3
    assert matrix.draw().count("<text") > 9


def test_answers_that_are_not_of_the_evaluation_are_named_and_not_shown(tmp_path: Path) -> None:
    other = answers()
    other[STUDENT]["linear-probe"] = other[RAW_PIXELS]["linear-probe"]
    [run] = read_runs([student_run(tmp_path / "run", answers=other)])
    assert run.answers == {} and run.evaluation is not None
    said = "\n".join(make_document([run], "command", "made").missing())
    assert (
        "predictions.safetensors does not belong to evaluation.json" in said
        and "predictions for each test image are missing" in said
    )


def test_training_images_are_those_of_the_training(tmp_path: Path) -> None:
    old, new = (student_run(tmp_path / name, bundle=False) for name in ("old", "new"))
    environment = json.loads((new / "environment.json").read_text())
    (new / "environment.json").write_text(edited(environment | {"training_images": 64}))
    [table] = [one for one in make_document(read_runs([old, new]), "command", "made").tables() if one.name == "runs"]
    place = [column.name for column in table.columns].index("training images")
    assert [row[place] for row in table.rows] == [None, 64]


def test_who_saw_the_test_images_depends_on_the_data(tmp_path: Path) -> None:
    same = student_run(tmp_path / "same", bundle=False)
    other = student_run(tmp_path / "other", bundle=False, evaluation=evaluation(data="labelled"))
    teacher = teacher_run(tmp_path / "teacher")
    config = (teacher / "config.toml").read_text()
    (teacher / "config.toml").write_text(config.replace('source = "embedded"', 'source = "photos"'))
    taught = student_run(tmp_path / "taught", bundle=False)
    config = (taught / "config.toml").read_text()
    (taught / "config.toml").write_text(config.replace("/somewhere/else/teacher", str(teacher)))

    def said(*runs: Path) -> str:
        return make_document(read_runs(runs), "command", "made").sections[1].about.partition(" The controls")[0]

    held_out = "held out from the probe; the training without labels may have seen them."
    assert said(same) == "Top-1 accuracy on test images that no training saw."
    assert said(other) == said(taught) == f"Top-1 accuracy on test images {held_out}"
    assert said(same, other).endswith(f"no training saw; those of other were {held_out}")
    # A folder is the same under all its names.
    config = (other / "config.toml").read_text()
    (other / "config.toml").write_text(config.replace('source = "embedded"', 'source = "./labelled/"'))
    assert said(other) == said(same)


def test_whose_labels_a_run_learned_from_is_shown_where_it_recorded_them(tmp_path: Path) -> None:
    run = student_run(tmp_path / "run")
    (run / "evaluation.json").unlink()
    config = (run / "config.toml").read_text()
    for recorded, about, cell in (
        ("", "a binary student (bssl).", None),
        ('labels_used = ""\n', "a binary student (bssl), trained without labels.", None),
        (
            'labels_used = "the labels of x"\n',
            "a binary student (bssl), trained with the help of the labels of x.",
            "the labels of x",
        ),
    ):
        (run / "config.toml").write_text(recorded + config)
        document = make_document(read_runs([run]), "command", "made")
        overview = next(section for section in document.sections if section.title == "Overview")
        assert overview.about == f"run is {about}"
        headline = document.sections[0].blocks[0]
        assert isinstance(headline, Headline) and headline.table.rows[0][-1] == cell


def test_a_legend_names_only_what_tells_its_networks_apart(tmp_path: Path) -> None:
    runs = [student_run(tmp_path / name, benchmarks=[benchmark(), device_benchmark()]) for name in ("one", "two")]
    labels = [
        [str(row[0]) for row in block.table.rows]
        for given in (runs[:1], runs)
        for block in latency_section(read_runs(given)).blocks
        if isinstance(block, Figure) and block.title.startswith("Latency on a board")
    ]
    networks = ["binary", "same shape in float32"]
    assert labels == [networks, [f"{run}, {network}" for run in ("one", "two") for network in networks]]
