"""The parts of the documentation that are made from the code when it is built, so that they cannot go stale.

A line `<!-- generated: NAME -->` in a page becomes what the function of that name in `PARTS` returns. mkdocs calls
`on_page_markdown` (https://www.mkdocs.org/user-guide/plugins/#events). Nothing here loads TensorFlow.
"""

from __future__ import annotations

import ast
import dataclasses
import html
import inspect
import os
import re
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from bssl_tf import settings as config
from bssl_tf.cli.main import COMMANDS, cli
from bssl_tf.methods import registry
from bssl_tf_deploy import load, manifest
from bssl_tf_deploy.predictor import Predictor
from bssl_tf_deploy.tasks import classification, detection, multilabel

_ROOT = Path(__file__).resolve().parents[1]
_MARK = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.MULTILINE)
_DEVICE_COMMANDS = ("run", "embed", "learn", "forget", "verify", "serve", "bench", "measure")
_METHODS = ("verify_golden", "classify", "answers", "outputs", "run_tensor", "check_against")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page with its generated parts put in. Raises `KeyError` for a name that is not in `PARTS`."""
    return _MARK.sub(lambda found: PARTS[found[1]](), markdown)


def commands() -> str:
    """Every command of `bssl-tf`: usage, description, options."""
    context = click.Context(cli, info_name="bssl-tf", **cli.context_settings)
    general = [f"## bssl-tf\n\n{_paragraphs(cli.help)}\n\n{_options(cli, context)}"]
    return "\n\n".join(general + [_command(name, context) for name in COMMANDS])


def _command(name: str, parent: click.Context) -> str:
    command = cli.get_command(parent, name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join(["bssl-tf", name, *command.collect_usage_pieces(context)])
    return f"## bssl-tf {name}\n\n```text\n{usage}\n```\n\n{_paragraphs(command.help)}\n\n{_options(command, context)}"


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(map(_paragraph, inspect.cleandoc(text or "").split("\n\n")))


def _paragraph(text: str) -> str:
    # Click joins the lines of a paragraph, as Markdown does, unless it begins with a backspace.
    kept = text.removeprefix("\b\n")
    return _escape(text) if kept == text else f"```text\n{kept}\n```"


def _options(command: click.Command, context: click.Context) -> str:
    options = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    rows = [record for option in options if (record := option.get_help_record(context))]
    return _table(("option", "meaning"), [(f"`{names}`", _escape(meaning)) for names, meaning in rows])


def device_commands() -> str:
    """The help of `bssl-tf-deploy`."""
    return "\n\n".join(_device_help(*words) for words in ((), *((name,) for name in _DEVICE_COMMANDS)))


def _device_help(*words: str) -> str:
    program = "from bssl_tf_deploy.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "--help"],
        capture_output=True,
        text=True,
        check=True,
        # argparse wraps its lines at this.
        env=os.environ | {"COLUMNS": "100"},
    )
    return f"### {' '.join(['bssl-tf-deploy', *words])}\n\n```text\n{done.stdout.rstrip()}\n```"


def python_api() -> str:
    """What a program on a device calls, as the code describes it."""
    described = [load, *(getattr(Predictor, name) for name in _METHODS)]
    return "\n\n".join(map(_described, described))


def python_host() -> str:
    """What `import bssl_tf` offers, from the text of its modules, which load TensorFlow; `load` is on another page."""
    tree = ast.parse((_ROOT / "bssl_tf" / "__init__.pyi").read_text(encoding="utf-8"))
    nodes = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    offered = [node for node in nodes if str(node.module).startswith("bssl_tf.")]
    return "\n\n".join(_defined(str(node.module), alias.name) for node in offered for alias in node.names)


def _defined(module: str, name: str) -> str:
    """A function, or a class with its methods."""
    path = _ROOT / f"{module.replace('.', '/')}.py"
    kinds = (ast.FunctionDef, ast.ClassDef)
    body = ast.parse(path.read_text(encoding="utf-8")).body
    [node] = [one for one in body if isinstance(one, kinds) and one.name == name]
    if isinstance(node, ast.FunctionDef):
        text = _signature(node)
    else:
        methods = [one for one in node.body if isinstance(one, ast.FunctionDef) and not one.name.startswith("_")]
        text = "\n".join(f"{name}.{_signature(one)}".replace("self, ", "").replace("self)", ")") for one in methods)
    return f"### {name}\n\n```text\n{text}\n\n{ast.get_docstring(node)}\n```"


def _signature(node: ast.FunctionDef) -> str:
    given = ast.unparse(node.args)
    text = f"{node.name}({given}) -> {ast.unparse(node.returns) if node.returns else 'None'}"
    if len(text) <= 100:
        return text
    parts = re.split(r", (?=[\w*]+(?:: |,|$))", given)
    return f"{node.name}(\n" + "".join(f"    {part},\n" for part in parts) + text[text.rindex(") -> ") :]


def _described(function: Callable[..., Any]) -> str:
    name = function.__qualname__.replace("Predictor.", "predictor.")
    text = f"{name}{inspect.signature(function)}".replace("(self, ", "(").replace("(self)", "()")
    return f"### {name}\n\n```text\n{text}\n\n{inspect.getdoc(function)}\n```"


def settings() -> str:
    """Every setting of config.toml, of `bssl-tf pretrain` first."""
    student, teacher, tuned = config.PretrainConfig(), config.TeacherConfig(), config.FinetuneConfig()
    parts = ["## bssl-tf pretrain", _setting_table(student, ""), *_sections(student, "pretrain")]
    parts += ["## bssl-tf teacher", _setting_table(teacher, "")]
    parts += ["Sections that are not here are those of `bssl-tf pretrain`.", *_sections(teacher, "teacher", student)]
    parts += ["## bssl-tf finetune", _setting_table(tuned, "")]
    parts += ["Sections that are not here are those of `bssl-tf pretrain`.", *_sections(tuned, "finetune", student)]
    parts += ["## Methods", "A run has the table of its own method alone.", *map(_method, registry.BUILT_IN)]
    return "\n\n".join(parts)


def _method(name: str) -> str:
    """A method's table, and what it logs."""
    method = registry.find(name)
    values = method.settings()
    parts = [f"### [{name}]"]
    if dataclasses.fields(values):
        parts += [_summary(method.settings), _setting_table(values, f"{name}.")]
    else:
        parts.append("It has no settings.")
    if method.logs:
        logged = [(f"`{key}`", _escape(meaning)) for key, meaning in method.logs.items()]
        parts += ["In `metrics.jsonl`, beside `loss`:", _table(("key", "meaning"), logged)]
    return "\n\n".join(parts)


def _sections(values: Any, command: str, known: Any = None) -> Iterator[str]:
    """The tables below the top, without those that `known` has with the same defaults."""
    for field in dataclasses.fields(values):
        section = getattr(values, field.name)
        if dataclasses.is_dataclass(section) and section != getattr(known, field.name, None):
            yield f"### [{field.name}] of {command}"
            yield _summary(type(section))
            yield _setting_table(section, f"{field.name}.")


def _setting_table(values: Any, prefix: str) -> str:
    meanings = _attributes(type(values))
    rows = []
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if not dataclasses.is_dataclass(value):
            rows.append((f"`{prefix}{field.name}`", f"`{_toml(value)}`", _escape(meanings[field.name])))
    return _table(("setting", "default", "meaning"), rows)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def bundle_manifest() -> str:
    """Every field of a bundle's manifest.json."""
    kinds = dict.fromkeys(_dataclasses(manifest.Manifest))
    table = dict.fromkeys(_dataclasses(classification.Table))
    return "\n\n".join(
        [
            f"This version reads and writes format {manifest.FORMAT}.",
            *map(_fields, kinds),
            "The `table` of the task `classification`:",
            *map(_fields, table),
            "The `table` of the task `multilabel`:",
            *map(_fields, dict.fromkeys(_dataclasses(multilabel.Table))),
            "The `table` of the task `detection`:",
            *map(_fields, dict.fromkeys(_dataclasses(detection.Table))),
        ]
    )


def _dataclasses(kind: Any) -> Iterator[Any]:
    """`kind`, and what its fields hold."""
    yield kind
    for hint in typing.get_type_hints(kind).values():
        for part in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(part):
                yield from _dataclasses(part)


def _fields(kind: Any) -> str:
    meanings = _attributes(kind)
    rows = [
        (f"`{name}`", f"`{_type_name(hint)}`", _escape(meanings.get(name, "")))
        for name, hint in typing.get_type_hints(kind).items()
    ]
    head = ("field", "type", "meaning")
    # Some say all there is to say in their first sentence.
    table = _table(head, rows) if meanings else _table(head[:2], [row[:2] for row in rows])
    return f"#### {kind.__name__}\n\n{_summary(kind)}\n\n{table}"


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join("null" if part is type(None) else _type_name(part) for part in typing.get_args(hint))
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return f"list of {_type_name(parts[0])}"
    if origin is dict:
        return f"object of {_type_name(parts[1])}"
    return str(hint.__name__)


def checks() -> str:
    """The list of checks, which a test keeps the same as the code."""
    text = (_ROOT / "converters/bssl_tf_converters/lce/checks/README.md").read_text(encoding="utf-8")
    return text.partition("\n")[2].strip()


def presets() -> str:
    """The presets that come with the package, and the comment at the top of each."""
    parts = []
    for name in config.presets():
        lines = (_ROOT / f"bssl_tf/settings/presets/{name}.toml").read_text(encoding="utf-8").splitlines()
        head = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
        about = "\n".join(line.removeprefix("#").removeprefix(" ") for line in head)
        parts.append(f"### {name}\n\n```text\n{about}\n```")
    return "\n\n".join(parts)


def _summary(kind: type) -> str:
    """A docstring without its list of attributes."""
    return _escape(re.split(r"\n\s*Attributes:", inspect.getdoc(kind) or "")[0].strip())


def _attributes(kind: type) -> dict[str, str]:
    """Name -> meaning, out of a docstring's `Attributes:`."""
    _, _, listed = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", listed, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    # A bar would end the cell, also between backticks.
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in [" | ".join(head), " | ".join("---" for _ in head), *lines])


def _escape(text: str) -> str:
    """Text that is not Markdown; what stands between backticks already stays as it is."""
    parts = text.split("`")
    # Markdown knows no backslash in front of < and >.
    parts[::2] = [re.sub(r"([*\[\]])", r"\\\1", html.escape(part, quote=False)) for part in parts[::2]]
    return "`".join(parts)


PARTS: dict[str, Callable[[], str]] = {
    "bundle-manifest": bundle_manifest,
    "checks": checks,
    "commands": commands,
    "device-commands": device_commands,
    "presets": presets,
    "python-api": python_api,
    "python-host": python_host,
    "settings": settings,
}
