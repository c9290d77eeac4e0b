"""One function for each kind of plot, to SVG that stands inside a page.

Text and lines take the page's own colour and series take its palette, so that a plot is readable on a light and on a
dark page. Series differ in marker and dash as well as in colour (Okabe and Ito's, which colour-blind people can tell
apart). Text stays text. Legends are the page's.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bssl_tf_deploy.text import printable

# What stands for the page's colours in a plot -> the page's name for them.
_INK, _GRID = "#010203", "#a1a2a3"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_PAGE_COLOURS = {_INK: "currentColor", _GRID: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(PALETTE)
}
# matplotlib's marker, and the letter that looks like it in a legend.
MARKERS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"), ("X", "✖"))
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1.5, 2)))
_WIDTH = 4.7  # inches; a phone shows it at about its true size
_LONGEST = 34
_NUMBERED = 14  # classes, up to which the cells of a matrix have room for numbers
Axes = Any


@dataclass(frozen=True)
class Series:
    """Points of one colour and marker; `x` and `y` are as long as each other. `style` is what `Key.style` says.

    `spans` are the ends, along x, of each point's interval, for plots that draw them; none, or as many as points.
    """

    style: int
    x: Sequence[float]
    y: Sequence[float]
    spans: Sequence[tuple[float, float]] = ()


def colour(style: int) -> str:
    return PALETTE[style % len(PALETTE)]


def marker(style: int) -> tuple[str, str]:
    # Seven markers and six colours: 42 styles before one comes again.
    return MARKERS[style % len(MARKERS)]


def curves(
    name: str, series: Sequence[Series], x_label: str, y_label: str, *, borders: Sequence[float] = (), zero: bool = True
) -> str:
    """Lines over a common x; `borders` are vertical lines, `zero` puts 0 on the y axis."""

    def draw(axes: Axes) -> None:
        for border in borders:
            axes.axvline(border, color=_GRID, linewidth=1.2, linestyle=(0, (2, 2)))
        for one in series:
            every = max(1, len(one.x) // 15)
            axes.plot(
                one.x, one.y, color=colour(one.style), linestyle=_DASHES[one.style % len(_DASHES)], linewidth=1.6,
                marker=marker(one.style)[0], markersize=4, markevery=every,
            )  # fmt: skip
        if zero:
            low, high = axes.get_ylim()
            low, highest = min(0.0, low), max((max(one.y) for one in series if len(one.y)), default=high)
            # Room for the mark of the highest point, now that the axis is longer than matplotlib made room for.
            axes.set_ylim(low, max(high, highest + 0.05 * (highest - low)))
        axes.ticklabel_format(axis="y", scilimits=(-3, 5))
        if all(value == int(value) for one in series for value in one.x):
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)

    return _svg(name, draw, 2.7)


def dots(
    name: str, rows: Sequence[str], series: Sequence[Series], x_label: str, *, reference: float | None = None
) -> str:
    """Points in rows; `y` of the series are numbers of rows, and `reference` is a vertical line."""

    def draw(axes: Axes) -> None:
        if reference is not None:
            axes.axvline(reference, color=_INK, linewidth=1, linestyle=(0, (2, 2)))
        for place, one in enumerate(series):
            # A little apart, so that equal values do not hide each other.
            y = np.asarray(one.y) + 0.5 * (place / max(len(series) - 1, 1) - 0.5) * (len(series) > 1)
            for (low, high), place_of in zip(one.spans, y, strict=False):
                axes.plot([low, high], [place_of, place_of], color=colour(one.style), linewidth=1.2)
            axes.plot(one.x, y, marker(one.style)[0], color=colour(one.style), markersize=5.5)
        axes.set_yticks(range(len(rows)), [_short(row) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", color=_GRID, linewidth=0.5)
        axes.set_xlabel(x_label)

    return _svg(name, draw, 0.85 + 0.3 * len(rows))


def matrix(name: str, shares: np.ndarray, labels: Sequence[str]) -> str:
    """A square of cells, the darker the larger: shares [K, K] in percent of each row, with numbers where there is room.

    Rows are the true classes and columns the predicted ones.
    """
    count = len(labels)

    def draw(axes: Axes) -> None:
        for row in range(count):
            for column in range(count):
                share = float(shares[row, column])
                # The page's own ink on top of a colour that is let through more or less: readable on light and dark.
                axes.add_patch(_rectangle(column, row, colour(0 if row == column else 1), 0.75 * share / 100))
                if count <= _NUMBERED and share >= 0.5:
                    axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=7)
        axes.set_xlim(-0.5, count - 0.5)
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_xticks(range(count), [_short(label) for label in labels], rotation=90, fontsize=7)
        axes.set_yticks(range(count), [_short(label) for label in labels], fontsize=7)
        axes.set_aspect("equal")
        axes.set_xlabel("taken for")
        axes.set_ylabel("true class")

    # Few classes need no large cells.
    return _svg(name, draw, min(4.6, 1.6 + 0.45 * count))


def _rectangle(column: int, row: int, fill: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=fill, alpha=alpha, edgecolor="none")


def scatter(
    name: str, series: Sequence[Series], x_label: str, y_label: str, *, references: Sequence[float] = (), log: bool
) -> str:
    """Points in a plane; `references` are vertical lines, `log` is for x."""

    def draw(axes: Axes) -> None:
        for reference in references:
            axes.axvline(reference, color=_INK, linewidth=1, linestyle=(0, (2, 2)))
        for one in series:
            # Equal points do not hide each other: those below are larger.
            size = 10 - 5 * one.style / max(len(series), 1)
            axes.plot(one.x, one.y, marker(one.style)[0], color=colour(one.style), markersize=size)
        axes.margins(0.12)
        # Ten points of accuracy at least, or chance looks like a difference.
        low, high = axes.get_ylim()
        middle, half = (low + high) / 2, max(high - low, 10) / 2
        axes.set_ylim(max(0, middle - half), min(101, middle + half))
        if log:
            axes.set_xscale("log")
        else:
            axes.set_xlim(left=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)

    return _svg(name, draw, 3.0)


def shares(name: str, series: Sequence[Series], x_label: str) -> str:
    """Which share of the calls was at most so slow: a step for each call. `x` are the calls; `y` is not used."""

    def draw(axes: Axes) -> None:
        for one in series:
            ordered = np.sort(np.asarray(one.x, float))
            share = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
            axes.step(
                ordered, share, where="post", color=colour(one.style), linestyle=_DASHES[one.style % len(_DASHES)]
            )
        # A few calls that something else held up would leave no room for all others.
        fast = min(float(np.min(one.x)) for one in series)
        slow = max(float(np.quantile(np.asarray(one.x, float), 0.99, method="higher")) for one in series)
        rim = 0.08 * (slow - fast or slow or 1.0)
        axes.set_xlim(fast - rim, slow + rim)
        axes.set_ylim(0, 102)
        axes.set_xlabel(x_label)
        axes.set_ylabel("calls at most this slow (%)")

    return _svg(name, draw, 2.8)


def ranges(name: str, rows: Sequence[str], values: Sequence[Sequence[float | None]], x_label: str) -> str:
    """For each row: fastest to 99 in a hundred as a line, to 90 as a thick one, and a mark at the median.

    Args:
        name: of the figure.
        rows: their names.
        values: for each row the fastest, the median, the 90th and the 99th percentile; None where not known.
        x_label: of the axis.
    """

    def draw(axes: Axes) -> None:
        for place, (low, median, p90, p99) in enumerate(values):
            known = [value for value in (low, median, p90, p99) if value is not None]
            thick = [value for value in (median, p90) if value is not None]
            axes.plot([min(known), max(known)], [place, place], color=colour(0), linewidth=1.2)
            if len(thick) == 2:
                axes.plot(thick, [place, place], color=colour(0), linewidth=5, solid_capstyle="butt")
            if median is not None:
                axes.plot([median], [place], "o", color=colour(1), markersize=6)
        axes.set_yticks(range(len(rows)), [_short(row) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel(x_label)

    return _svg(name, draw, 0.85 + 0.3 * len(rows))


def bars(name: str, rows: Sequence[str], styles: Sequence[int], values: Sequence[float], x_label: str) -> str:
    """A bar for each row, the first on top."""

    def draw(axes: Axes) -> None:
        axes.barh(range(len(rows)), values, color=[colour(style) for style in styles], height=0.75)
        axes.set_yticks(range(len(rows)), [_short(row) for row in rows], fontsize=8)
        # Names of layers leave little room for numbers, which may be long: 0.0005.
        axes.locator_params(axis="x", nbins=4)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(x_label)

    return _svg(name, draw, 0.8 + 0.2 * len(rows))


def cloud(name: str, series: Sequence[Series]) -> str:
    """A map: points without axes, because directions and distances in it have no unit."""

    def draw(axes: Axes) -> None:
        for one in series:
            axes.plot(one.x, one.y, marker(one.style)[0], color=colour(one.style), markersize=3.2, alpha=0.75)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_aspect("equal", "datalim")
        axes.spines[:].set_visible(False)

    return _svg(name, draw, 4.2)


def _short(text: str) -> str:
    """One line that leaves room for the plot: where it is long, its beginning and its end."""
    text = printable(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2 - 1]}…{text[-_LONGEST // 2 :]}"


def _svg(name: str, draw: Callable[[Axes], None], height: float) -> str:
    """What `draw` puts on axes, as an SVG element whose ids begin with `name`."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    settings: dict[Any, Any] = {
        **{"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9, "text.parse_math": False},
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
        **{"axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none"},
    }
    file = io.StringIO()
    # Letters that this machine has no font for are still letters to whoever opens the page.
    with rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        # Inches at the sides: a browser's letters may be wider than those that the layout is made with.
        layout = ConstrainedLayoutEngine(w_pad=0.15)
        figure = Figure(figsize=(_WIDTH, height), layout=layout, facecolor="none")
        draw(figure.subplots())
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # Several plots share a page, and an id may be there once.
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    return re.sub(r'style="[^"]*"', _page_colours, svg)


def _page_colours(style: re.Match[str]) -> str:
    text = style.group()
    for ours, theirs in _PAGE_COLOURS.items():
        text = text.replace(ours, theirs)
    return text
