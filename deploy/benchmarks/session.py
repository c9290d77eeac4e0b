"""Times one network in all its variants and thread counts, in one process; refuses what computes something else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import cache, networks
from benchmarks.agreement import agreement
from benchmarks.networks import FLOAT32, INT8, NETWORKS, STOCK
from benchmarks.others import OthersClock
from benchmarks.timing import interleave, percentiles, ratio
from benchmarks.variants import REFERENCES, VARIANTS, Variant, open_variant
from bssl_tf.errors import RuntimeUnavailableError
from bssl_tf_deploy.record import Agreement, Latency, Network, Role, Run

_IMAGES = 8


class Key(NamedTuple):
    """Who is timed: a variant, or `NETWORK float32` or `NETWORK int8` of one beside; and with how many threads."""

    variant: str
    threads: int


@dataclass
class Opened:
    """What is to be timed, or why it is not.

    Attributes:
        variant: the open interpreter; None when it could not be opened.
        shape: of one image; a network beside takes images of its own.
        found: what goes into the record.
    """

    variant: Variant | None
    shape: tuple[int, int, int]
    found: Network


@dataclass(frozen=True)
class Session:
    """What timing a network gave.

    Attributes:
        runs: one for each thread count.
        others_cores: how many cores other processes kept busy, in the mean; None where the system does not report it.
    """

    runs: tuple[Run, ...]
    others_cores: float | None


def time_network(
    network: networks.Network,
    folder: Path,
    *,
    threads: tuple[int, ...],
    library: Path | None,
    isa: str,
    budget_s: float,
    min_rounds: int,
) -> Session:
    """Opens everything, compares the outputs, and times it interleaved.

    Args:
        network: its models, and those beside it, lie in `folder`.
        folder: see `benchmarks.cache`.
        threads: the thread counts, all in the same rounds.
        library: our runtime, or None to leave it out.
        isa: the kernels that our runtime is to use.
        budget_s: seconds of timing, for all of them together.
        min_rounds: rounds that are made in any case.

    Raises:
        ConversionError: a model is missing.
        RuntimeUnavailableError: LCE or LiteRT cannot be loaded, or a stock model not be run.
    """
    opened = {
        Key(variant, count): _open(variant, network, kind, folder, count, library, isa)
        for count in threads
        for variant, kind in VARIANTS.items()
        if kind in network.kinds and (variant not in REFERENCES or library is not None)
    }
    for count in threads:
        for name in network.beside:
            for kind in STOCK:
                key = Key(f"{name} {kind}", count)
                opened[key] = _open(kind, NETWORKS[name], kind, folder, count, None, isa, beside=name)
    return compare_and_time(opened, budget_s, min_rounds)


def _open(
    variant: str,
    network: networks.Network,
    kind: str,
    folder: Path,
    threads: int,
    library: Path | None,
    isa: str,
    beside: str | None = None,
) -> Opened:
    model = cache.loaded(folder, network.name, kind)
    try:
        opened = open_variant(variant, model, threads, library, isa)
    except RuntimeUnavailableError as error:
        if variant not in REFERENCES:
            raise
        refused = f"it does not run: {error.what}"
        return Opened(None, network.shape, Network("subject", "our runtime", len(model), refused))
    binary = variant not in STOCK
    role: Role = "subject" if binary else "stock" if beside is None else "beside"
    return Opened(opened, network.shape, Network(role, opened.kernel, len(model), graph=opened.graph()))


def compare_and_time(opened: Mapping[Key, Opened], budget_s: float, min_rounds: int) -> Session:
    """Refuses those whose output is wrong, and times the others interleaved.

    What runs a binary model is compared with LCE's interpreter of that model at its first thread count, by the measure
    of `benchmarks.agreement`: a sign may flip within rounding of zero, so that single images may differ, but not most.
    Int8 is compared with float32 for the record alone, as rounding random networks says little. Output that is
    not finite is refused everywhere.

    Args, returns: as `time_network`; what is `opened` gets its `found`.
    """
    _refuse(opened)
    return _timed(opened, budget_s, min_rounds)


def _refuse(opened: Mapping[Key, Opened]) -> None:
    first: dict[str, np.ndarray] = {}
    # First those with which the others are compared.
    for key in sorted(opened, key=lambda key: (key.variant in REFERENCES, _kind(key) == INT8, key.threads)):
        one = opened[key]
        if one.variant is None:
            continue
        output = _outputs(one.variant, cache.images(one.shape, _IMAGES, cache.SEED + 3))
        agreed, refused = None, None
        reference = REFERENCES.get(key.variant, key.variant)
        if not np.all(np.isfinite(output)):
            refused = "its output is not finite"
        elif reference in REFERENCES.values():
            compared = agreement(first.setdefault(reference, output), output)
            agreed = Agreement(reference, **dataclasses.asdict(compared))
            fault = compared.fault()
            refused = fault and f"its output differs from LCE's: {fault}"
        elif key.variant == FLOAT32:
            first.setdefault(FLOAT32, output)
        elif key.variant == INT8 and FLOAT32 in first:
            scale = float(np.linalg.norm(output) * np.linalg.norm(first[FLOAT32]))
            agreed = Agreement(FLOAT32, cosine=float(np.sum(output * first[FLOAT32])) / scale if scale else 0.0)
        one.found = dataclasses.replace(one.found, agreement=agreed, refused=refused)


def _kind(key: Key) -> str:
    return VARIANTS[key.variant] if key.variant in VARIANTS else key.variant.rsplit(" ", 1)[-1]


def _outputs(variant: Variant, images: np.ndarray) -> np.ndarray:
    outputs = [variant.meaning(variant.run(variant.prepare(images[i : i + 1]))) for i in range(len(images))]
    return np.stack([output.reshape(-1) for output in outputs]).astype(np.float64)


def _timed(opened: Mapping[Key, Opened], budget_s: float, min_rounds: int) -> Session:
    calls = {}
    for key, one in opened.items():
        if one.variant is not None and one.found.refused is None:
            calls[key] = _call(one.variant, one.variant.prepare(cache.images(one.shape, 1, cache.SEED + 3)))
    others = OthersClock()
    times = interleave(calls, budget_s=budget_s, min_rounds=min_rounds, seed=cache.SEED) if calls else {}
    others_cores = others.cores()
    runs: dict[int, dict[str, Network]] = {}
    for key, one in opened.items():
        runs.setdefault(key.threads, {})[key.variant] = _with_times(key, one.found, times)
    return Session(tuple(Run(threads, networks) for threads, networks in runs.items()), others_cores)


def _call(variant: Variant, image: np.ndarray) -> Any:
    return lambda: variant.run(image)


def _with_times(key: Key, found: Network, times: dict[Key, np.ndarray]) -> Network:
    """A network with what the rounds tell of it; as it was when it was not timed."""
    own = times.get(key)
    if own is None:
        return found
    p10, median, p90 = percentiles(own)
    alone = times.get(Key(key.variant, 1))
    return dataclasses.replace(
        found,
        latency=Latency(p50_ms=median, calls=own.size, rounds=own.shape[0], p10_ms=p10, p90_ms=p90),
        ratios={
            other.variant: ratio(times[other], own)
            for other in times
            if other.threads == key.threads and other.variant != key.variant
        },
        ratio_to_one_thread=ratio(alone, own) if alone is not None and key.threads > 1 else None,
    )
