"""Plain English where users read: help, errors, what is logged or printed, pages and READMEs.

Each form below came back again and again; the glossary in CONTRIBUTING.md has what to write in its place.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bssl_tf", "converters/bssl_tf_converters", "deploy/bssl_tf_deploy", "deploy/benchmarks", "deploy/native")
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs" / "pages").rglob("*.md"),
    *(path for package in PACKAGES for path in (ROOT / package).rglob("*.md") if "bundle" not in path.parts),
    ROOT / "deploy" / "README.md",
]
# A form -> what to write.
FORMS = {
    r"(?<![Tt]here )\bis no (?!longer\b|more\b|\w+er\b|matter\b|way\b|need\b|such\b)\w+": "is not a ...",
    r"\bare no (?!longer\b|more\b|\w+ to\b)\w+ of\b": "are not ...",
    r"\bleave (?:it|them|that|this|one|both) (?:away|out)\b|\bleft away\b|\bleave away\b": "omit",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\banew\b": "again, restart",
    r"\bwithout a word\b": "no message",
    r"\b(?:so many|so long|so much) (?:images|epochs|seconds|steps|of)\b": "at most N, for SECONDS",
    r"\bMay TFDS\b|\bmay TFDS download\b": "Allow TFDS to download",
    r"\bat its highest\b": "peak",
    r"\b(?:epochs|images|steps|channels|lines?|one|number) a (?:stage|step|channel|line|class)\b(?! of)": "per",
    r"\bsame best class\b": "top-1 agreement",
    r"\bin turns\b": "interleaved",
    r"\bWho wins\b": "Comparison",
    r"\bHow fast\b": "Benchmarks",
    r"\bWhere things are\b": "Layout",
    r"\b[Bb]eing behind\b|\bsteps behind\b|\bepochs behind\b": "after",
    r"\bLook whether\b": "Check whether",
    r"\b[Gg]o on with\b|\bgoes on with\b": "continue, resume",
    r"\bbegun with\b": "started with",
    r"\btake[ns]? for classes\b": "treat as",
    r"\bof an? \w+ of (?:ours|its own)\b": "our, its own",
    r"\bstands? in no\b|\bwhat was aimed at\b": "target; appears in no ...",
    r"\b(?:says|tells) (?:how|what|which|on|so)\b": "states, explains, reports",
}
SHOWN = {
    "echo",
    "prose",
    "info",
    "warning",
    "error",
    "print",
    "UsageError",
    "BadParameter",
    "fail",
    "option",
    "argument",
}


def _text(node: ast.expr) -> str:
    """The fixed part of a string, with X for what is put in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "X" for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.IfExp):
        return f"{_text(node.body)} | {_text(node.orelse)}"
    return ""


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def shown_in(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of what users read of a module: arguments of errors, of click, of logging and print; help."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = _name(node.func)
            if (
                name in SHOWN
                or name.endswith("Error")
                or name in ("Note", "Interrupted", "report", "say", "add_argument")
            ):
                given = [*node.args, *(word.value for word in node.keywords if word.arg in (None, "help", "hint"))]
            else:
                given = [word.value for word in node.keywords if word.arg == "help"]
            yield from ((one.lineno, _text(one)) for one in given if _text(one))
        elif isinstance(node, ast.FunctionDef) and any("command" in ast.dump(one) for one in node.decorator_list):
            yield node.lineno, ast.get_docstring(node) or ""


def faults(text: str) -> list[str]:
    joined = " ".join(text.split())
    return [f"{found[0]!r}: {better}" for form, better in FORMS.items() for found in re.finditer(form, joined)]


@pytest.mark.parametrize("package", PACKAGES)
def test_what_programs_show_is_plain_english(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {fault}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, text in shown_in(path.read_text(encoding="utf-8"))
        for fault in faults(text)
    ]
    assert not found, "\n".join(found)


def test_documents_are_plain_english() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {fault}"
        for path in DOCUMENTS
        # The log records the past, the glossary names the forms.
        if path.name not in ("CHANGELOG.md", "CONTRIBUTING.md")
        for fault in faults(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('raise ConfigError(f"{path} is no run folder", "Check the path")', "is no run"),
        ('click.option("--download", help="May TFDS download?")', "May TFDS"),
        ('log.warning("omit it" if x else "leave it away")', "leave it away"),
        ('parser.add_argument("--beside", help="a model to time in turns")', "in turns"),
    ],
)
def test_a_form_is_found_wherever_it_is_shown(source: str, fault: str) -> None:
    assert [one for _, text in shown_in(source) for one in faults(text) if fault in one]


@pytest.mark.parametrize(
    "text", ["it is no longer there", "there is no such model", "the price is no higher", "a leftover", "behind ssh"]
)
def test_plain_english_passes(text: str) -> None:
    assert not faults(text)
