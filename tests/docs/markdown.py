"""Documents of this repository, and what stands in them: links, headings, commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from tests.docs.conftest import ROOT

PAGES = sorted((ROOT / "docs" / "pages").rglob("*.md"))
READMES = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md", "bssl_tf/models/README.md")
    ),
    ROOT / "converters/bssl_tf_converters/lce/checks/README.md",
    *sorted((ROOT / "results").glob("*.md")),
]
DOCUMENTS = [*READMES, *PAGES]
_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


def inline_code(path: Path) -> list[str]:
    """What stands between backticks, its line breaks as spaces."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(path))]


def commands(path: Path) -> Iterator[list[str]]:
    """The commands of all `sh` blocks, as words; comments and redirections are left away."""
    for language, block in _FENCE.findall(path.read_text(encoding="utf-8")):
        if language == "sh":
            for line in block.replace("\\\n", " ").splitlines():
                yield from split(line)


def split(line: str) -> Iterator[list[str]]:
    """The commands of a shell's line."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    command: list[str] = []
    for word in [*words, ";"]:
        if set(word) <= set("();<>|&"):
            if command:
                yield command
            command = []
        else:
            command.append(word)


def links(path: Path) -> list[str]:
    """Targets of links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(path)))


def anchors(path: Path) -> set[str]:
    """Anchors of headings, as forges make them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
