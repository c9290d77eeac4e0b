"""`bssl-tf summary`."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import click

from bssl_tf.bench_records import read_benchmarks
from bssl_tf.cli import completion
from bssl_tf.cli._accuracy import accuracy_table, heads_lines, task_lines
from bssl_tf.cli.options import json_option, prose
from bssl_tf.errors import RunFolderError
from bssl_tf.files import read_json
from bssl_tf.settings import read_import, read_run_config
from bssl_tf_deploy.record import BINARY, Record
from bssl_tf_deploy.text import show, show_json


@click.command("summary")
@click.argument("run", shell_complete=completion.folders)
@json_option("Print the records as JSON.")
def command(run: str, as_json: bool) -> None:
    """Summarise RUN, or an imported teacher: its accuracy with the verdict, its bundles, and the newest benchmark."""
    folder = Path(run)
    imported = read_import(folder)
    settings = read_run_config(folder) if imported is None else {}
    trained_by = settings.get("command", "teacher")
    from bssl_tf.evaluation.detection import read_detection
    from bssl_tf.evaluation.multilabel import read_multilabel
    from bssl_tf.evaluation.records import as_record, read_evaluation

    evaluation = read_evaluation(folder)
    multilabel, detection = read_multilabel(folder), read_detection(folder)
    known: dict[str, Any] = {
        "evaluation": evaluation and as_record(evaluation),
        "bundles": {path.parent.name: read_json(path) for path in sorted(folder.glob("*/manifest.json"))},
        "benchmark": next(reversed(read_benchmarks(folder / "bench.jsonl")), None),
    }
    if (folder / "teacher.json").exists():
        known["teacher"] = read_json(folder / "teacher.json")
    if multilabel is not None:
        known["multilabel"] = dataclasses.asdict(multilabel)
    if detection is not None:
        known["detection"] = dataclasses.asdict(detection)
    if imported is not None:
        known["import"] = dataclasses.asdict(imported)
    if as_json:
        show_json(known, default=Record.to_dict)
        return
    try:
        lines = [*_teacher(known.get("teacher")), *(accuracy_table(evaluation) if evaluation is not None else ())]
        of_bundles = _bundles(known["bundles"], known["benchmark"])
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise RunFolderError(
            f"a record in {folder} is damaged ({error})", "Evaluate, export and bench again"
        ) from error
    part = "teacher" if trained_by == "teacher" else "student"
    others = [one for one in (multilabel, detection) if one is not None]
    for found in others:
        lines += task_lines(found)
    if evaluation is None and not others and not of_bundles:
        if not (folder / part / "network.json").exists():
            state, step = "not finished", f"bssl-tf {trained_by} --out {shlex.quote(run)} --resume"
        elif trained_by == "teacher":
            state = f"a teacher, {imported.method}" if imported else "a teacher"
            step = f"bssl-tf pretrain --teacher {shlex.quote(run)} --data ... --out ..."
        else:
            state, step = "nothing known yet", f"bssl-tf evaluate {shlex.quote(run)}"
        lines.append(f"{state}; next: {step}")
    show(*lines, *of_bundles)
    labels_used = evaluation.labels_used if evaluation is not None else settings.get("labels_used")
    if imported is not None and imported.labels_used:
        labels_used = labels_used or f"the labels that {imported.format} was trained on"
    if labels_used and not others:
        show(f"Trained with the help of {labels_used}.")
    if evaluation is not None:
        if evaluation.heads is not None:
            show(*heads_lines(evaluation.heads))
        show(evaluation.verdict.sentence)
        if evaluation.verdict.next_step:
            prose(f"next: {evaluation.verdict.next_step}")


def _line(name: str, value: str) -> str:
    return f"{name:<28} {value}"


def _teacher(known: dict[str, Any] | None) -> list[str]:
    if known is None:
        return []
    channels = {1: "grey", 3: "RGB"}[known["channels"]]
    return [_line("teacher", f"{known['path']}: {known['image_size']} px, {channels}, {known['features']} features")]


def _bundles(manifests: dict[str, Any], record: Record | None) -> list[str]:
    """What each bundle is, and below it what was measured of it."""
    from bssl_tf_deploy.tasks import find_task

    lines = []
    timed = Path(record.subject.bundle or "").name if record and record.subject else ""
    for name, manifest in manifests.items():
        kib, binary, parity = manifest["files"]["model.tflite"]["bytes"] / 1024, manifest["binary"], manifest["parity"]
        kinds = f"{binary['binary_convolutions']} binary and {binary['float_convolutions']} float convolutions"
        lines.append(_line(name, f"for {manifest['target']}, {kib:.1f} KiB, {kinds}"))
        task = find_task(manifest["task"])
        if accuracy := manifest["table"].get("accuracy"):
            for key, called in task.figures.items():
                value = f"{accuracy[key]:.1f} % of {accuracy['images']} test images"
                lines.append(_line(f"  {called} of this model", value))
        agreement = f"{100 * parity['agreement']:.1f} % of {parity['images']} test images"
        lines.append(_line(f"  {task.agreement} with Keras", agreement))
        lines += _latencies(record) if name == timed else []
    if timed not in manifests and (latencies := _latencies(record)):
        lines += [_line(timed, "timed; the bundle is elsewhere"), *latencies]
    return lines


def _latencies(record: Record | None) -> list[str]:
    """Median latency for each number of threads, with the networks that were timed next to it."""
    lines = []
    for run in record.runs if record else ():
        binary = run.networks[BINARY]
        if binary.latency is None:
            continue
        others = [
            f"{name} {one.latency.p50_ms:.3f} ms, {one.model_size_bytes / 1024:.1f} KiB"
            for name, one in run.networks.items()
            if one.role == "stock" and one.latency is not None
        ]
        beside = f" ({'; '.join(others)})" if others else ""
        threads = f"  median latency, {run.threads} thread{'s' * (run.threads > 1)}"
        lines.append(_line(threads, f"{binary.latency.p50_ms:.3f} ms{beside}"))
    return lines
