"""All formats hold the same cells."""

from __future__ import annotations

import csv
import io
import json
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from bssl_tf.reports.document import Column, Document, Section, Table
from bssl_tf.reports.formats import as_csv, as_json, as_markdown, as_text
from bssl_tf_deploy.text import printable

SPECIAL = ("=1+1", "+1", "-1", "@a", "a | b", "a\\|b", "`a`", "[a](b)", "<b>", "*a*", "a&lt;", "\r", "\n", "\x1b[31m")
NAMES = st.sampled_from(SPECIAL) | st.text(max_size=12)
CELLS = st.none() | NAMES | st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    width = draw(st.integers(1, 4))
    columns = tuple(Column(f"c{place}", draw(st.sampled_from(("", "ms")))) for place in range(width))
    rows = draw(st.lists(st.tuples(*[CELLS] * width), min_size=1, max_size=4))
    return Table("things", draw(st.text(max_size=8)), columns, tuple(rows), turned=draw(st.booleans()))


def of(table: Table) -> Document:
    return Document("title", "command", "made", (Section("section", "", (table,), ("this is missing.",)),))


@settings(deadline=None)
@given(tables())
def test_json_gives_every_cell_back(table: Table) -> None:
    content = json.loads(as_json(of(table)))
    assert content["missing"] == ["this is missing."]
    titles = [column.title for column in table.columns]
    assert [[row[title] for title in titles] for row in content["tables"]["things"]] == [
        list(row) for row in table.rows
    ]


@settings(deadline=None)
@given(tables())
def test_csv_gives_every_cell_back_and_none_is_a_formula(table: Table) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(of(table)), newline="")))
    cells = {(int(line["row"]), line["column"]): line["value"] for line in lines}
    expected = {}
    for number, row in enumerate(table.rows, start=1):
        for column, cell in zip(table.columns, row, strict=True):
            if cell is not None:
                expected[number, column.name] = cell
    assert cells.keys() == expected.keys()
    for key, cell in expected.items():
        if isinstance(cell, str):
            assert cells[key].removeprefix("'") == printable(cell).removeprefix("'")
            assert not cells[key].startswith(("=", "+", "-", "@"))
        else:
            assert float(cells[key]) == float(cell)


def shown(table: Table) -> list[list[str]]:
    """What a person should see, made here anew: columns without any content are left out, but for the first."""
    kept = [i for i in range(len(table.columns)) if i == 0 or any(row[i] not in (None, "") for row in table.rows)]
    lines = [[table.columns[i].title for i in kept]]
    for row in table.rows:
        cells = []
        for i in kept:
            cell = row[i]
            cells.append("-" if cell in (None, "") else f"{cell:.4g}" if isinstance(cell, float) else printable(cell))
        lines.append(cells)
    return [list(line) for line in zip(*lines, strict=True)] if table.turned else lines


@given(tables())
@settings(max_examples=200, deadline=None)
def test_markdown_has_the_same_cells_and_no_markup_from_them(table: Table) -> None:
    block = as_markdown(of(table)).split("\n\n")[2].splitlines()
    rows = []
    for line in block:
        assert line.startswith("| ") and line.endswith(" |")
        cells = re.split(r" \| ", line[2:-2])
        rows.append([re.sub(r"\\(.)", r"\1", cell) for cell in cells])
        assert not re.search(r"(?<!\\)(?:\\\\)*[<\[`*]", line)
    head, rule, *rest = rows
    assert set(rule) == {"---"}
    assert [head, *rest] == shown(table)


@settings(deadline=None)
@given(tables())
def test_text_is_aligned_and_has_nothing_that_steers_a_terminal(table: Table) -> None:
    text = as_text(of(table))
    assert all(line.isprintable() for line in text.splitlines() if line)
    for row in shown(table):
        assert any(all(cell.strip() in line for cell in row) for line in text.split("\n"))
