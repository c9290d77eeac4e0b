"""The generated parts say everything; the hand-written ones name what is there, and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from bssl_tf.cli.main import COMMANDS, cli
from bssl_tf.methods import registry
from bssl_tf.settings import FinetuneConfig, PretrainConfig, TeacherConfig
from bssl_tf_deploy.manifest import Manifest
from docs import generated
from tests.docs.conftest import ROOT

FILES = (ROOT / "docs/pages/reference/files.md").read_text(encoding="utf-8")


def rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables by their first cell, without backticks."""
    lines = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in text.splitlines() if line.startswith("|")]
    return {cells[0].strip().strip("`"): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_every_option_is_in_the_reference() -> None:
    sections = dict(re.findall(r"^## bssl-tf ([\w-]+)\n(.*?)(?=^## |\Z)", generated.commands(), re.M | re.S))
    assert list(sections) == list(COMMANDS)
    context = click.Context(cli)
    for name, section in sections.items():
        command = cli.get_command(context, name)
        assert command is not None and command.help
        assert command.help.split()[:4] == section.partition("```\n\n")[2].split()[:4]
        said = " ".join(rows(section))
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[0] in said, f"{name} {parameter.opts[0]}"


def leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


def test_every_setting_has_its_default_and_a_meaning() -> None:
    student, _, others = generated.settings().partition("## bssl-tf teacher")
    table = rows(student)
    assert {key: table[key][0] for key, _ in leaves(PretrainConfig())} == {
        key: f"`{generated._toml(value)}`" for key, value in leaves(PretrainConfig())
    }
    assert all(len(meaning) > 5 for key, (_, meaning) in table.items() if key != "---")
    teacher, _, tuned = others.partition("## Methods")[0].partition("## bssl-tf finetune")
    for text, kind in ((teacher, TeacherConfig), (tuned, FinetuneConfig)):
        own = rows(text)
        for key, value in leaves(kind()):
            assert (own.get(key) or table[key])[0] == f"`{generated._toml(value)}`"


def test_every_setting_and_every_logged_number_of_a_method_has_its_meaning() -> None:
    text = generated.settings().partition("## Methods")[2]
    for name in registry.BUILT_IN:
        section = re.split(r"^### ", text.partition(f"### [{name}]\n")[2], flags=re.M)[0]
        method = registry.find(name)
        table = rows(section)
        assert {key for key in table if key.startswith(f"{name}.")} == {
            f"{name}.{key}" for key, _ in leaves(method.settings())
        }
        assert set(method.logs) <= set(table)


def test_every_field_of_a_manifest_is_in_the_reference() -> None:
    text = generated.bundle_manifest()
    for kind in generated._dataclasses(Manifest):
        section = re.split(r"^#### ", text.partition(f"#### {kind.__name__}\n")[2], flags=re.M)[0]
        assert set(rows(section)) - {"field", "---"} == {field.name for field in dataclasses.fields(kind)}
    assert "[]" not in text and "typing" not in text


def test_the_python_api_is_what_the_package_offers() -> None:
    text = generated.python_api()
    assert "load(bundle" in text and "predictor.classify(images" in text and "self" not in text


def test_environment_variables_are_those_of_the_code() -> None:
    files = [
        ROOT / "Makefile",
        *(file for room in ("bssl_tf", "converters", "deploy") for file in (ROOT / room).rglob("*.py")),
    ]
    in_code = {name for file in files for name in re.findall(r"\bBSSL_TF_[A-Z]+\b", file.read_text(encoding="utf-8"))}
    assert set(re.findall(r"^\| `(BSSL_TF_[A-Z]+)`", FILES, re.MULTILINE)) == in_code


def test_files_of_folders_are_those_of_the_code() -> None:
    for place, section in (
        ("bssl_tf/engine/run_folder.py", "Run folder"),
        ("deploy/bssl_tf_deploy/bundle.py", "Bundle"),
    ):
        listed = ast.get_docstring(ast.parse((ROOT / place).read_text(encoding="utf-8"))) or ""
        names = re.findall(r"^ {4,6}([a-z][\w.*/]+)(?= )", listed, re.MULTILINE)
        assert len(names) > 4
        said = FILES.partition(f"## {section}\n")[2].partition("\n## ")[0]
        for name in names:
            assert name.split("/")[0] in said, name


def test_records_are_those_in_results() -> None:
    said = set(re.findall(r"`([\w-]+\.jsonl)`", FILES.partition("In the sources' `results/`")[2].partition("\n\n")[0]))
    assert said == {path.name for path in Path(ROOT, "results").glob("*.jsonl")}
