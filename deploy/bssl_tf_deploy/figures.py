"""The figures of a benchmark record (`bssl_tf_deploy.record`): of networks, operators, windows, counts and kernels.

Times are milliseconds for one image. What was not measured is None or empty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# `subject`: what the record is about. `stock`: the same architecture in float32 or int8, made for comparison. `beside`:
# another model that the user, or the benchmark, had timed in the same rounds.
Role = Literal["subject", "stock", "beside"]


@dataclass(frozen=True)
class State:
    """A machine's state at one moment, as `bssl_tf_deploy.conditions.state` has it; null is what it does not report.

    Attributes:
        governors: a name for each kind in use.
        clock_mhz: the fastest core's.
        clock_max_mhz: the most that it reaches.
        temperature_c: the hottest sensor's.
        throttled: the firmware's flags in words; empty if none is set.
        power_mw: milliwatts by rail.
    """

    governors: tuple[str, ...] | None = None
    clock_mhz: float | None = None
    clock_max_mhz: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] | None = None
    power_mw: dict[str, float] | None = None

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> State:
        """From what `conditions.state` returned; other keys are ignored."""
        known: dict[str, Any] = {one.name: found[one.name] for one in dataclasses.fields(cls) if one.name in found}
        for key, value in known.items():
            known[key] = tuple(value) if isinstance(value, list) else value
        return cls(**known)


@dataclass(frozen=True)
class Latency:
    """Figures of timed calls, in milliseconds.

    Attributes:
        p50_ms: the median; null only for a benchmark_model that prints none.
        p50_low_ms: lower end of the median's 95 % interval.
        p50_high_ms: its upper end.
        stable: whether that interval lies within 1 % of the median.
        min_ms: the fastest call.
        p10_ms, p90_ms, p95_ms, p99_ms: percentiles.
        mean_ms: where nothing but it is known.
        spread_ms: interquartile range.
        calls: timed ones.
        rounds: in how many turns they were made, where several calls make a turn.
        durations_ns: every timed call in order, in nanoseconds; empty where they were not kept.
    """

    p50_ms: float | None
    calls: int | None
    p50_low_ms: float | None = None
    p50_high_ms: float | None = None
    stable: bool | None = None
    min_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    mean_ms: float | None = None
    spread_ms: float | None = None
    rounds: int | None = None
    durations_ns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Start:
    """How a network begins.

    Attributes:
        load_ms: until the interpreter is ready, in a fresh process; null: `first_ms` is of the process that timed.
        first_ms: the first call, which allocates and packs.
        memory_before_kib: resident before the model.
        peak_memory_kib: the most that was resident.
        added_memory_mib: by how much the peak lies above what was resident before, as the tool itself reports it.
    """

    load_ms: float | None = None
    first_ms: float | None = None
    memory_before_kib: float | None = None
    peak_memory_kib: float | None = None
    added_memory_mib: float | None = None


@dataclass(frozen=True)
class Ratio:
    """How many times as long one network takes as another, over the rounds that both had.

    Attributes:
        median: of the rounds' ratios.
        low, high: its 95 % interval.
        p10, p90: percentiles of the rounds' ratios.
    """

    median: float
    low: float
    high: float
    p10: float
    p90: float


@dataclass(frozen=True)
class Agreement:
    """How a network's outputs agree with another's on the same images.

    Attributes:
        reference: the other's name.
        max_difference: the largest, over images and values.
        tolerance: the difference that rounding may make.
        share_of_images: share (0 to 1) of images all of whose values are within `tolerance`.
        share_of_values: share (0 to 1) of values within `tolerance`.
        cosine: of the angle between all outputs, where nothing closer can be expected.
    """

    reference: str
    max_difference: float | None = None
    tolerance: float | None = None
    share_of_images: float | None = None
    share_of_values: float | None = None
    cosine: float | None = None


@dataclass(frozen=True)
class Graph:
    """Who computes what of a network.

    Attributes:
        our_nodes: delegate nodes of our library.
        xnnpack_nodes: those of XNNPACK.
        our_operators: what ours cover, how many of each name.
        remaining_operators: what the interpreter computes itself.
    """

    our_nodes: int
    xnnpack_nodes: int
    our_operators: dict[str, int]
    remaining_operators: dict[str, int]


@dataclass(frozen=True)
class Network:
    """A network in a run.

    Attributes:
        role: see `Role`.
        kernel: what computes it, in words.
        model_size_bytes: of the .tflite file.
        refused: why it was not timed; null where it was.
        latency: null where it was refused.
        start: null where nobody looked.
        ratios: name of another network of the same run -> how many times as long that one takes.
        ratio_to_one_thread: how many times as long one thread takes; null for one thread.
        agreement: with another network of the run.
        graph: null where the interpreter does not report it.
        printed: what a foreign tool printed, once for each process.
    """

    role: Role
    kernel: str
    model_size_bytes: int
    refused: str | None = None
    latency: Latency | None = None
    start: Start | None = None
    ratios: dict[str, Ratio] = field(default_factory=dict)
    ratio_to_one_thread: Ratio | None = None
    agreement: Agreement | None = None
    graph: Graph | None = None
    printed: tuple[str, ...] = ()


@dataclass(frozen=True)
class OperatorTime:
    """What an operator, or a group that runs as one, takes of a call.

    Attributes:
        operator: types of what ran.
        layer: Keras layers that it comes from; "" where that is not known.
        output: name of the last tensor that it makes.
        ours: whether our library computed it; null where the tool does not report that.
        p50_ms: median.
        mean_ms: where there is no median.
        spread_ms: interquartile range.
        share: of all rows, 0 to 1.
    """

    operator: str
    layer: str
    output: str
    ours: bool | None = None
    p50_ms: float | None = None
    mean_ms: float | None = None
    spread_ms: float | None = None
    share: float | None = None

    @property
    def milliseconds(self) -> float:
        """Median, or mean where there is none."""
        return next((value for value in (self.p50_ms, self.mean_ms) if value is not None), 0.0)


@dataclass(frozen=True)
class Profile:
    """Times of the subject's operators, from calls of their own, which watching makes slower.

    Attributes:
        source: who kept the times: our `runtime`, or TensorFlow Lite's `benchmark_model`.
        rows: in the order of execution.
        calls: watched ones.
        call_ms: their median.
        unwatched_ms: the median of calls that nobody watched, interleaved with the others.
        left_ms: by which `call_ms` is more than the sum of the rows: a median of sums is not the sum of medians.
    """

    source: Literal["runtime", "benchmark_model"]
    rows: tuple[OperatorTime, ...]
    calls: int | None = None
    call_ms: float | None = None
    unwatched_ms: float | None = None
    left_ms: float | None = None


@dataclass(frozen=True)
class Run:
    """Networks timed with one number of threads, interleaved.

    Attributes:
        threads: for one image.
        networks: by name; `BINARY` is a bundle's own.
        profiles: of the subject; at most one from each source.
    """

    threads: int
    networks: dict[str, Network]
    profiles: tuple[Profile, ...] = ()


@dataclass(frozen=True)
class Window:
    """A part of a sustained run: when it began, how fast it was, and the machine's state at its end."""

    start_s: float
    p50_ms: float
    p90_ms: float
    calls: int
    state: State


@dataclass(frozen=True)
class Sustained:
    """The subject called without a pause.

    Attributes:
        threads: for one image.
        seconds: how long.
        windows: of equal length, in order; at least one.
        last_over_first_p50: the last window's median over the first one's.
        slower: whether that is above 1.05.
        throttled: all flags seen.
        energy_mj_per_inference: of the whole processor with all that it did meanwhile; null where nobody counts it.
    """

    threads: int
    seconds: float
    windows: tuple[Window, ...]
    last_over_first_p50: float
    slower: bool
    throttled: tuple[str, ...]
    energy_mj_per_inference: float | None = None


@dataclass(frozen=True)
class Count:
    """What an emulated processor executes for one image, with one thread. No times.

    Attributes:
        network: name of what ran.
        processor: which one is emulated.
        instructions: all.
        vector: of them vector ones.
        cnt: of them those that count bits.
        spread: by how much two halves of the count differ, as a share.
        kernels: of our library, those in use first; null where it was not used.
    """

    network: str
    processor: str
    instructions: int
    vector: int
    cnt: int
    spread: float
    kernels: tuple[str, ...] | None


@dataclass(frozen=True)
class Loop:
    """What llvm-mca's model of a processor makes of a kernel's inner loop; no measurement.

    Attributes:
        kernel: its name.
        processor: the model.
        loop_instructions: of the loop.
        loop_words: vectors of 128 bits that a pass compares.
        cycles_per_word: for one of them.
        bound_per_word: what the units alone would allow.
    """

    kernel: str
    processor: str
    loop_instructions: int
    loop_words: int
    cycles_per_word: float
    bound_per_word: float


@dataclass(frozen=True)
class KernelSpeed:
    """A micro-kernel by itself, on one thread.

    Attributes:
        kernel: its name.
        gmacs: 10^9 binary multiply-adds a second.
        bound_gmacs: what its instructions allow at best; null where there is no such bound.
        share: of the bound, 0 to 1.
    """

    kernel: str
    gmacs: float
    bound_gmacs: float | None = None
    share: float | None = None
