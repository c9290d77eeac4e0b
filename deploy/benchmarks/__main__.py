"""`python -m benchmarks`."""

from __future__ import annotations

import dataclasses
import shlex
import statistics
import sys
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from benchmarks import networks, records, report, worker
from benchmarks.cache import load
from benchmarks.door import run, say
from benchmarks.session import Session
from benchmarks.variants import REFERENCES, VARIANTS
from bssl_tf.bench_records import append_benchmarks, read_benchmarks
from bssl_tf.environment import environment, resolved_threads
from bssl_tf.errors import BsslError, ConfigError, RuntimeUnavailableError
from bssl_tf.files import write_text
from bssl_tf_deploy import conditions as machine_conditions
from bssl_tf_deploy.bench import described
from bssl_tf_deploy.library import own_library
from bssl_tf_deploy.record import Conditions, Machine, Record, Run, RuntimeLibrary, Start, Subject
from bssl_tf_deploy.strict import parse

_ISAS = ("auto", "portable", "avx2", "avx512", "neon")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--networks", "names", metavar="NAMES", help="Comma-separated.  [default: all but tiny]")
@click.option("--threads", default="1,2", show_default=True, metavar="COUNTS", help="Comma-separated thread counts.")
@click.option(
    "--budget-s", default=40.0, show_default=True, type=click.FloatRange(min=0), help="Seconds of timing per network."
)
@click.option(
    "--min-rounds", default=20, show_default=True, type=click.IntRange(min=1), help="Rounds, whatever the budget."
)
@click.option("--cache", default="runs/bench-models", show_default=True, metavar="DIR", help="Folder for models.")
@click.option("--results", default="results", show_default=True, metavar="DIR", help="Folder for records and tables.")
@click.option(
    "--library", metavar="FILE", help="Our runtime.  [default: the one in bssl_tf_deploy; without it, the others only]"
)
@click.option("--isa", default="auto", show_default=True, type=click.Choice(_ISAS), help="Kernels of our runtime.")
@click.option("--probes", default=3, show_default=True, type=click.IntRange(min=1), help="Fresh processes for memory.")
@click.option("--convert-only", is_flag=True, help="Make the models that the cache lacks, time nothing.")
@click.option("--report-only", is_flag=True, help="Make the tables from the records, time nothing.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def command(
    names: str | None,
    threads: str,
    budget_s: float,
    min_rounds: int,
    cache: str,
    results: str,
    library: str | None,
    isa: str,
    probes: int,
    convert_only: bool,
    report_only: bool,
    debug: bool,
) -> None:
    """Time our runtime next to LCE, float32 and int8 XNNPACK and what a user would pick instead, all interleaved.

    Networks have random weights and are made once (half a minute each). Our runtime is timed only if its results match
    those of LCE. Each network's record goes to RESULTS/runtime-bench.jsonl as soon as it is timed, the tables to
    RESULTS/runtime-bench.md. On a machine that does other work too, the figures are worthless; the tables show how
    much of it there was.
    """
    record_file = Path(results, f"{records.NAME}.jsonl")
    if report_only:
        if not record_file.exists():
            raise ConfigError(f"there are no records in {results}", "Run the benchmark without --report-only first")
        _write_report(record_file)
        return
    chosen = [networks.network(name) for name in (names.split(",") if names else networks.DEFAULT)]
    counts = _counts(threads)
    file = _library(library)
    runtime = None
    if file is not None and not convert_only:
        runtime = dataclasses.replace(described(file), isa=isa)
        say(f"our runtime {runtime.version}, kernels {', '.join(runtime.kernels)}")
    failed = _convert(chosen, cache, debug)
    for network in () if convert_only else chosen:
        if {network.name, *network.beside} & set(failed):
            continue
        say(f"timing {network.name}")
        about = _about(network, runtime, budget_s)
        common = {"name": network.name, "cache": cache, "library": str(file) if file else None, "isa": isa}
        try:
            found = worker.call("time", **common, threads=counts, budget_s=budget_s, min_rounds=min_rounds)
            session = parse(Session, found, "session")
            conditions = dataclasses.replace(about.conditions, others_cores=session.others_cores)
            runs = tuple(_probed(run, common, probes) for run in session.runs)
            record = dataclasses.replace(about, conditions=conditions, runs=runs)
        except RuntimeUnavailableError as error:
            failed[network.name] = error.what
            _say_error(error, debug)
            continue
        for one in records.newest([record]):
            say(_line(one))
            if one.figures.refused is not None:
                failed[f"{one.variant} of {network.name}"] = one.figures.refused
        append_benchmarks(record_file, record)
        _write_report(record_file)
    if failed:
        raise RuntimeUnavailableError(
            f"{len(failed)} failed or refused: {'; '.join(f'{name}: {why}' for name, why in failed.items())}",
            "See above; run it again with --networks and those that are missing",
        )


def _counts(threads: str) -> list[int]:
    try:
        counts = sorted({int(text) for text in threads.split(",")})
    except ValueError:
        counts = []
    if not counts or not 1 <= counts[0] <= counts[-1] <= 64:
        raise ConfigError(
            f"--threads {threads} is not a list of numbers from 1 to 64", "Write for instance --threads 1,2"
        )
    cores = resolved_threads(0)
    possible = [count for count in counts if count <= cores]
    for count in counts:
        if count not in possible:
            say(f"omitting {count} threads: this process may use {cores} cores")
    if not possible:
        raise ConfigError(f"this process may use {cores} cores, fewer than {threads}", "Ask for fewer --threads")
    return possible


def _library(option: str | None) -> Path | None:
    if option is not None:
        if not Path(option).is_file():
            raise RuntimeUnavailableError(
                f"there is no library {option}", "Build it with `make setup`, or check --library"
            )
        return Path(option).resolve()
    own = own_library()
    if own is not None:
        return own
    say("our runtime is not built: timing the others only; build it with `make setup` or name it with --library")
    return None


def _convert(chosen: list[networks.Network], cache: str, debug: bool) -> dict[str, str]:
    """Makes what is missing; network -> what went wrong."""
    failed: dict[str, str] = {}
    for name in dict.fromkeys(name for network in chosen for name in (network.name, *network.beside)):
        if all(load(Path(cache), name, kind) for kind in networks.network(name).kinds):
            continue
        try:
            made = worker.call("convert", name=name, cache=cache)
        except RuntimeUnavailableError as error:
            failed[name] = error.what
            _say_error(error, debug)
            continue
        for kind, about in made.items():
            say(f"converted {name}, {kind}, in {about['convert_s']:.0f} s")
    return failed


def _about(network: networks.Network, runtime: RuntimeLibrary | None, budget_s: float) -> Record:
    """The record of a network that was not timed yet."""
    found = environment(1)
    extra = {name: metadata.version(name) for name in ("ai-edge-litert", "larq-zoo")}
    return Record(
        command=_command(),
        commit=found["commit"],
        time=found["time"],
        machine=Machine.of(machine_conditions.facts()),
        versions={**found["versions"], **extra},
        subject=Subject(network.name, input_shape=(1, *network.shape)),
        library=runtime,
        conditions=Conditions(budget_s=budget_s),
    )


def _probed(run: Run, common: dict[str, Any], count: int) -> Run:
    """A run with start and memory of each variant that was timed, the medians of fresh processes."""
    return dataclasses.replace(
        run,
        networks={
            variant: dataclasses.replace(network, start=_start(variant, run.threads, common, count))
            if variant in VARIANTS and network.refused is None
            else network
            for variant, network in run.networks.items()
        },
    )


def _start(variant: str, threads: int, common: dict[str, Any], count: int) -> Start:
    found = [
        parse(Start, worker.call("probe", **common, variant=variant, threads=threads), "start") for _ in range(count)
    ]
    medians = {}
    for name in ("load_ms", "first_ms", "added_memory_mib"):
        values = [value for one in found if (value := getattr(one, name)) is not None]
        medians[name] = statistics.median(values) if len(values) == count else None
    return Start(**medians)


def _line(one: records.Contestant) -> str:
    figures = one.figures
    who = f"  {one.variant}, {one.threads} thread{'s' if one.threads > 1 else ''}:"
    if figures.latency is None:
        return f"{who} refused: {figures.refused}"
    ratio = one.ratio(REFERENCES.get(one.variant, one.variant))
    beside = f", LCE takes {ratio.median:.2f} times as long" if ratio else ""
    largest = figures.agreement.max_difference if figures.agreement else None
    difference = f", differs from LCE by at most {largest:.2g}" if largest is not None else ""
    return f"{who} {figures.latency.p50_ms:.3f} ms in {figures.latency.rounds} rounds{beside}{difference}"


def _command() -> str:
    return shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])


def _write_report(record_file: Path) -> None:
    target = record_file.with_suffix(".md")
    write_text(target, report.render(read_benchmarks(record_file)))
    say(f"wrote {target}")


def _say_error(error: BsslError, debug: bool) -> None:
    """The others go on: what failed is named once more at the end."""
    if debug:
        traceback.print_exception(error)
    say(str(error))


def main() -> None:
    """Runs the command line and exits with the error's status."""
    run(command, next_step="Run it again with --networks and those that are missing")


if __name__ == "__main__":
    main()
