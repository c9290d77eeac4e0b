"""The raw records of a comparison, one line each, and their mean and interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf.errors import RunFolderError
from bssl_tf.evaluation.statistics import mean_half_width
from bssl_tf.files import read_complete_records

# What every record holds at least: `top1` in percent, the mean of `draws`; `settings` and `teacher`, short hashes;
# `epochs` of all stages together; `wall_s` of training, `teacher_cache_s` before it; the commits that trained and that
# measured. Of a control only what was measured is there, the rest is null.
FIELDS = (
    *("preset", "method", "variant", "seed", "settings", "dataset", "features", "protocol", "top1", "draws"),
    *("epochs", "wall_s", "teacher", "teacher_cache_s", "commit", "evaluated_commit", "machine", "threads", "versions"),
)
# What makes a table and a figure; of a control some is null.
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("preset", "dataset", "features", "protocol"), (str,)),
    **dict.fromkeys(("method", "variant", "settings", "teacher", "commit", "evaluated_commit"), (str, type(None))),
    **{"seed": (int,), "top1": (int, float), "versions": (dict,)},
    **dict.fromkeys(("epochs", "wall_s", "teacher_cache_s"), (int, float, type(None))),
}
_AGAIN = "Remove that line and compare again"
STUDENT = "student"


@dataclass(frozen=True)
class Measured:
    """Accuracies of one row and protocol over seeds.

    Attributes:
        values: top-1 in percent, one a seed, in the order of seeds.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def interval(self) -> float | None:
        """Half the width of the 95 % interval of the mean (Student's t over seeds); None for a single seed."""
        return mean_half_width(self.values)

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.interval is None else f"{self.mean:.1f} ± {self.interval:.1f}"


def load(path: Path) -> list[dict[str, Any]]:
    """The records in `path`.

    Raises:
        RunFolderError: a record lacks one of `FIELDS`, or has something else there.
    """
    records = read_complete_records(path, FIELDS, _AGAIN)
    for number, record in enumerate(records, start=1):
        for name, kinds in _KINDS.items():
            # True is an int, too.
            value = record[name]
            if not isinstance(value, kinds) or isinstance(value, bool) or value in (math.inf, -math.inf):
                raise RunFolderError(f"record {number} in {path} has {value!r:.60} for {name}", _AGAIN)
    return records


def measured(records: Iterable[dict[str, Any]], **wanted: Any) -> Measured | None:
    """The accuracies of the records that agree with `wanted`; the last one of a seed counts; None without any."""
    by_seed = {
        record["seed"]: record["top1"]
        for record in records
        if all(record[name] == value for name, value in wanted.items())
    }
    return Measured(tuple(by_seed[seed] for seed in sorted(by_seed))) if by_seed else None
