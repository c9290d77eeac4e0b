"""`bssl-tf bench`; with --device, `bench_devices`."""

from __future__ import annotations

import dataclasses
import functools
import json
import platform
import shlex
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bssl_tf.cli import completion
from bssl_tf.cli.bench_devices import DEVICE_SETTINGS, bench_devices, device_options
from bssl_tf.cli.options import is_run_folder, prose, record_option, runtime_options

_OPERATORS_S = 3.0
_COLUMNS = ("first_ms", "p50_ms", "p90_ms", "p99_ms", "min_ms", "spread_ms")


@click.command("bench")
@click.argument("bundle", shell_complete=completion.folders)
@runtime_options
@click.option("--repetitions", default=100, show_default=True, type=click.IntRange(min=1), help="Timed calls of each.")
@click.option("--warmup", default=10, show_default=True, type=click.IntRange(min=0), help="Untimed calls of each.")
@click.option("--operators", is_flag=True, help="Also where the time of a call goes, by operator and Keras layer.")
@record_option(
    "Append the record to FILE, a line of JSON each. [bench.jsonl, or with --device bench-devices.jsonl, of the run "
    "that BUNDLE lies in]"
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
    operators: bool,
    record_file: str | None,
    as_json: bool,
    **device_settings: Any,
) -> None:
    """Time BUNDLE on this machine or on devices, beside the float32 and int8 networks of the same shape.

    The binary network runs in our runtime, or with --runtime lce in LCE's interpreter with its fastest kernel
    (indirect_bgemm); the float one runs in LiteRT. XNNPACK computes what is float in all. They are called in turns with
    one image, and both times take in the copies of input and output. Nothing is timed unless the model gives its golden
    outputs.

    With --device the same is done there, with what a device can tell beside: start, memory, operators, temperature,
    throttling; repeated until the median is known to 1 % or --budget ends. Emulated devices give answers and no times.
    """
    _refuse_mixture(click.get_current_context(), on_devices=bool(device_settings["devices"]))
    if device_settings["devices"]:
        bench_devices(bundle, record_file, threads, trust_bundle_library, as_json=as_json, **device_settings)
        return
    from bssl_tf.cli.stock_networks import has_stock_networks, stock_networks
    from bssl_tf.errors import RuntimeUnavailableError
    from bssl_tf.files import append_record
    from bssl_tf_deploy.benchmark import machine, measure_interleaved
    from bssl_tf_deploy.cli import prepare
    from bssl_tf_deploy.litert import LiteRtInterpreter
    from bssl_tf_deploy.operators import profile_operators
    from bssl_tf_deploy.preprocess import normalised
    from bssl_tf_deploy.quiet import captured_output

    predictor, binary = prepare(bundle, threads, runtime, trust_bundle_library)
    content = predictor.bundle
    manifest = content.manifest
    prose(f"golden outputs: as expected, from {binary.kernel}")

    library = binary.library if isinstance(binary, LiteRtInterpreter) else None
    if operators and library is None:
        raise RuntimeUnavailableError(
            f"the times of operators are kept by our own runtime, not by {binary.kernel}", "Leave --operators out"
        )
    network = manifest.network
    inputs = content.first_inputs
    calls: dict[str, Callable[[], Any]] = {"binary": lambda: binary.run(inputs)}
    networks: dict[str, dict[str, Any]] = {"binary": {"kernel": binary.kernel, "model_size_bytes": len(content.model)}}
    versions = dict(binary.versions)
    if not has_stock_networks(manifest):
        prose(
            f"{network.backbone} is not a classifier that was trained here: there is no float network of its shape to "
            "compare with"
        )
    else:
        prepared = normalised(inputs[0], manifest)
        for name, model in stock_networks(manifest).items():
            with captured_output():  # LiteRT announces XNNPACK
                reference = LiteRtInterpreter(model, threads)
            key = "float" if name == "float32" else name
            calls[key] = functools.partial(reference.run, [prepared])
            networks[key] = {"kernel": reference.kernel, "model_size_bytes": len(model)}
            versions |= reference.versions
    timings = measure_interleaved(calls, warmup=warmup, repetitions=repetitions)
    record: dict[str, Any] = {
        "bundle": bundle,
        "backbone": network.backbone,
        "target": manifest.target,
        "input_shape": manifest.inputs[0].shape,
        "machine": machine(),
        "threads": threads,
        "warmup": warmup,
        "repetitions": repetitions,
        "runtime": binary.name,
        "versions": versions | {"numpy": metadata.version("numpy")},
        "command": f"bssl-tf bench {shlex.quote(bundle)} --threads {threads} --runtime {binary.name} --warmup {warmup} "
        f"--repetitions {repetitions}{' --operators' if operators else ''}"
        f"{' --trust-bundle-library' if trust_bundle_library else ''}",
        "networks": {name: about | dataclasses.asdict(timings[name]) for name, about in networks.items()},
    }
    if "float" in networks:
        sizes = {name: row["model_size_bytes"] for name, row in networks.items()}
        for name in ("float", "int8"):
            record[f"{name}_p50_over_binary_p50"] = timings[name].p50_ms / timings["binary"].p50_ms
            record[f"{name}_size_over_binary_size"] = sizes[name] / sizes["binary"]
    if operators and library is not None:
        try:
            with captured_output():
                record["operators"] = profile_operators(content.model, inputs, threads, library, _OPERATORS_S)
        except RuntimeUnavailableError as error:
            # What was timed is not lost.
            record["operators"] = None
            prose(str(error))
    run = Path(bundle).resolve().parent
    if record_file is None and is_run_folder(run):
        record_file = str(run / "bench.jsonl")  # where `bssl-tf summary` looks
    if record_file:
        append_record(Path(record_file), record)
    click.echo(json.dumps(record, indent=2) if as_json else _table(record))


def _refuse_mixture(context: click.Context, *, on_devices: bool) -> None:
    """Raises `click.UsageError` for an option that would do nothing."""
    here = {"runtime", "repetitions", "warmup", "operators"}
    for option in context.command.params:
        name, given = str(option.name), context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if given and on_devices and name in here:
            raise click.UsageError(
                f"{option.opts[0]} does not go with --device, which has --budget, our own runtime and all operators; "
                "leave it out"
            )
        if given and not on_devices and name in DEVICE_SETTINGS:
            raise click.UsageError(f"{option.opts[0]} needs --device: name one, --device local for this machine")


def _table(record: dict[str, Any]) -> str:
    from bssl_tf_deploy.operators import operator_lines

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
        said = []
        for name, words in (("float", "in float32"), ("int8", "in int8")):
            ratio = record[f"{name}_p50_over_binary_p50"]
            speed = f"{ratio:.2f} times faster" if ratio >= 1 else f"{1 / ratio:.2f} times slower"
            smaller = record[f"{name}_size_over_binary_size"]
            said.append(f"{speed} (median) and {smaller:.1f} times smaller than {words}")
        lines.append(f"here the binary network is {', '.join(said)}")
    if record.get("operators"):
        lines += operator_lines([record["operators"]])
    if record["target"] not in (platform.machine(), {"aarch64": "arm64"}.get(platform.machine())):
        lines.append(
            f"this is no {record['target']}: the bundle's own device will be faster or slower in another ratio"
        )
    return "\n".join(lines)
