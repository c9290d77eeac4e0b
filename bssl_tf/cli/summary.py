"""`bssl-tf summary`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from bssl_tf.cli import completion
from bssl_tf.errors import RunFolderError
from bssl_tf.files import read_json, read_records
from bssl_tf.settings import read_run_config


@click.command("summary")
@click.argument("run", shell_complete=completion.folders)
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def command(run: str, as_json: bool) -> None:
    """Show what is known of RUN: its accuracy, its bundles, and the newest benchmark."""
    folder = Path(run)
    read_run_config(folder)
    known: dict[str, Any] = {
        "evaluation": read_json(folder / "evaluation.json") if (folder / "evaluation.json").exists() else None,
        "bundles": {path.parent.name: read_json(path) for path in sorted(folder.glob("*/manifest.json"))},
        "benchmark": next(reversed(read_records(folder / "bench.jsonl")), None),
    }
    if as_json:
        click.echo(json.dumps(known, indent=2))
        return
    try:
        lines = _evaluation(known["evaluation"]) + _bundles(known["bundles"]) + _benchmark(known["benchmark"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"a record in {folder} is damaged ({error})", "Evaluate, export and bench again"
        ) from error
    if not lines and (folder / "teacher").is_dir():
        lines = [("a teacher; next", f"bssl-tf pretrain --teacher {shlex.quote(run)} --data ... --out ...")]
    elif not (folder / "student" / "network.json").exists() and not lines:
        lines = [("not finished; next", f"bssl-tf pretrain --out {shlex.quote(run)} --resume")]
    elif not lines:
        lines = [("nothing known yet; next", f"bssl-tf evaluate {shlex.quote(run)}")]
    click.echo("\n".join(f"{name:<50} {value}" for name, value in lines))


Lines = list[tuple[str, str]]


def _evaluation(record: dict[str, Any] | None) -> Lines:
    if record is None:
        return []
    lines: Lines = []
    for row in record["rows"]:
        scores = row.get("scores") or _older(row)
        figures = " / ".join(f"{_mean(draws):.1f} %" for draws in scores.values())
        lines.append((f"{row['features']}, {' / '.join(scores)}", figures))
    return lines


def _older(row: dict[str, Any]) -> dict[str, list[float]]:
    """The scores of a record of version 0.1, which had two protocols."""
    return {"knn-20": [row["knn_top1"]], "linear-probe": [row["linear_probe_top1"]]}


def _mean(draws: list[float]) -> float:
    return sum(draws) / len(draws)


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
                f"{name}: same class in LCE as in Keras",
                f"{100 * parity['top1_agreement']:.1f} % of {parity['images']} test images",
            ),
        ]
    return lines


def _benchmark(record: dict[str, Any] | None) -> Lines:
    if record is None:
        return []
    binary, reference = record["networks"]["binary"], record["networks"]["float"]
    return [
        (
            f"median latency here, {record['threads']} thread, binary / float",
            f"{binary['p50_ms']:.3f} ms / {reference['p50_ms']:.3f} ms",
        ),
        (
            "model size, binary / float",
            f"{binary['model_size_bytes'] / 1024:.1f} KiB / {reference['model_size_bytes'] / 1024:.1f} KiB",
        ),
    ]
