"""`python -m benchmarks.training`."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.door import run, say
from benchmarks.training.cases import PRECISIONS, SUBJECTS, Case, all_cases
from benchmarks.training.session import OURS, PYTORCH, measure
from bssl_tf.environment import environment, resolved_threads
from bssl_tf.errors import BackendError, ConfigError
from bssl_tf.files import append_record, read_complete_records
from bssl_tf_deploy import conditions
from bssl_tf_deploy.record import Machine

NAME = "training-speed"
_FIELDS = ("case", "machine", "images_per_s", "speed_up", "input_share", "goals")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--networks", "names", metavar="NAMES", help="Comma-separated NETWORK or NETWORK:SIZE.  [default: all]")
@click.option("--precision", type=click.Choice(PRECISIONS), help="One of the two only.")
@click.option("--threads", default=0, type=click.IntRange(min=0), help="Of an operation.  [default: all cores]")
@click.option("--batch-size", type=click.IntRange(min=2), help="Images per step.  [default: 16 to 128]")
@click.option(
    "--rounds", default=20, show_default=True, type=click.IntRange(min=2), help="A window of each side in each."
)
@click.option(
    "--window-s",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds per window, at least 2 steps.",
)
@click.option(
    "--profile-steps",
    default=10,
    show_default=True,
    type=click.IntRange(min=0),
    help="Steps to take apart; 0 for none.",
)
@click.option("--xla", is_flag=True, help="Measure ours compiled by XLA too.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of images, weights and views.")
@click.option(
    "--torch-python", default=".venv-torch/bin/python", show_default=True, metavar="FILE", help="Python with PyTorch."
)
@click.option("--results", default="results", show_default=True, metavar="DIR", help="Folder for records.")
@click.option("--again", is_flag=True, help="Measure also what is recorded.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def command(
    names: str | None,
    precision: str | None,
    threads: int,
    batch_size: int | None,
    rounds: int,
    window_s: float,
    profile_steps: int,
    xla: bool,
    seed: int,
    torch_python: str,
    results: str,
    again: bool,
    debug: bool,
) -> None:
    """Measure training here next to plain PyTorch, interleaved, network by network.

    Both sides get the same weights and images first, and are measured only if losses, gradients, views and the number
    of operations agree. Each case's record goes to RESULTS/training-speed.jsonl as soon as it is measured; what is
    recorded of this machine with these versions is skipped. On a machine that does other work too, the figures are
    worthless; the records have how much of it there was.
    """
    if not Path(torch_python).exists():
        raise BackendError(f"there is no {torch_python}", "Make it with `make bench-training`, or check --torch-python")
    chosen = _chosen(names, precision, resolved_threads(threads), seed)
    if batch_size is not None:
        chosen = [dataclasses.replace(case, batch_size=batch_size, images=16 * batch_size) for case in chosen]
    file = Path(results, f"{NAME}.jsonl")
    about = environment(threads)
    machine = Machine.of(conditions.facts())
    recorded = read_complete_records(file, _FIELDS, "Remove that line, and run the benchmark again")
    for case in chosen:
        same = {"case": case.to_dict(), "machine": dataclasses.asdict(machine)}
        if not again and any(_is_of(record, same, about["versions"]) for record in recorded):
            say(f"{case.name}: is recorded")
            continue
        say(f"{case.name}: measuring")
        found = measure(case, torch_python, rounds=rounds, window_s=window_s, profile_steps=profile_steps, xla=xla)
        record = {
            "command": shlex.join(["python", "-m", "benchmarks.training", *sys.argv[1:]]),
            "commit": about["commit"],
            "time": environment(threads)["time"],
            **same,
            "rounds": rounds,
            "window_s": window_s,
            **found,
            "versions": {**about["versions"], **found["versions"]},
        }
        append_record(file, record)
        for line in lines(record):
            say(line)


def _chosen(names: str | None, precision: str | None, threads: int, seed: int) -> list[Case]:
    known = all_cases(threads, seed)
    wanted = names.split(",") if names else []
    found = [
        case
        for case in known
        if (not wanted or {case.network, f"{case.network}:{case.image_size}"} & set(wanted))
        and precision in (None, case.precision)
    ]
    unknown = [
        name
        for name in wanted
        if not any(name in (case.network, f"{case.network}:{case.image_size}") for case in known)
    ]
    if unknown:
        raise ConfigError(
            f"the benchmark has no network {unknown[0]!r}",
            f"Choose among {', '.join(f'{network}:{size}' for network, _, size, _ in SUBJECTS)}",
        )
    return found


def _is_of(record: dict[str, Any], same: dict[str, Any], versions: dict[str, str]) -> bool:
    return (
        all(record[key] == value for key, value in same.items())
        and versions.items() <= record.get("versions", {}).items()
    )


def lines(record: dict[str, Any]) -> list[str]:
    """What a record says, for the terminal, a sentence a line."""
    speed, goals = record["images_per_s"], record["goals"]
    ratio, share = record["speed_up"], record["input_share"][OURS]
    bound, shares = record["bound_images_per_s"], record["bound_share"]

    def verdict(met: bool) -> str:
        return "met" if met else "missed"

    compiled = record.get("xla_speed_up")
    return [
        *(
            f"  {title}: {speed[name]['p50']:.4g} images/s ({speed[name]['p10']:.4g} to {speed[name]['p90']:.4g})"
            for name, title in ((OURS, "ours"), (PYTORCH, "PyTorch"))
        ),
        f"  {ratio['median']:.2f} times as fast ({ratio['low']:.2f} to {ratio['high']:.2f}); "
        f"goal of {goals['speed_up']:g} {verdict(goals['speed_up_met'])}",
        *(
            [f"  {compiled['median']:.2f} times as fast with XLA ({compiled['low']:.2f} to {compiled['high']:.2f})"]
            if compiled
            else []
        ),
        f"  waiting for input {100 * share:.1f} %; goal of less than {100 * goals['input_share']:g} % "
        f"{verdict(goals['input_share_met'])}",
        f"  matrix products would allow {bound:.4g} images/s: ours reaches {100 * shares[OURS]:.0f} %, "
        f"PyTorch {100 * shares[PYTORCH]:.0f} %",
    ]


def main() -> None:
    """Runs the command line and exits with the error's status."""
    run(command, next_step="Run the same command again: what is recorded is skipped")


if __name__ == "__main__":
    main()
