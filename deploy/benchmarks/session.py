"""Times one network in all its variants and thread counts, in one process; refuses what computes something else."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import cache
from benchmarks.agreement import agreement
from benchmarks.networks import FLOAT32, INT8, NETWORKS, Network
from benchmarks.timing import interleave, percentiles, ratio
from benchmarks.variants import LCE, OURS, VARIANTS, Variant, open_variant
from bssl_tf.errors import RuntimeUnavailableError

_IMAGES = 8


class Key(NamedTuple):
    """Who is timed: a variant, or `NETWORK float32` for a network beside; and with how many threads."""

    variant: str
    threads: int


@dataclass
class Contestant:
    """What is timed, or why it is not.

    Attributes:
        variant: the open interpreter; None when it could not be opened.
        shape: of one image; a network beside takes images of its own.
        facts: what goes into the record.
        refused: why it is not timed; None when it is.
    """

    variant: Variant | None
    shape: tuple[int, int, int]
    facts: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None


def time_network(
    network: Network,
    folder: Path,
    *,
    threads: tuple[int, ...],
    library: Path | None,
    isa: str,
    budget_s: float,
    min_rounds: int,
) -> list[dict[str, Any]]:
    """Opens everything, compares what is said, and times it in turns.

    Args:
        network: its models, and those beside it, lie in `folder`.
        folder: see `benchmarks.cache`.
        threads: the thread counts, all in the same turns.
        library: our runtime, or None to leave it out.
        isa: the kernels that our runtime is to use.
        budget_s: seconds of timing, for all of them together.
        min_rounds: rounds that are made in any case.

    Returns:
        A record for each variant and thread count, without what `records.FIELDS` has of machine and memory.

    Raises:
        ConversionError: a model is missing.
        RuntimeUnavailableError: LCE or LiteRT cannot be loaded, or a stock model not be run.
    """
    contestants = {
        Key(variant, count): _open(variant, network, kind, folder, count, library, isa)
        for count in threads
        for variant, kind in VARIANTS.items()
        if kind in network.kinds and (variant != OURS or library is not None)
    }
    for count in threads:
        for name in network.beside:
            key = Key(f"{name} {FLOAT32}", count)
            contestants[key] = _open(FLOAT32, NETWORKS[name], FLOAT32, folder, count, None, isa)
    return compare_and_time(network.name, contestants, budget_s, min_rounds)


def _open(
    variant: str, network: Network, kind: str, folder: Path, threads: int, library: Path | None, isa: str
) -> Contestant:
    model = cache.loaded(folder, network.name, kind)
    try:
        opened = open_variant(variant, model, threads, library, isa)
    except RuntimeUnavailableError as error:
        if variant != OURS:
            raise
        return Contestant(None, network.shape, {"model_bytes": len(model)}, f"it does not run: {error.what}")
    return Contestant(opened, network.shape, {"model_bytes": len(model), **opened.graph()})


def compare_and_time(
    network: str, contestants: Mapping[Key, Contestant], budget_s: float, min_rounds: int
) -> list[dict[str, Any]]:
    """Refuses those whose output is wrong, and times the others in turns.

    What runs the binary model is compared with LCE at its first thread count, by the measure of
    `benchmarks.agreement`: a sign may flip within rounding of zero, so that single images may differ, but not most.
    Int8 is compared with float32 for the record alone, as rounding random networks says little. Output that is
    not finite is refused everywhere.

    Args, returns: as `time_network`; `contestants` get their `facts` and `refused`.
    """
    _refuse(contestants)
    return _timed(network, contestants, budget_s, min_rounds)


def _refuse(contestants: Mapping[Key, Contestant]) -> None:
    reference: np.ndarray | None = None
    float_output: np.ndarray | None = None
    # LCE and float32 first: the others are compared with them.
    for key in sorted(contestants, key=lambda key: ([LCE, FLOAT32, INT8, OURS].index(_kind(key)), key.threads)):
        contestant = contestants[key]
        if contestant.variant is None:
            continue
        found = _outputs(contestant.variant, cache.images(contestant.shape, _IMAGES, cache.SEED + 3))
        facts = contestant.facts
        if not np.all(np.isfinite(found)):
            contestant.refused = "its output is not finite"
        elif key.variant in (LCE, OURS):
            if reference is None:
                reference = found
            agreed = agreement(reference, found)
            facts.update(dataclasses.asdict(agreed))
            fault = agreed.fault()
            if fault is not None:
                contestant.refused = f"its output differs from LCE's: {fault}"
        elif key.variant == FLOAT32 and float_output is None:
            float_output = found
        elif key.variant == INT8 and float_output is not None:
            scale = float(np.linalg.norm(found) * np.linalg.norm(float_output))
            facts["cosine_to_float32"] = float(np.sum(found * float_output)) / scale if scale else 0.0


def _kind(key: Key) -> str:
    return key.variant if key.variant in VARIANTS else FLOAT32


def _outputs(variant: Variant, images: np.ndarray) -> np.ndarray:
    outputs = [variant.meaning(variant.run(variant.prepare(images[i : i + 1]))) for i in range(len(images))]
    return np.stack([output.reshape(-1) for output in outputs]).astype(np.float64)


def _timed(
    network: str, contestants: Mapping[Key, Contestant], budget_s: float, min_rounds: int
) -> list[dict[str, Any]]:
    calls = {}
    for key, contestant in contestants.items():
        if contestant.variant is not None and contestant.refused is None:
            image = contestant.variant.prepare(cache.images(contestant.shape, 1, cache.SEED + 3))
            calls[key] = _call(contestant.variant, image)
    others = _OthersClock()
    times = interleave(calls, budget_s=budget_s, min_rounds=min_rounds, seed=cache.SEED) if calls else {}
    others_cores = others.cores()
    return [
        {
            "network": network,
            "variant": key.variant,
            "threads": key.threads,
            "refused": contestant.refused,
            "others_cores": others_cores,
            **contestant.facts,
            **_figures(key, times),
        }
        for key, contestant in contestants.items()
    ]


def _call(variant: Variant, image: np.ndarray) -> Any:
    return lambda: variant.run(image)


def _figures(key: Key, times: dict[Key, np.ndarray]) -> dict[str, Any]:
    """What the rounds say of one: null everywhere when it was not timed."""
    own = times.get(key)
    if own is None:
        nothing = dict.fromkeys(("median_ms", "p10_ms", "p90_ms", "ratio_to_lce", "speedup_over_one_thread"))
        return {**nothing, "rounds": 0, "calls_per_round": 0, "ratio_to": {}}
    ratios = {other.variant: ratio(times[other], own) for other in times if other.threads == key.threads}
    alone = times.get(Key(key.variant, 1))
    return {
        **percentiles(own),
        "rounds": own.shape[0],
        "calls_per_round": own.shape[1],
        "ratio_to_lce": ratios.get(LCE),
        "ratio_to": {name: value for name, value in ratios.items() if name not in (LCE, key.variant)},
        "speedup_over_one_thread": ratio(alone, own) if alone is not None and key.threads > 1 else None,
    }


class _OthersClock:
    """How many cores other processes keep busy, from Linux's counters."""

    def __init__(self) -> None:
        self._start = self._now()

    def _now(self) -> tuple[float, float] | None:
        try:
            fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        except OSError:
            return None
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
        own = os.times()
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), busy - own.user - own.system

    def cores(self) -> float | None:
        """Cores in the mean since this object was made; None where the counters are not there."""
        end = self._now()
        if self._start is None or end is None or end[0] <= self._start[0]:
            return None
        return round(max(0.0, (end[1] - self._start[1]) / (end[0] - self._start[0])), 3)
