"""All that is known of a run in a few lines: its accuracy with the verdict, its bundles, and the newest benchmark."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.bench_records import read_benchmarks
from bssl_tf.errors import RunFolderError
from bssl_tf.evaluation.detection import read_detection
from bssl_tf.evaluation.multilabel import read_multilabel
from bssl_tf.evaluation.records import as_record, read_evaluation
from bssl_tf.evaluation.text import Shown, accuracy_table, trained_with, verdict_lines
from bssl_tf.files import read_json
from bssl_tf.settings import Import, read_import, read_run_config
from bssl_tf_deploy.record import BINARY, Record


@dataclass(frozen=True)
class Summary(Shown):
    """What is known of a run.

    Attributes:
        records: by what they are about, for JSON.
        lines: for people; the verdict is the last.
        next_step: what the verdict advises; empty for nothing.
    """

    records: dict[str, Any]
    lines: tuple[str, ...]
    next_step: str

    def text_lines(self) -> list[str]:
        """`lines`."""
        return list(self.lines)


def summarise(folder: Path) -> Summary:
    """Reads the records in a run's folder, or in that of an imported teacher.

    Raises:
        RunFolderError: it is no run, or a record in it is damaged.
    """
    imported = read_import(folder)
    settings = read_run_config(folder) if imported is None else {}
    evaluation = read_evaluation(folder)
    of_tasks = {"multilabel": read_multilabel(folder), "detection": read_detection(folder)}
    others = {name: found for name, found in of_tasks.items() if found is not None}
    records: dict[str, Any] = {
        "evaluation": evaluation and as_record(evaluation),
        "bundles": {path.parent.name: read_json(path) for path in sorted(folder.glob("*/manifest.json"))},
        "benchmark": next(reversed(read_benchmarks(folder / "bench.jsonl")), None),
    }
    if (folder / "teacher.json").exists():
        records["teacher"] = read_json(folder / "teacher.json")
    records |= {name: dataclasses.asdict(found) for name, found in others.items()}
    if imported is not None:
        records["import"] = dataclasses.asdict(imported)
    try:
        lines = [*_teacher(records.get("teacher")), *(accuracy_table(evaluation) if evaluation is not None else ())]
        of_bundles = _bundles(records["bundles"], records["benchmark"])
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise RunFolderError(
            f"a record in {folder} is damaged ({error})", "Evaluate, export and bench again"
        ) from error
    for found in others.values():
        lines += found.text_lines()
    if evaluation is None and not others and not of_bundles:
        lines.append(_untouched(folder, settings.get("command", "teacher"), imported))
    lines += of_bundles
    labels_used = evaluation.labels_used if evaluation is not None else settings.get("labels_used")
    if imported is not None and imported.labels_used:
        labels_used = labels_used or f"the labels that {imported.format} was trained on"
    # Those of tasks have said so themselves.
    lines += [] if others else trained_with(labels_used)
    lines += [] if evaluation is None else verdict_lines(evaluation)
    return Summary(records, tuple(lines), evaluation.verdict.next_step if evaluation is not None else "")


def _untouched(folder: Path, trained_by: str, imported: Import | None) -> str:
    """What to do with a run of which no more is known than that it is there."""
    run = shlex.quote(str(folder))
    part = "teacher" if trained_by == "teacher" else "student"
    if not (folder / part / "network.json").exists():
        return f"not finished; next: bssl-tf {trained_by} --out {run} --resume"
    if trained_by == "teacher":
        state = f"a teacher, {imported.method}" if imported else "a teacher"
        return f"{state}; next: bssl-tf pretrain --teacher {run} --data ... --out ..."
    return f"nothing known yet; next: bssl-tf evaluate {run}"


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
