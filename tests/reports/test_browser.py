"""A real browser shows the page: no network, no complaint, nothing wider than the screen, readable in both schemes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bssl_tf.reports.document import Document, Grid, Picture, Section
from bssl_tf.reports.page import as_html
from bssl_tf.reports.runs import read_runs
from bssl_tf.reports.sections import make_document
from tests.conftest import require_or_skip
from tests.reports.browser import Tab, find_browser, tab
from tests.reports.run_folders import student_run, teacher_run

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d4944415478da63fccff0bf1e000606"
    "027fa8a8d4da0000000049454e44ae426082"
)
OPEN_ALL = "document.querySelectorAll('details').forEach(one => one.open = true)"
# What may be wider than the screen is in a box that scrolls.
TOO_WIDE = """
[...document.querySelectorAll('body *')].filter(one => !one.closest('.scroll table') && !one.closest('svg *') &&
  one.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(one => one.outerHTML.slice(0, 120))
"""
CONTRASTS = """
(() => {
  const parts = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = colour => { const [r, g, b] = parts(colour).map(c => { c /= 255;
    return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = one => { for (; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor; if (!/, 0\\)$/.test(colour)) return colour; } };
  const texts = 'h1, p, figcaption, .conditions, td, th, summary, a, .good, .bad, .missing li, svg text';
  return [...document.querySelectorAll(texts)].map(
    one => { const style = getComputedStyle(one), colour = one.closest('svg') ? style.fill : style.color;
      const below = one.closest('svg') ? one.closest('figure') : one;
      const pair = [light(colour), light(behind(below))].sort((a, b) => b - a);
      return [(pair[0] + 0.05) / (pair[1] + 0.05), one.tagName + ' ' + one.className]; });
})()
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_or_skip(find_browser() is not None, "no Chromium is installed, so the page is not seen in a browser")
    folder = tmp_path_factory.mktemp("page")
    long_name = "a-run-with-a-name-that-goes-on-and-on-without-a-place-to-break-it-0123456789"
    runs = [student_run(folder / "one"), student_run(folder / long_name), teacher_run(folder / "teacher")]
    made = make_document(read_runs(runs), "bssl-tf report RUN", "made")
    row = tuple(Picture(PNG, "a pixel", "class", good) for good in (None, True, False, True, True, False))
    pictures = Section("Pictures", "", (Grid("grid", "n = 2", ("x",) * 6, (row, row)),))
    path = folder / "report.html"
    path.write_text(
        as_html(Document(made.title, made.command, made.made, (*made.sections, pictures))), encoding="utf-8"
    )
    return path


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Tab]:
    with tab() as opened:
        yield opened


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_it_fits_the_screen_and_is_quiet(browser: Tab, page: Path, width: int) -> None:
    browser.open(page, width)
    browser.evaluate(OPEN_ALL)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(TOO_WIDE) == []
    assert browser.evaluate("document.querySelectorAll('figure svg').length") > 10
    assert browser.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    # A plot has the size of what is beside it, and its letters can be read.
    assert browser.evaluate("[...document.querySelectorAll('figure svg')].every(one => one.clientWidth > 250)")
    assert browser.evaluate("Math.min(...[...document.querySelectorAll('figure svg text')].map("
                            "one => one.getBoundingClientRect().height))") >= (7 if width < 390 else 9)  # fmt: skip
    assert browser.complaints == []
    assert {url.split(":")[0] for url in browser.requests} <= {"file", "data"}
    assert [url for url in browser.requests if url.startswith("file")] == [page.resolve().as_uri()] * (
        sum(url.startswith("file") for url in browser.requests)
    )


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_stands_out_from_what_is_behind_it(browser: Tab, page: Path, dark: bool) -> None:
    """4.5 to 1 is what WCAG 2 asks of text of this size."""
    browser.open(page, 1280, dark=dark)
    browser.evaluate(OPEN_ALL)
    found = browser.evaluate(CONTRASTS)
    assert len(found) > 100
    faint = sorted((round(ratio, 2), what) for ratio, what in found if ratio < 4.5)
    assert faint == []


def test_the_browser_would_refuse_a_script(browser: Tab, page: Path, tmp_path: Path) -> None:
    """The page's own policy holds even if escaping failed; and the tests above do hear complaints."""
    spoilt = tmp_path / "spoilt.html"
    text = page.read_text(encoding="utf-8")
    spoilt.write_text(text.replace("</main>", "<script>document.title = 'run'</script></main>"), encoding="utf-8")
    heard = len(browser.complaints)
    browser.open(spoilt, 1280)
    assert browser.evaluate("document.title") != "run"
    assert any("Content Security Policy" in complaint for complaint in browser.complaints[heard:])
    del browser.complaints[heard:]
