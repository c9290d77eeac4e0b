"""A report for terminals and programs: text, markdown, CSV, JSON. All print the same tables."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

from bssl_tf.reports.document import Cell, Column, Document, Table
from bssl_tf_deploy.text import printable, spreadsheet_cell

_MARKDOWN = re.compile(r"([\\`*\[\]<>|&])")


def as_text(document: Document) -> str:
    """Aligned columns."""
    blocks = [document.title]
    for table in document.tables():
        rows = [[printable(cell) for cell in row] for row in _shown(table)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        blocks.append("\n".join([printable(table.title), "", *lines]))
    blocks += _rest(document, [f"- {printable(line)}" for line in document.missing()])
    return "\n\n".join(blocks) + "\n"


def as_markdown(document: Document) -> str:
    """Tables as GitHub reads them; text out of files is escaped."""
    blocks = [f"# {_escaped(document.title)}"]
    for table in document.tables():
        head, *rows = [[_escaped(cell) for cell in row] for row in _shown(table)]
        lines = [head, ["---"] * len(head), *rows]
        blocks.append("\n".join([f"## {_escaped(table.title)}", "", *(f"| {' | '.join(line)} |" for line in lines)]))
    missing = [f"- {_escaped(line)}" for line in document.missing()]
    blocks += _rest(document, missing, heading="## ", escape=_escaped)
    return "\n\n".join(blocks) + "\n"


def as_csv(document: Document) -> str:
    """One tidy table, a cell a line: table, row, column, unit, value."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("table", "row", "column", "unit", "value"))
    for table in document.tables():
        for number, row in enumerate(table.rows, start=1):
            for column, cell in zip(table.columns, row, strict=True):
                if cell is not None:
                    writer.writerow((table.name, number, column.name, column.unit, _for_spreadsheets(cell)))
    return file.getvalue()


def as_json(document: Document) -> str:
    """`{title, command, made, tables: {name: [row, ...]}, missing: [...]}`; a row maps `name` or `name (unit)`."""
    tables: dict[str, Any] = {
        table.name: [dict(zip((column.title for column in table.columns), row, strict=True)) for row in table.rows]
        for table in document.tables()
    }
    content = {
        **{"title": document.title, "command": document.command, "made": document.made},
        **{"tables": tables, "missing": document.missing()},
    }
    return json.dumps(content, indent=2) + "\n"


FORMATS = {"table": as_text, "markdown": as_markdown, "csv": as_csv, "json": as_json}


def cells(table: Table) -> tuple[list[Column], list[list[str]]]:
    """The columns that hold something, and the rows as a person reads them."""
    kept = [
        place
        for place in range(len(table.columns))
        if place == 0 or any(row[place] not in (None, "") for row in table.rows)
    ]
    columns = [table.columns[place] for place in kept]
    return columns, [[table.columns[place].show(row[place]) for place in kept] for row in table.rows]


def _shown(table: Table) -> list[list[str]]:
    columns, rows = cells(table)
    lines = [[column.title for column in columns], *rows]
    return [list(line) for line in zip(*lines, strict=True)] if table.turned else lines


def _rest(document: Document, missing: list[str], heading: str = "", escape: Any = printable) -> list[str]:
    blocks = [f"{heading}Not there\n\n" + "\n".join(missing)] if missing else []
    return [*blocks, f"{escape(document.made)}\nCommand: {escape(document.command)}"]


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", printable(text))


def _for_spreadsheets(cell: Cell) -> Cell:
    return spreadsheet_cell(cell) if isinstance(cell, str) else cell
