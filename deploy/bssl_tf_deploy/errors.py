"""Errors that a user can act on: one line that states what happened, where, and what to do next.

They live on the device side because it must stand alone; `bssl_tf.errors` adds the host's.

| class | code | exit status |
|---|---|---|
| `UsageError` | usage | 2 |
| `StorageError` | storage | 8 |
| `BundleError` | bundle | 7 |
| `ImageError` | image | 9 |
| `RuntimeUnavailableError` | runtime | 10 |
| `MemoryShortageError` | memory | 15 |
| `UnexpectedError` | unexpected | 16 |
| `CameraError` | camera | 17 |
| `ServerError` | server | 19 |
"""

from __future__ import annotations

from typing import TypeVar

from bssl_tf_deploy.text import printable

_Error = TypeVar("_Error", bound="BsslError")


class BsslError(Exception):
    """Base of every error with a message meant for the user.

    Args:
        what: what happened and where, without a final full stop.
        next_step: what the user can do about it, as an imperative sentence without a final full stop.
    """

    code = "error"
    exit_status = 1

    def __init__(self, what: str, next_step: str) -> None:
        # One line, always: names and library messages may carry line breaks, and a stranger's text anything.
        self.what = printable(" ".join(what.split()))
        self.next_step = printable(" ".join(next_step.split()))
        super().__init__(f"error[{self.code}]: {self.what}. {self.next_step}.")

    def with_next_step(self: _Error, next_step: str) -> _Error:
        """The same error for a user who is better helped by another next step."""
        return type(self)(self.what, next_step)


class UsageError(BsslError):
    """Options do not go together, or one is missing."""

    code = "usage"
    exit_status = 2


class StorageError(BsslError):
    """A file could not be written or read: disk full, no permission, not a folder."""

    code = "storage"
    exit_status = 8


class BundleError(BsslError):
    """A bundle is missing, incomplete, changed since it was written, or of an unknown format."""

    code = "bundle"
    exit_status = 7


class ImageError(BsslError):
    """An image cannot be read, or a tensor is not what the network takes."""

    code = "image"
    exit_status = 9


class RuntimeUnavailableError(BsslError):
    """The interpreter that the command needs is not installed or cannot run this model."""

    code = "runtime"
    exit_status = 10


class MemoryShortageError(BsslError):
    """The memory of this machine, or of what this process may use, does not suffice."""

    code = "memory"
    exit_status = 15


class UnexpectedError(BsslError):
    """A fault in bssl-tf itself. Its traceback was written to a file, which the message names."""

    code = "unexpected"
    exit_status = 16


class CameraError(BsslError):
    """A camera cannot be opened, or gives no frames any more."""

    code = "camera"
    exit_status = 17


class ServerError(BsslError):
    """The HTTP server cannot listen at its address, or has more to do than it may keep."""

    code = "server"
    exit_status = 19
