"""A device that answers with anything: one line, a status, no traceback, in bounded memory and time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from bssl_tf.cli.main import main
from bssl_tf.devices import answers
from bssl_tf.devices.local import LocalDevice
from bssl_tf_deploy.conditions import facts

GREETING = b"bssl-tf-device 3 11\n"
# As a device would: it takes the program, gets ready, answers each request with the next line.
DEVICE = """
import sys
greeting, answers = (bytes.fromhex(text) for text in sys.argv[1:])
write = lambda data: (sys.stdout.buffer.write(data), sys.stdout.buffer.flush())
write(greeting)
sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))
write(b'{"ok": "ready"}\\n')
for answer in answers.splitlines(keepends=True):
    sys.stdin.buffer.readline()
    write(answer)
sys.stderr.write("\\x1b[2Jerror[x]: forged\\u202e")
"""


class Odd:
    address = "local"
    packages: tuple[str, ...] | None = ()
    runtime = False
    python = ()

    def __init__(self, answers: bytes, greeting: bytes) -> None:
        self._arguments = [greeting.hex(), answers.hex()]

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", DEVICE, *self._arguments], stdin=pipe, stdout=pipe, stderr=pipe)

    def explain(self, messages: str) -> None:
        return None


def line(content: Any) -> bytes:
    return json.dumps(content).encode() + b"\n"


def ok(**changes: Any) -> bytes:
    return line({"ok": facts() | changes})


FIRST = {
    "nothing": b"",
    "an empty line": b"\n",
    "not JSON": b"Segmentation fault\n",
    "bytes": bytes(range(1, 10)) + bytes(range(11, 256)) + b"\n",
    "a number": b"17\n",
    "a list": b"[]\n",
    "null": b"null\n",
    "an empty object": b"{}\n",
    "two objects": b"{}{}\n",
    "another key": line({"yes": 1}),
    "both keys": line({"ok": 1, "error": "x", "message": "y"}),
    "an error without a message": line({"error": "full"}),
    "an error that is no text": line({"error": ["full"], "message": {}}),
    "an unknown error": line({"error": "\x1b[2J\n", "message": "\u202eerror[x]: forged\n\x07"}),
    "facts that are text": line({"ok": "facts"}),
    "facts that are null": line({"ok": None}),
    "no facts": line({"ok": {}}),
    "a fact too many": ok(extra=1),
    "a processor that is a list": ok(processor=[]),
    "cores that are text": ok(cores="4"),
    "cores below none": ok(cores=-1),
    "cores without end": ok(cores=10**400),
    "memory that is no number": ok(memory_total_mib=float("nan")),
    "a clock that is infinite": ok(clock_mhz=float("inf")),
    "a temperature that is text": ok(temperature_c="hot"),
    "governors that are numbers": ok(governors=[1]),
    "rails that are a list": ok(power_mw=[]),
    "deep nesting": b'{"ok": ' + b"[" * 20000 + b"]" * 20000 + b"}\n",
    "truncated": line({"ok": facts()})[:-30],
    "a truncated line": line({"ok": facts()})[:-30] + b"\n",
    "a huge number": b'{"ok": 1' + b"0" * 10000 + b"}\n",
}
OPENED = {
    "text": line({"ok": "folder"}),
    "a number for the folder": line({"ok": {"folder": 1, "free_bytes": 1, "environments": []}}),
    "no space": line({"ok": {"folder": "/x", "environments": []}}),
    "space that is text": line({"ok": {"folder": "/x", "free_bytes": "much", "environments": []}}),
    "an environment that is no name": line({"ok": {"folder": "/x", "free_bytes": 1, "environments": [{}]}}),
}
RAN = {
    "null": line({"ok": None}),
    "no status": line({"ok": {"stdout": "", "stderr": ""}}),
    "a status that is text": line({"ok": {"status": "0", "stdout": "", "stderr": ""}}),
    "output that is a number": line({"ok": {"status": 0, "stdout": 1, "stderr": ""}}),
}
SOUND = line({"ok": facts()})
OPEN = line({"ok": {"folder": "/x", "free_bytes": 1 << 30, "environments": []}})


def called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answers: bytes, greeting: bytes = GREETING
) -> tuple[Any, str, str]:
    monkeypatch.setattr(LocalDevice, "connect", lambda self: Odd(answers, greeting))
    monkeypatch.setattr(sys, "argv", ["bssl-tf", "devices", "local"])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code, *capsys.readouterr()


@pytest.mark.parametrize(
    "sent",
    [*FIRST.values(), *(SOUND + one for one in OPENED.values()), *(SOUND + OPEN + one for one in RAN.values())],
    ids=[*FIRST, *(f"opened: {name}" for name in OPENED), *(f"ran: {name}" for name in RAN)],
)
def test_an_odd_answer_is_one_line_about_the_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sent: bytes
) -> None:
    status, out, said = called(monkeypatch, capsys, sent)
    assert status == 14 and out == "", said
    assert said.startswith("error[device]: ") and said.count("\n") == 1 and said.rstrip("\n").isprintable()


@pytest.mark.parametrize("greeting", [b"bssl-tf-device\n", b"bssl-tf-device x y\n", b"bssl-tf-device 3\n", b"\xff\n"])
def test_an_odd_greeting_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], greeting: bytes
) -> None:
    # Two of these may be what a login prints before ours, so that the host waits for the next line.
    monkeypatch.setattr("bssl_tf.devices.session.GREETING_TIMEOUT_S", 1.0)
    status, _, said = called(monkeypatch, capsys, SOUND, greeting)
    assert status == 14 and said.startswith("error[device]: ") and said.count("\n") == 1


def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("bssl_tf.devices.session.MAX_ANSWER_BYTES", 1 << 12)
    status, _, said = called(monkeypatch, capsys, b"x" * (1 << 14))
    assert status == 14 and "more than" in said
    assert answers.MAX_ANSWER_BYTES <= 1 << 26


def test_a_sound_device_is_shown_with_its_words_escaped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = line({"ok": {"status": 0, "stdout": "runtime\x1b[2J\nlocal: forged \u202e", "stderr": ""}})
    status, out, said = called(monkeypatch, capsys, ok(processor="Cortex\x9b\n\x07-A76 \ud800") + OPEN + result)
    assert status == 0 and said == "", said
    assert out.count("\n") == 1 and out.rstrip("\n").isprintable() and "Cortex\\x9b\\n\\x07-A76 \\ud800" in out
