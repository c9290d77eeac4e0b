"""What other packages offer by entry points, looked up once: going through all that is installed takes a while."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def offered(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, such as `bssl_tf.methods`, of all packages on `sys.path`. None is loaded."""
    return _offered(group, tuple(sys.path))


@functools.cache
def _offered(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    from importlib import metadata  # takes a while too, and only names of other packages need it

    return tuple(metadata.entry_points(group=group))
