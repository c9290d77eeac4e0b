"""The file that describes a service to systemd (systemd.service(5), systemd.unit(5))."""

from __future__ import annotations

from collections.abc import Sequence

# What begins with it was written here, and may be written again.
FIRST_LINE = "# Written by `bssl-tf deploy`, and written again by the next one.\n"


def unit_text(name: str, program: str, arguments: Sequence[str]) -> str:
    """The content of the file.

    Args:
        name: of the service, letters that need no quotes.
        program: an absolute path.
        arguments: of the program.
    """
    # Of programs systemd takes none with quotes or backslashes in its path, of arguments any.
    words = ("-c", 'exec "$0" "$@"', program, *arguments)
    command = " ".join(["/bin/sh", *(_quoted(word).replace("$", "$$") for word in words)])
    return (
        f"{FIRST_LINE}[Unit]\nDescription=bssl-tf service {name}\n"
        # However often it fails, it may be the network, or a board that is too hot.
        "StartLimitIntervalSec=0\n\n"
        f"[Service]\nType=exec\nExecStart={command}\nRestart=on-failure\nRestartSec=3\nNoNewPrivileges=yes\nUMask=0077\n\n"
        "[Install]\nWantedBy=default.target\n"
    )


def _quoted(word: str) -> str:
    """A word in double quotes; `%` stands for what systemd would put in."""
    escaped = (_escaped(letter) for letter in word)
    return f'"{"".join(escaped)}"'


def _escaped(letter: str) -> str:
    if letter in '\\"':
        return "\\" + letter
    if letter == "%":
        return "%%"
    return f"\\x{ord(letter):02x}" if letter < " " or letter == "\x7f" else letter
