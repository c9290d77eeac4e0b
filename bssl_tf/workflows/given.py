"""Settings as callers give them, by dotted names or as tables, to tables as config.toml has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bssl_tf.settings import merge


def tables_of(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Nested tables: `{"moco.queue_size": 64}` and `{"moco": {"queue_size": 64}}` give the same; later ones win."""
    tables: dict[str, Any] = {}
    for name, value in (settings or {}).items():
        for part in reversed(name.split(".")):
            value = {part: value}
        tables = merge(tables, value)
    return tables
