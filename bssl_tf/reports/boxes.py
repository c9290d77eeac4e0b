"""The section of detectors: average precision, and precision over recall, of each class."""

from __future__ import annotations

from collections.abc import Sequence

from bssl_tf.evaluation.detection import DetectionEvaluation
from bssl_tf.reports import figures
from bssl_tf.reports.document import Column, Figure, Group, Key, Section, Table
from bssl_tf.reports.runs import Run, conditions

# Of which curves are drawn, those with the most objects.
_MOST_CURVES = 7
_COLUMNS = (Column("objects"), *(Column(name, "%", 1) for name in ("AP50", "AP75", "AP")))


def box_section(runs: Sequence[Run]) -> Section:
    """For each run that was fine-tuned for detection and evaluated, its precision by class."""
    groups = []
    for place, run in enumerate(runs):
        found = run.detection
        if found is None:
            continue
        columns = (Column("class"), *_COLUMNS)
        rows = [(one.name, one.objects, one.ap50, one.ap75, one.ap) for one in found.classes]
        rows.append(("mean", sum(one.objects for one in found.classes), found.ap50, found.ap75, found.ap))
        title = f"Average precision by class, {found.data}, n = {found.test_images} test images"
        table = Table(f"boxes-{place}", title, columns, tuple(rows))
        tables = (table, *_by_size(found, f"boxes-{place}-sizes"))
        groups.append(Group(run.name, (*_curves(run, found, f"boxes-{place}-curves"), *tables)))
    about = (
        "COCO's average precision: boxes are ranked by score, and one hits where it overlaps an object of its class by "
        "a share of their union: 0.5 for AP50, 0.75 for AP75; AP is the mean over 0.5, 0.55, ..., 0.95."
    )
    return Section("Boxes", about if groups else "", tuple(groups))


def _by_size(found: DetectionEvaluation, name: str) -> tuple[Table, ...]:
    """None where it was not measured yet."""
    rows = [
        (one.title, one.objects, *(("not measured",) * 3 if not one.objects else (one.ap50, one.ap75, one.ap)))
        for one in found.sizes
    ]
    title = "Average precision by the area of objects on the photo"
    return (Table(name, title, (Column("size"), *_COLUMNS), tuple(rows)),) if rows else ()


def _curves(run: Run, found: DetectionEvaluation, name: str) -> tuple[Figure, ...]:
    known = sorted((one for one in found.classes if one.precisions), key=lambda one: -one.objects)[:_MOST_CURVES]
    if not known:
        return ()
    recalls = [float(recall) for recall in range(101)]
    series = [figures.Series(style, recalls, list(one.precisions)) for style, one in enumerate(known)]
    title = "Precision over recall"
    rows = tuple((recall, *(one.precisions[place] for one in known)) for place, recall in enumerate(recalls))
    columns = (Column("recall", "%", 0), *(Column(one.name, "%", 1) for one in known))
    return (
        Figure(
            name=name,
            title=f"{title}, {found.data}",
            caption="At an overlap of 0.5: of the objects, the share that is found as the least score falls, and of "
            f"the boxes, the share that hits; further up and right is better; n = {found.test_images} test images.",
            alt="; ".join(f"{one.name}: AP50 {one.ap50 or 0:.1f} %" for one in known) + ".",
            conditions=conditions([found.conditions], found.command or f"bssl-tf evaluate {run.given}"),
            draw=lambda: figures.curves(name, series, "recall (%)", "precision (%)"),
            table=Table(name, title, columns, rows),
            keys=tuple(Key(one.name, style) for style, one in enumerate(known)),
        ),
    )
