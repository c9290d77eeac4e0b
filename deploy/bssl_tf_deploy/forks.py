"""Interpreters with threads in a child of `os.fork`, which has the memory of its parent's threads but not the threads.

An inference there would wait for them for ever, and so would the interpreter's end.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Protocol


class WithThreads(Protocol):
    """An interpreter that has threads of its own."""

    def leave_to_the_parent(self) -> None:
        """Called in a child: what was inherited is neither used nor ended there (`never_end`)."""


_known: weakref.WeakSet[WithThreads] = weakref.WeakSet()


def watch(interpreter: WithThreads) -> None:
    """Calls its `leave_to_the_parent` in every child, as long as it lives."""
    _known.add(interpreter)


def never_end(native: object) -> None:
    """Keeps a native object as it is until the process is gone: one reference that nobody gives back."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))


def _in_child() -> None:
    for interpreter in list(_known):
        interpreter.leave_to_the_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
