"""Named seeds: every use of randomness has its own stream, derived from the run's one seed and the use's name."""

from __future__ import annotations

import hashlib


def named_seed(seed: int, *names: str | int) -> int:
    """A seed of 31 bits for the use called `names`, the same in every process and on every machine."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") & 0x7FFFFFFF
