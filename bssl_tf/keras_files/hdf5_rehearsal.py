"""Reads all that is in an HDF5 file, in a process of its own: `python hdf5_rehearsal.py FILE`.

In a file that was damaged, or made for it, HDF5's library may never end, or crash, and no Python around it could help.
What does so here is refused before it is opened where it matters. Errors are no business of this process, as whoever
opens the file will have them too. It imports nothing of this project, so that it begins at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]

# What a sound file takes: a walk over some thousand names, and the time to unpack what is in it.
PROCESSOR_S, BYTES_PER_S, MEMORY_BYTES = 2, 20_000_000, 1 << 32
# The most of one data set that is read, whatever it claims.
_LARGEST_BYTES = 1 << 28


def _limit(size: int) -> None:
    import resource

    wanted = {
        # Time of the processor, as a busy machine is no fault of the file.
        resource.RLIMIT_CPU: PROCESSOR_S + size // BYTES_PER_S,
        resource.RLIMIT_AS: MEMORY_BYTES + size,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in wanted.items():
        # Nobody may raise a limit that whoever started this has set.
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _read(item: Any, seen: set[Any]) -> None:
    """Attributes, names and numbers of a group or data set, and of those in it, each once."""
    about = h5py.h5o.get_info(item.id)
    if about.addr in seen:
        return
    seen.add(about.addr)
    for name in list(item.attrs):
        with contextlib.suppress(Exception):
            item.attrs[name]
    if isinstance(item, h5py.Dataset):
        if not item.is_virtual and not item.external and item.nbytes <= _LARGEST_BYTES:
            item[()]
        return
    for name in list(item):
        with contextlib.suppress(Exception):
            if isinstance(item.get(name, getlink=True), h5py.HardLink):
                _read(item[name], seen)


def main() -> None:
    """Reads the file that is named; the status is 0 where it can be read to an end, or raises no more than an error."""
    path = sys.argv[1]
    with contextlib.suppress(ImportError):
        _limit(Path(path).stat().st_size)
    with contextlib.suppress(Exception), h5py.File(path, "r") as file:
        _read(file["/"], set())


if __name__ == "__main__":
    main()
    # Without tidying up, in which a damaged file could crash still.
    os._exit(0)
