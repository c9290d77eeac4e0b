"""How much memory there is, and what is refused by an estimate before it is taken.

A system that lends more than it has does not refuse: it ends the process, or another one, later and with no message.
"""

from __future__ import annotations

import contextlib
import gc
import math
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from bssl_tf.backend import keras, tf
from bssl_tf.errors import MemoryShortageError

_GROUPS = ("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")
_FLOAT_BYTES = 4


def available_bytes(root: Path = Path("/")) -> int | None:
    """What this process can still take: of the machine's memory, its container's and its address space.

    Caches of files count as free. None where the system does not report it.

    Args:
        root: where `proc` and `sys` lie.
    """
    about = {name: 1024 * int(rest.split()[0]) for name, _, rest in _lines(root / "proc/meminfo")}
    found = [about["MemAvailable"] + about.get("SwapFree", 0)] if "MemAvailable" in about else []
    for limit, used in _GROUPS:
        numbers = [_number(root / "sys/fs/cgroup" / name) for name in (limit, used)]
        if None not in numbers:
            # Its file caches may go, of which any part may be another's: the machine's are the most there is of them.
            most, taken = (number for number in numbers if number is not None)
            found.append(most - max(0, taken - about.get("Cached", 0)))
    with contextlib.suppress(ImportError):  # Windows
        import resource

        limit_bytes, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = _number(root / "proc/self/statm")
        if limit_bytes != resource.RLIM_INFINITY and pages is not None:
            found.append(limit_bytes - pages * resource.getpagesize())
    return max(0, min(found)) if found else None


def peak_bytes() -> int:
    """The most memory of this process that was resident at once; 0 where the system does not report it."""
    # Not getrusage where there is something better: it begins with the peak of the process that started this one.
    about = {
        name: 1024 * int(rest.split()[0]) for name, _, rest in _lines(Path("/proc/self/status")) if name == "VmHWM"
    }
    if about:
        return about["VmHWM"]
    try:
        import resource
    except ImportError:  # Windows
        return 0
    # KiB, but for macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def require_memory(needed: int, what: str, smaller: str) -> None:
    """Refuses what the memory cannot hold.

    Args:
        needed: bytes, of what is certain to be taken: what is refused could not have worked.
        what: takes it, for the message.
        smaller: what to choose smaller.

    Raises:
        MemoryShortageError: there is less.
    """
    available = available_bytes()
    if available is not None and needed > available:
        raise MemoryShortageError(
            f"{what} needs at least {_gigabytes(needed)} of memory, and {_gigabytes(available)} are free",
            f"Choose a smaller {smaller}, close other programs, or use a machine with more memory",
        )


@contextlib.contextmanager
def bounded_variables(what: str, smaller: str, copies: int = 1) -> Iterator[None]:
    """Refuses variables of TensorFlow that are made in the block before the memory for them is taken.

    What is there at the same time counts: networks are copied on the way to their last form, and the copies let go.

    Args:
        what: they belong to, for the message.
        smaller: what to choose smaller.
        copies: how often a trainable variable that is left is there while it is trained, with its gradient and the
            optimiser's.

    Raises:
        MemoryShortageError: they need more than was free at the beginning.
    """
    available = None if _accelerated() else available_bytes()
    there: list[tuple[weakref.ref[Any], int]] = []
    taken = trained = 0

    def require(needed: Callable[[], int]) -> None:
        nonlocal there, taken, trained
        if available is None or needed() <= available:
            return
        # Layers refer to each other in circles, so a network that nobody has any more may still be there.
        gc.collect()
        there = [one for one in there if one[0]() is not None]
        taken = sum(size for _, size in there)
        trained = sum(size for variable, size in there if getattr(variable(), "trainable", False))
        if needed() > available:
            require_memory(needed(), what, smaller)

    def create(make: Callable[..., Any], **given: Any) -> Any:
        nonlocal taken, trained
        size = _variable_bytes(given)
        require(lambda: taken + size)
        made = make(**given)
        there.append((weakref.ref(made), size))
        taken += size
        trained += size * bool(given.get("trainable"))
        return made

    with tf.variable_creator_scope(create):
        yield
    require(lambda: taken + (copies - 1) * trained)


def require_activations(models: Iterable[keras.Model], views: int, batch_size: int) -> None:
    """Refuses a batch whose training cannot fit: of each convolution the outputs are kept for the gradient.

    Raises:
        MemoryShortageError: see `require_memory`.
    """
    if _accelerated():
        return
    # A layer may be used several times, at other sizes each time; its first node is the call that is in every network.
    kept = sum(
        math.prod(side or 0 for side in shape[1:])
        for model in models
        for layer in model.layers
        if hasattr(layer, "kernel_size") and isinstance(shape := layer.get_output_shape_at(0), tuple)
    )
    what = f"a step of {views * batch_size} images"
    require_memory(_FLOAT_BYTES * kept * views * batch_size, what, "--batch-size, --image-size or --width")


def _accelerated() -> bool:
    """Whether variables may lie in another memory than this machine's, of which TensorFlow says how much it has.

    With `--device cpu` the others are there and not visible.
    """
    return any(device.device_type != "CPU" for device in tf.config.get_visible_devices())


def _variable_bytes(given: dict[str, Any]) -> int:
    # Keras gives the shape and a function, everybody else a value.
    initial = given.get("initial_value")
    shape = given.get("shape")
    shape = getattr(initial, "shape", None) if shape is None else shape
    dtype = given.get("dtype") or getattr(initial, "dtype", None)
    if shape is None or (shape := tf.TensorShape(shape)).rank is None:
        return 0
    return math.prod(side or 0 for side in shape.as_list()) * (tf.as_dtype(dtype).size if dtype else _FLOAT_BYTES)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"


def _lines(path: Path) -> list[tuple[str, str, str]]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [line.partition(":") for line in lines if len(line.partition(":")[2].split()) > 0]


def _number(path: Path) -> int | None:
    """The first number in a file of the system; None where there is none, as in `max`."""
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
