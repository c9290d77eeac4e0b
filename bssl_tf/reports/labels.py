"""The section of networks with several labels per image: average precision of each label."""

from __future__ import annotations

from collections.abc import Sequence

from bssl_tf.reports.document import Column, Group, Section, Table
from bssl_tf.reports.runs import Run


def label_section(runs: Sequence[Run]) -> Section:
    """For each run that was fine-tuned for several labels and evaluated, linear probes and network by label."""
    groups = []
    for place, run in enumerate(runs):
        found = run.multilabel
        if found is None:
            continue
        columns = (Column("label"), Column("test images"), Column("linear probe", "%", 1), Column("fine-tuned", "%", 1))
        rows = tuple((one.name, one.images, one.probe, one.fine_tuned) for one in found.labels)
        title = f"Average precision by label, {found.data}, n = {found.test_images} test images"
        groups.append(Group(run.name, (Table(f"labels-{place}", title, columns, rows),)))
    about = "Precision among the images of at least one image's score, averaged over the images that have the label."
    return Section("Labels", about if groups else "", tuple(groups))
