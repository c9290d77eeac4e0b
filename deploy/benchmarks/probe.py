"""A variant in a fresh process: how long it takes to be ready, and how much memory it needs."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from benchmarks import cache
from benchmarks.networks import Network
from benchmarks.variants import VARIANTS, load_native, open_variant
from bssl_tf_deploy.record import Start

_CALLS = 5


def probe(network: Network, folder: Path, *, variant: str, threads: int, library: Path | None, isa: str) -> Start:
    """Opens the model and calls it a few times. To be the first in its process to open an interpreter.

    Returns:
        `load_ms`, from the flatbuffer in memory to the interpreter with tensors allocated, the interpreter's native
        library being loaded already; `first_ms`; and `added_memory_mib`, the flatbuffer not counted.

    Raises:
        ConversionError, RuntimeUnavailableError: as in `session.time_network`.
    """
    model = cache.loaded(folder, network.name, VARIANTS[variant])
    image = cache.images(network.shape, 1, cache.SEED + 3)
    load_native(variant)
    # Sets the peak back to what is resident now.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _kib("VmRSS")
    start = time.perf_counter_ns()
    opened = open_variant(variant, model, threads, library, isa)
    ready = time.perf_counter_ns()
    prepared = opened.prepare(image)
    called = time.perf_counter_ns()
    opened.run(prepared)
    first = time.perf_counter_ns() - called
    for _ in range(_CALLS):
        opened.run(prepared)
    peak = _kib("VmHWM")
    added = None if before is None or peak is None else round((peak - before) / 1024, 2)
    return Start(load_ms=(ready - start) / 1e6, first_ms=first / 1e6, added_memory_mib=added)


def _kib(name: str) -> int | None:
    """A line of Linux's /proc/self/status. Unlike getrusage's peak, VmHWM knows nothing of the parent process."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name}:")), None)
