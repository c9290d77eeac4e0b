"""README and pages show what results/ holds, and nothing else."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from bssl_tf.files import read_records
from bssl_tf.teachers.teacher import open_teacher
from bssl_tf.workflows.import_teacher import import_teacher
from docs import tables, tutorial
from tests.docs.conftest import ROOT
from tests.docs.markdown import PAGES, inline_code, name_of, prose


@pytest.mark.parametrize("path", tables.DOCUMENTS, ids=name_of)
def test_tables_are_those_of_the_records(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert tables.render(text) == text, "run `make tables`"


def test_every_table_stands_somewhere() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in tables.DOCUMENTS)
    assert set(re.findall(r"<!-- table: ([a-z0-9-]+) -->", text)) == set(tables.TABLES)


def test_a_changed_figure_is_found() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    changed = re.sub(r"(<!-- table: demo -->.*?)(\d)\.(\d)", r"\1\2.9\3", text, count=1, flags=re.DOTALL)
    assert changed != text and tables.render(changed) == text


def test_the_tutorial_shows_the_commands_that_were_recorded() -> None:
    text = (ROOT / "docs" / "pages" / "tutorial.md").read_text(encoding="utf-8")
    steps = {step.name: step.command for step in tutorial.STEPS}
    shown = re.findall(r"<!-- printed: ([a-z0-9-]+) -->", text)
    assert len(shown) > len(steps) // 2
    for record in read_records(tables.RESULTS / "tutorial.jsonl"):
        assert steps[record["step"]] == record["command"]
    for name in shown:
        assert f"\n{steps[name]}\n" in text, f"the tutorial lacks the command of {name}"


def test_a_transcript_without_record_is_an_error() -> None:
    with pytest.raises(KeyError, match="absent"):
        tables.render("<!-- printed: absent -->\n<!-- end: absent -->")


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=name_of)
def test_figures_stand_in_no_other_table(path: Path) -> None:
    rest = re.sub(r"<!-- table: .*?<!-- end: [a-z0-9-]+ -->", "", prose(path), flags=re.DOTALL)
    rows = [line for line in rest.splitlines() if line.startswith("|")]
    assert not [row for row in rows if re.search(r"\| *[*_]*\d+\.\d+[*_]* *(?:±[^|]*|/[^|]*)?\|", row)]


def test_places_that_contributors_are_sent_to_exist() -> None:
    named = [code for code in inline_code(ROOT / "CONTRIBUTING.md") if re.fullmatch(r"[\w.-]+/[\w./-]*", code)]
    places = [name for name in named if "NAME" not in name]
    rooms = (ROOT, ROOT / "converters" / "bssl_tf_converters")
    assert len(places) > 30
    assert [name for name in places if not any((room / name).exists() for room in rooms)] == []


def test_the_teacher_that_is_kept_is_the_one_that_was_measured(tmp_path: Path) -> None:
    file = tables.RESULTS / "cifar10-teacher.pth"
    trained = [one for one in read_records(tables.RESULTS / "cifar10-teacher-training.jsonl") if "sha256" in one]
    assert [one["sha256"] for one in trained] == [hashlib.sha256(file.read_bytes()).hexdigest()]
    made = import_teacher("float_resnet", file, out=tmp_path / "teacher", image_size=32)
    assert open_teacher(str(made.path)).labels_used is None
    [measured] = read_records(tables.RESULTS / "cifar10-teacher.jsonl")
    assert measured["labels_used"] is None and measured["rows"][0]["scores"]["linear-probe"][0] >= 75
