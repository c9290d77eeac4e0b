"""`bssl-tf bench`; with --device, `bench_devices`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bssl_tf.cli import completion
from bssl_tf.cli._types import named
from bssl_tf.cli.bench_devices import DEVICE_SETTINGS, bench_on_devices, device_options
from bssl_tf.cli.options import json_option, record_option, runtime_options
from bssl_tf_deploy.text import show, show_json

_HERE_ALONE = {"runtime", "repetitions", "warmup", "operators"}


@click.command("bench")
@click.argument("bundle", shell_complete=completion.folders)
@runtime_options
@click.option("--repetitions", default=100, show_default=True, type=click.IntRange(min=1), help="Timed calls of each.")
@click.option("--warmup", default=10, show_default=True, type=click.IntRange(min=0), help="Untimed calls of each.")
@click.option("--operators", is_flag=True, help="Also break down the time by operator and Keras layer.")
@click.option(
    "--beside",
    multiple=True,
    metavar="NETWORK",
    shell_complete=completion.words(*completion.OPPONENTS),
    help="Also time what you would pick instead: mobilenet_v2, mobilenet_v3_small or efficientnet_lite0, in float32 "
    "and int8, with random weights, for images of the same size; or NAME=FILE, a .tflite model of the same input "
    "shape with float32 input and output. May be repeated.",
)
@click.option("--no-float", is_flag=True, help="Omit the float32 and int8 networks of the same shape.")
@record_option(
    "Append the record to FILE as a line of JSON.  [default: bench.jsonl, or with --device bench-devices.jsonl, in "
    "the run that contains BUNDLE]"
)
@click.option(
    "--share",
    "share_file",
    metavar="FILE",
    shell_complete=completion.files,
    help="Also append the record to FILE without paths, addresses and names of yours, to compare boards with others.",
)
@json_option("Print the record as JSON; with --device, a list of records.")
@device_options
def command(
    bundle: str,
    threads: int,
    runtime: str,
    trust_bundle_library: bool,
    repetitions: int,
    warmup: int,
    operators: bool,
    beside: tuple[str, ...],
    no_float: bool,
    record_file: str | None,
    share_file: str | None,
    as_json: bool,
    **device_settings: Any,
) -> None:
    """Time BUNDLE on this machine or on devices, next to the float32 and int8 networks of the same shape.

    The binary network runs in our runtime or, with --runtime lce, in LCE's interpreter with its fastest kernel
    (indirect_bgemm); the float and int8 networks run in LiteRT. XNNPACK computes the float parts of all of them. The
    networks are called in alternation with one image, and all times include copying the input and output. Nothing is
    timed unless the model gives its golden outputs.

    With --device, the same is done on each device, which also reports start-up time, memory, operators, temperature and
    throttling. Calls are repeated until the median is known to 1 % or --budget runs out. Emulated devices check answers
    but give no timings.
    """
    _refuse_mixture(click.get_current_context(), on_devices=bool(device_settings["devices"]))
    opponents = [text for text in beside if "=" not in text]
    files = named("--beside", [text for text in beside if "=" in text], "FILE")
    if device_settings["devices"]:
        device_settings |= {"beside": files, "opponents": opponents, "no_float": no_float}
        device_settings |= {"share_file": None if share_file is None else Path(share_file)}
        bench_on_devices(bundle, record_file, threads, trust_bundle_library, as_json=as_json, **device_settings)
        return
    from bssl_tf.workflows.bench import bench
    from bssl_tf_deploy.show import record_lines

    record = bench(
        bundle,
        threads=threads,
        runtime=runtime,
        repetitions=repetitions,
        warmup=warmup,
        operators=operators,
        beside=files,
        opponents=opponents,
        stock=not no_float,
        trust_bundle_library=trust_bundle_library,
        record=record_file,
        share=share_file,
    )
    if as_json:
        show_json(record.to_dict(), sort_keys=True)
    else:
        show(*record_lines(record))


def _refuse_mixture(context: click.Context, *, on_devices: bool) -> None:
    """Raises `click.UsageError` for an option that would do nothing."""
    for option in context.command.params:
        name, given = str(option.name), context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if given and on_devices and name in _HERE_ALONE:
            raise click.UsageError(
                f"{option.opts[0]} does not go with --device, which has --budget, our own runtime and all operators; "
                "omit it"
            )
        if given and not on_devices and name in DEVICE_SETTINGS:
            raise click.UsageError(f"{option.opts[0]} needs --device: name one, --device local for this machine")
