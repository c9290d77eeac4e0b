"""Answers one request of the harness: JSON as the argument, a line of JSON on standard output."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bssl_tf_deploy.board import releases
from bssl_tf_deploy.board.folder import Folder, Refused
from bssl_tf_deploy.board.manager import Manager

Answer = dict[str, Any]


def look(folder: Folder, request: Answer) -> Answer:
    """look: whether there is a systemd, and which releases and packages are there."""
    kept = {about["environment"] for name in folder.releases() if (about := folder.about(name)) is not None}
    return {
        "no_systemd": Manager(folder.unit).missing(),
        "releases": folder.releases(),
        "environments": sorted(kept),
        "free_bytes": shutil.disk_usage(folder.root).free,
    }


def make(folder: Folder, request: Answer) -> Answer:
    """See `releases.make`; answers as `look` does."""
    releases.make(folder, request)
    return look(folder, request)


_REQUESTS: dict[str, Callable[[Folder, Answer], Answer]] = {
    "look": look,
    "make": make,
    "switch": releases.switch,
    "rollback": releases.rollback,
    "remove": releases.remove,
    "status": releases.status,
}
# Begun, they end: what they leave in the middle would be a service that does not run.
_TO_THE_END = ("switch", "rollback", "remove")


def answered(request: Answer) -> Answer:
    """What a request gives: `ok`, or `error`, `message` and `log`."""
    try:
        folder = Folder(Path(request["folder"]).expanduser().absolute(), request["service"])
        return {"ok": _REQUESTS[request["do"]](folder, request)}
    except Refused as refused:
        return {"error": refused.kind, "message": str(refused), "log": refused.log}
    except OSError as error:
        kind = "full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "storage"
        where = f" ({error.filename})" if error.filename else ""
        return {"error": kind, "message": f"{error.strerror}{where}", "log": []}


def apart(request: Answer) -> Answer:
    """As `answered`, in a process that goes on when the connection, and this process with it, is gone."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setsid()
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            # The agent removes the folder that it was started in.
            os.chdir("/")
            os.close(reading)
            given = json.dumps(answered(request)).encode()
            with contextlib.suppress(BrokenPipeError):
                while given:
                    given = given[os.write(writing, given) :]
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    return json.loads(found) if found else {"error": "lost", "message": "the switch ended early", "log": []}


def main() -> None:
    """Answers the request that the first argument holds."""
    request = json.loads(sys.argv[1])
    answer = apart(request) if request["do"] in _TO_THE_END else answered(request)
    os.write(1, json.dumps(answer).encode() + b"\n")
