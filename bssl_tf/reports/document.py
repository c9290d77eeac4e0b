"""What a report is made of. Every format prints the same tables; pictures and plots are for the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Cell = str | int | float | None


@dataclass(frozen=True)
class Column:
    """A column's name, its unit ("" for none), and the decimals that people are shown; None for as many as needed."""

    name: str
    unit: str = ""
    digits: int | None = None

    @property
    def title(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def show(self, cell: Cell) -> str:
        """The cell as a person reads it; "-" for nothing."""
        if cell is None or cell == "":
            return "-"
        if isinstance(cell, float):
            return f"{cell:.4g}" if self.digits is None else f"{cell:.{self.digits}f}"
        return str(cell)


@dataclass(frozen=True)
class Table:
    """Rows of equal length; `name` is short, for programs, and `title` is for people.

    `turned` shows rows as columns where a person reads it: few things with many properties.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    turned: bool = False


@dataclass(frozen=True)
class Key:
    """An entry of a legend: what is drawn with the style of this number (see `figures.STYLES`)."""

    label: str
    style: int


@dataclass(frozen=True)
class Figure:
    """A plot with all that it must not travel without.

    Attributes:
        name: letters, digits and hyphens; differs between the figures of a report.
        title: what it shows, in a few words.
        caption: how to read it: units, n, what better looks like.
        alt: what a person who cannot see it is told, in one sentence.
        conditions: machine, versions and command behind the numbers.
        draw: gives the SVG; called by the page only.
        table: the same numbers.
        keys: the legend; none for one series.
    """

    name: str
    title: str
    caption: str
    alt: str
    conditions: str
    draw: Callable[[], str]
    table: Table
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A small PNG or JPEG, what it is of, and the line below it; `good` marks it right or wrong, None neither."""

    content: bytes
    alt: str
    label: str = ""
    good: bool | None = None

    @property
    def kind(self) -> str:
        """Of its file: `jpeg` or `png`."""
        return "jpeg" if self.content.startswith(b"\xff\xd8") else "png"


@dataclass(frozen=True)
class Grid:
    """Rows of pictures under common headings."""

    title: str
    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Picture, ...], ...]


@dataclass(frozen=True)
class KeyFigure:
    """A number that a report opens with: what it is, the number with its unit, and what it holds for."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """What a reader wants to know of a run first.

    Attributes:
        sentence: the verdict.
        next_step: what to do; "" where nothing has to be done.
        tone: `good`, `bad`, or "" for neither.
        figures: accuracy, latency, size.
        table: the same for the formats that have no page.
    """

    sentence: str
    next_step: str
    tone: str
    figures: tuple[KeyFigure, ...]
    table: Table


@dataclass(frozen=True)
class Group:
    """Blocks that belong to one run, under its name."""

    title: str
    blocks: tuple[Table | Figure | Grid | Headline, ...]
    missing: tuple[str, ...] = ()


Block = Table | Figure | Grid | Headline | Group


@dataclass(frozen=True)
class Section:
    """A chapter.

    Attributes:
        missing: what is not there and how to get it, a sentence each.
    """

    title: str
    about: str
    blocks: tuple[Block, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """A report; `command` makes it again, `made` says when and with what."""

    title: str
    command: str
    made: str
    sections: tuple[Section, ...] = field(default=())

    def tables(self) -> list[Table]:
        """Every table that stands on its own, in order, headlines' too: what the formats for programs print."""
        blocks = [block for section in self.sections for block in section.blocks]
        return [
            block.table if isinstance(block, Headline) else block
            for block in blocks
            if isinstance(block, (Table, Headline))
        ]

    def missing(self) -> list[str]:
        """Every sentence about what is missing, in order."""
        said: list[str] = []
        for section in self.sections:
            said += section.missing
            said += [line for block in section.blocks if isinstance(block, Group) for line in block.missing]
        return said


def lacking(names: Sequence[str], what: str) -> tuple[str, ...]:
    """One sentence about all that lack something: "a, b: no bundle."; none where nobody does."""
    return (f"{', '.join(names)}: {what}",) if names else ()


def counted(count: int, thing: str) -> str:
    """`1 bundle`, `2 bundles`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
