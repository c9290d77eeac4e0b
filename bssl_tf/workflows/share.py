"""A benchmark record without anything personal, as `bssl-tf bench --share` writes it."""

from __future__ import annotations

import dataclasses
import logging
import re
from pathlib import Path

from bssl_tf.bench_records import append_benchmarks
from bssl_tf.models.registry import BACKBONES
from bssl_tf.workflows.networks_beside import NAMES, OPPONENTS, opponent_names
from bssl_tf_deploy.record import BINARY, Machine, Profile, Record, Run, Subject

log = logging.getLogger(__name__)
_OWN_NETWORK = "a user's own network"
# Ours by name and role; a user may give his own model the name of one of the two in the middle.
_SHARED = {BINARY: "subject"} | dict.fromkeys(NAMES, "stock") | dict.fromkeys(opponent_names(OPPONENTS), "beside")


def share(record: Record, file: Path) -> None:
    """Appends to `file` what `shareable` leaves of a record; of an emulated machine, which has no times, nothing.

    Raises:
        StorageError: the file cannot be written.
    """
    if record.machine.emulated:
        log.warning("%s is emulated: there are no times to share", record.machine.name)
        return
    append_benchmarks(file, shareable(record))
    log.info("%s is free of paths, addresses and names of yours: look at it, then attach it to an issue", file)


def shareable(record: Record) -> Record:
    """What others need to compare their boards: processor, system, versions, conditions, network, times.

    Left out are commands, paths, addresses, hashes, the time of day, names that a user gave to devices, networks and
    models, and what programs printed. What has been shared once is not changed again.
    """
    subject, machine = record.subject, record.machine
    known = subject is not None and subject.network in BACKBONES
    return dataclasses.replace(
        record,
        command=None,
        time=None if record.time is None else f"{record.time[:10]}T00:00:00Z",
        note="",
        machine=dataclasses.replace(machine, name="board", address="local", kernel=_release(machine)),
        subject=subject and _subject(subject, known=known),
        runs=tuple(_run(run, known=known) for run in record.runs),
    )


def _release(machine: Machine) -> str | None:
    """The kernel's version, without what its builder called it."""
    found = re.match(r"\d+(\.\d+)*", machine.kernel or "")
    return found and found[0]


def _subject(subject: Subject, *, known: bool) -> Subject:
    name = subject.network if known else _OWN_NETWORK
    return dataclasses.replace(subject, network=name, bundle=None, bundle_sha256=None)


def _run(run: Run, *, known: bool) -> Run:
    ours = {name: one for name, one in run.networks.items() if _SHARED.get(name) == one.role and one.refused is None}
    networks = {name: dataclasses.replace(one, printed=()) for name, one in ours.items()}
    return dataclasses.replace(
        run, networks=networks, profiles=tuple(_profile(one, known=known) for one in run.profiles)
    )


def _profile(profile: Profile, *, known: bool) -> Profile:
    """With the names of layers only where they are ours."""
    if known:
        return profile
    return dataclasses.replace(
        profile, rows=tuple(dataclasses.replace(row, layer="", output="") for row in profile.rows)
    )
