"""From runs to a report: the verdict first, then how accurate, how fast, how they were trained, what they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bssl_tf.reports.accuracy import accuracy_section
from bssl_tf.reports.boxes import box_section
from bssl_tf.reports.classes import class_section
from bssl_tf.reports.document import Cell, Column, Document, Section, Table
from bssl_tf.reports.fields import number, text, whole
from bssl_tf.reports.labels import label_section
from bssl_tf.reports.result import result_section
from bssl_tf.reports.runs import Run
from bssl_tf.reports.speed import speed_sections
from bssl_tf.reports.training import training_section
from bssl_tf.settings import FLOAT_NETWORKS


def make_document(
    runs: Sequence[Run], command: str, made: str, mistakes: Sequence[Section] = (), pictures: Sequence[Section] = ()
) -> Document:
    """The report of `runs`.

    Args:
        runs: see `read_runs`.
        command: that makes the report again.
        made: when and with what, a sentence.
        mistakes: see `bssl_tf.reports.mistakes`.
        pictures: sections of `bssl_tf.reports.pictures`, put last.
    """
    title = f"{runs[0].name}: report" if len(runs) == 1 else f"Report of {len(runs)} runs"
    sections = (
        *(
            result_section(runs),
            accuracy_section(runs),
            class_section(runs),
            label_section(runs),
            box_section(runs),
            *mistakes,
            *speed_sections(runs),
        ),
        *(training_section([run for run in runs if not run.imported]), about_section(runs), *pictures),
    )
    return Document(title, command, made, tuple(one for one in sections if one.blocks or one.missing))


def about_section(runs: Sequence[Run]) -> Section:
    """Method, student, teacher, data, seeds."""
    columns = (
        *(Column("run"), Column("what"), Column("method"), Column("stages"), Column("network"), Column("teacher")),
        *(Column("data"), Column("training images"), Column("image size", "px"), Column("channels")),
        *(Column("augmentation"), Column("epochs", "all stages"), Column("batch size"), Column("optimiser")),
        *(Column("schedule"), Column("learning rate"), Column("precision"), Column("seed"), Column("threads")),
        *(Column("training time", "s", 0), Column("started"), Column("machine"), Column("commit"), Column("state")),
    )
    table = Table("runs", "Training settings", columns, tuple(_about(run) for run in runs), turned=True)
    about = " ".join(f"{run.name} is {_kind(run)}." for run in runs) if len(runs) < 4 else ""
    return Section("Overview", about, (table,), tuple(f"{run.name}: {one}" for run in runs for one in run.damaged))


def _kind(run: Run) -> str:
    """What the run trains, and with whose labels, where it recorded that."""
    trained = f"a {_what(run)} ({run.method})"
    labels_used = run.settings.get("labels_used")
    if not isinstance(labels_used, str):
        return trained
    return f"{trained}, trained {f'with the help of {labels_used}' if labels_used else 'without labels'}"


def _what(run: Run) -> str:
    if run.settings.get("float_twin") is True:
        return "float twin of a binary student"
    if run.command == "finetune":
        is_float = text(run.settings, "backbone", "name") in FLOAT_NETWORKS
        return f"fine-tuned {'float network' if is_float else 'binary student'}"
    return "float teacher" if run.command == "teacher" else "binary student"


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
        _what(run),
        run.method,
        text(s, "stages"),
        _network(s),
        _teacher(run),
        source if source == "embedded" or source.startswith("tfds:") else Path(source).name,
        # Not the probe's, which may be fitted on other data.
        whole(run.environment, "training_images"),
        _image_size(s),
        whole(s, "data", "channels"),
        ", ".join(_known(text(s, "augmentation", "name"), _labelled(s, "augmentation", "min_area", "crops from"))),
        None if run.imported else f"{len(run.epochs)} of {total}" if total else str(len(run.epochs)),
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
    return f"{name} ({text(run.teacher, 'method')}, {_network(run.teacher)})" if run.teacher else name


def _labelled(settings: dict[str, Any], section: str, key: str, label: str) -> str:
    value = number(settings, section, key)
    return f"{label} {value:g}" if value else ""


def _image_size(settings: dict[str, Any]) -> int | str | None:
    height, width = (whole(settings, "data", name) for name in ("image_size", "image_width"))
    return f"{height} x {width}" if height and width else height


def _known(*parts: str) -> list[str]:
    return [part for part in parts if part]
