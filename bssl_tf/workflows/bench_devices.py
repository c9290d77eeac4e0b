"""What `bssl-tf bench --device` does: a bundle checked and timed on devices."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bssl_tf.bench_records import keep_benchmark
from bssl_tf.devices import Device, Job, find_device
from bssl_tf.environment import command_line, environment
from bssl_tf.errors import BsslError, ConfigError, UsageError
from bssl_tf.workflows.networks_beside import (
    NAMES,
    check_opponents,
    has_stock_networks,
    opponent_names,
    opponents_of,
    read_models,
    stock_networks,
    words_of,
)
from bssl_tf.workflows.share import share
from bssl_tf_deploy.bench import subject_of
from bssl_tf_deploy.bundle import read_bundle
from bssl_tf_deploy.record import Record, Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeviceBench:
    """What one device gave: a record, or the error that kept it from giving one."""

    device: str
    record: Record | None
    error: BsslError | None


@dataclass(frozen=True)
class DeviceBenchSettings:
    """What is asked of devices.

    Attributes:
        threads: for one image, 1 to 64.
        all_threads: instead 1, 2, 4 and so on up to all cores.
        budget_s: seconds of timed calls for each number of threads; None for 30.
        sustained_s: seconds of calls without a pause, to see whether it slows down; 0 for none.
        beside: name -> .tflite file with the bundle's input shape, float32 in and out, timed interleaved.
        opponents: networks that one would pick instead, see `bssl_tf.workflows.networks_beside.OPPONENTS`.
        stock: time the float32 and int8 networks of the bundle's shape too.
        trust_bundle_library: see `bssl_tf_deploy.load`.
        clean: remove what was installed there at the end.
        devices_file: where devices have names; None for the usual one.
        given: fields of `bssl_tf.devices.DeviceSettings` that replace those of the devices file.
    """

    threads: int = 1
    all_threads: bool = False
    budget_s: float | None = None
    sustained_s: float = 0.0
    beside: Mapping[str, Path] = field(default_factory=dict)
    opponents: tuple[str, ...] = ()
    stock: bool = True
    trust_bundle_library: bool = False
    clean: bool = False
    devices_file: Path | None = None
    given: Mapping[str, Any] = field(default_factory=dict)


def bench_devices(
    bundle: str | Path,
    devices: Sequence[str],
    settings: DeviceBenchSettings | None = None,
    *,
    record_file: Path | None = None,
    share_file: Path | None = None,
) -> Iterator[DeviceBench]:
    """Checks a bundle on devices and times it, one after another; each result as soon as it is there.

    What fails on one device does not keep the others from going on. All are reached before anything is made for them.

    Args:
        bundle: a folder that `export` wrote.
        devices: addresses (see `bssl_tf.devices.kinds`) or names of the devices file.
        settings: what is asked of them.
        record_file: takes the records, a line of JSON each; None for `bench-devices.jsonl` of the run folder that the
            bundle lies in, if it lies in one.
        share_file: takes them without anything personal, see `bssl_tf.workflows.share`.

    Raises:
        BundleError: the bundle is not sound.
        ConfigError: there is no such device, or it cannot do what is asked.
        UsageError: none of the devices has a use for a file that was named.
        StorageError: a record cannot be written.
    """
    settings = settings or DeviceBenchSettings()
    content = read_bundle(Path(bundle))
    targets = [find_device(text, settings.devices_file, settings.given) for text in devices]
    _used(settings.given, targets)
    check_opponents(settings.opponents, content.manifest)
    job = Job(
        bundle=content,
        threads=settings.threads,
        all_threads=settings.all_threads,
        budget_s=settings.budget_s,
        sustained_s=settings.sustained_s,
        beside=read_models(settings.beside),
        trust_bundle_library=settings.trust_bundle_library,
    )
    with_stock = settings.stock and has_stock_networks(content.manifest)
    for target in targets:
        made = [*(NAMES if with_stock else ()), *opponent_names(settings.opponents)]
        names = {*(made if target.times else ()), *job.beside}
        for line in target.accept(job, sorted(names)):
            log.warning("%s: %s", target.name, line)
    reached = []
    for target in targets:
        try:
            target.reach()
            reached.append(target)
        except BsslError as error:
            yield DeviceBench(target.name, None, error)
    # Made only now, which takes long; an emulator times nothing.
    if any(target.times for target in reached):
        same = stock_networks(content.manifest) if with_stock else {}
        stock = {name: model for name, model in same.items() if name not in job.beside}
        others = opponents_of(content.manifest, settings.opponents)
        job = dataclasses.replace(job, beside=stock | dict(job.beside) | others, stock=tuple(stock))
    for target in reached:
        try:
            # An emulator has to bring none of them to life.
            record = _completed(
                target.measure(job if target.times else dataclasses.replace(job, beside={}, stock=())),
                job,
                _device_command(bundle, target, settings),
                bundle,
            )
            if settings.clean:
                target.clean()
        except BsslError as error:
            yield DeviceBench(target.name, None, error)
            continue
        keep_benchmark(record, record_file, Path(bundle), "bench-devices.jsonl")
        if share_file is not None:
            share(record, share_file)
        yield DeviceBench(target.name, record, None)


def _used(given: Mapping[str, Any], targets: Sequence[Device]) -> None:
    """Raises `ConfigError` for a file that is missing, `UsageError` for one that none of the devices has a use for."""
    for key, value in given.items():
        if not isinstance(value, Path):
            continue
        option = "--" + key.replace("_", "-")
        if not value.is_file():
            raise ConfigError(f"{value} is not a file", f"Check the path of {option}")
        if not any(key in target.uses for target in targets):
            raise UsageError(f"none of the devices can use {option}", f"Omit {option}, or name a phone: adb")


def _completed(record: Record, job: Job, command: str, bundle: str | Path) -> Record:
    """What a device gave, with what only this machine knows."""
    return dataclasses.replace(
        record,
        command=command,
        commit=environment(1)["commit"],
        subject=dataclasses.replace(subject_of(job.bundle), bundle=str(bundle)),
        runs=tuple(_with_roles(run, job) for run in record.runs),
    )


def _with_roles(run: Run, job: Job) -> Run:
    networks = {
        name: dataclasses.replace(network, role="stock") if name in job.stock else network
        for name, network in run.networks.items()
    }
    return dataclasses.replace(run, networks=networks)


def _device_command(bundle: str | Path, device: Device, settings: DeviceBenchSettings) -> str:
    options: dict[str, Any] = {"device": device.name, "devices_file": settings.devices_file}
    options |= {"all_threads": True} if settings.all_threads else {"threads": settings.threads}
    options |= {"budget": settings.budget_s, "sustained": settings.sustained_s or None}
    options |= {"beside": words_of(settings.beside, settings.opponents), "no_float": not settings.stock}
    options |= {"trust_bundle_library": settings.trust_bundle_library, **settings.given, "clean": settings.clean}
    return command_line("bench", str(bundle), options)
