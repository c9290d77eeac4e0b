"""All figures of a bundle on this machine, in one record: `bssl-tf-deploy measure`, and `bssl-tf bench --device`.

The golden inputs must give the golden outputs for every number of threads before anything is timed.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from bssl_tf_deploy import conditions
from bssl_tf_deploy.bench import described, require_finite, subject_of
from bssl_tf_deploy.benchmark import Clock, summarise, timed
from bssl_tf_deploy.bundle import MODEL, Bundle, checked_file, read_bundle
from bssl_tf_deploy.errors import RuntimeUnavailableError, StorageError
from bssl_tf_deploy.files import read_regular
from bssl_tf_deploy.library import bundled_name, host_target, own_library
from bssl_tf_deploy.litert import LiteRtInterpreter
from bssl_tf_deploy.manifest import MAX_FILE_BYTES
from bssl_tf_deploy.operators import profile_operators
from bssl_tf_deploy.predictor import Predictor, timed_call
from bssl_tf_deploy.preprocess import normalised
from bssl_tf_deploy.record import (
    BINARY,
    Conditions,
    Golden,
    Latency,
    Machine,
    Network,
    Profile,
    Record,
    Run,
    Start,
    State,
    Sustained,
    Window,
    now,
)
from bssl_tf_deploy.runtime import Runtime, load_runtime
from bssl_tf_deploy.stable import Repeated, until_stable
from bssl_tf_deploy.start import start_in_fresh_process
from bssl_tf_deploy.system_errors import next_step

_STARTS = 3
_WINDOWS = 20
_MIN_WINDOW_S = 1.0
_OPERATORS_S = 3.0
# A median that rose by more than this during a sustained run is worth a word.
SLOWDOWN = 0.05
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeasureSettings:
    """What is measured.

    Attributes:
        threads: numbers of threads, each measured by itself.
        beside: name -> model of builtin operators with the bundle's input shape and float32 in and out, timed
            interleaved with the bundle's.
        budget_s: seconds of timed calls for each number of threads.
        sustained_s: seconds without a pause, with the most threads; 0 for none.
        times: False compares the golden outputs and no more, as on an emulator.
        trust_bundle_library: see `bssl_tf_deploy.load`.
    """

    threads: tuple[int, ...]
    beside: Mapping[str, Path] = field(default_factory=dict)
    budget_s: float = 30.0
    sustained_s: float = 0.0
    times: bool = True
    trust_bundle_library: bool = False


def measure_bundle(path: Path, settings: MeasureSettings) -> Record:
    """Checks a bundle's golden outputs, then times it.

    Args:
        path: the bundle.
        settings: what to measure.

    Returns:
        A record without `command` and `commit`; without times, only `golden` and what computed.

    Raises:
        BundleError: the bundle is not sound, or does not give its golden outputs: then there are no times.
        RuntimeUnavailableError: nothing here runs it, or not one of the models beside it.
        StorageError: a model beside it cannot be read.
    """
    bundle, began = read_bundle(path), now()
    versions: dict[str, str] = {}
    for threads in settings.threads:
        made = _runtime(bundle, threads, settings)
        Predictor(bundle, made).verify_golden()
        versions |= made.versions
    log.info("golden outputs: as expected, from %s", made.kernel)
    library = own_library() or checked_file(bundle, bundled_name(host_target()))
    before = State.of(conditions.state())
    runs: list[Run] = []
    lasting = None
    if settings.times:
        runs = [_timed_run(bundle, path, threads, settings, library) for threads in settings.threads]
        if settings.sustained_s:
            log.info("sustained for %g s", settings.sustained_s)
            most = max(settings.threads)
            call, _ = timed_call(bundle, _runtime(bundle, most, settings))
            lasting = sustained(call, most, settings.sustained_s)
    return Record(
        command=None,
        commit=None,
        time=began,
        machine=Machine.of(conditions.facts()),
        versions=versions | {"numpy": metadata.version("numpy")},
        subject=subject_of(bundle),
        library=described(library),
        conditions=Conditions(before, State.of(conditions.state()), budget_s=settings.budget_s),
        golden=Golden(bundle.golden_images, settings.threads),
        runs=tuple(runs),
        sustained=lasting,
    )


def _runtime(bundle: Bundle, threads: int, settings: MeasureSettings) -> Runtime:
    return load_runtime(bundle, threads, "own", trust_bundle_library=settings.trust_bundle_library)


def _timed_run(bundle: Bundle, path: Path, threads: int, settings: MeasureSettings, library: Path) -> Run:
    files = {BINARY: path / MODEL} | dict(settings.beside)
    log.info("%d %s: %s, interleaved", threads, "threads" if threads > 1 else "thread", ", ".join(files))
    # Made for this number of threads only: those of another interpreter may not be asleep yet.
    runtimes: dict[str, Runtime] = {BINARY: _runtime(bundle, threads, settings)}
    runtimes |= {name: LiteRtInterpreter(read_model(file), threads) for name, file in settings.beside.items()}
    networks = _timed(bundle, runtimes, files, library, threads, settings.budget_s)
    # Apart from the timed calls, in an interpreter of its own.
    del runtimes
    return Run(threads, networks, _profiles(bundle, library, threads, settings.budget_s))


def _timed(
    bundle: Bundle,
    runtimes: Mapping[str, Runtime],
    files: Mapping[str, Path],
    library: Path,
    threads: int,
    budget_s: float,
) -> dict[str, Network]:
    """The figures of all networks with one number of threads."""
    own = bundle.first_inputs
    # The bundle's network may take pixels or int8; those beside it take what is normalised.
    prepared = (normalised(own[0], bundle.manifest),)
    inputs = {name: own if name == BINARY else prepared for name in runtimes}
    for name, runtime in runtimes.items():
        require_finite(name, runtime, inputs[name])
    starts = {}
    for name, file in files.items():
        job = {"model": str(file), "threads": threads, "library": str(library) if name == BINARY else None}
        job |= {"inputs": [[list(array.shape), array.dtype.name] for array in inputs[name]]}
        found = [start_in_fresh_process(job) for _ in range(_STARTS)]
        starts[name] = Start(**{key: statistics.median(row[key] for row in found) for key in found[0]})
    calls: dict[str, Callable[[], object]] = {
        name: functools.partial(runtime.run, inputs[name]) for name, runtime in runtimes.items()
    }
    calls[BINARY], words = timed_call(bundle, runtimes[BINARY])
    repeated = until_stable(calls, budget_s=budget_s)
    return {
        name: Network(
            "subject" if name == BINARY else "beside",
            runtime.kernel + (words if name == BINARY else ""),
            files[name].stat().st_size,
            latency=latency_of(repeated[name]),
            start=starts[name],
        )
        for name, runtime in runtimes.items()
    }


def _profiles(bundle: Bundle, library: Path, threads: int, budget_s: float) -> tuple[Profile, ...]:
    seconds = min(budget_s, _OPERATORS_S)
    try:
        return (profile_operators(bundle.model, bundle.first_inputs, threads, library, seconds),)
    except RuntimeUnavailableError as error:
        log.warning("%s", error)
        return ()


def latency_of(repeated: Repeated) -> Latency:
    """Repeated calls as figures.

    Their first call comes after a check, and is not given: a fresh process has the first one that counts.
    """
    timings = summarise(repeated.first_ns, repeated.durations_ns).latency()
    return dataclasses.replace(
        timings,
        p50_low_ms=repeated.median_low_ns / 1e6,
        p50_high_ms=repeated.median_high_ns / 1e6,
        stable=repeated.stable,
    )


def sustained(
    run: Callable[[], object], threads: int, seconds: float, clock: Clock = time.perf_counter_ns
) -> Sustained:
    """Calls without a pause for `seconds`, in at most 20 windows of equal length, and whether they became slower.

    Args:
        run: what to call.
        threads: that it uses, for the record.
        seconds: for all windows together.
        clock: gives nanoseconds.
    """
    window_ns = int(1e9 * max(seconds / _WINDOWS, min(seconds, _MIN_WINDOW_S)))
    began, windows = clock(), list[Window]()
    before = conditions.energy_uj()
    while clock() - began < seconds * 1e9 - window_ns / 2:
        start = clock()
        durations: list[int] = []
        while not durations or clock() - start < window_ns:
            durations.append(timed(run, clock))
        timings = summarise(durations[0], durations)
        state = State.of(conditions.state())
        started = round((start - began) / 1e9, 3)
        windows.append(Window(started, timings.p50_ms, timings.p90_ms, len(durations), state))
    energy = conditions.energy_difference_uj(before, conditions.energy_uj())
    ratio = windows[-1].p50_ms / windows[0].p50_ms
    return Sustained(
        threads=threads,
        seconds=seconds,
        windows=tuple(windows),
        last_over_first_p50=ratio,
        slower=ratio > 1 + SLOWDOWN,
        throttled=tuple(sorted({flag for window in windows for flag in window.state.throttled or ()})),
        energy_mj_per_inference=None if energy is None else energy / 1e3 / sum(window.calls for window in windows),
    )


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


def read_model(file: Path) -> bytes:
    """A model to be timed beside a bundle's. Raises `StorageError` where it cannot be read."""
    try:
        return read_regular(file, MAX_FILE_BYTES)
    except OSError as error:
        raise StorageError(f"{file} cannot be read ({error.strerror})", next_step(error)) from error
