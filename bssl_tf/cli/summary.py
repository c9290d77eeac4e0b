"""`bssl-tf summary`."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bssl_tf.bench_records import read_benchmarks
from bssl_tf.cli import completion
from bssl_tf.cli.options import prose
from bssl_tf.errors import RunFolderError
from bssl_tf.files import read_json
from bssl_tf.settings import read_import, read_run_config
from bssl_tf_deploy.record import BINARY, Record
from bssl_tf_deploy.text import show, show_json

if TYPE_CHECKING:
    from bssl_tf.evaluation.records import Evaluation


@click.command("summary")
@click.argument("run", shell_complete=completion.folders)
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def command(run: str, as_json: bool) -> None:
    """Summarise RUN, or an imported teacher: its accuracy with the verdict, its bundles, and the newest benchmark."""
    folder = Path(run)
    imported = read_import(folder)
    settings = read_run_config(folder) if imported is None else {}
    trained_by = settings.get("command", "teacher")
    from bssl_tf.evaluation.records import as_record, read_evaluation

    evaluation = read_evaluation(folder)
    known: dict[str, Any] = {
        "evaluation": evaluation and as_record(evaluation),
        "bundles": {path.parent.name: read_json(path) for path in sorted(folder.glob("*/manifest.json"))},
        "benchmark": next(reversed(read_benchmarks(folder / "bench.jsonl")), None),
    }
    if (folder / "teacher.json").exists():
        known["teacher"] = read_json(folder / "teacher.json")
    if imported is not None:
        known["import"] = dataclasses.asdict(imported)
    if as_json:
        show_json(known, default=Record.to_dict)
        return
    try:
        about, lines = (
            _teacher(known.get("teacher")),
            _evaluation(evaluation) + _bundles(known["bundles"]) + _benchmark(known["benchmark"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"a record in {folder} is damaged ({error})", "Evaluate, export and bench again"
        ) from error
    part = "teacher" if trained_by == "teacher" else "student"
    if not lines and not (folder / part / "network.json").exists():
        lines = [("not finished; next", f"bssl-tf {trained_by} --out {shlex.quote(run)} --resume")]
    elif not lines and trained_by == "teacher":
        what = f"a teacher, {imported.method}" if imported else "a teacher"
        lines = [(f"{what}; next", f"bssl-tf pretrain --teacher {shlex.quote(run)} --data ... --out ...")]
    elif not lines:
        lines = [("nothing known yet; next", f"bssl-tf evaluate {shlex.quote(run)}")]
    show(*(f"{name:<50} {value}" for name, value in [*about, *lines]))
    labels_used = evaluation.labels_used if evaluation is not None else settings.get("labels_used")
    if imported is not None and imported.labels_used:
        labels_used = labels_used or f"the labels that {imported.format} was trained on"
    if labels_used:
        show(f"Trained with the help of {labels_used}.")
    if evaluation is not None:
        show(evaluation.verdict.sentence)
        if evaluation.verdict.next_step:
            prose(f"next: {evaluation.verdict.next_step}")


Lines = list[tuple[str, str]]


def _teacher(known: dict[str, Any] | None) -> Lines:
    if known is None:
        return []
    channels = {1: "grey", 3: "RGB"}[known["channels"]]
    return [("teacher", f"{known['path']}: {known['image_size']} px, {channels}, {known['features']} features")]


def _evaluation(found: Evaluation | None) -> Lines:
    if found is None:
        return []
    lines: Lines = []
    for row in found.rows:
        figures = " / ".join(
            f"{row.mean(name):.1f} % ({one.low:.1f} to {one.high:.1f})" for name, one in row.intervals.items()
        )
        lines.append((f"{row.features}, {' / '.join(row.scores)}", figures))
    lines.append((f"measured on {found.data}", f"{found.test_images} test images, 95 % intervals"))
    return lines


def _bundles(manifests: dict[str, Any]) -> Lines:
    lines: Lines = []
    for name, manifest in manifests.items():
        kib, binary, parity = manifest["files"]["model.tflite"]["bytes"] / 1024, manifest["binary"], manifest["parity"]
        lines += [
            (f"{name}: model for {manifest['target']}", f"{kib:.1f} KiB"),
            (
                f"{name}: binary / float convolutions",
                f"{binary['binary_convolutions']} / {binary['float_convolutions']}",
            ),
            (
                f"{name}: top-1 agreement of LCE with Keras",
                f"{100 * parity['agreement']:.1f} % of {parity['images']} test images",
            ),
        ]
        if accuracy := manifest["table"].get("accuracy"):
            lines.append(
                (
                    f"{name}: top-1 of this model",
                    f"{accuracy['top1_percent']:.1f} % of {accuracy['images']} test images",
                )
            )
    return lines


def _benchmark(record: Record | None) -> Lines:
    lines: Lines = []
    bundle = Path(record.subject.bundle or "").name if record and record.subject else ""
    for run in record.runs if record else ():
        binary = run.networks[BINARY]
        if binary.latency is None:
            continue
        threads = f"{run.threads} thread{'s' * (run.threads > 1)}"
        stock = {name: one for name, one in run.networks.items() if one.role == "stock" and one.latency is not None}
        if not stock:
            lines.append((f"{bundle}: median latency, {threads}", f"{binary.latency.p50_ms:.3f} ms"))
        for name, other in stock.items():
            assert other.latency is not None
            lines += [
                (
                    f"{bundle}: median latency, {threads}, binary / {name}",
                    f"{binary.latency.p50_ms:.3f} ms / {other.latency.p50_ms:.3f} ms",
                ),
                (
                    f"{bundle}: model size, binary / {name}",
                    f"{binary.model_size_bytes / 1024:.1f} KiB / {other.model_size_bytes / 1024:.1f} KiB",
                ),
            ]
    return lines
