"""Counts what an emulated 64-bit ARM processor executes for one image.

qemu calls a plugin of ours, `count_plugin.c`, which this machine's C compiler compiles. Emulation knows instructions,
not time: a count says nothing about caches, or about how many instructions a processor issues at once.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from bssl_tf.errors import DeviceError
from bssl_tf_deploy.record import Count

_COUNT = re.compile(r"bssl-count (\d+) (\d+) (\d+)")
_TIMEOUT_S = 1800


def build_plugin(folder: Path) -> Path:
    """Compiles the plugin into `folder`.

    Raises:
        DeviceError: there is no C compiler here, or it fails.
    """
    out = folder / "count_plugin.so"
    with resources.as_file(resources.files("bssl_tf.devices") / "count_plugin.c") as source:
        _run(["cc", "-O2", "-shared", "-fPIC", "-o", str(out), str(source)])
    return out


def count_instructions(
    python: Callable[[Sequence[str]], Sequence[str]],
    model: Path,
    library: Path | None,
    images: int = 20,
    *,
    network: str,
    processor: str,
) -> Count:
    """Counts instructions for one image, with one thread.

    Args:
        python: makes of Python's arguments a command line that runs it under qemu with the plugin.
        model: a TFLite file.
        library: the runtime library for aarch64; None for a model of builtin operators.
        images: twice as many are run.
        network: the model's name in the record.
        processor: that is emulated, for the record.

    Raises:
        DeviceError: the model does not run, or qemu was built without plugins.
    """
    with resources.as_file(resources.files("bssl_tf.devices") / "repeat_model.py") as script:
        arguments = [str(script), str(model), str(images), *([str(library)] if library else [])]
        said = _run(python(arguments))
    counts = [[int(number) for number in found.groups()] for found in _COUNT.finditer(said)]
    if len(counts) != 3:
        raise DeviceError(f"qemu did not count {model.name}", "Check whether it was built with plugins")
    before, between, after = counts
    instructions, vector, bits = (round((b - a) / (2 * images)) for a, b in zip(before, after, strict=True))
    halves = between[0] - before[0], after[0] - between[0]
    kernels = re.search(r"^kernels (.*)$", said, re.MULTILINE)
    return Count(
        network=network,
        processor=processor,
        instructions=instructions,
        vector=vector,
        cnt=bits,
        spread=round(abs(halves[1] - halves[0]) / images / instructions, 4),
        kernels=tuple(kernels.group(1).split(",")) if kernels else None,
    )


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except FileNotFoundError as error:
        raise DeviceError(f"{command[0]} is not installed on this machine", "Install it") from error
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"{command[0]} takes longer than {_TIMEOUT_S} s", "Try a smaller network") from error
    said = done.stdout + done.stderr
    if done.returncode != 0:
        last = (said.strip() or "no message").splitlines()[-1]
        raise DeviceError(f"{' '.join(command)[:200]} failed: {last}", "Answers were checked; counts need qemu 7 or 8")
    return said
