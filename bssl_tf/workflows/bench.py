"""What `bssl-tf bench` does: a bundle's network timed on this machine, or checked and timed on a device."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from bssl_tf.bench_records import keep_benchmark
from bssl_tf.environment import command_line, environment
from bssl_tf.errors import UsageError
from bssl_tf.workflows.bench_devices import DeviceBenchSettings, bench_devices
from bssl_tf.workflows.networks_beside import (
    check_opponents,
    has_stock_networks,
    opponents_of,
    read_models,
    stock_networks,
    words_of,
)
from bssl_tf.workflows.share import share as shared
from bssl_tf_deploy.bench import bench_bundle, require_profile
from bssl_tf_deploy.cli import prepare
from bssl_tf_deploy.record import Record
from bssl_tf_deploy.system_errors import system_errors

_OPERATORS_S = 3.0
log = logging.getLogger(__name__)


@system_errors()
def bench(
    bundle: str | os.PathLike[str],
    *,
    device: str | None = None,
    threads: int = 1,
    runtime: str | None = None,
    trust_bundle_library: bool = False,
    repetitions: int | None = None,
    warmup: int | None = None,
    operators: bool = False,
    record: str | Path | None = None,
    share: str | Path | None = None,
    all_threads: bool = False,
    budget: float | None = None,
    sustained: float = 0.0,
    beside: Mapping[str, str | Path] | None = None,
    opponents: Collection[str] = (),
    stock: bool = True,
    devices_file: str | Path | None = None,
    remote_dir: str | None = None,
    benchmark_model: str | Path | None = None,
    tflite_library: str | Path | None = None,
    clean: bool = False,
) -> Record:
    """Times a bundle's network with one image, next to the float32 and int8 networks of its shape.

    Nothing is timed unless the model gives its golden outputs.

    Args:
        bundle: a folder that `export` wrote.
        device: a name from the devices file, or an address: `local`, `ssh://user@host`, `adb`, `qemu-arm64`; None for
            this process.
        threads: for one image, 1 to 64.
        runtime: this process: `own`, `lce`, or `auto`, see `bssl_tf_deploy.load`; None for `auto`.
        trust_bundle_library: see `bssl_tf_deploy.load`.
        repetitions: this process: timed calls of each network, 1 or more; None for 100.
        warmup: this process: untimed calls of each network, 0 or more; None for 10.
        operators: this process: also measure the times of single operators; a device always does.
        record: a file to append the record to, as a line of JSON; None for `bench.jsonl`, or `bench-devices.jsonl`, of
            the run folder that contains the bundle, if any.
        share: a file to append the record to without anything personal, for others to compare with.
        all_threads: device: use 1, 2, 4 and so on up to all cores instead of `threads`.
        budget: device: seconds of timed calls for each number of threads; None for 30.
        sustained: device: seconds of calls without a pause, to see whether it slows down; 0 for none.
        beside: name -> .tflite file of the same input shape, float32 in and out, timed interleaved.
        opponents: networks that one would pick instead, in float32 and int8, for images of the bundle's size and with
            random weights: any of `mobilenet_v2`, `mobilenet_v3_small` and `efficientnet_lite0`.
        stock: also time the float32 and int8 networks of the bundle's shape.
        devices_file: device: the file that names devices; None for the default one.
        remote_dir: device: the working folder there; None for that of the file.
        benchmark_model: device: TensorFlow Lite's program for it.
        tflite_library: device: TensorFlow Lite's library for a phone.
        clean: device: remove what was installed there at the end.

    Returns:
        The record, which is also written.

    Raises:
        UsageError: an argument for devices without `device`, or one for this process with it.
        ConfigError: there is no such device or opponent, it cannot do what is requested, or a file of `beside` cannot
            be read.
        DeviceError: the device cannot be reached, was lost, or has no room.
        BundleError: the bundle is not valid, or does not give its golden outputs.
        RuntimeUnavailableError: nothing there can run it, or not a network beside it; or `operators` without our own
            runtime.
        StorageError: the record cannot be written.
    """
    bundle = os.fspath(bundle)
    given = {"remote_dir": remote_dir, "benchmark_model": benchmark_model, "tflite_library": tflite_library}
    of_devices = given | {"all_threads": all_threads, "budget": budget, "sustained": sustained}
    of_devices |= {"devices_file": devices_file, "clean": clean}
    here = {"runtime": runtime, "repetitions": repetitions, "warmup": warmup, "operators": operators or None}
    wrong = [name for name, value in (of_devices if device is None else here).items() if value not in (None, False, 0)]
    if wrong and device is None:
        raise UsageError(f"{wrong[0]} is for devices", "Name one with device, or omit it")
    if wrong:
        raise UsageError(f"{wrong[0]} does not go with device", "Omit one of them")
    record_file = None if record is None else Path(record)
    share_file = None if share is None else Path(share)
    own = {name: Path(file) for name, file in (beside or {}).items()}
    if device is None:
        return bench_here(
            bundle,
            threads=threads,
            runtime=runtime or "auto",
            repetitions=100 if repetitions is None else repetitions,
            warmup=10 if warmup is None else warmup,
            operators=operators,
            beside=own,
            opponents=opponents,
            stock=stock,
            trust_bundle_library=trust_bundle_library,
            record_file=record_file,
            share_file=share_file,
        )
    files = {key: Path(value) for key, value in given.items() if value is not None and key != "remote_dir"}
    settings = DeviceBenchSettings(
        threads=threads,
        all_threads=all_threads,
        budget_s=budget,
        sustained_s=sustained,
        beside=own,
        opponents=tuple(opponents),
        stock=stock,
        trust_bundle_library=trust_bundle_library,
        clean=clean,
        devices_file=None if devices_file is None else Path(devices_file),
        given=files | ({} if remote_dir is None else {"remote_dir": remote_dir}),
    )
    [found] = bench_devices(bundle, [device], settings, record_file=record_file, share_file=share_file)
    if found.record is None:
        assert found.error is not None
        raise found.error
    return found.record


def bench_here(
    bundle: str | Path,
    *,
    threads: int,
    runtime: str,
    repetitions: int,
    warmup: int,
    operators: bool,
    beside: Mapping[str, Path],
    opponents: Collection[str],
    stock: bool,
    trust_bundle_library: bool,
    record_file: Path | None,
    share_file: Path | None,
) -> Record:
    """As `bench` without `device`."""
    predictor, binary = prepare(str(bundle), threads, runtime, trust_bundle_library)
    log.info("golden outputs: as expected, from %s", binary.kernel)
    content = predictor.bundle
    others = read_models(beside)
    check_opponents(opponents, content.manifest)
    if operators:
        # Before the networks are made, which takes long.
        require_profile(binary)
    same: Mapping[str, bytes] = {}
    if stock and not has_stock_networks(content.manifest):
        name, task = content.manifest.network.backbone, content.manifest.task
        known = task == "classification"
        reason = f"the bundle does not hold the layers of {name}" if known else f"the task is {task}"
        log.info("%s, so no float network of its shape is compared", reason)
    elif stock:
        same = stock_networks(content.manifest)
    found = bench_bundle(
        content,
        binary,
        {name: model for name, model in same.items() if name not in others},
        others | opponents_of(content.manifest, opponents),
        threads=threads,
        warmup=warmup,
        repetitions=repetitions,
        operators_s=_OPERATORS_S if operators else 0.0,
    )
    options = {"threads": threads, "runtime": binary.name, "warmup": warmup, "repetitions": repetitions}
    options |= {"operators": operators, "beside": words_of(beside, opponents), "no_float": not stock}
    options |= {"trust_bundle_library": trust_bundle_library}
    found = dataclasses.replace(
        found, commit=environment(1)["commit"], command=command_line("bench", str(bundle), options)
    )
    keep_benchmark(found, record_file, Path(bundle), "bench.jsonl")  # where `summary` looks
    if share_file is not None:
        shared(found, share_file)
    return found
