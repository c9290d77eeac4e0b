"""How long something may take, as `--budget` has it: `30m`, `1h30m`, `90s`."""

from __future__ import annotations

import re

from bssl_tf.errors import ConfigError

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def seconds_of(duration: str) -> float:
    """`1h30m`, `20m` or `90s` in seconds. Raises `ConfigError` for anything else, and for none at all."""
    found = _DURATION.fullmatch(duration.strip())
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if not total:
        raise ConfigError(f"a budget of {duration!r} is not a duration", "Write for example 30m, 1h30m or 90s")
    return float(total)


def duration_of(seconds: float) -> str:
    """The reverse: whole seconds, at least one."""
    whole = max(1, round(seconds))
    parts = ((whole // 3600, "h"), (whole % 3600 // 60, "m"), (whole % 60, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number)
