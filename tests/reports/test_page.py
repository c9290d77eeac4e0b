"""The page stands alone, says everything twice (plot and table), and never takes text for markup."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bssl_tf.evaluation.records import RAW_PIXELS, STUDENT, untrained
from bssl_tf.reports import figures
from bssl_tf.reports.document import (
    Column,
    Document,
    Figure,
    Grid,
    Group,
    Headline,
    Key,
    KeyFigure,
    Picture,
    Section,
    Table,
)
from bssl_tf.reports.latency import layer_name
from bssl_tf.reports.page import _laid_out, as_html
from bssl_tf.reports.runs import read_runs
from bssl_tf.reports.sections import make_document
from bssl_tf_deploy.record import OperatorTime, Profile, Run
from tests.reports.run_folders import answers, evaluation, rich_benchmark, student_run, teacher_run, with_network

VOID = {"meta", "link", "img", "br"}
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """The elements, attributes, ids and texts of a page; fails where tags do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: Counter[tuple[str, str]] = Counter()
        self.values: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        for name, value in attrs:
            self.attributes[tag, name] += 1
            self.values.append((name, value or ""))
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs")
    runs = [student_run(folder / "one"), student_run(folder / "two"), teacher_run(folder / "teacher")]
    return as_html(make_document(read_runs(runs), "bssl-tf report RUN", "made"))


def test_every_plot_has_words_numbers_and_conditions(page: str) -> None:
    found = Page(page)
    assert found.elements["figure"] == found.elements["svg"] == found.elements["figcaption"] > 10
    alternatives = [value for name, value in found.values if name == "aria-label"]
    assert found.attributes["div", "aria-label"] >= found.elements["svg"] and all(alternatives)
    for plot in re.findall(r"<figure>.*?</figure>", page, flags=re.DOTALL):
        assert "<table>" in plot and 'class="conditions"' in plot
        assert re.search(r"n = \d|n = \(", plot), plot[:200]
        # What is counted in a model does not depend on the machine.
        counted = "counted, not timed" in plot or "Bytes of model.tflite" in plot
        assert counted or "a board, 4 cores" in plot or "Cortex-A72, 4 cores" in plot
        assert re.search(r"bssl-tf (report|evaluate|bench|export|inspect) |settings: ", plot)


def test_it_needs_nothing_else(page: str) -> None:
    found = Page(page)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & found.elements.keys()
    assert found.elements["link"] == 1  # an empty icon, so that no browser asks for one
    for name, value in found.values:
        if name.startswith("xmlns"):
            continue
        assert not name.startswith("on")
        assert "//" not in value, (name, value)
        if name in ("href", "src", "xlink:href"):
            assert value.startswith(("#", "data:"))
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    assert "default-src 'none'" in page


def test_ids_are_there_once_and_links_lead_somewhere(page: str) -> None:
    found = Page(page)
    assert len(set(found.ids)) == len(found.ids)
    for name, value in found.values:
        if name in ("href", "xlink:href") and value.startswith("#"):
            assert value[1:] in found.ids
    for place in re.findall(r"url\(#([^)]*)\)", page):
        assert place in found.ids


def document(name: str) -> Document:
    """A document in which every text that may come from a file is `name`."""
    table = Table(name, name, (Column(name, name), Column("b")), ((name, name), (name, 1.5)))
    picture = Picture(b"png", name, name, good=True)
    plot = Figure(
        "plot", name, name, name, name,
        lambda: figures.dots("plot", [name, name], [figures.Series(0, [1, 2], [0, 1])], "x"),
        table, (Key(name, 0), Key(name, 1)),
    )  # fmt: skip
    grid = Grid(name, name, (name,), ((picture,),))
    group = Group(name, (plot, table, grid), (name,))
    headline = Headline(name, name, "good", (KeyFigure(name, name, name),), table)
    return Document(name, name, name, (Section(name, name, (headline, group, table), (name,)),))


@settings(max_examples=25, deadline=None)
@given(st.text(st.sampled_from("<>&\"'`$_\\{}^%;#=/\n\0\ud800 ab🐈") | st.characters(), min_size=1, max_size=30))
@example(HOSTILE)
@example("' onload='x' \" onload=\"x\" a")
@example("$\\frac{$ $x^$ --> ]]> &lt;b&gt; </svg></style><b>")
def test_no_text_becomes_markup(name: str) -> None:
    """Whatever the names, the page has the elements and attributes that it has with a harmless one."""
    # A backtick begins a command in sentences of ours; what is between two of them is still text.
    harmless = Page(as_html(document("x" * len(name))))
    page = Page(as_html(document(name)))
    # How many ticks an axis has depends on how wide the names beside it are.
    drawn = ("code", "g", "use", "path", "text")
    same = Counter({tag: n for tag, n in page.elements.items() if tag not in drawn})
    assert same == Counter({tag: n for tag, n in harmless.elements.items() if tag not in drawn})
    assert page.elements.keys() - {"code"} == harmless.elements.keys() - {"code"}
    assert page.attributes.keys() == harmless.attributes.keys() and not {"script", "b", "i"} & page.elements.keys()


def test_hostile_names_in_a_run_stay_text(tmp_path: Path) -> None:
    odd = {HOSTILE: answers()[STUDENT], untrained(HOSTILE): answers()[RAW_PIXELS]}
    names = tuple(HOSTILE + str(number) for number in range(3))
    record = with_network(rich_benchmark(), "binary", kernel=HOSTILE)
    [timed] = record.runs
    profile = Profile("runtime", (OperatorTime(HOSTILE, HOSTILE, HOSTILE, p50_ms=1.0),))
    networks = {"binary": timed.networks["binary"], HOSTILE: timed.networks["float32"]}
    record = dataclasses.replace(
        record,
        command=HOSTILE,
        machine=dataclasses.replace(record.machine, processor=HOSTILE),
        runs=(Run(timed.threads, networks, (profile,)),),
    )
    run = student_run(
        tmp_path / "a<b>&'c",
        name=HOSTILE,
        evaluation=evaluation(odd, data=HOSTILE, class_names=names),
        answers=odd,
        epochs=[{"epoch": 1, "stage": HOSTILE, HOSTILE: 1.0}, {"epoch": 2, "stage": "$x^$", HOSTILE: 2.0}],
        benchmarks=[record],
    )
    page = as_html(make_document(read_runs([run]), HOSTILE, HOSTILE))
    found = Page(page)
    assert not {"script", "img", "b"} & found.elements.keys()
    assert not any(name.startswith("on") for name, _ in found.values)
    assert sum("<script>alert(1)</script>" in text for text in found.texts) > 10


def test_the_same_numbers_give_the_same_plot_and_xml_is_sound() -> None:
    series = [figures.Series(0, [1, 2, 3], [1.0, 2.0, 0.5]), figures.Series(1, [1, 2, 3], [2.0, float("nan"), 1.5])]
    once, again = (figures.curves("a", series, "x", "y", borders=[1.5]) for _ in range(2))
    assert once == again
    root = ElementTree.fromstring(once)
    words = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"x", "y"} <= words  # text is text, for readers of screens and for searching
    assert "var(--series-0)" in once and "var(--series-1)" in once and "currentColor" in once
    for colour in (*figures.PALETTE, "#010203", "#a1a2a3", "#000000", "#ffffff"):
        assert colour not in once


def test_all_kinds_of_plots_draw_extremes() -> None:
    for values in ([0.0], [1e-9, 1e9], [5.0] * 3):
        series = [figures.Series(style, values, values) for style in (0, 7, 50)]
        rows = [f"row {place}" for place in range(3)]
        drawn = [
            figures.curves("a", series, "x", "y"),
            figures.matrix("m", np.array([[0.0, 100.0], [50.0, 50.0]]), ["a", "b"]),
            figures.dots(
                "o", rows[: len(values)], [figures.Series(0, values, range(len(values)), [(v, v) for v in values])], "x"
            ),
            figures.scatter("b", series, "x", "y", references=values[:1], log=min(values) > 0),
            figures.shares("c", series, "x"),
            figures.cloud("d", series),
            figures.bars("e", rows[: len(values)], [0] * len(values), values, "x"),
            figures.ranges("f", rows[: len(values)], [(None, value, None, value) for value in values], "x"),
        ]
        for svg in drawn:
            ElementTree.fromstring(svg)


def test_an_empirical_distribution_is_drawn_at_its_steps() -> None:
    """The path goes through (value, share of values up to it) for every value, however they are ordered."""
    values = list(np.random.default_rng(0).permutation(np.arange(1.0, 11.0)))
    svg = figures.shares("a", [figures.Series(0, values, ())], "x")
    line = max(re.findall(r'<path d="([^"]*)"', svg), key=len)
    points = np.array([[float(x), float(y)] for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", line)])
    heights = np.unique(points[:, 1])
    assert len(heights) == 10 and np.ptp(np.diff(heights)) < 1e-3
    assert len(np.unique(points[:, 0])) == 10


def test_numbers_stand_to_the_right_and_so_does_what_stands_for_none() -> None:
    columns = (Column("run"), *(Column(name) for name in "abcdef"))
    rows = (("x", 1.5, None, "7", "same", 3, None), ("x", None, 2, "8", "same", 4, "word"))
    laid = _laid_out(Table("t", "t", columns, rows))
    # A run that all rows are of heads none of them.
    assert laid.shared == "run x; d same"
    assert laid.head == [("a", ""), ("b", "number"), ("c", ""), ("e", "number"), ("f", "")]
    assert laid.body == [
        ("1.5", [("-", "number"), ("7", ""), ("3", "number"), ("-", "")]),
        ("-", [("2", "number"), ("8", ""), ("4", "number"), ("word", "")]),
    ]


@pytest.mark.parametrize(
    ("layer", "expected"), [("conv_1", "conv_1"), ("", "ADD"), ("StatefulPartitionedCall:0", "ADD")]
)
def test_a_bar_is_not_called_after_the_converters_own_call(layer: str, expected: str) -> None:
    assert layer_name(layer, "ADD") == expected
