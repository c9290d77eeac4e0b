"""What is drawn is seen whole: no mark beyond an axis' end, no numbers that touch."""

from __future__ import annotations

import itertools
import re

import pytest

from bssl_tf.reports import figures


def heights(svg: str, name: str) -> tuple[float, list[float]]:
    """The top edge of the plot, and the marks' places, in points from above."""
    clip = re.search(rf'<clipPath id="{name}-[^"]*">\s*<rect x="[\d.]+" y="([\d.]+)"', svg)
    assert clip is not None
    marks = re.findall(r'<use xlink:href="#[^"]*" x="[\d.]+" y="([\d.]+)" style="fill: var\(--series-0\)', svg)
    return float(clip.group(1)), [float(y) for y in marks]


@pytest.mark.parametrize("values", [[78.4, 78.0, 80.3, 79.5], [50.0, 50.0, 50.0, 50.0], [0.0, 0.0, 0.0, 0.0]])
def test_the_highest_mark_is_not_cut(values: list[float]) -> None:
    top, marks = heights(figures.curves("c", [figures.Series(0, range(1, 5), values)], "epoch", "top-1 (%)"), "c")
    assert len(marks) == 4
    # A mark is 4 points wide.
    assert min(marks) - 2 > top


def test_numbers_under_bars_do_not_touch() -> None:
    layers = [f"stage3_block{place}_and_what_follows_it" for place in range(6)]
    svg = figures.bars("b", layers, [0] * 6, [0.0004 * place for place in range(1, 7)], "milliseconds")
    ticks = [(float(x), said) for x, said in re.findall(r'<text [^>]*x="([\d.]+)"[^>]*>(\d+\.\d+)</text>', svg)]
    assert 3 <= len(ticks) <= 5
    # Points a number, with 6 for each digit of 9.
    assert min(b[0] - a[0] for a, b in itertools.pairwise(ticks)) > 6 * max(len(said) for _, said in ticks)
