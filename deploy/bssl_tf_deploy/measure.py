"""All figures of a bundle on this machine, in one record: `bssl-tf-deploy measure`, and `bssl-tf bench --device`.

The golden inputs must give the golden outputs for every number of threads before anything is timed.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bssl_tf_deploy import conditions
from bssl_tf_deploy.benchmark import Clock, summarise, timed
from bssl_tf_deploy.bundle import MODEL, Bundle, checked_file, read_bundle
from bssl_tf_deploy.errors import RuntimeUnavailableError, StorageError
from bssl_tf_deploy.library import bundled_name, host_target, own_library
from bssl_tf_deploy.litert import LiteRtInterpreter
from bssl_tf_deploy.operators import operator_lines, profile_operators
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.preprocess import normalised
from bssl_tf_deploy.runtime import Runtime, load_runtime
from bssl_tf_deploy.stable import Repeated, until_stable
from bssl_tf_deploy.start import start_in_fresh_process

BINARY = "binary"
_STARTS = 3
_WINDOWS = 20
_MIN_WINDOW_S = 1.0
_OPERATORS_S = 3.0
Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
# A median that rose by more than this during a sustained run is worth a word.
SLOWDOWN = 0.05


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        threads: numbers of threads, each measured by itself.
        beside: name -> model of builtin operators with the bundle's input shape and float32 in and out, timed in turns
            with the bundle's.
        budget_s: seconds of timed calls for each number of threads.
        sustained_s: seconds without a pause, with the most threads; 0 for none.
        times: False compares the golden outputs and no more, as on an emulator.
        trust_bundle_library: see `bssl_tf_deploy.load`.
    """

    threads: tuple[int, ...]
    beside: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    budget_s: float = 30.0
    sustained_s: float = 0.0
    times: bool = True
    trust_bundle_library: bool = False


def measure_bundle(path: Path, plan: Plan, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Checks a bundle's golden outputs, then times it.

    Args:
        path: the bundle.
        plan: what to measure.
        say: told in a line what begins.

    Returns:
        A record for JSON: `golden`, `runtime`, `kernel`, `versions`, `conditions` before and after; with times also
        `runs`, one for each number of threads with the figures of each network, its raw durations and the `operators`
        of the bundle's (see `profile_operators`; None where nobody tells), and `sustained`.

    Raises:
        BundleError: the bundle is not sound, or does not give its golden outputs: then there are no times.
        RuntimeUnavailableError: nothing here runs it, or not one of the models beside it.
        StorageError: a model beside it cannot be read.
    """
    bundle = read_bundle(path)

    def made(threads: int) -> Runtime:
        return load_runtime(bundle, threads, "own", trust_bundle_library=plan.trust_bundle_library)

    for threads in plan.threads:
        some = made(threads)
        Predictor(bundle, some).verify_golden()
    say(f"golden outputs: as expected, from {some.kernel}")
    record: dict[str, Any] = {
        "golden": {"images": bundle.golden_images, "threads": list(plan.threads), "as_expected": True},
        "runtime": some.name,
        "kernel": some.kernel,
        "versions": some.versions | {"numpy": metadata.version("numpy")},
    }
    if not plan.times:
        return record
    record["conditions"] = {"before": conditions.state()}
    record["runs"] = []
    files = {BINARY: path / MODEL} | dict(plan.beside)
    library = own_library() or checked_file(bundle, bundled_name(host_target()))
    for threads in plan.threads:
        say(f"{threads} {'threads' if threads > 1 else 'thread'}: {', '.join(files)}, in turns")
        # Made for this number of threads only: those of another interpreter may not be asleep yet.
        networks = {BINARY: made(threads).run}
        networks |= {name: LiteRtInterpreter(_read(file), threads).run for name, file in plan.beside.items()}
        timed = _timed(bundle, networks, files, library, threads, plan.budget_s)
        # Apart from the timed calls, in an interpreter of its own.
        del networks
        record["runs"].append(timed | {"operators": _operators(bundle, library, threads, plan.budget_s, say)})
    if plan.sustained_s:
        say(f"sustained for {plan.sustained_s:g} s")
        most = max(plan.threads)
        found = sustained(_call(made(most).run, bundle.first_inputs), plan.sustained_s)
        record["sustained"] = {"threads": most} | found
    record["conditions"]["after"] = conditions.state()
    return record


def _timed(
    bundle: Bundle,
    networks: Mapping[str, Run],
    files: Mapping[str, Path],
    library: Path,
    threads: int,
    budget_s: float,
) -> dict[str, Any]:
    """The figures of all networks with one number of threads."""
    own = bundle.first_inputs
    # The bundle's network may take pixels or int8; those beside it take what is normalised.
    prepared = (normalised(own[0], bundle.manifest),)
    inputs = {name: own if name == BINARY else prepared for name in networks}
    for name, run in networks.items():
        if not all(np.isfinite(output).all() for output in run(inputs[name])):
            raise RuntimeUnavailableError(f"{name} gives no finite numbers", "Make that model again")
    starts = {}
    for name, file in files.items():
        job = {"model": str(file), "threads": threads, "library": str(library) if name == BINARY else None}
        job |= {"inputs": [[list(array.shape), array.dtype.name] for array in inputs[name]]}
        found = [start_in_fresh_process(job) for _ in range(_STARTS)]
        starts[name] = {key: statistics.median(row[key] for row in found) for key in found[0]}
    # A function of its own, so that each keeps its own `run`.
    calls = {name: _call(run, inputs[name]) for name, run in networks.items()}
    repeated = until_stable(calls, budget_s=budget_s)
    return {
        "threads": threads,
        "networks": {
            name: {"model_size_bytes": files[name].stat().st_size, **figures(repeated[name]), **starts[name]}
            for name in networks
        },
    }


def _operators(
    bundle: Bundle, library: Path, threads: int, budget_s: float, say: Callable[[str], None]
) -> dict[str, Any] | None:
    try:
        return profile_operators(bundle.model, bundle.first_inputs, threads, library, min(budget_s, _OPERATORS_S))
    except RuntimeUnavailableError as error:
        say(str(error))
        return None


def _call(run: Run, inputs: Sequence[np.ndarray]) -> Callable[[], object]:
    return lambda: run(inputs)


def figures(repeated: Repeated) -> dict[str, Any]:
    """Repeated calls as figures in milliseconds, with the raw durations in nanoseconds."""
    timings = dataclasses.asdict(summarise(repeated.first_ns, repeated.durations_ns))
    # The first call of this process comes after the check; a fresh process has the first one that counts.
    del timings["first_ms"]
    return timings | {
        "p50_low_ms": repeated.median_low_ns / 1e6,
        "p50_high_ms": repeated.median_high_ns / 1e6,
        "stable": repeated.stable,
        "durations_ns": repeated.durations_ns,
    }


def sustained(run: Callable[[], object], seconds: float, clock: Clock = time.perf_counter_ns) -> dict[str, Any]:
    """Calls without a pause for `seconds`, in up to 20 windows of equal length, and whether they became slower.

    Returns:
        `windows` (each with `start_s`, `p50_ms`, `p90_ms`, `repetitions`, and the machine's state at its end),
        `last_over_first_p50`, `slower` (whether that is above 1.05), `throttled` (all flags seen), and where there are
        energy counters `energy_mj_per_inference`, of the whole processor with all that it did meanwhile.
    """
    window_ns = int(1e9 * max(seconds / _WINDOWS, min(seconds, _MIN_WINDOW_S)))
    began, windows = clock(), []
    before = conditions.energy_uj()
    while clock() - began < seconds * 1e9 - window_ns / 2:
        start = clock()
        durations: list[int] = []
        while not durations or clock() - start < window_ns:
            durations.append(timed(run, clock))
        timings = summarise(durations[0], durations)
        windows.append(
            {
                "start_s": round((start - began) / 1e9, 3),
                "p50_ms": timings.p50_ms,
                "p90_ms": timings.p90_ms,
                "repetitions": len(durations),
                **conditions.state(),
            }
        )
    energy = conditions.energy_difference_uj(before, conditions.energy_uj())
    ratio = windows[-1]["p50_ms"] / windows[0]["p50_ms"]
    found: dict[str, Any] = {
        "seconds": seconds,
        "windows": windows,
        "last_over_first_p50": ratio,
        "slower": ratio > 1 + SLOWDOWN,
        "throttled": sorted({flag for window in windows for flag in window.get("throttled", [])}),
    }
    if energy is not None:
        found["energy_mj_per_inference"] = energy / 1e3 / sum(window["repetitions"] for window in windows)
    return found


def thread_counts(text: str, cores: int) -> tuple[int, ...]:
    """Numbers of threads from `1,2,4` or `all`, which means 1, 2, 4 and so on up to all `cores`.

    Raises:
        ValueError: it is neither, or a number is out of range.
    """
    if text == "all":
        doubled = [2**power for power in range(7) if 2**power < cores]
        return (*doubled, min(cores, 64))
    counts = tuple(sorted({int(word) for word in text.split(",")}))
    if not counts or not all(1 <= count <= 64 for count in counts):
        raise ValueError(f"{text} is not a list of 1 to 64")
    return counts


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StorageError(f"{file} cannot be read ({error.strerror})", "Check the path") from error


def table(record: Mapping[str, Any]) -> Sequence[str]:
    """The figures as lines of text; with no times, none."""
    columns = ("load_ms", "first_ms", "p50_ms", "p90_ms", "p99_ms", "min_ms", "spread_ms")
    lines = []
    for run in record.get("runs", []):
        heads = " ".join(f"{column:>9}" for column in columns)
        lines.append(
            f"{'threads':>7} {'network':10} {'KiB':>9} {heads} {'95 % of p50':>19} {'calls':>6} {'peak MiB':>8}"
        )
        for name, row in run["networks"].items():
            interval = f"{row['p50_low_ms']:.3f} to {row['p50_high_ms']:.3f}" + ("" if row["stable"] else "?")
            peak = f"{row['peak_memory_kib'] / 1024:8.1f}" if "peak_memory_kib" in row else f"{'':8}"
            values = " ".join(f"{row[column]:9.3f}" for column in columns)
            size = row["model_size_bytes"] / 1024
            lines.append(
                f"{run['threads']:7} {name:10} {size:9.1f} {values} {interval:>19} {row['repetitions']:6} {peak}"
            )
    if any(not row["stable"] for run in record.get("runs", []) for row in run["networks"].values()):
        lines.append("?: the budget ended before the median was known to 1 %")
    profiles = [run["operators"] for run in record.get("runs", []) if run.get("operators")]
    if profiles:
        lines += operator_lines(profiles)
    return lines + _sustained_lines(record.get("sustained"))


def _sustained_lines(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    first, last = found["windows"][0], found["windows"][-1]
    said = [
        f"sustained {found['seconds']:g} s, {found['threads']} threads: median {first['p50_ms']:.3f} ms in the first "
        f"window, {last['p50_ms']:.3f} ms in the last" + (": it slowed down" if found["slower"] else "")
    ]
    if "temperature_c" in last:
        said.append(f"temperature {first['temperature_c']:.1f} to {last['temperature_c']:.1f} °C")
    if found["throttled"]:
        said.append("throttling: " + ", ".join(found["throttled"]))
    if "energy_mj_per_inference" in found:
        said.append(f"energy of the processor {found['energy_mj_per_inference']:.3f} mJ an inference")
    return said
