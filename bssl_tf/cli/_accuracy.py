"""The table of accuracies that `bssl-tf evaluate` and `bssl-tf summary` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bssl_tf.evaluation.records import Evaluation


def accuracy_table(result: Evaluation) -> list[str]:
    """Its lines: what was measured, the protocols, and each row with its intervals."""
    lines = [
        f"{result.data}: {result.train_images} training and {result.test_images} test images, "
        f"{result.classes} classes; top-1 accuracy in percent with its 95 % interval, seed {result.seed}"
    ]
    names = list(dict.fromkeys(name for row in result.rows for name in row.scores))
    lines.append(f"{'features':28} {'width':>6} " + " ".join(f"{name:>20}" for name in names))
    for row in result.rows:
        cells = {
            name: f"{row.mean(name):.1f} ({interval.low:.1f} to {interval.high:.1f})"
            for name, interval in row.intervals.items()
        }
        lines.append(f"{row.features:28} {row.width:6d} " + " ".join(f"{cells.get(name, '-'):>20}" for name in names))
    return lines
