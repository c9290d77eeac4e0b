"""Whether there is anything where a teacher is said to be; what it is, `teacher` finds out, with TensorFlow."""

from __future__ import annotations

from pathlib import Path

from bssl_tf.errors import NetworkError


def check_place(path: str) -> None:
    """Raises `NetworkError` where no teacher is named, or nothing is there."""
    if not path:
        raise NetworkError("no teacher was named", "Train one with `bssl-tf teacher`, then pass --teacher FOLDER")
    if not Path(path).exists():
        raise NetworkError(f"there is no teacher at {path}", "Train one with `bssl-tf teacher`, or check --teacher")
