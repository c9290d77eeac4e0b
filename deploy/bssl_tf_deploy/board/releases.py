"""Releases of a service: made, checked, switched to, and switched back from."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import venv
from pathlib import Path
from typing import Any

from bssl_tf_deploy.board import health
from bssl_tf_deploy.board.folder import ABOUT, BACK, HISTORY, NEW, PENDING, Folder, Refused
from bssl_tf_deploy.board.manager import Manager, ManagerError
from bssl_tf_deploy.board.unit import unit_text

# The program of the virtual environment, wherever that lies; -I: with nothing else that may lie about on the device.
_PROGRAM = """#!/bin/sh
exec "$(dirname "$(readlink -f "$0")")/python" -I -c 'from bssl_tf_deploy.cli import main; main()' "$@"
"""
# The server's packages load, and the golden outputs are reproduced.
_CHECK = "import bssl_tf_deploy.serving.server; from bssl_tf_deploy.cli import main; main()"
_CHECK_TIMEOUT_S = 900
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# How much of what a program printed a message has.
_MOST = 300


def make(folder: Folder, request: dict[str, Any]) -> None:
    """make {release, environment, packages, host, port, threads, head, title}: a release of run/bundle, checked.

    `environment` is a folder of packages here, `packages` are paths of others. The release is there when its golden
    outputs were reproduced, and else nothing of it.

    Raises:
        Refused: `check`: it does not load, or does not reproduce its golden outputs.
        OSError: it cannot be written.
    """
    name, bundle = request["release"], folder.root / "run" / "bundle"
    place = folder.release(name)
    with folder.lock():
        folder.check_unit()
        folder.discard(name)
        try:
            place.mkdir(parents=True)
            if (folder.root / request["environment"]).parent != folder.root:
                raise Refused("order", f"{request['environment']!r} is not the name of an environment")
            bundle.rename(place / "bundle")
            _environment(place / "environment", [str(folder.root / request["environment"]), *request["packages"]])
            head = ["--head", request["head"]] if request["head"] else []
            _check(place, head)
            arguments = ["serve", str(folder.root / "current/bundle"), "--host", request["host"]]
            arguments += ["--port", str(request["port"]), "--threads", str(request["threads"]), *head]
            if request["host"] not in _LOOPBACK:
                arguments += ["--token-file", str(folder.token())]
            program = folder.root / "current/environment/bin/bssl-tf-deploy"
            (place / "service").write_text(unit_text(folder.name, str(program), arguments), encoding="utf-8")
            about = {key: request[key] for key in ("release", "environment", "host", "port", "title")}
            # Before it counts as one: the power may go at any time.
            os.sync()
            folder.write(place / ABOUT, about | {"made_s": int(time.time())})
        except BaseException:
            folder.discard(name)
            with contextlib.suppress(OSError):
                (folder.root / "releases").rmdir()
            raise


def switch(folder: Folder, request: dict[str, Any]) -> dict[str, Any]:
    """switch {release, keep, health_s, settle_s}: to a release, which runs and answers then, or the one before does.

    Raises:
        Refused: `unhealthy`: it does not answer; what runs now is in the message.
    """
    with folder.lock():
        manager = Manager(folder.unit)
        recovered = _recover(folder, manager)
        name, before = request["release"], folder.current()
        page = page_of(folder, name)
        running = name == before and page.of(manager.process()) is not None
        history = [one for one in folder.history() if one != name] + [name]
        if not running:
            _change(folder, manager, name, history, request)
        folder.prune(history[-request["keep"] :])
        state = "unchanged" if running else "running"
        return _outcome(folder, manager, name, before, state) | {"recovered": recovered}


def rollback(folder: Folder, request: dict[str, Any]) -> dict[str, Any]:
    """rollback {health_s, settle_s}: to the release that ran before; see `switch`."""
    with folder.lock():
        manager = Manager(folder.unit)
        recovered = _recover(folder, manager)
        before, history = folder.current(), folder.history()
        earlier = [name for name in history if name != before]
        if before is None or not earlier:
            raise Refused("none", "there is no earlier release" if before else "there is no such service")
        # What is left now is no step back any more.
        _change(folder, manager, earlier[-1], earlier, request)
        return _outcome(folder, manager, earlier[-1], before, "running") | {"recovered": recovered}


def remove(folder: Folder, request: dict[str, Any]) -> dict[str, Any]:
    """remove: stops the service and removes all of ours but what the agent removes."""
    with folder.lock():
        manager = Manager(folder.unit)
        before = folder.current()
        known = before is not None or folder.unit_file.exists() or bool(folder.releases())
        folder.check_unit()
        _dismantle(folder, manager)
        folder.remove()
        return {"removed": known, "before": before}


def status(folder: Folder, request: dict[str, Any]) -> dict[str, Any]:
    """status: what runs, since when, and what its health page holds."""
    manager, name = Manager(folder.unit), folder.current()
    about = (folder.about(name) if name else None) or {}
    found = page_of(folder, name).of(manager.process()) if name else None
    temperature = (found or {}).get("temperature_c")
    return {
        "release": name,
        "title": about.get("title", ""),
        "made_s": about.get("made_s", 0),
        "address": f"{about['host']}:{about['port']}" if about else "",
        "state": manager.state() if name else "absent",
        "healthy": found is not None,
        "answered": (found or {}).get("answered", 0),
        "temperature_c": float(temperature) if isinstance(temperature, (int, float)) else None,
        "earlier": [one for one in folder.history() if one != name],
        "interrupted": folder.pending() is not None,
        "lingers": manager.lingers() if name else True,
    }


def page_of(folder: Folder, release: str) -> health.Page:
    """Where a release answers."""
    about = folder.about(release)
    if about is None:
        raise Refused("none", f"there is no release {release}")
    return health.Page(about["host"], about["port"], None if about["host"] in _LOOPBACK else folder.token())


def _environment(place: Path, packages: list[str]) -> None:
    """A virtual environment with the packages of folders, and the program `bssl-tf-deploy`."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(place)
    [site] = place.glob("lib/python*/site-packages")
    # ASCII alone, as the encoding of such files depends on Python's version and the user's language.
    (site / "bssl_tf_service.pth").write_text(f"import sys; sys.path.extend({packages!a})\n", encoding="ascii")
    program = place / "bin" / "bssl-tf-deploy"
    program.write_text(_PROGRAM, encoding="ascii")
    program.chmod(0o755)


def _check(place: Path, head: list[str]) -> None:
    """Raises `Refused` unless a release can serve, and reproduces its golden outputs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(place / "environment/bin/python"), "-I", "-c", _CHECK, "verify", str(place / "bundle"), *head]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_CHECK_TIMEOUT_S, env=clean, check=False
        )
    except subprocess.TimeoutExpired:
        raise Refused("check", f"the check took more than {_CHECK_TIMEOUT_S} seconds") from None
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise Refused("check", (lines or [f"exit status {done.returncode}"])[-1][:_MOST])


def _change(folder: Folder, manager: Manager, name: str, history: list[str], request: dict[str, Any]) -> None:
    """Switches, and back again where the release does not answer; `history` is what holds if it does."""
    before = folder.current()
    page = page_of(folder, name)
    folder.check_unit()
    try:
        # All that needs room on the disk comes first.
        folder.prepare(name, NEW)
        if before is not None:
            folder.prepare(before, BACK)
        folder.write(folder.root / f"{HISTORY}{NEW}", history)
        folder.write(folder.root / PENDING, {"from": before, "to": name})
    except OSError:
        folder.tidy()
        raise
    since, why = time.time(), ""
    try:
        folder.place(NEW)
        manager.start()
        if not health.wait(page, manager.process, request["health_s"], request["settle_s"]):
            why = f"its health page does not answer within {request['health_s']:g} seconds ({manager.state()})"
    except (OSError, ManagerError) as error:
        why = str(error)
    if why:
        log = manager.log(since)
        now = _return(folder, manager, before, request)
        raise Refused("unhealthy", f"release {name} does not run: {why[:_MOST]}; {now}", log)
    (folder.root / f"{HISTORY}{NEW}").replace(folder.root / HISTORY)
    (folder.root / PENDING).unlink(missing_ok=True)
    folder.tidy()


def _return(folder: Folder, manager: Manager, before: str | None, request: dict[str, Any]) -> str:
    """Back to the release before, if there was one; what runs now, in words."""
    if before is None:
        _dismantle(folder, manager)
        return "nothing runs there now, as it was the first"
    folder.place(BACK)
    try:
        manager.start()
        page, answers = page_of(folder, before), False
        answers = health.wait(page, manager.process, request["health_s"], 0.0)
    except ManagerError as error:
        return f"release {before} is in its place again, but does not start ({error})"[:_MOST]
    (folder.root / PENDING).unlink(missing_ok=True)
    folder.tidy()
    return f"release {before} runs again" if answers else f"release {before} was started again and does not answer"


def _recover(folder: Folder, manager: Manager) -> bool:
    """Returns from a switch that was cut off, by a loss of power; whether there was one."""
    pending = folder.pending()
    if pending is None:
        return False
    before = pending.get("from")
    if isinstance(before, str) and folder.about(before) is not None:
        folder.prepare(before, BACK)
        folder.place(BACK)
        with contextlib.suppress(ManagerError):
            manager.start()
    else:
        _dismantle(folder, manager)
    (folder.root / PENDING).unlink(missing_ok=True)
    folder.tidy()
    return True


def _dismantle(folder: Folder, manager: Manager) -> None:
    """As before the first release."""
    known = folder.unit_file.exists()
    if known:
        with contextlib.suppress(ManagerError):
            manager.stop()
    folder.withdraw()
    if known:
        with contextlib.suppress(ManagerError):
            manager.reload()
    (folder.root / PENDING).unlink(missing_ok=True)
    folder.tidy()


def _outcome(folder: Folder, manager: Manager, name: str, before: str | None, state: str) -> dict[str, Any]:
    about = folder.about(name) or {}
    return {
        "release": name,
        "before": before,
        "state": state,
        "address": f"{about.get('host')}:{about.get('port')}",
        "token_file": "" if about.get("host") in _LOOPBACK else str(folder.token()),
        "lingers": manager.lingers(switch_on=True),
    }
