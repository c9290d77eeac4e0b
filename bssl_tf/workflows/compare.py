"""What `bssl-tf compare` does: the teacher, the grid, the table and the figure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssl_tf.comparison.grid import read_grid
from bssl_tf.comparison.records import load
from bssl_tf.comparison.report import figure, markdown
from bssl_tf.comparison.runner import Place, run_grid
from bssl_tf.errors import ConfigError, RunFolderError
from bssl_tf.files import write_text
from bssl_tf.workflows.given import tables_of
from bssl_tf_deploy.system_errors import system_errors


@dataclass(frozen=True)
class Compared:
    """A comparison's files.

    Attributes:
        table: in Markdown.
        figure: the same as SVG.
        records: a line of JSON for each run and protocol.
    """

    table: Path
    figure: Path
    records: Path


@system_errors()
def compare(
    preset: str,
    *,
    teacher: str | os.PathLike[str] | None = None,
    runs: str | Path | None = None,
    results: str | Path = "results",
    data_dir: str | Path | None = None,
    download: bool | None = None,
    only: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    report_only: bool = False,
) -> Compared:
    """Runs whatever a preset's grid of methods and seeds still lacks, then draws the table and figure of all records.

    Args:
        preset: a preset with a `[compare]` table, or the TOML file of one.
        teacher: a run folder of `train_teacher`, or a Keras model; None for `RUNS/teacher`, trained when needed.
        runs: folder of the runs; None for `runs/PRESET`.
        results: folder for `PRESET.jsonl`, `PRESET.md` and `PRESET.svg`.
        data_dir: where TFDS keeps its data.
        download: allow TFDS to download.
        only: names of rows (`Row.slug`) to run; all if empty.
        settings: other settings of every run: `{"training.epochs": 2}` or `{"training": {"epochs": 2}}`.
        report_only: redraw the table and figure without running anything.

    Raises:
        ConfigError: the preset or a row's name is wrong.
        RunFolderError: a run failed, or there is nothing to report.
        Interrupted: a run was stopped; the same call continues.
    """
    overrides = tables_of(settings)
    grid = read_grid(preset, overrides)
    known = [row.slug for row in grid.rows]
    for name in only:
        if name not in known:
            raise ConfigError(f"preset {preset} has no row {name!r}", f"Choose one of {', '.join(known)}")
    given = {"data_dir": None if data_dir is None else str(data_dir), "download": download}
    data = {name: value for name, value in given.items() if value is not None}
    folder = Path(runs) if runs else Path("runs") / grid.preset
    done = Compared(*(Path(results) / f"{grid.preset}.{kind}" for kind in ("md", "svg", "jsonl")))
    place = Place(
        folder,
        done.records,
        Path(teacher) if teacher else folder / "teacher",
        data,
        overrides.get("data", {}) | data,
    )

    def write_report() -> None:
        records = load(done.records)
        if records:
            write_text(done.table, markdown(grid, records, f"bssl-tf compare {preset}"))
            figure(grid, records, grid.protocols[0], done.figure)

    if not report_only:
        run_grid(grid, place, only=only, recorded=write_report)
    if not load(done.records):
        raise RunFolderError(f"{done.records} has no records", "Run the comparison without --report-only")
    write_report()
    return done
