"""Whether a service answers: its health page, asked by this machine, and by no other process than the service's own."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
_MAX_BYTES = 1 << 16
_PAUSE_S = 0.2


@dataclass(frozen=True)
class Page:
    """Where a health page is.

    Attributes:
        host: where the service listens.
        port: and at which port.
        token_file: what holds the token; None where there is none.
    """

    host: str
    port: int
    token_file: Path | None

    def read(self) -> dict[str, Any] | None:
        """What it holds; None where it does not answer as it should."""
        headers = {}
        connection = http.client.HTTPConnection(_ANY.get(self.host, self.host), self.port, timeout=5)
        # ValueError: not JSON, or a host that is none.
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError), contextlib.closing(connection):
            if self.token_file is not None:
                headers["Authorization"] = f"Bearer {self.token_file.read_text(encoding='ascii').strip()}"
            connection.request("GET", "/health", headers=headers)
            response = connection.getresponse()
            found = json.loads(response.read(_MAX_BYTES))
            if response.status == 200 and isinstance(found, dict) and found.get("status") == "ok":
                return found
        return None

    def of(self, process: int) -> dict[str, Any] | None:
        """What it holds if `process` is what listens there. Another service may have the port."""
        return self.read() if process and listens(process, self.port) else None


def wait(page: Page, process: Callable[[], int], limit_s: float, settle_s: float) -> bool:
    """Whether a service answers within a time, and still does a little later, as the same process.

    Args:
        page: its health page.
        process: gives its process, 0 while there is none.
        limit_s: how long the first answer may take.
        settle_s: how much later it is asked again.
    """
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        found = process()
        if page.of(found) is not None:
            time.sleep(settle_s)
            if process() == found and page.of(found) is not None:
                return True
        time.sleep(_PAUSE_S)
    return False


def listens(process: int, port: int) -> bool:
    """Whether a process of this user listens at a TCP port (proc(5), net/tcp)."""
    own = set()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                own.add(str(descriptor.readlink()))
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
                words = line.split()
                # 0A: listening.
                if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port and f"socket:[{words[9]}]" in own:
                    return True
    return False
