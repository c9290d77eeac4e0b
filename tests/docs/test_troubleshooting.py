"""Every code and exit status is on the page, none that does not exist, and its messages are those of the code."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from bssl_tf import errors
from bssl_tf_deploy.errors import BsslError
from tests.docs.conftest import ROOT
from tests.docs.markdown import DOCUMENTS

PAGE = (ROOT / "docs/pages/troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([\w-]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
OFFERED = [getattr(errors, name) for name in errors.__all__]
CLASSES: list[type[BsslError]] = [
    kind for kind in OFFERED if isinstance(kind, type) and issubclass(kind, BsslError) and kind is not BsslError
]
# By code; a class below another, for those who catch it, has that one's code.
KINDS = {kind.code: kind for kind in CLASSES if "code" in vars(kind)}
CHECKS = set(
    re.findall(r"^\| `([\w-]+)` \|", (ROOT / "converters/bssl_tf_converters/lce/checks/README.md").read_text(), re.M)
)


@cache
def messages() -> dict[str, list[re.Pattern[str]]]:
    """By class of error, what its messages look like; those that hardly say anything by themselves are left out."""
    found: dict[str, list[re.Pattern[str]]] = {kind.__name__: [] for kind in CLASSES}
    for folder in ("bssl_tf", "converters/bssl_tf_converters", "deploy/bssl_tf_deploy"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in found:
                    pattern, letters = looks(node.args[0]) if node.args else ("", 0)
                    if letters >= 10:
                        found[node.func.id].append(re.compile(pattern))
    # What connections say, in tables: (a sign of it, what happened, what to do).
    for name in ("ssh", "adb"):
        for node in ast.walk(ast.parse((ROOT / f"bssl_tf/devices/{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Tuple) and len(node.elts) == 3 and isinstance(node.elts[1], ast.Constant):
                found["DeviceError"].append(re.compile(rf"DEVICE {re.escape(str(node.elts[1].value))}"))
    return found


def looks(node: ast.expr) -> tuple[str, int]:
    """A pattern for a message, and how many of its characters are fixed."""
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value)), len(str(node.value))
    if isinstance(node, ast.JoinedStr):
        parts = [looks(part) for part in node.values]
        return "".join(pattern for pattern, _ in parts), sum(letters for _, letters in parts)
    return ".*", 0


def test_every_code_has_its_section_and_status() -> None:
    assert set(SECTIONS) == set(KINDS)
    table = dict(re.findall(r"^\| \[`([\w-]+)`\]\(#[\w-]+\) \| (\d+) \|", PAGE, re.MULTILINE))
    assert table == {code: str(kind.exit_status) for code, kind in KINDS.items()}
    for code, section in SECTIONS.items():
        assert f"`{KINDS[code].__name__}`, exit status {KINDS[code].exit_status}. " in section


def test_every_class_of_error_is_covered() -> None:
    def below(kind: type[BsslError]) -> set[type[BsslError]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    of_the_package = {
        kind for kind in below(BsslError) if kind.__module__ in ("bssl_tf.errors", "bssl_tf_deploy.errors")
    }
    assert of_the_package == {*CLASSES, BsslError}


@pytest.mark.parametrize("code", sorted(KINDS))
def test_messages_are_those_of_the_code(code: str) -> None:
    said = re.findall(r"^\| (.*?) \| .* \|$", SECTIONS[code], re.MULTILINE)[1:]
    assert said
    for message in said:
        if set(message) != {"-"}:
            patterns = [one for kind in CLASSES if kind.code == code for one in messages()[kind.__name__]]
            assert any(pattern.fullmatch(message) for pattern in patterns), message


def test_documents_name_no_code_that_does_not_exist() -> None:
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"error\[([\w-]+)\]", text)) <= {*KINDS, "build"}, path
        assert {int(status) for status in re.findall(r"exit status (\d+)", text)} <= {
            *(kind.exit_status for kind in KINDS.values()),
            *(0, 1, 2),
        }
    assert set(re.findall(r"\[([a-z]+(?:-[a-z0-9]+)+)\](?!\()", PAGE)) <= CHECKS
