"""What `bssl-tf deploy` prints of what devices gave."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bssl_tf_deploy.text import printable

if TYPE_CHECKING:
    from bssl_tf.workflows.deploy import Deployment

_HEAD = ("device", "release", "state", "address", "since", "health", "temperature")


def plain_deployment(one: Deployment) -> dict[str, Any]:
    """A result as JSON has it."""
    if one.error is not None:
        return {"device": one.device, "error": str(one.error), "log": list(getattr(one.error, "log", ()))}
    found = one.switched or one.status
    if found is None:
        return {"device": one.device, "removed": one.removed}
    return {"device": one.device, **dataclasses.asdict(found)}


def deployment_lines(found: Sequence[Deployment]) -> list[str]:
    """A table of them, with the columns that have anything in them."""
    rows = [tuple(map(printable, _row(one))) for one in found]
    kept = [place for place in range(len(_HEAD)) if place < 3 or any(row[place] for row in rows)]
    table = [[row[place] for place in kept] for row in (_HEAD, *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def next_steps(found: Sequence[Deployment]) -> Iterator[str]:
    """What is left to do on devices, a line each."""
    for one in found:
        known = one.switched or one.status
        if one.switched is not None and one.switched.recovered:
            yield f"{one.device}: an earlier switch had been cut off; it was taken back first"
        if one.switched is not None and one.switched.token_file:
            yield f"{one.device}: clients need the token in {one.switched.token_file} there"
        if one.status is not None and one.status.interrupted:
            yield f"{one.device}: a switch is running or was cut off; if so, the next deployment takes it back"
        if known is not None and known.release is not None and not known.lingers:
            yield (
                f"{one.device}: the service stops when its user logs out, and does not start with the system; run "
                "`sudo loginctl enable-linger USER` there once"
            )


def _row(one: Deployment) -> tuple[str, ...]:
    status, switched = one.status, one.switched
    if one.error is not None:
        return (one.device, "", f"failed ({one.error.code})", "", "", "", "")
    if switched is not None:
        return (one.device, switched.release, switched.state, switched.address, "", "", "")
    if status is None:
        return (one.device, "", "removed" if one.removed else "nothing was there", "", "", "", "")
    temperature = "" if status.temperature_c is None else f"{status.temperature_c:.0f} °C"
    if status.release is None:
        return (one.device, "", "no service", "", "", "", temperature)
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.made_s))
    health = f"ok, {status.answered} answered" if status.healthy else "does not answer"
    return (one.device, status.release, status.state, status.address, since, health, temperature)
