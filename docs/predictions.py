"""What a Raspberry Pi 4 may need for an image, from instructions that were counted for its processor.

Predictions and never times, for the first user with a board to confirm or refute. What is assumed, at the fast and at
the slow end:

- 1.5 GHz, the clock that LCE's published times were taken at.
- The loops of our kernels that compare signs take the cycles of llvm-mca's model of the Cortex-A72: those that its
  busiest unit is busy for, and those of the whole model. Which of the two kernels a layer uses is left open.
- Of all other instructions two are executed in a cycle, and one. The core decodes three, has two units for vectors,
  and loads or stores one vector in a cycle.
- The model file comes from memory once for each image, at 4 GB/s; behind the computation, and before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bssl_tf_deploy.record import Count, Loop, Record

PROCESSOR = "cortex-a72"
_CYCLES_PER_S = 1.5e9
_FAST_PER_CYCLE, _SLOW_PER_CYCLE = 2.0, 1.0
_BYTES_PER_S = 4e9


@dataclass(frozen=True)
class Prediction:
    """Milliseconds for one image with one thread, from the fast to the slow end."""

    low_ms: float
    high_ms: float


def predict(count: Count, loops: Sequence[Loop], size_bytes: int) -> Prediction:
    """See the module.

    Args:
        count: instructions for one image.
        loops: of our kernels on this processor; at least one where `count` has bit counts.
        size_bytes: of the model file.
    """
    cycles_low = cycles_high = 0.0
    others_low = others_high = float(count.instructions)
    if count.cnt:
        in_loops = [count.cnt * loop.loop_instructions / loop.loop_words for loop in loops]
        others_low, others_high = others_low - max(in_loops), others_high - min(in_loops)
        cycles_low = count.cnt * min(loop.bound_per_word for loop in loops)
        cycles_high = count.cnt * max(loop.cycles_per_word for loop in loops)
    low_s = (cycles_low + others_low / _FAST_PER_CYCLE) / _CYCLES_PER_S
    high_s = (cycles_high + others_high / _SLOW_PER_CYCLE) / _CYCLES_PER_S
    read_s = size_bytes / _BYTES_PER_S
    return Prediction(1000 * max(low_s, read_s), 1000 * (high_s + read_s))


def predictions(records: Iterable[Record], sizes: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], Prediction]:
    """Those of whole networks.

    Args:
        records: of `tests/arm64/count_instructions.py`; of each network and variant the newest counts.
        sizes: bytes of the model file of each network and variant.

    Returns:
        (network, variant) -> what is predicted, for those with a known size.
    """
    counts: dict[tuple[str, str], Count] = {}
    loops: dict[str, Loop] = {}
    for record in records:
        loops |= {loop.kernel: loop for loop in record.loops if loop.processor == PROCESSOR}
        for count in record.counts:
            if record.subject is not None and record.subject.network and count.processor == PROCESSOR:
                counts[record.subject.network, count.network] = count
    return {key: predict(count, list(loops.values()), sizes[key]) for key, count in counts.items() if key in sizes}
