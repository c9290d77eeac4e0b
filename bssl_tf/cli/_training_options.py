"""Options of the training commands."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bssl_tf.cli import completion
from bssl_tf.cli.options import json_option
from bssl_tf_deploy.text import show, show_json

if TYPE_CHECKING:
    from bssl_tf.engine.forecast import Forecast
    from bssl_tf.engine.profile import Profile
    from bssl_tf.workflows.training import ReadyRun

Function = TypeVar("Function", bound=Callable[..., Any])


def training_options(function: Function) -> Function:
    """What all training commands take."""
    for option in reversed(
        [
            click.option(
                "--out", required=True, metavar="DIR", shell_complete=completion.folders, help="The run folder."
            ),
            click.option(
                "--resume",
                is_flag=True,
                help="Continue the run in --out, if there is one; with more --epochs, train longer.",
            ),
            click.option(
                "--preset",
                metavar="NAME",
                shell_complete=completion.presets,
                help="A built-in preset (demo), or a TOML file.",
            ),
            click.option("--epochs", "training__epochs", type=int, help="Epochs per stage."),
            click.option("--batch-size", "training__batch_size", type=int, help="Images per step."),
            click.option("--learning-rate", "training__learning_rate", type=float, help="Peak learning rate."),
            click.option("--seed", "training__seed", type=int, show_default="0", help="The run's seed."),
            click.option(
                "--threads", "training__threads", type=int, show_default="all cores", help="Threads of one op."
            ),
            click.option(
                "--device",
                "training__device",
                metavar="NAME",
                shell_complete=completion.words("auto", "cpu", "gpu"),
                show_default="auto",
                help="auto (a GPU if there is one), cpu, gpu, or gpu:N.",
            ),
            click.option(
                "--distribute",
                "training__distribute",
                type=click.Choice(("none", "mirrored", "multiworker", "tpu")),
                show_default="none",
                help="Devices that share each batch: one; all of this machine; those of all workers in TF_CONFIG; a "
                "TPU.",
            ),
            click.option(
                "--track",
                "training__track",
                type=click.Choice(("none", "wandb", "mlflow")),
                show_default="none",
                help="Show the curves in Weights & Biases or MLflow too.",
            ),
            click.option("--dry-run", is_flag=True, help="Only print what the run would take: time, memory, disk."),
            click.option(
                "--profile",
                type=click.IntRange(min=1),
                metavar="N",
                help="Only measure where the time of N steps goes, and write a trace for TensorBoard.",
            ),
            click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting of config.toml."),
            json_option("Print as JSON: where the network is; with --dry-run or --profile, their figures."),
        ]
    ):
        function = option(function)
    return function


def probe_option(function: Function) -> Function:
    """What training without labels takes as well."""
    return click.option(
        "--probe-data",
        "training__probe_data",
        metavar="SOURCE",
        shell_complete=completion.sources,
        help="A labelled set to probe the network with during training, next to the untrained network and raw pixels.",
    )(function)


def budget_option(chosen: str) -> Callable[[Function], Function]:
    """`--budget`, by which `chosen` is chosen."""
    return click.option(
        "--budget",
        metavar="TIME",
        shell_complete=completion.words("10m", "30m", "1h", "8h"),
        help=f"How long training may take, such as 30m: {chosen}.",
    )


BY_BUDGET = (
    "epochs, batch size, learning rate and queue are chosen from the images and the speed of this machine, where no "
    "option sets them"
)


def show_plan(ready: ReadyRun[Any], steps: int | None, as_json: bool) -> None:
    """Prints where the time of so many steps of a run goes; with None, what the run would take."""
    if as_json:
        show_json(dataclasses.asdict(ready.forecast() if steps is None else ready.profile(steps)), default=str)
    elif steps is None:
        _show_forecast(ready.forecast())
    else:
        _show_profile(ready.profile(steps))


def _show_forecast(found: Forecast) -> None:
    minutes = found.total_s / 60
    duration = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    show(
        f"images  {found.images}",
        f"steps   {found.steps}, {found.steps_per_epoch} in an epoch",
        f"time    about {duration}, {found.step_s:.3g} s per step (median of {found.measured_steps})",
        f"memory  {found.peak_memory_bytes / 2**20:.0f} MiB at most"
        + (f", and {found.peak_device_bytes / 2**20:.0f} MiB of the GPU's" if found.peak_device_bytes else ""),
        f"disk    {found.disk_bytes / 2**20:.0f} MiB at most",
    )


def _show_profile(found: Profile) -> None:
    whole = sum(found.seconds.values())
    rows = [*found.seconds.items(), ("step", whole)]
    show(
        *(f"{name:<10}{1000 * seconds:>9.1f} ms{100 * seconds / whole:>6.1f} %" for name, seconds in rows),
        f"median of {found.steps} steps; trace: tensorboard --logdir {shlex.quote(str(found.trace))}",
    )
