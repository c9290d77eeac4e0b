"""A stand-in for systemd's command line, that really starts and stops what a unit names: `install` puts it on a PATH.

It reads ExecStart as systemd.service(5) and systemd.unit(5) have it, independently of what writes it here.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
# Questions that are put all the time, without starting a Python for each.
_SHELL = """#!/bin/sh
state='{state}'
alive() {{
    pid=$(cat "$state/$1.pid" 2>/dev/null) && read -r line < "/proc/$pid/stat" || return 1
    case "$line" in *") Z "*) return 1 ;; esac
}} 2>/dev/null
if ! [ -e "$state/broken" ]; then
    case "$*" in
        "--user show --property=MainPID --value "*) if alive "$5"; then echo "$pid"; else echo 0; fi; exit 0 ;;
        "--user show --property=Version") echo "Version=0 (a stand-in)"; exit 0 ;;
        "--user daemon-reload") echo daemon-reload >> "$state/orders"; exit 0 ;;
        "show-user "*" --property=Linger --value") cat "$state/linger"; exit 0 ;;
    esac
fi
exec '{python}' -I -S '{program}' "$state" {name} "$@"
"""


class FakeSystemd:
    """What the scripts below keep, in a folder.

    Args:
        state: an empty folder, for logs and processes.
        binaries: where the programs go.
        home: of the user.
    """

    def __init__(self, state: Path, binaries: Path, home: Path) -> None:
        self.state, self.binaries, self.home = state, binaries, home
        (state / "linger").write_text("yes\n", encoding="ascii")
        for name in ("systemctl", "journalctl", "loginctl"):
            script = binaries / name
            text = _SHELL.format(state=state, python=sys.executable, program=__file__, name=name)
            script.write_text(text, encoding="utf-8")
            script.chmod(0o755)

    def process(self, unit: str) -> int:
        """The process of a unit; 0 for none that runs."""
        return _process(self.state, unit)

    def enabled(self) -> list[str]:
        """Units that the system's start would start."""
        return [path.name for path in (self.home / ".config/systemd/user/default.target.wants").glob("*")]

    def orders(self) -> list[str]:
        """What was ordered, but for questions."""
        return (self.state / "orders").read_text().splitlines() if (self.state / "orders").exists() else []

    def end(self) -> None:
        """Kills all that runs, and removes the programs."""
        for file in self.state.glob("*.pid"):
            _stop(self.state, file.stem)
        for name in ("systemctl", "journalctl", "loginctl"):
            (self.binaries / name).unlink(missing_ok=True)


def words_of(line: str) -> list[str]:
    """A command line of a unit as the words that a program gets."""
    found = []
    for quoted, bare in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line):
        word = re.sub(r"\\(?:x([0-9a-f]{2})|(.))", _letter, quoted or bare)
        assert not re.search(r"%(?!%)", word.replace("%%", "")), word
        found.append(word.replace("%%", "%").replace("$$", "$"))
    return found


def _letter(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else _ESCAPES[match[2]]


def _process(state: Path, unit: str) -> int:
    try:
        process = int((state / f"{unit}.pid").read_text())
        alive = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, ValueError):
        return 0
    return process if alive else 0


def _stop(state: Path, unit: str) -> None:
    process = _process(state, unit)
    if process:
        os.killpg(process, signal.SIGTERM)
        for _ in range(100):
            if not _process(state, unit):
                break
            time.sleep(0.05)
        else:
            os.killpg(process, signal.SIGKILL)
    (state / f"{unit}.pid").unlink(missing_ok=True)


def _start(state: Path, unit: str) -> int:
    folder = Path.home() / ".config/systemd/user"
    if not (folder / unit).exists():
        print(f"Failed to start {unit}: Unit {unit} not found.", file=sys.stderr)
        return 5
    [line] = re.findall(r"^ExecStart=(.*)$", (folder / unit).read_text(), re.MULTILINE)
    _stop(state, unit)
    with (state / f"{unit}.log").open("ab") as log:
        clean = {"HOME": os.environ["HOME"], "PATH": "/usr/bin:/bin"}
        process = subprocess.Popen(
            words_of(line), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean, start_new_session=True, cwd="/"
        )
    (state / f"{unit}.pid").write_text(str(process.pid))
    return 0


def _systemctl(state: Path, arguments: list[str]) -> int:
    user, order, *rest = arguments
    assert user == "--user"
    if order in ("enable", "restart", "disable"):
        with (state / "orders").open("a") as file:
            file.write(f"{order}\n")
    if (state / "broken").exists():
        print("Failed to connect to bus: No such file or directory", file=sys.stderr)
        return 1
    match order, rest:
        case "enable", ["--quiet", unit]:
            wanted = Path.home() / ".config/systemd/user/default.target.wants"
            wanted.mkdir(parents=True, exist_ok=True)
            (wanted / unit).unlink(missing_ok=True)
            (wanted / unit).symlink_to(Path("..", unit))
        case "restart", [unit]:
            return _start(state, unit)
        case "disable", ["--quiet", "--now", unit]:
            _stop(state, unit)
            wanted = Path.home() / ".config/systemd/user/default.target.wants"
            (wanted / unit).unlink(missing_ok=True)
            # As the real one does.
            if wanted.is_dir() and not list(wanted.iterdir()):
                wanted.rmdir()
        case "is-active", [unit]:
            known = (state / f"{unit}.pid").exists()
            print("active" if _process(state, unit) else "failed" if known else "inactive")
            return 0 if _process(state, unit) else 3
        case _:
            raise AssertionError(arguments)
    return 0


def _journalctl(state: Path, arguments: list[str]) -> int:
    [unit] = [word.partition("=")[2] for word in arguments if word.startswith("--user-unit=")]
    log = state / f"{unit}.log"
    print(*(log.read_text().splitlines()[-15:] if log.exists() else ()), sep="\n")
    return 0


def _loginctl(state: Path, arguments: list[str]) -> int:
    assert arguments == ["enable-linger"]
    print("Could not enable linger: Interactive authentication required.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    orders = {"systemctl": _systemctl, "journalctl": _journalctl, "loginctl": _loginctl}
    sys.exit(orders[sys.argv[2]](Path(sys.argv[1]), sys.argv[3:]))
