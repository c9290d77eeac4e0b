"""Serves a harness from the device's side, over standard input and output. Standard library only.

The harness sends this file, `channel` and `conditions` as text to a Python that runs nothing but what it is sent;
nothing is installed for it. It owns one folder on the device:

    FOLDER/.bssl-tf-device    marks the folder as ours, and locks it
    FOLDER/env-HASH/          packages, kept for the next session
    FOLDER/run/               what this session put here

However the session ends (an error, a killed connection, a harness that no longer answers), the children are killed and
`run/` goes, and unless the harness sent `keep`, so does every `env-` that this session made and every folder it made.

A request is a line of JSON, followed by `bytes` bytes where it says so; an answer is a line of JSON, `{"ok": ...}` or
`{"error": KIND, "message": ...}`. `{"ping": 1}` has no answer: it shows that the harness is alive.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import FrameType
from typing import Any

from bssl_tf_deploy import conditions
from bssl_tf_deploy.channel import CHUNK, Channel, GoneError

MARKER = ".bssl-tf-device"
# The harness sends something every few seconds; silence for longer means that it, or the way to it, is gone.
SILENCE_S = 60.0


class _Refused(Exception):
    """A request cannot be served; `kind` is a word that the harness knows."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class Agent:
    """One session.

    Args:
        source: descriptor that requests come from.
        sink: descriptor that answers go to.
        silence_s: seconds without any byte after which the harness is taken for gone.
    """

    def __init__(self, source: int, sink: int, silence_s: float = SILENCE_S) -> None:
        self._channel = Channel(source, sink, silence_s)
        self._folder: Path | None = None
        self._lock: Any = None
        self._new = False  # whether `_folder` became ours in this session
        self._made: list[Path] = []  # folders above and with `_folder`, outermost first
        self._environments: list[Path] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._keep = False

    def serve(self) -> None:
        """Answers until the harness sends `end` or is gone, then cleans up."""
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, _leave)
        try:
            while True:
                request = self._channel.request()
                try:
                    serve = getattr(self, "_do_" + request["do"], None)
                    if serve is None:
                        raise _Refused("order", f"there is no {request['do']!r}")
                    self._channel.answer({"ok": serve(request)})
                except _Refused as refused:
                    self._channel.answer({"error": refused.kind, "message": str(refused)})
                except OSError as error:
                    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                    where = f" ({error.filename})" if error.filename else ""
                    self._channel.answer(
                        {"error": "full" if full else "storage", "message": f"{error.strerror}{where}"}
                    )
                if request["do"] == "end":
                    return
        except (GoneError, BrokenPipeError):
            return
        finally:
            # Nothing may interrupt the cleaning.
            for number in (signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            self._clean_up()

    # Requests. Each is named in its first line as the harness names it.

    def _do_facts(self, request: dict[str, Any]) -> dict[str, Any]:
        """facts: what the device is."""
        return conditions.facts()

    def _do_open(self, request: dict[str, Any]) -> dict[str, Any]:
        """open {folder}: makes and locks the folder. Answers its path, free bytes, and the environments in it."""
        folder = Path(request["folder"]).expanduser().absolute()
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(mode=0o700)
            self._made.append(path)
        if not missing and not (folder / MARKER).is_file() and any(folder.iterdir()):
            raise _Refused("taken", f"{folder} is not empty and not a folder of bssl-tf")
        new = not (folder / MARKER).exists()
        lock = (folder / MARKER).open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise _Refused("busy", f"another session uses {folder}") from None
        self._folder, self._lock, self._new = folder, lock, new
        # Of a session that could not clean up: its device lost power.
        shutil.rmtree(folder / "run", ignore_errors=True)
        for left in folder.glob("env-*.part"):
            shutil.rmtree(left, ignore_errors=True)
        (folder / "run").mkdir()
        return {
            "folder": str(folder),
            "free_bytes": shutil.disk_usage(folder).free,
            "environments": sorted(path.name for path in folder.glob("env-*")),
        }

    def _do_put(self, request: dict[str, Any]) -> None:
        """put {name, bytes, sha256}, then the bytes: a file in run/."""
        left, failed = int(request["bytes"]), None
        target = self._inside(request["name"])
        with contextlib.ExitStack() as stack:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                # Unbuffered, so that a full disk is noticed where it is written to.
                file = stack.enter_context(target.open("wb", buffering=0))
            except OSError as error:
                failed = error
            # All of it is read, whatever happens: what follows is the next request.
            while left:
                data = self._channel.read(min(left, CHUNK))
                left -= len(data)
                while data and failed is None:
                    try:
                        data = data[file.write(data) :]
                    except OSError as error:
                        failed = error
        if failed is not None:
            target.unlink(missing_ok=True)
            raise failed
        # As the disk has it, not as it came.
        if hashlib.sha256(target.read_bytes()).hexdigest() != request["sha256"]:
            target.unlink()
            raise _Refused("changed", request["name"])

    def _do_install(self, request: dict[str, Any]) -> None:
        """install {environment, archives}: unpacks zip files of run/ (wheels are) into FOLDER/ENVIRONMENT."""
        with self._environment(request["environment"]) as folder:
            for name in request["archives"]:
                try:
                    with zipfile.ZipFile(self._inside(name)) as archive:
                        archive.extractall(folder)
                except zipfile.BadZipFile as error:
                    raise _Refused("changed", f"{name} ({error})") from error
                self._inside(name).unlink()

    def _do_pip(self, request: dict[str, Any]) -> None:
        """pip {environment, requirements, archives}: as install, and the device's own pip brings the requirements."""
        with self._environment(request["environment"]) as folder:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
            command += ["--only-binary=:all:", "--target", str(folder), *request["requirements"]]
            status, _, said = self._run(command, {})
            if status != 0:
                raise _Refused("pip", (said.strip().splitlines() or [f"exit status {status}"])[-1])
            for name in request["archives"]:
                with zipfile.ZipFile(self._inside(name)) as archive:
                    archive.extractall(folder)

    def _do_run(self, request: dict[str, Any]) -> dict[str, Any]:
        """run {arguments, path, python}: Python with arguments, in run/, with `path` as its PYTHONPATH.

        `python` is the command that starts Python, empty for the one that this runs in.
        """
        paths = [str(self._root() / path) for path in request["path"]]
        environment = {"PYTHONPATH": os.pathsep.join(paths)} if paths else {}
        python = request["python"] or [sys.executable]
        status, out, said = self._run([*python, "-s", "-B", *request["arguments"]], environment)
        return {"status": status, "stdout": out, "stderr": said}

    def _do_keep(self, request: dict[str, Any]) -> None:
        """keep {environments}: they stay, and those of other versions go."""
        self._keep = True
        self._remove([path for path in self._root().glob("env-*") if path.name not in request["environments"]])

    def _do_clean(self, request: dict[str, Any]) -> bool:
        """clean {folder}: removes all that is ours. Answers whether there was anything."""
        folder = Path(request["folder"]).expanduser().absolute()
        if not (folder / MARKER).is_file():
            return False
        if self._folder is None:
            self._do_open(request)
        self._remove(sorted(folder.glob("env-*")))
        self._keep, self._new, self._made = False, True, self._made or [folder]
        return True

    def _do_end(self, request: dict[str, Any]) -> None:
        """end: the session is over."""

    # What they are made of.

    def _root(self) -> Path:
        if self._folder is None:
            raise _Refused("order", "no folder was opened")
        return self._folder

    def _inside(self, name: str) -> Path:
        """A path in run/; nothing outside of it is ever written."""
        parts = name.split("/")
        if not all(parts) or any(part in (".", "..") or "\0" in part for part in parts):
            raise _Refused("order", f"{name!r} is not the name of a file")
        return self._root().joinpath("run", *parts)

    @contextlib.contextmanager
    def _environment(self, name: str) -> Any:
        """A folder that appears under its name when the block ends without an error."""
        if not name.startswith("env-") or "/" in name:
            raise _Refused("order", f"{name!r} is not the name of an environment")
        final = self._root() / name
        part = final.with_name(name + ".part")
        self._environments += [part, final]
        part.mkdir()
        yield part
        part.rename(final)

    def _run(self, command: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
        """Exit status, output and messages of a program; killed with its children when the harness goes."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        folder = self._root() / "run"
        with (folder / "stdout").open("w+b") as out, (folder / "stderr").open("w+b") as said:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=said,
                cwd=folder,
                env=clean | environment,
                start_new_session=True,
            )
            heard = time.monotonic()
            while self._child.poll() is None:
                if self._channel.heard(0.5):
                    heard = time.monotonic()
                elif time.monotonic() - heard > self._channel.silence_s:
                    raise GoneError
            status = self._child.returncode
            self._child = None
            out.seek(0)
            said.seek(0)
            return status, out.read().decode("utf-8", "replace"), said.read()[-8000:].decode("utf-8", "replace")

    def _clean_up(self) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder / "run", ignore_errors=True)
            if not self._keep:
                self._remove(self._environments)
        if self._keep:
            return
        with contextlib.suppress(OSError):
            if self._new and self._folder is not None and {item.name for item in self._folder.iterdir()} == {MARKER}:
                (self._folder / MARKER).unlink()
        # Those that this session made and that hold nothing.
        for path in reversed(self._made):
            with contextlib.suppress(OSError):
                path.rmdir()

    def _remove(self, paths: list[Path]) -> None:
        for path in paths:
            shutil.rmtree(path, ignore_errors=True)


def _leave(number: int, frame: FrameType | None) -> None:
    raise GoneError


def main() -> None:
    """Serves on standard input and output; what libraries print goes nowhere."""
    sink = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.write(sink, b'{"ok": "ready"}\n')
    Agent(0, sink).serve()
