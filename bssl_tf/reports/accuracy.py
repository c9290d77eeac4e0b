"""The section of accuracy: every run's network beside its controls, by every protocol, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bssl_tf.evaluation.records import STUDENT, Evaluation
from bssl_tf.reports import figures
from bssl_tf.reports.document import Column, Figure, Key, Section, Table, lacking
from bssl_tf.reports.fields import text
from bssl_tf.reports.runs import Run, conditions, only
from bssl_tf.settings import FINE_TUNED

# First what most runs have.
_HEADLINE = (FINE_TUNED, "linear-probe", "knn-20", "linear-probe-sgd", "knn-200", "finetune-10%", "finetune-1%")
_FEW_SHOT = "few-shot-svm-"


def accuracy_section(runs: Sequence[Run]) -> Section:
    """The network of each run beside its controls and its teacher, by every protocol that was measured."""
    measured = [(run, run.evaluation) for run in runs if run.evaluation is not None]
    rows = [
        (run.name, row.features, protocol, row.mean(protocol), interval.low, interval.high, len(row.scores[protocol]),
         found.test_images, found.data, found.train_images, found.classes, found.labels_used or "no labels")
        for run, found in measured
        for row in found.rows
        for protocol, interval in row.intervals.items()
    ]  # fmt: skip
    columns = (
        *(Column("run"), Column("features of"), Column("protocol"), Column("top-1", "%", 2)),
        *(Column("95 % from", "%", 2), Column("95 % to", "%", 2), Column("draws"), Column("test images")),
        *(Column("data"), Column("training images"), Column("classes"), Column("weights trained with")),
    )
    students = [run for run in runs if run.of_student]
    missing = (
        *lacking([run.name for run in runs if not run.finished], "not finished, so there is no accuracy yet."),
        *lacking(
            [run.name for run in students if run.finished and not run.evaluated],
            f"no accuracy yet; run `bssl-tf evaluate {only(students)}`.",
        ),
        *lacking(
            [run.name for run, found in measured if len(found.rows) < 2],
            f"measured without controls; run `bssl-tf evaluate {only(students)}`.",
        ),
    )
    blocks: list[Figure | Table] = []
    if measured:
        groups: dict[tuple[str, str], list[tuple[Run, Evaluation]]] = {}
        for run, found in measured:
            groups.setdefault((found.train_fingerprint, found.test_fingerprint), []).append((run, found))
        for number, group in enumerate(groups.values()):
            blocks += _figures(group, f"accuracy-{number}")
        blocks.append(Table("accuracy", "Accuracy, every protocol", columns, tuple(rows)))
    return Section(
        "Accuracy",
        f"{_unseen(measured)} The controls are the same network untrained, and raw pixels: training helped to the "
        "extent that the network is above them. Lines are 95 % intervals: Wilson's over test images, or Student's t "
        "over the draws of few-shot protocols."
        if measured
        else "",
        tuple(blocks),
        missing,
    )


def _unseen(measured: Sequence[tuple[Run, Evaluation]]) -> str:
    """Who saw the test images: they are held out of the data of the evaluation, which need not be the training's."""
    seen = [run.name for run, found in measured if _elsewhere(run, found)]
    held_out = "held out from the probe; the training without labels may have seen them"
    if not seen:
        return "Top-1 accuracy on test images that no training saw."
    if len(seen) == len(measured):
        return f"Top-1 accuracy on test images {held_out}."
    return f"Top-1 accuracy on test images that no training saw; those of {', '.join(seen)} were {held_out}."


def _elsewhere(run: Run, found: Evaluation) -> bool:
    """Whether the network, what it was before, or its teacher were trained on other data than the accuracy is of."""
    sources = [text(settings, "data", "source") for settings in (run.settings, run.before, run.teacher)]
    # A folder may be named in several ways.
    return run.imported or any(source and Path(source).resolve() != Path(found.data).resolve() for source in sources)


def _figures(group: Sequence[tuple[Run, Evaluation]], name: str) -> list[Figure]:
    """Of runs that were measured on the same images."""
    found = {protocol for _, one in group for row in one.rows for protocol in row.scores}
    few_shot = sorted(
        (name for name in found if name.removeprefix(_FEW_SHOT).isdecimal()),
        key=lambda name: int(name.removeprefix(_FEW_SHOT)),
    )
    rest = [name for name in found if name not in few_shot]
    rest.sort(key=lambda name: (_HEADLINE.index(name) if name in _HEADLINE else len(_HEADLINE), name))
    subjects = list(dict.fromkeys(row.features for _, one in group for row in one.rows))
    made = []
    if len(group) == 1:
        of_rows = {
            row.features: {p: _point(one, row.features, p) for p in rest} for _, one in group for row in one.rows
        }
        if rest:
            made.append(_dots(group, name, "Accuracy by protocol", "protocol", rest, of_rows))
    for protocol in rest[:2] if len(group) > 1 else ():
        of_runs = {s: {run.name: _point(one, s, protocol) for run, one in group} for s in subjects}
        names = [run.name for run, _ in group if any(points[run.name] is not None for points in of_runs.values())]
        title = f"Accuracy by {protocol}"
        made.append(_dots(group, f"{name}-{rest.index(protocol)}", title, "run", names, of_runs))
    if len(few_shot) > 1:
        made.append(_few_shot(group, f"{name}-few-shot", few_shot))
    return made


Point = tuple[float, float, float]


def _point(found: Evaluation, subject: str, protocol: str) -> Point | None:
    """Accuracy and the ends of its interval."""
    row = found.row(subject)
    if row is None or protocol not in row.scores:
        return None
    interval = row.intervals[protocol]
    return row.mean(protocol), interval.low, interval.high


def _dots(
    group: Sequence[tuple[Run, Evaluation]],
    name: str,
    title: str,
    what: str,
    rows: list[str],
    values: dict[str, dict[str, Point | None]],
) -> Figure:
    known = {
        subject: {row: points[row] for row in rows if points.get(row) is not None} for subject, points in values.items()
    }
    known = {subject: points for subject, points in known.items() if points}
    series = [
        figures.Series(
            style,
            [point[0] for point in points.values() if point],
            [float(rows.index(row)) for row in points],
            [point[1:] for point in points.values() if point],
        )
        for style, points in enumerate(known.values())
    ]
    columns = (
        Column(what),
        *(column for one in known for column in (Column(one, "%", 2), Column("from", "%", 1), Column("to", "%", 1))),
    )
    cells = [[values[one].get(row) or (None, None, None) for one in known] for row in rows]
    table = Table(
        name,
        title,
        columns,
        tuple((row, *(c for p in points for c in p)) for row, points in zip(rows, cells, strict=True)),
    )
    found = group[0][1]
    ends = [end for one in series for span in one.spans for end in span]
    chance = 100 / found.classes if found.classes else None
    # Far from all points it would leave little room for the differences between them.
    drawn = chance is not None and chance > min(ends) - 0.5 * (max(ends) - min(ends))
    guessing = f" Guessing gives {chance:.3g} %{' (dashed line)' if drawn else ''}." if chance else ""
    best = {one: max(point[0] for point in points.values() if point) for one, points in known.items()}
    return Figure(
        name=name,
        title=f"{title}, {found.data}",
        caption=f"Top-1 in percent with 95 % intervals, further right is better; on {_images(found)}.{guessing}",
        alt=f"Dot plot; the best of each: {', '.join(f'{one} {top:.1f} %' for one, top in best.items())}.",
        conditions=_conditions(group),
        draw=lambda: figures.dots(name, rows, series, "top-1 (%)", reference=chance if drawn else None),
        table=table,
        keys=tuple(Key(one, style) for style, one in enumerate(known)),
    )


def _few_shot(group: Sequence[tuple[Run, Evaluation]], name: str, protocols: list[str]) -> Figure:
    shots = [int(protocol.removeprefix(_FEW_SHOT)) for protocol in protocols]
    lines: dict[str, list[tuple[int, float]]] = {}
    for run, found in group:
        for row in found.rows:
            # Beside other runs only the student's; alone with its controls.
            if row.features != STUDENT and len(group) > 1:
                continue
            points = [(n, row.mean(p)) for n, p in zip(shots, protocols, strict=True) if p in row.scores]
            if points:
                lines[run.name if len(group) > 1 else row.features] = points
    series = [figures.Series(i, [x for x, _ in line], [y for _, y in line]) for i, line in enumerate(lines.values())]
    rows = tuple((n, *(dict(line).get(n) for line in lines.values())) for n in shots)
    table = Table(name, "Few-shot accuracy", (Column("images per class"), *(Column(n, "%", 2) for n in lines)), rows)
    draws = max(len(row.scores[p]) for _, found in group for row in found.rows for p in protocols if p in row.scores)
    return Figure(
        name=name,
        title=f"With few labelled images, {group[0][1].data}",
        caption="Top-1 of a linear SVM on this many labelled images of each class; higher is better. "
        f"Mean of up to {draws} draws, on {_images(group[0][1])}.",
        alt="; ".join(f"{name}: {line[0][1]:.1f} % with {line[0][0]} to {line[-1][1]:.1f} % with {line[-1][0]} images "
                      "per class" for name, line in lines.items()) + ".",
        conditions=_conditions(group),
        draw=lambda: figures.curves(name, series, "labelled images per class", "top-1 (%)", zero=False),
        table=table,
        keys=tuple(Key(name, style) for style, name in enumerate(lines)),
    )  # fmt: skip


def _images(found: Evaluation) -> str:
    return (
        f"{found.data} (n = {found.test_images} test images; "
        f"probes were fitted on {found.train_images} training images)"
    )


def _conditions(group: Sequence[tuple[Run, Evaluation]]) -> str:
    command = group[0][1].command if len(group) == 1 else ""
    found = [one.conditions for _, one in group]
    return conditions(found, command or f"bssl-tf evaluate {only([run for run, _ in group])}")
