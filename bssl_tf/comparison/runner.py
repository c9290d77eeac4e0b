"""Runs a grid: what is missing is trained and evaluated, one process at a time, and recorded as it finishes.

Every run and every evaluation is a `bssl-tf` command of its own, so that one that is killed costs its own minutes only:
the same comparison, called again, goes on where it was.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tomli_w

from bssl_tf.comparison.grid import Grid, Row
from bssl_tf.comparison.records import STUDENT, load
from bssl_tf.config import DataConfig, from_dict, merge, read_preset
from bssl_tf.errors import Interrupted, RunFolderError
from bssl_tf.files import append_record, read_records, storage_errors, write_text

Report = Callable[[str], None]
# A run of one of these knows the teacher that the controls include.
_WITH_TEACHER = ("s2bnn", "bssl")


def run_grid(
    grid: Grid,
    *,
    runs: Path,
    records_file: Path,
    overrides: dict[str, Any],
    only: Iterable[str],
    report: Report,
    recorded: Callable[[], None] = lambda: None,
) -> None:
    """Trains and evaluates what `records_file` does not have yet.

    Seeds come in turns, the first of every row before the second of any, so that a table is there early.

    Args:
        grid: rows and protocols.
        runs: where run folders are, one a row and seed, beside the teacher's.
        records_file: gets a line for each run and protocol.
        overrides: settings of `PretrainConfig` over every row's.
        only: slugs of the rows to run; empty for all.
        report: takes lines of prose for the user.
        recorded: called after new records.

    Raises:
        RunFolderError: another comparison runs in `runs`, or a run fails; its own message went to stderr.
        Interrupted: a run was stopped; what is recorded stays.
    """
    chosen = set(only)
    with storage_errors(runs):
        runs.mkdir(parents=True, exist_ok=True)
    with storage_errors(runs), (runs / "compare.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunFolderError(
                f"another comparison runs in {runs}", "Wait for it, or choose another --runs"
            ) from error
        rows = [row for row in grid.rows if not chosen or row.slug in chosen]
        turns = itertools.zip_longest(*([(row, seed) for seed in row.seeds] for row in rows))
        for row, seed in filter(None, itertools.chain.from_iterable(turns)):
            if _run(grid, row, seed, runs, records_file, overrides, report):
                recorded()


def train_teacher(preset: str, folder: Path, data: dict[str, Any], report: Report) -> Path:
    """Trains the teacher of the preset's `[teacher]` table in `folder`, unless it is there; returns the folder.

    Raises:
        RunFolderError: it fails; its own message went to stderr.
        Interrupted: it was stopped.
    """
    if not (folder / "teacher" / "network.json").exists():
        report(f"training the teacher in {folder}")
        place = _data_arguments({"source": from_dict(DataConfig, read_preset(preset, "teacher")["data"]).source} | data)
        _call("teacher", "--preset", preset, *place, "--out", str(folder), "--resume")
    return folder


def _run(
    grid: Grid, row: Row, seed: int, runs: Path, records_file: Path, overrides: dict[str, Any], report: Report
) -> bool:
    """One row and seed; whether there was anything to do."""
    settings = merge(merge(row.settings, overrides), {"training": {"seed": seed}})
    own = from_dict(DataConfig, settings.get("data", {}))
    folder = runs / f"{row.slug}-seed{seed}"
    wanted: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({"source": own.source}, grid.protocols + (grid.headline_protocols if row.headline else ()))
    ]
    if row.headline:
        wanted += [(dict(item), grid.transfer_protocols) for item in grid.transfer]
    missing = [
        (data, lacking)
        for data, protocols in wanted
        if (lacking := _missing(load(records_file), grid.preset, row, seed, data["source"], protocols))
    ]
    if not missing:
        return False
    report(f"{row.name}, seed {seed}")
    if not (folder / "student" / "network.json").exists():
        preset = runs / "presets" / f"{folder.name}.toml"
        write_text(preset, tomli_w.dumps({"pretrain": settings}))
        _call("pretrain", "--preset", str(preset), "--out", str(folder), "--resume")
    for data, protocols in missing:
        arguments = [part for name in protocols for part in ("--protocol", name)]
        if data["source"] != own.source:
            data = {"data_dir": own.data_dir, "download": own.download} | data
            arguments += ["--no-save", *_data_arguments(data)]
        if not _controls_wanted(load(records_file), grid.preset, row, data["source"]):
            arguments.append("--no-controls")
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "evaluation.jsonl"
            _call("evaluate", str(folder), *arguments, "--record", str(file))
            (evaluation,) = read_records(file)
        for record in _records(grid.preset, row, seed, data["source"], folder, evaluation):
            append_record(records_file, record)
    return True


def _controls_wanted(records: list[dict[str, Any]], preset: str, row: Row, source: str) -> bool:
    """The untrained network, raw pixels and the teacher are measured once for each data set."""
    there = any(
        (record["preset"], record["dataset"]) == (preset, source) and record["features"] != STUDENT
        for record in records
    )
    return row.method in _WITH_TEACHER and not there


def _data_arguments(data: dict[str, Any]) -> list[str]:
    arguments = ["--data", str(data["source"])]
    if data.get("data_dir"):
        arguments += ["--data-dir", str(data["data_dir"])]
    if data.get("limit"):
        arguments += ["--limit", str(data["limit"])]
    return [*arguments, "--download" if data.get("download", True) else "--no-download"]


def _missing(
    records: list[dict[str, Any]], preset: str, row: Row, seed: int, source: str, protocols: Iterable[str]
) -> list[str]:
    there = {
        record["protocol"]
        for record in records
        if (record["preset"], record["method"], record["variant"]) == (preset, row.method, row.variant)
        and (record["seed"], record["dataset"], record["features"]) == (seed, source, STUDENT)
    }
    # A protocol such as few-shot gives several figures: few-shot-svm-1, few-shot-svm-2, ...
    return [name for name in protocols if not any(have == name or have.startswith(f"{name}-") for have in there)]


def _records(
    preset: str, row: Row, seed: int, source: str, folder: Path, evaluation: dict[str, Any]
) -> Iterable[dict[str, Any]]:
    trained = read_records(folder / "metrics.jsonl")
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    for line in evaluation["rows"]:
        for protocol, draws in line["scores"].items():
            yield {
                "preset": preset,
                "method": row.method,
                "variant": row.variant,
                "seed": seed,
                "dataset": source,
                "features": line["features"],
                "width": line["width"],
                "protocol": protocol,
                "top1": sum(draws) / len(draws),
                "draws": draws,
                "epochs": len(trained),
                "wall_s": round(sum(record["seconds"] for record in trained), 1),
                "commit": environment["commit"],
                "machine": environment["machine"],
                "versions": environment["versions"],
                "threads": environment["threads"],
                "time": evaluation["conditions"]["time"],
            }


def _call(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "bssl_tf", *arguments], check=False, stdout=subprocess.DEVNULL)
    if done.returncode == Interrupted.exit_status or done.returncode < 0:
        raise Interrupted("the comparison was stopped", "Run the same command again to go on")
    if done.returncode:
        raise RunFolderError(
            f"`bssl-tf {shlex.join(arguments)}` failed with status {done.returncode}", "See its message above"
        )
