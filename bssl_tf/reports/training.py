"""The section of training curves: loss parts, targets, the learning rate, probes while training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from bssl_tf.reports import figures
from bssl_tf.reports.document import Column, Figure, Group, Key, Section, Table, lacking
from bssl_tf.reports.fields import number, text
from bssl_tf.reports.runs import Run, conditions
from bssl_tf.settings import PROTOCOLS

_PLACE = ("step", "stage", "epoch")
_PACE = ("seconds", "images_per_s")
_UNITS = {"seconds": "s", "images_per_s": "1/s", "train_top1": "%"}
_TARGETS = {
    "target_entropy": "entropy of a target, nats",
    "target_information": "information of a target about its image, nats",
    "target_spread": "standard deviation of target logits",
    "prototypes_used": "share of prototypes in use",
}


def training_section(runs: Sequence[Run]) -> Section:
    """Every epoch of every run: one table, and for each run the curves that its method has."""
    recorded = [run for run in runs if run.epochs]
    names = _names(recorded)
    rows = tuple(
        (run.name, text(epoch, "stage"), place, *(number(epoch, name) for name in names))
        for run in recorded
        for place, epoch in enumerate(run.epochs, start=1)
    )
    measured = (Column(name, _UNITS.get(name, "")) for name in names)
    columns = (Column("run"), Column("stage"), Column("epoch", "of all"), *measured)
    table = Table("training", "Training, epoch by epoch", columns, rows)
    groups = tuple(Group(run.name, tuple(_figures(run, f"training-{place}"))) for place, run in enumerate(recorded))
    known = {run.name: _names([run]) for run in recorded}
    missing = (
        *lacking(
            [run.name for run in runs if not run.epochs],
            "no finished epoch in metrics.jsonl; still training, or stopped before the first one ended.",
        ),
        *lacking(
            [name for name, names in known.items() if not any(map(_is_probe, names))],
            "no probe over epochs: its data has no labels or no test images, or training.probe_every is 0.",
        ),
        *lacking(
            [name for name, names in known.items() if not any(one.startswith("target_") for one in names)],
            "no entropy or spread of targets; not every method has them.",
        ),
    )
    return Section(
        "Training",
        "Means over each epoch. A dashed vertical line is the border between two stages: there the optimiser and the "
        "learning rate start again.",
        (*groups, table) if recorded else (),
        missing,
    )


def _names(runs: Sequence[Run]) -> list[str]:
    """What is recorded beside the place in training: losses first, the pace last."""
    found = dict.fromkeys(
        str(name)
        for run in runs
        for epoch in run.epochs
        for name in epoch
        if name not in _PLACE and number(epoch, name) is not None
    )

    def order(name: str) -> tuple[int, str]:
        if name == "loss":
            return 0, name
        return (3 if name in _PACE else 2 if name == "learning_rate" else 1), name

    return sorted(found, key=order)


def _is_probe(name: str) -> bool:
    return name in PROTOCOLS or name.startswith(("probe", "knn", "linear_probe", "validation")) or name == "train_top1"


def _figures(run: Run, name: str) -> list[Figure]:
    names = _names([run])
    probes = [one for one in names if _is_probe(one)]
    targets = [one for one in names if one in _TARGETS or one.startswith("target_")]
    schedules = [one for one in names if one in ("learning_rate", "balance")]
    others = {*probes, *targets, *schedules, *_PACE}
    losses = [one for one in names if one not in others]
    behind = conditions([run.environment], f"settings: {run.name}/config.toml")
    made = []
    for part, chosen, title, label, caption in (
        (
            "losses",
            losses,
            "Loss and its parts",
            "mean over the epoch, nats",
            "Lower is better; `loss` is the quantity minimised.",
        ),
        (
            "targets",
            targets,
            "Target statistics",
            "mean over the epoch",
            "Falling to zero together means that the targets are the same for every image (a collapse). "
            + "; ".join(f"{one}: {_TARGETS[one]}" for one in targets if one in _TARGETS)
            + ".",
        ),
        (
            "probe",
            probes,
            "Probe while training",
            "top-1 (%)",
            "Higher is better. knn-20 uses at most 1,000 training and 500 test images, for this curve only: "
            "`bssl-tf evaluate` measures the accuracy on all of them.",
        ),
        *(
            (one.replace("_", "-"), [one], f"Schedule: {one}", "at the epoch's end", "Set, not measured.")
            for one in schedules
        ),
    ):  # fmt: skip
        if chosen:
            made.append(_figure(run, f"{name}-{part}", chosen, title, label, caption, behind))
    return made


def _figure(run: Run, name: str, chosen: Sequence[str], title: str, label: str, caption: str, behind: str) -> Figure:
    places = list(range(1, len(run.epochs) + 1))
    values = {one: [number(epoch, one) for epoch in run.epochs] for one in chosen}
    stages = [text(epoch, "stage") for epoch in run.epochs]
    borders = [place + 0.5 for place, (one, after) in enumerate(itertools.pairwise(stages), 1) if one != after]
    # A probe is not there for every epoch.
    known = {one: [(place, v) for place, v in zip(places, values[one], strict=True) if v is not None] for one in chosen}
    points = max(map(len, known.values()))
    series = [
        figures.Series(style, [place for place, _ in known[one]], [value for _, value in known[one]])
        for style, one in enumerate(chosen)
    ]
    rows = tuple((place, stages[place - 1], *(values[one][place - 1] for one in chosen)) for place in places)
    table = Table(name, title, (Column("epoch"), Column("stage"), *(Column(one) for one in chosen)), rows)
    ends = ", ".join(f"{one} {known[one][0][1]:.3g} to {known[one][-1][1]:.3g}" for one in chosen)
    often = "One point per epoch" if points == len(places) else f"Points over {len(places)} epochs"
    return Figure(
        name=name,
        title=title,
        caption=f"{caption} {often}, n = {points}.",
        alt=f"Line chart over {len(places)} epochs of {run.name}: {ends}.",
        conditions=behind,
        draw=lambda: figures.curves(name, series, "epoch, of all stages together", label, borders=borders, zero=False),
        table=table,
        keys=tuple(Key(one, style) for style, one in enumerate(chosen)),
    )
