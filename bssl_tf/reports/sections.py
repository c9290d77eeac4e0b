"""From runs to a report: what they are, how accurate, how fast, how they were trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bssl_tf.reports import figures
from bssl_tf.reports.document import Cell, Column, Document, Figure, Key, Section, Table, lacking
from bssl_tf.reports.fields import number, text, whole
from bssl_tf.reports.fields import table as table_of
from bssl_tf.reports.runs import Run, conditions, only
from bssl_tf.reports.speed import speed_sections
from bssl_tf.reports.training import training_section

STUDENT = "student"
# First what most runs have.
_HEADLINE = ("linear-probe", "knn-20", "linear-probe-sgd", "knn-200", "finetune-10%", "finetune-1%")
_FEW_SHOT = "few-shot-svm-"


def make_document(runs: Sequence[Run], command: str, made: str, pictures: Sequence[Section] = ()) -> Document:
    """The report of `runs`.

    Args:
        runs: see `read_runs`.
        command: that makes the report again.
        made: when and with what, a sentence.
        pictures: sections of `bssl_tf.reports.pictures`, put last.
    """
    title = f"{runs[0].name}: report" if len(runs) == 1 else f"Report of {len(runs)} runs"
    sections = (about_section(runs), accuracy_section(runs), *speed_sections(runs), training_section(runs), *pictures)
    return Document(title, command, made, sections)


def about_section(runs: Sequence[Run]) -> Section:
    """Method, student, teacher, data, seeds."""
    columns = (
        *(Column("run"), Column("what"), Column("method"), Column("stages"), Column("network"), Column("teacher")),
        *(Column("data"), Column("training images"), Column("image size", "px"), Column("channels")),
        *(Column("augmentation"), Column("epochs", "all stages"), Column("batch size"), Column("optimiser")),
        *(Column("schedule"), Column("learning rate"), Column("precision"), Column("seed"), Column("threads")),
        *(Column("training time", "s", 0), Column("begun"), Column("machine"), Column("commit"), Column("state")),
    )
    table = Table("runs", "What was trained", columns, tuple(_about(run) for run in runs), turned=True)
    kinds = {"teacher": "a float teacher, trained without labels", "pretrain": "a binary student"}
    about = " ".join(f"{run.name} is {kinds[run.command]} ({run.method})." for run in runs) if len(runs) < 4 else ""
    return Section("What this is", about, (table,), tuple(f"{run.name}: {one}" for run in runs for one in run.damaged))


def _about(run: Run) -> tuple[Cell, ...]:
    s = run.settings
    epochs = whole(s, "training", "epochs")
    # A student is trained in two stages, or as long in one; a teacher in one.
    total = epochs * (2 if run.command == "pretrain" else 1) if epochs else None
    seconds = [number(epoch, "seconds") for epoch in run.epochs]
    known = [one for one in seconds if one is not None]
    source = text(s, "data", "source")
    return (
        run.name,
        "float teacher" if run.command == "teacher" else "binary student",
        run.method,
        text(s, "stages"),
        _network(s),
        _teacher(run),
        source if source == "embedded" or source.startswith("tfds:") else Path(source).name,
        # Not the probe's, which may be fitted on other data. Older runs do not say it.
        whole(run.environment, "training_images"),
        whole(s, "data", "image_size"),
        whole(s, "data", "channels"),
        ", ".join(_known(text(s, "augmentation", "name"), _labelled(s, "augmentation", "min_area", "crops from"))),
        f"{len(run.epochs)} of {total}" if total else str(len(run.epochs)),
        whole(s, "training", "batch_size"),
        text(s, "training", "optimizer"),
        text(s, "training", "schedule"),
        number(s, "training", "learning_rate"),
        text(s, "training", "precision"),
        whole(s, "training", "seed"),
        whole(run.environment, "threads"),
        sum(known) if known and len(known) == len(seconds) else None,
        text(run.environment, "time"),
        text(run.environment, "machine"),
        text(run.environment, "commit"),
        "finished" if run.finished else "not finished",
    )


def _network(settings: dict[str, Any]) -> str:
    sizes = [_labelled(settings, "backbone", key, key) for key in ("width", "depth")]
    return ", ".join(_known(text(settings, "backbone", "name"), *sizes))


def _teacher(run: Run) -> str:
    path = text(run.settings, "teacher")
    if not path:
        return ""
    name = Path(path).name
    return f"{name} ({text(run.teacher, 'method') or 'moco'}, {_network(run.teacher)})" if run.teacher else name


def _labelled(settings: dict[str, Any], section: str, key: str, label: str) -> str:
    value = number(settings, section, key)
    return f"{label} {value:g}" if value else ""


def _known(*parts: str) -> list[str]:
    return [part for part in parts if part]


def accuracy_section(runs: Sequence[Run]) -> Section:
    """The student of each run beside its controls and its teacher, by every protocol that was measured."""
    students = [run for run in runs if run.command == "pretrain"]
    measured = [run for run in students if run.rows]
    rows = [
        (run.name, subject, protocol, _mean(draws), len(draws), min(draws), max(draws), text(run.evaluation, "data"),
         whole(run.evaluation, "train_images"), whole(run.evaluation, "test_images"), whole(run.evaluation, "classes"))
        for run in measured
        for subject, scores in run.rows.items()
        for protocol, draws in scores.items()
    ]  # fmt: skip
    columns = (
        *(Column("run"), Column("features of"), Column("protocol"), Column("top-1", "%", 2), Column("draws")),
        *(Column("lowest", "%", 2), Column("highest", "%", 2), Column("data"), Column("training images")),
        *(Column("test images"), Column("classes")),
    )
    missing = (
        *lacking([run.name for run in students if not run.finished], "not finished, so without accuracy."),
        *lacking(
            [run.name for run in students if run.finished and not run.rows],
            f"no accuracy yet; run `bssl-tf evaluate {only(students)}`.",
        ),
        *lacking(
            [run.name for run in measured if len(run.rows) < 2],
            f"measured without controls and teacher; run `bssl-tf evaluate {only(students)}`.",
        ),
    )
    blocks: list[Figure | Table] = []
    if measured:
        for number, data in enumerate(dict.fromkeys(_data(run) for run in measured)):
            blocks += _figures([run for run in measured if _data(run) == data], f"accuracy-{number}")
        blocks.append(Table("accuracy", "Accuracy, every protocol", columns, tuple(rows)))
    return Section(
        "Accuracy",
        f"{_unseen(measured)} The controls are the same network untrained, and raw pixels: a student is worth its "
        "training as far as it is above them.",
        tuple(blocks),
        missing,
    )


def _unseen(measured: Sequence[Run]) -> str:
    """Who saw the test images: they are held out of the data of the evaluation, which need not be the training's."""
    seen = [run.name for run in measured if _elsewhere(run)]
    held_out = "held out from the probe; the training without labels may have seen them"
    if not seen:
        return "Top-1 accuracy on test images that no training saw."
    if len(seen) == len(measured):
        return f"Top-1 accuracy on test images {held_out}."
    return f"Top-1 accuracy on test images that no training saw; those of {', '.join(seen)} were {held_out}."


def _elsewhere(run: Run) -> bool:
    """Whether student or teacher were trained on other data than the accuracy is of."""
    evaluated = text(run.evaluation, "data")
    sources = [text(settings, "data", "source") for settings in (run.settings, run.teacher)]
    # A folder may be named in several ways.
    return any(source and Path(source).resolve() != Path(evaluated).resolve() for source in sources)


def _figures(runs: Sequence[Run], name: str) -> list[Figure]:
    """Of runs that were measured on the same images."""
    found = {protocol for run in runs for scores in run.rows.values() for protocol in scores}
    few_shot = sorted(
        (name for name in found if name.removeprefix(_FEW_SHOT).isdecimal()),
        key=lambda name: int(name.removeprefix(_FEW_SHOT)),
    )
    rest = [name for name in found if name not in few_shot]
    rest.sort(key=lambda name: (_HEADLINE.index(name) if name in _HEADLINE else len(_HEADLINE), name))
    subjects = list(dict.fromkeys(subject for run in runs for subject in run.rows))
    made = []
    if len(runs) == 1:
        values = {s: {p: _mean(scores[p]) for p in rest if p in scores} for s, scores in runs[0].rows.items()}
        made.append(_dots(runs, name, "Accuracy by protocol", "protocol", rest, values))
    for protocol in rest[:2] if len(runs) > 1 else ():
        values = {
            subject: {
                run.name: _mean(run.rows[subject][protocol]) for run in runs if protocol in run.rows.get(subject, {})
            }
            for subject in subjects
        }
        names = [run.name for run in runs if any(run.name in row for row in values.values())]
        made.append(_dots(runs, f"{name}-{rest.index(protocol)}", f"Accuracy by {protocol}", "run", names, values))
    if len(few_shot) > 1:
        made.append(_few_shot(runs, f"{name}-few-shot", few_shot))
    return made


def _dots(
    runs: Sequence[Run], name: str, title: str, what: str, rows: list[str], values: dict[str, dict[str, float]]
) -> Figure:
    subjects = [subject for subject, row in values.items() if row]
    series = [
        figures.Series(style, list(values[one].values()), [float(rows.index(row)) for row in values[one]])
        for style, one in enumerate(subjects)
    ]
    columns = (Column(what), *(Column(one, "%", 2) for one in subjects))
    table = Table(name, title, columns, tuple((row, *(values[one].get(row) for one in subjects)) for row in rows))
    chance = whole(runs[0].evaluation, "classes")
    best = {one: max(row.values()) for one, row in values.items() if row}
    return Figure(
        name=name,
        title=f"{title}, {_data(runs[0])[0]}",
        caption=f"Top-1 in percent, further right is better; on {_images(runs[0])}."
        + (f" Dashed line: guessing ({100 / chance:.3g} %)." if chance else ""),
        alt=f"Dot plot; the best of each: {', '.join(f'{one} {top:.1f} %' for one, top in best.items())}.",
        conditions=_conditions(runs),
        draw=lambda: figures.dots(name, rows, series, "top-1 (%)", reference=100 / chance if chance else None),
        table=table,
        keys=tuple(Key(one, style) for style, one in enumerate(subjects)),
    )


def _few_shot(runs: Sequence[Run], name: str, protocols: list[str]) -> Figure:
    shots = [int(protocol.removeprefix(_FEW_SHOT)) for protocol in protocols]
    lines: dict[str, list[tuple[int, float]]] = {}
    for run in runs:
        for subject, scores in run.rows.items():
            # Beside other runs only the student's; alone with its controls.
            if subject != STUDENT and len(runs) > 1:
                continue
            points = [(n, _mean(scores[p])) for n, p in zip(shots, protocols, strict=True) if p in scores]
            if points:
                lines[run.name if len(runs) > 1 else subject] = points
    series = [figures.Series(i, [x for x, _ in line], [y for _, y in line]) for i, line in enumerate(lines.values())]
    rows = tuple((n, *(dict(line).get(n) for line in lines.values())) for n in shots)
    table = Table(name, "Few-shot accuracy", (Column("images a class"), *(Column(n, "%", 2) for n in lines)), rows)
    draws = max(
        len(draws) for run in runs for scores in run.rows.values() for p, draws in scores.items() if p in protocols
    )
    return Figure(
        name=name,
        title=f"With few labelled images, {_data(runs[0])[0]}",
        caption="Top-1 of a linear SVM on so many labelled images of each class; higher is better. "
        f"Mean of up to {draws} draws, on {_images(runs[0])}.",
        alt="; ".join(f"{name}: {line[0][1]:.1f} % with {line[0][0]} to {line[-1][1]:.1f} % with {line[-1][0]} images "
                      "a class" for name, line in lines.items()) + ".",
        conditions=_conditions(runs),
        draw=lambda: figures.curves(name, series, "labelled images a class", "top-1 (%)", zero=False),
        table=table,
        keys=tuple(Key(name, style) for style, name in enumerate(lines)),
    )  # fmt: skip


def _data(run: Run) -> tuple[Any, ...]:
    """What must be equal for accuracies to be compared."""
    return (
        text(run.evaluation, "data"),
        *(whole(run.evaluation, key) for key in ("train_images", "test_images", "classes")),
    )


def _images(run: Run) -> str:
    data, train, test, _ = _data(run)
    return f"{data} (n = {test} test images; probes were fitted on {train} training images)"


def _conditions(runs: Sequence[Run]) -> str:
    command = text(runs[0].evaluation, "command") if len(runs) == 1 else ""
    found = [table_of(run.evaluation, "conditions") for run in runs]
    return conditions(found, command or f"bssl-tf evaluate {only(runs)}")


def _mean(draws: Sequence[float]) -> float:
    return sum(draws) / len(draws)
