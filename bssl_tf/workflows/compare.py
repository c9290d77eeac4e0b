"""What `bssl-tf compare` does: the teacher, the grid, the table and the figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bssl_tf.comparison.grid import read_grid
from bssl_tf.comparison.records import load
from bssl_tf.comparison.report import figure, markdown
from bssl_tf.comparison.runner import Place, run_grid
from bssl_tf.errors import ConfigError, RunFolderError
from bssl_tf.files import write_text


def compare(
    preset: str,
    *,
    teacher: Path | None,
    runs: Path | None,
    results: Path,
    data: dict[str, Any],
    overrides: dict[str, Any],
    only: Sequence[str],
    train: bool,
    report: Callable[[str], None],
) -> Path:
    """Runs what is missing of a preset's grid and makes table and figure of all there is.

    Args:
        preset: a preset with a `[compare]` table, or the TOML file of one.
        teacher: a run folder of `bssl-tf teacher`, or a Keras model; None for `RUNS/teacher`, trained when needed.
        runs: where run folders are; None for `runs/PRESET`.
        results: where `PRESET.jsonl`, `PRESET.md` and `PRESET.svg` go.
        data: `data_dir` and `download` of every run's `DataConfig`.
        overrides: other settings of `PretrainConfig` for every run.
        only: names of rows (`Row.slug`) to run; all if empty.
        train: False makes table and figure again and runs nothing.
        report: takes lines of prose for the user.

    Returns:
        The path of the table.

    Raises:
        ConfigError: the preset or a row's name is wrong.
        RunFolderError: a run failed, or there is nothing to report.
        Interrupted: a run was stopped; the same call goes on.
    """
    grid = read_grid(preset, overrides)
    known = [row.slug for row in grid.rows]
    for name in only:
        if name not in known:
            raise ConfigError(f"preset {preset} has no row {name!r}", f"Choose one of {', '.join(known)}")
    runs = runs or Path("runs") / grid.preset
    place = Place(
        runs, results / f"{grid.preset}.jsonl", teacher or runs / "teacher", data, overrides.get("data", {}) | data
    )
    table = results / f"{grid.preset}.md"

    def write_report() -> None:
        records = load(place.records)
        if records:
            write_text(table, markdown(grid, records, f"bssl-tf compare {preset}"))
            figure(grid, records, grid.protocols[0], results / f"{grid.preset}.svg")

    if train:
        run_grid(grid, place, only=only, report=report, recorded=write_report)
    if not load(place.records):
        raise RunFolderError(f"{place.records} has no records", "Run the comparison without --report-only")
    write_report()
    return table
