"""Plain English where users read: help, errors, what is logged or printed, pages and READMEs.

Each form below came back again and again; the glossary in CONTRIBUTING.md has what to write in its place.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.generated import PARTS

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "bssl_tf",
    "converters/bssl_tf_converters",
    "deploy/bssl_tf_deploy",
    "deploy/benchmarks",
    "deploy/native",
    "deploy/android",
)
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs" / "pages").rglob("*.md"),
    *(ROOT / "docs" / "pages").rglob("*.svg"),
    *(path for package in PACKAGES for path in (ROOT / package).rglob("*.md") if "bundle" not in path.parts),
    ROOT / "deploy" / "README.md",
    *(ROOT / "bssl_tf" / "reports" / "templates").glob("*.jinja"),
    *(ROOT / "bssl_tf" / "settings" / "presets").glob("*.toml"),
]
# A form -> what to write.
FORMS = {
    r"(?<![Tt]here )\bis no (?!longer\b|more\b|\w+er\b|matter\b|way\b|need\b|such\b)\w+": "is not a ...",
    r"\bare no (?!longer\b|more\b|\w+ to\b)\w+ of\b": "are not ...",
    r"\bleave (?:it|them|that|this|one|both) (?:away|out)\b|\bleft away\b|\bleave away\b": "omit",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\banew\b": "again, restart",
    r"\bwithout a word\b": "no message",
    r"\b[Ss]o (?:many|long|much|few)\b(?! that\b| as\b)": "at most N, for SECONDS",
    r"\bMay TFDS\b|\bmay TFDS download\b": "Allow TFDS to download",
    r"\bat its highest\b": "peak",
    r"\b(?:epochs|images|pixels|points?|records?|steps|channels|lines?|files?|one|number|m[sJ]) an? "
    r"(?:stage|step|channel|line|class|epoch|image|inference|side|command|run|row)\b(?! of)": "per",
    r"\bsame best class\b": "top-1 agreement",
    r"\b(?:in|by) turns\b|\bin (?:its|their) turns?\b": "interleaved",
    r"\bWho wins\b": "Comparison",
    r"\bHow fast\b": "Benchmarks",
    r"\bWhere things are\b": "Layout",
    r"(?<!\brecords )(?<!\bnothing )\b[Bb]ehind\b(?! (?:ssh|a proxy)\b)": "after, of",
    r"\bLook whether\b": "Check whether",
    r"\b(?:[Gg]o|[Gg]oes|[Gg]oing|[Ww]ent) on\b": "continue, resume",
    r"\b[Bb]egun\b": "started",
    r"\b[Nn]obody\b": "nothing, not ... by anyone",
    r"\btake[ns]? for classes\b": "treat as",
    r"\bof an? \w+ of (?:ours|its own)\b": "our, its own",
    r"\bstands? in no\b|\bwhat was aimed at\b": "target; appears in no ...",
    r"\b(?:says?|said|saying|tells|told|telling|asks?|asked|asking)\b|\btell (?!apart\b|the \w+ apart\b)\w+": (
        "reports, states, runs, requests, prompts"
    ),
}


def _text(node: ast.expr) -> str:
    """The fixed part of a string, with X for what is put in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "X" for part in node.values)
    return ""


def shown_in(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each string of a module that users may read, so all but the docstrings."""
    tree = ast.parse(source)
    hidden = set[ast.AST]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr):
                hidden.add(first.value)
        if isinstance(node, ast.JoinedStr):
            hidden.update(part for part in node.values if isinstance(part, ast.Constant))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr) and node not in hidden and _text(node):
            yield node.lineno, _text(node)


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


@pytest.mark.parametrize("part", PARTS)
def test_help_and_reference_are_plain_english(part: str) -> None:
    """Help, settings, the manifest and the Python API: they come from docstrings, which these pages show."""
    found = faults(PARTS[part]())
    assert not found, "\n".join(found)


def test_documents_are_plain_english() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {fault}"
        for path in DOCUMENTS
        if path.name != "CHANGELOG.md"  # it records the past
        # The glossary of CONTRIBUTING.md names the forms.
        for fault in faults(path.read_text(encoding="utf-8").partition("\n## Words\n")[0])
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('raise ConfigError(f"{path} is no run folder", "Check the path")', "is no run"),
        ('click.option("--download", help="May TFDS download?")', "May TFDS"),
        ('log.warning("omit it" if x else "leave it away")', "leave it away"),
        ('parser.add_argument("--beside", help="a model to time in turns")', "in turns"),
        ('Finding("runtime", False, f"{name} says that it is missing")', "says"),
        ('_NEXT = {"locked": "Enter the PIN that the phone asks for"}', "asks"),
        ('def export():\n    "Exports."\n    return [f"the count that {name} was told"]', "told"),
    ],
)
def test_a_form_is_found_wherever_it_is_shown(source: str, fault: str) -> None:
    assert [one for _, text in shown_in(source) for one in faults(text) if fault in one]


@pytest.mark.parametrize(
    "text",
    [
        "the run is no student",
        "leave it out",
        "two steps behind",
        "cut it behind the pool",
        "mend the file",
        "start anew",
        "fails without a word",
        "at most so many images",
        "wait so long",
        "too few, so few",
        "May TFDS download?",
        "Adam's learning rate at its highest",
        "epochs a stage",
        "3 mJ an image",
        "the same best class",
        "timed in turns",
        "each runs in its turn",
        "the program says what it did",
        "doctor tells which package is missing",
        "doctor can tell which package is missing",
        "export asks for labels",
        "as the header said",
        "Who wins",
        "How fast",
        "Where things are",
        "the run goes on where it was",
        "a run that was begun here",
        "nobody reads them",
        "it stands in no table",
    ],
)
def test_each_form_of_the_glossary_is_found(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize(
    "text",
    [
        "you can tell the classes apart",
        "the records behind it",
        "leaves nothing behind",
        "so many that it fails",
        "it is no longer there",
        "there is no such model",
        "the price is no higher",
        "a leftover",
        "behind ssh",
    ],
)
def test_plain_english_passes(text: str) -> None:
    assert not faults(text)
