"""One page of HTML that needs nothing else: no script, no font, no network. Text out of files is always escaped.

The page is a template, which escapes whatever it is given; what is markup already (plots, the style sheet, sentences
with commands) is made here, from escaped text.
"""

from __future__ import annotations

import base64
import functools
import importlib.resources
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bssl_tf.reports import figures
from bssl_tf.reports.document import Block, Cell, Document, Figure, Grid, Group, Headline, Section, Table
from bssl_tf.reports.formats import cells
from bssl_tf_deploy.text import printable

# More runs than these are folded away, to be opened one by one.
_OPEN_GROUPS = 2
_MANY_ROWS = 12
# A table with more columns than fit a page gives those that are the same for all rows in a sentence.
_FITTING_COLUMNS = 6
_LIGHT = ("#0072b2", "#c35500", "#008a64", "#b0568c", "#a87400", "#2b8cc4")
_DARK = ("#4aa8e0", "#f08a45", "#2fc79a", "#dd97c0", "#e8b13a", "#8fd0f5")


def as_html(document: Document) -> str:
    """The whole page."""
    return _environment().get_template("page.html.jinja").render(document=document)


@functools.cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("bssl_tf.reports"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    made.globals |= {"many_rows": _MANY_ROWS, "colours": len(figures.PALETTE), "style": _style()}
    made.filters |= {
        "base64": lambda content: base64.b64encode(content).decode("ascii"),
        "few_groups": _few_groups,
        "in_rows": _in_rows,
        "laid_out": _laid_out,
        "marker": lambda style: figures.marker(style)[1],
        "prose": _prose,
        "svg": lambda figure: Markup(figure.draw()),
    }
    return made


def _shown(value: Any) -> Any:
    """Whatever a template prints: markup as it is, the rest without what would break a page; it is escaped next."""
    return value if isinstance(value, Markup) else printable(value)


def _style() -> Markup:
    def palette(colours: tuple[str, ...]) -> str:
        return "".join(f"--series-{number}:{colour};" for number, colour in enumerate(colours))

    light = (
        "--ink:#1b1f24; --quiet:#59636e; --page:#ffffff; --line:#d5dae0; --soft:#f4f6f8; --good:#00734f; "
        f"--bad:#b04500; {palette(_LIGHT)}"
    )
    dark = (
        "--ink:#e4e8ec; --quiet:#a2acb7; --page:#14181d; --line:#3a434d; --soft:#1e242b; --good:#4fd1a5; "
        f"--bad:#f09a5c; {palette(_DARK)}"
    )
    series = "".join(f".s{number} {{ color: var(--series-{number}); }}\n" for number in range(len(figures.PALETTE)))
    sheet = importlib.resources.files("bssl_tf.reports").joinpath("templates/style.css").read_text(encoding="utf-8")
    return Markup(
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{sheet}{series}"
    )


def _prose(sentence: str) -> Markup:
    """A sentence whose commands stand between backticks."""
    parts = printable(sentence).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )


def _few_groups(section: Section) -> bool:
    return sum(isinstance(block, Group) for block in section.blocks) <= _OPEN_GROUPS


def _in_rows(blocks: Iterable[Block]) -> list[tuple[str, Any]]:
    """Each block with its kind; plots that follow each other are one block, side by side where there is room."""
    kinds = {Table: "table", Grid: "grid", Group: "group", Headline: "headline"}
    rows: list[tuple[str, Any]] = []
    for block in blocks:
        if isinstance(block, Figure):
            if not rows or rows[-1][0] != "figures":
                rows.append(("figures", []))
            rows[-1][1].append(block)
        else:
            rows.append((kinds[type(block)], block))
    return rows


@dataclass(frozen=True)
class _Laid:
    """A table as the page shows it.

    Attributes:
        head: titles of the columns, with the class of each.
        body: for each row its heading, and its cells with the class of each.
        shared: what is the same in all rows, for tables that would not fit otherwise.
    """

    head: list[tuple[str, str]]
    body: list[tuple[str, list[tuple[str, str]]]]
    shared: str


def _laid_out(table: Table) -> _Laid:
    columns, rows = cells(table)
    if table.turned:
        body = [
            (column.title, [(row[place], _width(row[place])) for row in rows])
            for place, column in enumerate(columns)
            if place
        ]
        return _Laid([(columns[0].title, ""), *((row[0], "") for row in rows)], body, "")
    shared: list[int] = []
    if len(rows) > 1 and len(columns) > _FITTING_COLUMNS:
        shared = [place for place in range(len(columns)) if len({row[place] for row in rows}) == 1]
    # The first of what differs heads each row; a run that all rows are of does not.
    first, *kept = [place for place in range(len(columns)) if place not in shared] or [0]
    values = {id(column): [row[place] for row in table.rows] for place, column in enumerate(table.columns)}
    numbers = {place for place in kept if _are_numbers(values[id(columns[place])])}
    return _Laid(
        [(columns[first].title, ""), *((columns[place].title, "number" * (place in numbers)) for place in kept)],
        [
            (row[first], [(row[place], "number" if place in numbers else _width(row[place])) for place in kept])
            for row in rows
        ],
        "; ".join(f"{columns[place].title} {rows[0][place]}" for place in shared),
    )


def _are_numbers(column: Sequence[Cell]) -> bool:
    """Whether a column is set to the right: numbers, and dashes where there is none."""
    return all(isinstance(cell, (int, float)) for cell in column if cell is not None)


def _width(cell: str) -> str:
    return "long" if len(cell) > 24 else ""
