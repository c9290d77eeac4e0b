"""The table and the figure of a comparison, made from its raw records alone."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bssl_tf.comparison.grid import Grid, Row
from bssl_tf.comparison.records import STUDENT, Measured, measured
from bssl_tf.errors import RunFolderError
from bssl_tf.files import write_bytes

_COLOURS = {
    **{"supervised": "#7f7f7f", "moco": "#d95f02", "byol": "#e6ab02", "swav": "#a6761d"},
    **{"s2bnn": "#1b9e77", "bssl": "#386cb0", "guided": "#7570b3"},
}


def markdown(grid: Grid, records: list[dict[str, Any]], command: str) -> str:
    """The table of every data set and protocol in `records`, and below it what the figures rest on.

    Args:
        grid: which rows there are, and in which order.
        records: see `bssl_tf.comparison.records`.
        command: what makes the records again.
    """
    records = _current(grid, records)
    datasets = list(dict.fromkeys(record["dataset"] for record in records))
    blocks = [
        f"# Comparison `{grid.preset}`\n",
        "Top-1 accuracy in percent on the test images; mean and, from two seeds on, the 95 % interval of the mean\n"
        "(Student's t over seeds). Made from the raw records by `bssl-tf compare`; do not edit.\n",
    ]
    for dataset in datasets:
        part = [record for record in records if record["dataset"] == dataset]
        blocks.append(f"## {dataset}\n\n{_table(grid, part)}")
    blocks.append(_conditions(records, command))
    return "\n".join(blocks)


def _current(grid: Grid, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of this grid as it is now; those of a row's earlier settings, or of no row, are left out.

    Raises:
        RunFolderError: there are none.
    """
    known = {(row.method, row.variant, row.settings_sha256) for row in grid.rows}
    current = [
        record
        for record in records
        if record["preset"] == grid.preset
        and (record["features"] != STUDENT or (record["method"], record["variant"], record["settings"]) in known)
    ]
    if not current:
        raise RunFolderError(
            f"no record is of the preset {grid.preset} as it is now", "Run the comparison without --report-only"
        )
    return current


def _table(grid: Grid, records: list[dict[str, Any]]) -> str:
    protocols = sorted({record["protocol"] for record in records}, key=_natural)
    head = ["method", "seeds", "epochs", "training s", *protocols]
    lines = [head, ["---"] * len(head)]
    for row in grid.rows:
        own = [record for record in _of(records, row) if record["features"] == STUDENT]
        if own:
            seeds = len({record["seed"] for record in own})
            seconds = {one["seed"]: (one["wall_s"] or 0) + (one["teacher_cache_s"] or 0) for one in own}.values()
            figures = [_cell(measured(own, protocol=name), seeds) for name in protocols]
            lines.append([row.name, str(seeds), str(own[0]["epochs"]), f"{sum(seconds) / len(seconds):.0f}", *figures])
    for name in dict.fromkeys(record["features"] for record in records if record["features"] != STUDENT):
        figures = [str(measured(records, features=name, protocol=protocol) or "") for protocol in protocols]
        lines.append([f"_{name}_", "", "", "", *figures])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts few-shot-svm-8 before few-shot-svm-16."""
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def _cell(found: Measured | None, seeds: int) -> str:
    if found is None:
        return ""
    return str(found) if len(found.values) == seeds else f"{found} ({len(found.values)} of {seeds} seeds)"


def _conditions(records: list[dict[str, Any]], command: str) -> str:
    def all_of(name: str) -> str:
        found = dict.fromkeys(str(record[name]) for record in records if record[name] is not None)
        return ", ".join(dict.fromkeys(part for text in found for part in text.split(", ")))

    pairs = dict.fromkeys(f"{name} {version}" for record in records for name, version in record["versions"].items())
    return (
        f"## Conditions\n\nCommand: `{command}`. Machine: {all_of('machine')}; threads: {all_of('threads')}. "
        f"Commits that trained: {all_of('commit')}; that measured: {all_of('evaluated_commit')}.\n"
        f"Versions: {', '.join(pairs)}.\n"
        "`epochs` are those of all stages together; `training s` is the time of training, and of computing "
        "the teacher's outputs beforehand where they were kept, on a machine that did other work too.\n"
    )


def figure(grid: Grid, records: list[dict[str, Any]], protocol: str, path: Path) -> None:
    """A bar for each row, with its interval and its seeds, beside lines for the controls; an SVG file.

    Args:
        grid: rows and their order.
        records: see `bssl_tf.comparison.records`.
        protocol: the one to draw, on the data set of the first record.
        path: the file; written whole or not at all.

    Raises:
        RunFolderError: there are no records of it.
        StorageError: it cannot be written.
    """
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    records = _current(grid, records)
    dataset = records[0]["dataset"]
    chosen = [record for record in records if (record["dataset"], record["protocol"]) == (dataset, protocol)]
    bars: list[tuple[Row, Measured]] = [
        (row, found) for row in grid.rows if (found := measured(_of(chosen, row), features=STUDENT)) is not None
    ]
    # Ids and dates from a fixed salt, so that the same records give the same file.
    with plt.rc_context({"svg.hashsalt": grid.preset, "svg.fonttype": "none", "font.size": 9}):
        canvas, axes = plt.subplots(figsize=(8, 0.36 * len(bars) + 1.4), layout="constrained")
        for place, (row, found) in enumerate(bars):
            axes.barh(place, found.mean, color=_COLOURS.get(row.method, "#444444"), height=0.7)
            if found.interval is not None:
                axes.errorbar(found.mean, place, xerr=found.interval, color="black", capsize=3, linewidth=1)
            axes.plot(found.values, [place] * len(found.values), "o", color="black", markersize=2.5)
            axes.annotate(str(found), (0, place), xytext=(4, 0), textcoords="offset points", va="center", color="white")
        axes.set_yticks(range(len(bars)), [_plain(row.name) for row, _ in bars])
        axes.invert_yaxis()
        for name in dict.fromkeys(record["features"] for record in chosen if record["features"] != STUDENT):
            value = measured(chosen, features=name)
            assert value is not None
            axes.axvline(value.mean, color="black", linestyle=":", linewidth=1)
            axes.annotate(
                _plain(name), (value.mean, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
                textcoords="offset points", ha="center", fontsize=7,
            )  # fmt: skip
        what = _plain(f"{protocol} on {dataset}")
        axes.set_xlabel(f"{what}, top-1 in percent; bar: mean, whisker: 95 % interval, dot: one seed")
        axes.spines[["top", "right"]].set_visible(False)
        file = io.BytesIO()
        canvas.savefig(file, format="svg", metadata={"Date": None})
        plt.close(canvas)
    write_bytes(path, file.getvalue())


def _plain(text: str) -> str:
    """For matplotlib, which reads what is between dollars as a formula, and ends where it is none."""
    return text.replace("$", r"\$")


def _of(records: Iterable[dict[str, Any]], row: Row) -> list[dict[str, Any]]:
    return [record for record in records if (record["method"], record["variant"]) == (row.method, row.variant)]
