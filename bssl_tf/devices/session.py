"""A session with the agent on a device that has Python.

The only thing that a shell on the device ever reads is one constant line, which starts Python with a program that reads
the agent from its input. Names of files and all else travel as data.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from bssl_tf.devices.answers import MAX_ANSWER_BYTES, read_answer
from bssl_tf.devices.connection import CONNECT_TIMEOUT_S, Connection
from bssl_tf.devices.device import DeviceSettings
from bssl_tf.devices.packages import OLDEST_PYTHON
from bssl_tf.devices.python_device import PythonDevice
from bssl_tf.errors import BsslError, BundleError, DeviceError, StorageError
from bssl_tf_deploy.strict import StrictError

# Says which Python it is, then runs what it is sent: modules as JSON, the last of which has `main`. Every Python 3
# can read it. Nothing may be sent after the modules until `main` answers: the reader would take it in.
_BOOTSTRAP = (
    "import sys;"
    "sys.stdout.write('bssl-tf-device %d %d\\n' % sys.version_info[:2]);sys.stdout.flush();"
    "import json,types;"
    "given=json.loads(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())).decode());"
    "new=lambda name:sys.modules.setdefault(name,types.ModuleType(name));"
    "[exec(compile(text,name,'exec'),new(name).__dict__)for name,text in given];"
    "sys.modules[given[-1][0]].main()"
)
_GREETING = b"bssl-tf-device "
_VERSION = re.compile(rb"bssl-tf-device (\d{1,3}) (\d{1,3})\s*")
_MESSAGE_BYTES = 1 << 14
_MODULES = ("conditions", "channel", "agent")
# A login's own greetings may come before ours.
_MOST_CHATTER = 1 << 16
_PING_S = 10.0
GREETING_TIMEOUT_S = CONNECT_TIMEOUT_S + 20
_ANSWER_TIMEOUT_S = 120.0
REMOTE_DIR = "~/.cache/bssl-tf-device"
_AGAIN = "Check the cable and the power, then run the same command again"


class Session:
    """An open session; made by `open_session`.

    Attributes:
        facts: of the device, from `bssl_tf_deploy.conditions.facts`.
    """

    def __init__(self, device: DeviceSettings, connection: Connection, process: subprocess.Popen[bytes]) -> None:
        self._device, self._connection, self._process = device, connection, process
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._timed_out = self._waiting = False
        self._messages: deque[bytes] = deque(maxlen=16)
        assert process.stderr is not None
        self._reader = threading.Thread(target=self._keep_messages, daemon=True)
        self._reader.start()
        self._begin()
        threading.Thread(target=self._ping, daemon=True).start()
        self.facts: dict[str, Any] = self.ask({"do": "facts"})

    @property
    def folder(self) -> str:
        """Where this device is worked in."""
        return self._device.remote_dir or REMOTE_DIR

    def ask(self, request: Mapping[str, Any], payload: bytes = b"", timeout_s: float | None = _ANSWER_TIMEOUT_S) -> Any:
        """What the agent answers to a request; see `bssl_tf_deploy.agent`.

        Raises:
            DeviceError: the connection is gone, or the device's disk is full.
            StorageError: the device cannot write its folder.
            BundleError: a file arrived changed.
        """
        self._waiting = True
        self._send(json.dumps(request).encode() + b"\n" + payload)
        try:
            answer = read_answer(str(request["do"]), self._line(timeout_s))
        except StrictError as error:
            self._process.kill()
            raise self._lost(f"its answer cannot be read: {error}") from error
        self._waiting = False
        if "ok" in answer:
            return answer["ok"]
        raise self._refused(answer["error"], answer["message"])

    def put(self, name: str, content: bytes) -> None:
        """Puts a file into the session's folder; the device compares its hash with what was sent."""
        digest = hashlib.sha256(content).hexdigest()
        self.ask({"do": "put", "name": name, "bytes": len(content), "sha256": digest}, content, timeout_s=600)

    def run(self, arguments: Sequence[str], path: Sequence[str], timeout_s: float | None = _ANSWER_TIMEOUT_S) -> Any:
        """Runs Python there: `status`, `stdout` and `stderr`.

        Args:
            arguments: of Python.
            path: folders to import from, before its own.
            timeout_s: None for as long as the connection stands.
        """
        python = list(self._connection.python)
        request = {"do": "run", "arguments": list(arguments), "path": list(path), "python": python}
        return self.ask(request, timeout_s=timeout_s)

    def close(self) -> None:
        """Ends the session in order if it still stands; the agent cleans up in either case."""
        # Interrupted in the middle of a request, the agent would answer that one first; the end of its input is enough.
        if not self._waiting:
            with contextlib.suppress(BsslError, ValueError):
                self.ask({"do": "end"}, timeout_s=20)
        self._end()

    def _begin(self) -> None:
        greeting, chatter = b"", 0
        while not greeting.startswith(_GREETING):
            greeting = self._line(GREETING_TIMEOUT_S)
            chatter += len(greeting)
            if chatter > _MOST_CHATTER:
                self._process.kill()
                raise self._lost("it prints something other than our program does")
        numbers = _VERSION.fullmatch(greeting)
        if numbers is None:
            self._process.kill()
            raise self._lost("it does not report its version of Python")
        version = tuple(map(int, numbers.groups()))
        if version < OLDEST_PYTHON:
            found, needed = (".".join(map(str, parts)) for parts in (version, OLDEST_PYTHON))
            self._end()
            raise DeviceError(
                f"{self._device.name} has Python {found}, but {needed} or newer is needed",
                "Install a newer system there",
            )
        package = resources.files("bssl_tf_deploy")
        modules = [("bssl_tf_deploy", "")]
        modules += [(f"bssl_tf_deploy.{name}", package.joinpath(f"{name}.py").read_text("utf-8")) for name in _MODULES]
        program = json.dumps(modules).encode()
        self._send(b"%d\n" % len(program) + program)
        self._line(GREETING_TIMEOUT_S)

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            with self._lock:
                self._process.stdin.write(data)
                self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._lost() from error

    def _line(self, timeout_s: float | None) -> bytes:
        """The next line of the device's output."""
        assert self._process.stdout is not None
        timer = threading.Timer(timeout_s, self._give_up) if timeout_s else None
        if timer:
            timer.start()
        try:
            line = self._process.stdout.readline(MAX_ANSWER_BYTES)
        finally:
            if timer:
                timer.cancel()
        if len(line) == MAX_ANSWER_BYTES:
            self._process.kill()
            raise self._lost(f"it sent more than {MAX_ANSWER_BYTES:,} bytes")
        if not line.endswith(b"\n"):
            raise self._lost()
        return line

    def _give_up(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _ping(self) -> None:
        while not self._done.wait(_PING_S):
            # Whoever waits for an answer finds out that the connection is gone.
            with contextlib.suppress(OSError, ValueError), self._lock:
                assert self._process.stdin is not None
                self._process.stdin.write(b'{"ping": 1}\n')
                self._process.stdin.flush()

    def _keep_messages(self) -> None:
        assert self._process.stderr is not None
        # Not by line, which might never end.
        while piece := self._process.stderr.read1(_MESSAGE_BYTES):  # type: ignore[attr-defined]
            self._messages.append(piece)

    def _lost(self, what: str = "") -> DeviceError:
        """Why the connection ended, in one line."""
        self._end()
        said = b"".join(self._messages).decode("utf-8", "replace").strip()
        name, status = self._device.name, self._process.returncode
        explained = self._connection.explain(said)
        if explained is not None:
            return explained
        if self._timed_out:
            return DeviceError(f"{name} does not answer", _AGAIN)
        if status == 127:
            return DeviceError(f"{name} has no python3", "Install Python 3.10 or newer there")
        last = what or (said.splitlines()[-1] if said else "no message")
        return DeviceError(f"the connection to {name} ended ({last[:200]})", _AGAIN)

    def _end(self) -> None:
        self._done.set()
        process = self._process
        with contextlib.suppress(OSError, ValueError):
            assert process.stdin is not None
            process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join(timeout=5)

    def _refused(self, kind: str, message: str) -> BsslError:
        name = self._device.name
        if kind == "full":
            return DeviceError(
                f"the disk of {name} is full ({message})", "Free space there, or name another folder with --remote-dir"
            )
        if kind == "storage":
            return StorageError(f"{name} cannot write: {message}", "Name another folder there with --remote-dir")
        if kind == "changed":
            return BundleError(
                f"{message} was corrupted on the way to {name} (its SHA-256 differs)", "Run the same command again"
            )
        if kind == "busy":
            return DeviceError(f"{name} is in use: {message}", "Wait for the other session to end")
        if kind == "taken":
            return DeviceError(f"{name}: {message}", "Name another folder there with --remote-dir")
        if kind == "pip":
            return DeviceError(
                f"{name} lacks packages, none could be fetched here, and its own pip fails: {message}",
                "Connect this machine or the device to a network",
            )
        return DeviceError(f"{name} could not carry out a request ({kind}: {message})", "Install bssl-tf again")


@contextlib.contextmanager
def open_session(device: PythonDevice) -> Iterator[Session]:
    """A session with a device, whose end cleans up there, also after an error.

    Raises:
        DeviceError: it cannot be reached, has no Python or an old one.
    """
    connection = device.connect()
    session = Session(device.settings, connection, connection.start(["python3", "-I", "-u", "-c", _BOOTSTRAP]))
    try:
        yield session
    finally:
        session.close()
