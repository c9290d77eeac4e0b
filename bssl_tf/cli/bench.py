"""`bssl-tf bench`; with --device, `bench_devices`."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bssl_tf.cli.bench_devices import DEVICE_SETTINGS, bench_devices, device_options
from bssl_tf.cli.options import prose, runtime_options

_COLUMNS = ("first_ms", "p50_ms", "p90_ms", "p99_ms", "min_ms", "spread_ms")


@click.command("bench")
@click.argument("bundle")
@runtime_options
@click.option("--repetitions", default=100, show_default=True, type=click.IntRange(min=1), help="Timed calls of each.")
@click.option("--warmup", default=10, show_default=True, type=click.IntRange(min=0), help="Untimed calls of each.")
@click.option(
    "--record",
    "record_file",
    metavar="FILE",
    help="Append the record to FILE, a line of JSON each. [bench.jsonl, or with --device bench-devices.jsonl, of the "
    "run that BUNDLE lies in]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@device_options
def command(
    bundle: str,
    threads: int,
    runtime: str,
    trust_bundle_library: bool,
    repetitions: int,
    warmup: int,
    record_file: str | None,
    as_json: bool,
    **device_settings: Any,
) -> None:
    """Time BUNDLE on this machine or on devices, beside the float network of the same shape.

    The binary network runs in our runtime, or with --runtime lce in LCE's interpreter with its fastest kernel
    (indirect_bgemm); the float one runs in LiteRT. XNNPACK computes what is float in all. They are called in turns with
    one image, and both times take in the copies of input and output. Nothing is timed unless the model gives its golden
    outputs.

    With --device the same is done there, with what a device can tell beside: start, memory, temperature, throttling;
    repeated until the median is known to 1 % or --budget ends. Emulated devices give answers and no times.
    """
    _refuse_mixture(click.get_current_context(), on_devices=bool(device_settings["devices"]))
    if device_settings["devices"]:
        bench_devices(bundle, record_file, threads, trust_bundle_library, as_json=as_json, **device_settings)
        return
    from bssl_tf.files import append_record
    from bssl_tf_deploy.benchmark import machine, measure_interleaved
    from bssl_tf_deploy.cli import prepare
    from bssl_tf_deploy.litert import LiteRtInterpreter
    from bssl_tf_deploy.quiet import captured_output

    predictor, binary = prepare(bundle, threads, runtime, trust_bundle_library)
    content = predictor.bundle
    manifest = content.manifest
    prose(f"golden outputs: as expected, from {binary.kernel}")

    network, p = manifest.network, manifest.preprocessing
    image = content.golden_inputs[:1]
    calls: dict[str, Callable[[], Any]] = {"binary": lambda: binary.predict(image)}
    networks: dict[str, dict[str, Any]] = {"binary": {"kernel": binary.kernel, "model_size_bytes": len(content.model)}}
    versions = dict(binary.versions)
    if manifest.training is None:
        prose(f"{network.backbone} was not trained here: there is no float network of its shape to compare with")
    else:
        # Loads TensorFlow, which a bundle that is refused should not wait for.
        from bssl_tf_converters.float_reference import float_network

        prose(f"making the float network of {network.backbone}'s shape")
        model = float_network(network.backbone, p.image_size, p.channels, network.arguments, len(manifest.labels))
        with captured_output():  # LiteRT announces XNNPACK
            reference = LiteRtInterpreter(model, threads)
        calls["float"] = lambda: reference.predict(image)
        networks["float"] = {"kernel": reference.kernel, "model_size_bytes": len(model)}
        versions |= reference.versions
    timings = measure_interleaved(calls, warmup=warmup, repetitions=repetitions)
    record: dict[str, Any] = {
        "bundle": bundle,
        "backbone": network.backbone,
        "target": manifest.target,
        "input_shape": manifest.signature.input.shape,
        "machine": machine(),
        "threads": threads,
        "warmup": warmup,
        "repetitions": repetitions,
        "runtime": binary.name,
        "versions": versions | {"numpy": metadata.version("numpy")},
        "command": f"bssl-tf bench {bundle} --threads {threads} --runtime {binary.name} --warmup {warmup} "
        f"--repetitions {repetitions}",
        "networks": {name: about | dataclasses.asdict(timings[name]) for name, about in networks.items()},
    }
    if "float" in networks:
        sizes = {name: row["model_size_bytes"] for name, row in networks.items()}
        record["float_p50_over_binary_p50"] = timings["float"].p50_ms / timings["binary"].p50_ms
        record["float_size_over_binary_size"] = sizes["float"] / sizes["binary"]
    run = Path(bundle).resolve().parent
    if record_file is None and (run / "config.toml").exists():
        record_file = str(run / "bench.jsonl")  # where `bssl-tf summary` looks
    if record_file:
        append_record(Path(record_file), record)
    click.echo(json.dumps(record, indent=2) if as_json else _table(record))


def _refuse_mixture(context: click.Context, *, on_devices: bool) -> None:
    """Raises `click.UsageError` for an option that would do nothing."""
    here = {"runtime", "repetitions", "warmup"}
    for option in context.command.params:
        name, given = str(option.name), context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if given and on_devices and name in here:
            raise click.UsageError(
                f"{option.opts[0]} does not go with --device, which has --budget and our own runtime"
            )
        if given and not on_devices and name in DEVICE_SETTINGS:
            raise click.UsageError(f"{option.opts[0]} needs --device")


def _table(record: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        f"{record['backbone']}, input {list(record['input_shape'])}, {record['machine']}",
        f"{versions}, Python {sys.version_info.major}.{sys.version_info.minor}, threads {record['threads']}, "
        f"{record['warmup']} warm-up and {record['repetitions']} timed calls of each, in turns",
        f"{'network':8} {'KiB':>9} " + " ".join(f"{column:>9}" for column in _COLUMNS) + "  kernel",
    ]
    for name, row in record["networks"].items():
        figures = " ".join(f"{row[column]:9.3f}" for column in _COLUMNS)
        lines.append(f"{name:8} {row['model_size_bytes'] / 1024:9.1f} {figures}  {row['kernel']}")
    if "float" in record["networks"]:
        ratio = record["float_p50_over_binary_p50"]
        speed = f"{ratio:.2f} times faster" if ratio >= 1 else f"{1 / ratio:.2f} times slower"
        lines.append(
            f"here the binary network is {speed} (median) and {record['float_size_over_binary_size']:.1f} times smaller"
        )
    if record["target"] not in (platform.machine(), {"aarch64": "arm64"}.get(platform.machine())):
        lines.append(
            f"this is no {record['target']}: the bundle's own device will be faster or slower in another ratio"
        )
    return "\n".join(lines)
