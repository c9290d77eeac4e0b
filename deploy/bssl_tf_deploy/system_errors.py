"""Errors of the operating system, by kind, each with the next step that helps with it.

Code translates an `OSError` where it knows more than the system does. What is left is translated here, once, at the end
of every command (`bssl_tf_deploy.door`) and of every function of the Python interface.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator

from bssl_tf_deploy.errors import BsslError, MemoryShortageError, StorageError

FREE_SPACE = (
    "Free space there or choose another place, then run the same command again; what was saved before is intact"
)
_AGAIN = "then run the same command again"
_NETWORK = f"Check the network connection, {_AGAIN}"
_OTHER_FILE_SYSTEM = "Choose a place on another file system"
_SMALLER = (
    "Use smaller sizes (images, batch, width), close other programs, raise the limit (ulimit -v) or take a machine "
    "with more memory"
)
_OTHERWISE = f"Check the path and the disk, {_AGAIN}"
# By name, as not every system has each.
_STEPS_BY_NAME = {
    "EACCES": "Check the permissions of the file and of the folders above it, or choose another place",
    "EPERM": "Check the permissions of the file and of the folders above it, or choose another place",
    "ENOENT": "Check the path",
    "ENOTDIR": "Check the path: a part of it is a file, not a folder",
    "EISDIR": "Name a file, not a folder",
    "EEXIST": "Choose another name, or remove what is there",
    "ENOTEMPTY": "Choose another name, or remove what is there",
    "ENAMETOOLONG": "Choose a shorter name, or a folder with a shorter path",
    "ENOSPC": FREE_SPACE,
    "EDQUOT": FREE_SPACE,
    "EROFS": "Choose a place that is not mounted read-only",
    "ELOOP": "Remove the symbolic links that point to each other, or name the file itself",
    "EMFILE": f"Raise the limit of open files (ulimit -n), {_AGAIN}",
    "ENFILE": f"Close other programs, as the system has too many open files, {_AGAIN}",
    "EIO": "Check the disk and its cable, and restore the file from a copy",
    "EFBIG": "Check that it is the right file; for a file to be written, raise the limit (ulimit -f)",
    "EINVAL": "Name a regular file, and check the path",
    "EBUSY": f"Close the program that uses it, {_AGAIN}",
    "ETXTBSY": f"Close the program that uses it, {_AGAIN}",
    "EAGAIN": f"Close other programs or raise the limit of processes (ulimit -u), {_AGAIN}",
    "ENOMEM": _SMALLER,
    "ESTALE": f"Mount the network's file system again, {_AGAIN}",
    "ENODEV": f"Check that the disk or the device is connected, {_AGAIN}",
    "ENXIO": "Name a regular file, and check that the device is connected",
    "EXDEV": _OTHER_FILE_SYSTEM,
    "EOPNOTSUPP": _OTHER_FILE_SYSTEM,
    "ENOSYS": _OTHER_FILE_SYSTEM,
    "EPIPE": f"Check the program at the other end, {_AGAIN}",
    "ECONNREFUSED": _NETWORK,
    "ECONNRESET": _NETWORK,
    "ECONNABORTED": _NETWORK,
    "ETIMEDOUT": _NETWORK,
    "ENETDOWN": _NETWORK,
    "ENETUNREACH": _NETWORK,
    "EHOSTUNREACH": _NETWORK,
}
_STEPS = {getattr(errno, name): step for name, step in _STEPS_BY_NAME.items() if hasattr(errno, name)}
# What TensorFlow reports is not an `OSError`; this package does not import it, hence by name.
_OF_TENSORFLOW = {
    "PermissionDeniedError": errno.EACCES,
    "NotFoundError": errno.ENOENT,
    "AlreadyExistsError": errno.EEXIST,
    "ResourceExhaustedError": errno.ENOMEM,
}


def next_step(error: OSError) -> str:
    """What to do about an error of the system, an imperative sentence without a final full stop."""
    return _STEPS.get(error.errno or 0, _OTHERWISE)


def system_error(error: BaseException) -> BsslError | None:
    """An error of the operating system as one that a user can act on; None for every other.

    Args:
        error: an `OSError`, a `MemoryError`, TensorFlow's counterparts, or a name that the system cannot take.
    """
    if isinstance(error, (ImportError, OSError)) and (shortage := memory_shortage(error)):
        return shortage
    said = str(error).strip()
    number = next((_OF_TENSORFLOW[name] for one in type(error).__mro__ if (name := one.__name__) in _OF_TENSORFLOW), 0)
    if number and type(error).__module__.startswith("tensorflow"):
        # A full disk and a full memory have the same name there.
        number = errno.ENOSPC if "No space left" in said else number
        error = OSError(number, said.splitlines()[0][:300] if said else os.strerror(number))
    if isinstance(error, RuntimeError) and said.startswith("Symlink loop from "):  # of pathlib before Python 3.13
        error = OSError(errno.ELOOP, os.strerror(errno.ELOOP), said.removeprefix("Symlink loop from ").strip("'"))
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        detail = f" ({said[:300]})" if said else ""
        return MemoryShortageError(f"there is not enough memory{detail}", _SMALLER)
    if isinstance(error, OSError) and not isinstance(error, io.UnsupportedOperation):  # that one is a fault of ours
        cause = error.strerror or said or type(error).__name__
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
        place = " and ".join(names)
        return StorageError(f"{place}: {cause}" if place else str(cause), next_step(error))
    if isinstance(error, UnicodeEncodeError) and any("\ud800" <= letter <= "\udfff" for letter in error.object):
        return StorageError(f"a name is not valid UTF-8: {error.object[:300]}", "Rename the file or folder")
    if isinstance(error, ValueError) and said in ("embedded null byte", "embedded null character"):
        return StorageError("a file name contains a null character", "Correct the file that contains this name")
    return None


def memory_shortage(error: BaseException) -> MemoryShortageError | None:
    """A library that cannot be loaded as the address space is limited, which looks like a broken installation; or None.

    Without such a limit the same words speak of a file system from which nothing may be run.
    """
    if not any(one in str(error) for one in ("failed to map segment", "annot allocate memory")):
        return None
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    return MemoryShortageError(
        f"a library cannot be loaded within an address space of {limit // 2**20} MiB ({str(error)[:200]})",
        "Raise the limit on the address space of this process (`ulimit -v unlimited`, or the job's memory setting)",
    )


@contextlib.contextmanager
def system_errors() -> Iterator[None]:
    """Turns what `system_error` knows into it, for the length of the block or of the function that this decorates.

    A reader that has gone (`BrokenPipeError`) is the concern of whoever prints.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        known = system_error(error)
        if known is None:
            raise
        raise known from error
