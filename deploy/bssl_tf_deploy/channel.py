"""What the agent and its harness send each other: lines of JSON, some followed by bytes. Standard library only.

A harness sends this file to a device by itself, before anything is installed there, so it imports nothing of this
package.
"""

from __future__ import annotations

import json
import os
import select
from typing import Any

CHUNK = 1 << 16


class GoneError(Exception):
    """The harness has gone."""


class Channel:
    """The agent's end.

    Args:
        source: descriptor that requests come from.
        sink: descriptor that answers go to.
        silence_s: seconds without any byte after which the harness is taken for gone.
    """

    def __init__(self, source: int, sink: int, silence_s: float) -> None:
        self._source, self._sink, self.silence_s = source, sink, silence_s
        self._buffer = b""

    def request(self) -> dict[str, Any]:
        """The next request; pings are none. Raises `GoneError`."""
        while True:
            while b"\n" not in self._buffer:
                self._wait()
            line, _, self._buffer = self._buffer.partition(b"\n")
            request: dict[str, Any] = json.loads(line)
            if "ping" not in request:
                return request

    def read(self, count: int) -> bytes:
        """At least one and at most `count` of the bytes that follow a request. Raises `GoneError`."""
        if not self._buffer:
            self._wait()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def heard(self, seconds: float) -> bool:
        """Whether anything comes within `seconds`; it is kept for `request`. Raises `GoneError`."""
        if not select.select([self._source], [], [], seconds)[0]:
            return False
        data = os.read(self._source, CHUNK)
        if not data:
            raise GoneError
        self._buffer += data
        return True

    def answer(self, answer: dict[str, Any]) -> None:
        """Sends a line. Raises `BrokenPipeError` where the harness has gone."""
        data = json.dumps(answer).encode() + b"\n"
        while data:
            data = data[os.write(self._sink, data) :]

    def _wait(self) -> None:
        if not self.heard(self.silence_s):
            raise GoneError
