"""Values out of files that may hold anything: what is not as expected counts as not there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def number(record: Any, *path: str) -> float | None:
    """The finite number at `path` in nested tables, or None."""
    value = at(record, *path)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # An integer may be too large for a float.
    return value if abs(value) < 1e300 and math.isfinite(value) else None


def whole(record: Any, *path: str) -> int | None:
    """The whole number at `path`, or None."""
    value = number(record, *path)
    return None if value is None or value != int(value) else int(value)


def text(record: Any, *path: str) -> str:
    """The text at `path`, or "" ."""
    value = at(record, *path)
    return value if isinstance(value, str) else ""


def table(record: Any, *path: str) -> dict[str, Any]:
    """The table at `path`, or an empty one."""
    value = at(record, *path)
    return value if isinstance(value, dict) else {}


def at(record: Any, *path: str) -> Any:
    """Whatever is at `path`, or None."""
    for key in path:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record
