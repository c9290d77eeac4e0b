"""Runs a grid: what is missing is trained and evaluated, one process at a time, and recorded as it finishes.

Every run and every evaluation is a `bssl-tf` command of its own, so that one that is killed costs its own minutes only:
the same comparison, run again, resumes. A record counts for a row as long as its settings and its
teacher are the row's; a run folder of other settings is refused, not taken.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from bssl_tf.comparison.grid import Grid, Row
from bssl_tf.comparison.records import STUDENT, load
from bssl_tf.errors import BsslError, ConfigError, DataError, Interrupted, RunFolderError
from bssl_tf.files import append_record, locked, read_json, read_records, write_text
from bssl_tf.methods.registry import find, read_run
from bssl_tf.settings import (
    DataConfig,
    PretrainConfig,
    differences,
    first_difference,
    merge,
    read_preset,
    read_run_config,
    read_settings,
)

_log = logging.getLogger(__name__)
# One evaluation by this protocol gives several figures: few-shot-svm-1, few-shot-svm-2, ...
_SEVERAL = "few-shot-svm"


@dataclass(frozen=True)
class Place:
    """Where a comparison reads and writes.

    Attributes:
        runs: run folders, one a row and seed.
        records: the file that gets a line for each run and protocol.
        teacher: a teacher's folder; trained there with the preset's `[teacher]` table when it is missing.
        data: `data_dir` and `download` for every data set.
        teacher_data: settings of the data that a missing teacher is trained on, over the preset's.
    """

    runs: Path
    records: Path
    teacher: Path
    data: dict[str, Any]
    teacher_data: dict[str, Any]


def run_grid(grid: Grid, place: Place, *, only: Iterable[str], recorded: Callable[[], None] = lambda: None) -> None:
    """Trains and evaluates what the records do not have yet.

    Seeds are interleaved, the first of every row before the second of any, so that a table is there early. A row that
    fails does not stop the others.

    Args:
        grid: rows and protocols.
        place: where things are.
        only: slugs of the rows to run; empty for all.
        recorded: called after new records.

    Raises:
        RunFolderError: another comparison runs there, or rows failed; their own messages went to stderr.
        Interrupted: a run was stopped; what is recorded stays.
    """
    chosen = set(only)
    rows = [row for row in grid.rows if not chosen or row.slug in chosen]
    turns = itertools.zip_longest(*([(row, seed) for seed in row.seeds] for row in rows))
    failed = []
    with locked(place.runs / "compare.lock", "another comparison runs", "--runs"):
        for row, seed in filter(None, itertools.chain.from_iterable(turns)):
            try:
                if _run(grid, row, seed, place):
                    recorded()
            except Interrupted:
                raise
            except BsslError as error:
                _log.warning(str(error))
                failed.append(f"{row.slug} seed {seed}")
    if failed:
        raise RunFolderError(f"these rows failed: {', '.join(failed)}", "See their messages above, then run it again")


def _run(grid: Grid, row: Row, seed: int, place: Place) -> bool:
    """One row and seed; whether there was anything to do."""
    settings = merge(row.settings, {"data": place.data, "training": {"seed": seed}})
    own = read_settings(DataConfig, settings.get("data", {}))
    teacher = _teacher_of(row, grid, place)
    # What takes long is measured for the first seed.
    headline = row.headline and seed == row.seeds[0]
    wanted = [(own, grid.protocols + (grid.headline_protocols if headline else ()))]
    if headline:
        wanted += [(data, grid.transfer_protocols) for data in grid.transfer]
    records = [r for r in load(place.records) if r["preset"] == grid.preset]
    ours = [r for r in records if (r["method"], r["variant"], r["seed"]) == (row.method, row.variant, seed)]
    ours = [r for r in ours if (r["settings"], r["teacher"]) == (row.settings_sha256, teacher)]
    missing = [(data, lacking) for data, names in wanted if (lacking := _lacking(ours, data.source, names))]
    if not missing:
        return False
    _log.info(f"{row.name}, seed {seed}")
    folder = place.runs / f"{row.slug}-seed{seed}"
    if teacher is not None:
        settings = merge(settings, {"teacher": str(place.teacher)})
    _trained(folder, settings, place, teacher)
    for data, protocols in missing:
        arguments = [part for name in protocols for part in ("--protocol", name)]
        if data.source != own.source:
            arguments += ["--no-save", "--data", data.source, *_data_arguments(place.data)]
            arguments += ["--limit", str(data.limit)] if data.limit else []
        if teacher is None or data.source != own.source or not _controls_missing(records, data.source, protocols):
            arguments.append("--no-controls")
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / "evaluation.jsonl"
            words = ("evaluate", str(folder), *arguments, "--record", str(file))
            if data.source == own.source:
                _call(*words)
            elif _call(*words, allowed=DataError.exit_status):
                _log.warning(f"{data.source} cannot be read; its columns stay empty")
                continue
            (evaluation,) = read_records(file)
        facts = {"preset": grid.preset, "dataset": data.source, "teacher": teacher}
        append_record(place.records, *_records(facts, row, seed, folder, evaluation))
    return True


def _teacher_of(row: Row, grid: Grid, place: Place) -> str | None:
    """A short hash of the teacher's weights, None for a method without; trains it where it is missing."""
    if not find(row.method).needs_teacher:
        return None
    saved = place.teacher / "teacher" / "weights.safetensors"
    if place.teacher.is_file():
        saved = place.teacher
    elif not (place.teacher / "teacher" / "network.json").exists():
        _log.info(f"training the teacher in {place.teacher}")
        try:
            table = read_preset(grid.source, "teacher")
        except ConfigError as error:
            raise ConfigError(f"there is no teacher in {place.teacher}", "Name one with --teacher") from error
        preset = place.runs / "presets" / "teacher.toml"
        write_text(preset, tomli_w.dumps({"teacher": merge(table, {"data": place.teacher_data})}))
        _call("teacher", "--preset", str(preset), "--out", str(place.teacher), "--resume")
    return hashlib.sha256(saved.read_bytes()).hexdigest()[:16]


def _trained(folder: Path, settings: dict[str, Any], place: Place, teacher: str | None) -> None:
    """Trains in `folder`, or finds that it was done with just these settings."""
    if (folder / "config.toml").exists():
        there = read_run(PretrainConfig, read_run_config(folder)).tables()
        wanted = {key: value for key, value in settings.items() if key != "teacher"}
        changed = differences(there, merge(wanted, {"data": {key: there["data"][key] for key in place.data}}))
        if changed:
            raise RunFolderError(
                f"{folder} was trained with other settings: {first_difference(changed)}",
                "Remove it, or choose --runs",
            )
    # Beside the preset, written before training: a run that is killed at its end is not without it.
    known = place.runs / "presets" / f"{folder.name}.teacher"
    if teacher is not None:
        if (
            (folder / "config.toml").exists()
            and known.exists()
            and known.read_text(encoding="utf-8").strip() != teacher
        ):
            raise RunFolderError(f"{folder} was trained with another teacher", "Remove it, or choose --runs")
        write_text(known, teacher + "\n")
    if not (folder / "student" / "network.json").exists():
        preset = place.runs / "presets" / f"{folder.name}.toml"
        write_text(preset, tomli_w.dumps({"pretrain": settings}))
        _call("pretrain", "--preset", str(preset), "--out", str(folder), "--resume")


def _lacking(records: list[dict[str, Any]], source: str, protocols: Iterable[str]) -> list[str]:
    """The protocols without a record of the student on this data set."""
    there = {r["protocol"] for r in records if (r["dataset"], r["features"]) == (source, STUDENT)}
    return [
        name
        for name in protocols
        if name not in there and not (name == _SEVERAL and any(have.startswith(f"{name}-") for have in there))
    ]


def _controls_missing(records: list[dict[str, Any]], source: str, protocols: Iterable[str]) -> bool:
    """The untrained network, raw pixels and the teacher are measured once for each protocol, on the runs' own data."""
    there = [r | {"features": STUDENT} for r in records if r["features"] != STUDENT]
    return bool(_lacking(there, source, protocols))


def _data_arguments(data: dict[str, Any]) -> list[str]:
    place = ["--data-dir", str(data["data_dir"])] if data.get("data_dir") else []
    return place if data.get("download", True) else [*place, "--no-download"]


def _records(
    facts: dict[str, Any], row: Row, seed: int, folder: Path, evaluation: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    trained = [record for record in read_records(folder / "metrics.jsonl") if "probe" not in record]
    environment = read_json(folder / "environment.json")
    cache = folder / "teacher_cache.json"
    conditions = evaluation["conditions"]
    of_training = {
        "method": row.method,
        "variant": row.variant,
        "settings": row.settings_sha256,
        "epochs": len(trained),
        "wall_s": round(sum(record.get("seconds", 0.0) for record in trained), 1),
        "teacher_cache_s": read_json(cache)["seconds"] if cache.exists() else 0.0,
        "commit": environment.get("commit"),
    }
    for line in evaluation["rows"]:
        own = of_training if line["features"] == STUDENT else dict.fromkeys(of_training)
        for protocol, draws in line["scores"].items():
            yield {
                **facts,
                **own,
                "seed": seed,
                "features": line["features"],
                "width": line["width"],
                "protocol": protocol,
                "top1": sum(draws) / len(draws),
                "draws": draws,
                "evaluated_commit": conditions["commit"],
                **{name: conditions[name] for name in ("machine", "versions", "threads", "python", "time")},
            }


def _call(*arguments: str, allowed: int = 0) -> int:
    """Runs `bssl-tf`. Ctrl-C reaches it too and lets it save, so we wait for it; SIGTERM is handed on.

    Returns:
        Its exit status: 0 or `allowed`.

    Raises:
        Interrupted: it was stopped.
        RunFolderError: it failed, or was killed; its message went to stderr.
    """
    process = subprocess.Popen([sys.executable, "-m", "bssl_tf", *arguments], stdout=subprocess.DEVNULL)
    handlers = {signal.SIGINT: lambda *_: None, signal.SIGTERM: lambda *_: process.terminate()}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if status in (Interrupted.exit_status, -signal.SIGINT, -signal.SIGTERM):
        raise Interrupted("the comparison was stopped", "Run the same command again to continue")
    if status not in (0, allowed):
        cause = f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"
        raise RunFolderError(f"`bssl-tf {shlex.join(arguments)}` {cause}", "See its message above")
    return status
