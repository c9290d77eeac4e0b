"""The built pages: nothing leads nowhere, nothing comes from elsewhere, nobody is left out."""

from __future__ import annotations

import functools
import http.server
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from docs import generated
from tests.conftest import require_or_skip
from tests.docs.conftest import ROOT
from tests.docs.html_pages import Page
from tests.docs.markdown import DOCUMENTS, PAGES, READMES, anchors, links, name_of
from tests.reports.browser import Tab, find_browser, tab

FIGURES = sorted((ROOT / "docs" / "pages" / "figures").glob("*.svg"))


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_is_built(pages: dict[Path, Page], site: Path) -> None:
    assert [path.relative_to(site).with_suffix(".md") for path in pages] == [
        path.relative_to(ROOT / "docs" / "pages") for path in PAGES
    ]
    for path in pages:
        assert "generated:" not in path.read_text(encoding="utf-8")


def test_ranges_are_shown_without_backslashes(site: Path) -> None:
    text = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert "1&lt;=x&lt;=64" in text or "x&gt;=1" in text
    assert not re.search(r"\\(?:&lt;|&gt;|[<>\[\]*])", text)


def test_every_link_leads_somewhere(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        assert len(page.links) > len(pages)
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme == "https" and "." in parts.netloc, link
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target in pages, f"{path.name}: {link}"
            assert not parts.fragment or unquote(parts.fragment) in pages[target].ids, f"{path.name}: {link}"


def test_every_page_is_reached_from_every_page(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        assert {(path.parent / urlsplit(link).path).resolve() for link in page.links if "://" not in link} >= set(pages)


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page], site: Path) -> None:
    for path, page in pages.items():
        assert page.loaded
        for resource in page.loaded:
            assert resource == "data:," or (path.parent / resource).is_file(), f"{path.name}: {resource}"
    for file in (*site.rglob("*.css"), *site.rglob("*.svg")):
        text = file.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"//\w|@import|@font-face|<script|<image|url\((?!#)", text), file.name


def test_pictures_say_in_words_what_they_show(pages: dict[Path, Page]) -> None:
    assert not [picture for page in pages.values() for picture in page.wordless]


def test_figures_have_one_style_and_are_all_shown(pages: dict[Path, Page], site: Path) -> None:
    assert len(FIGURES) == 7
    texts = [file.read_text(encoding="utf-8") for file in FIGURES]
    assert len({text[text.index("<style>") : text.index("</defs>")] for text in texts}) == 1
    assert "prefers-color-scheme: dark" in texts[0] and all("<title>" in text and "<desc>" in text for text in texts)
    shown = {(path.parent / name).resolve().name for path, page in pages.items() for name in page.loaded}
    assert {file.name for file in FIGURES} <= shown


@pytest.mark.parametrize("path", READMES, ids=name_of)
def test_links_of_documents_beside_the_code_lead_somewhere(path: Path) -> None:
    for link in links(path):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https" and "." in parts.netloc, link
            continue
        target = (path.parent / parts.path).resolve() if parts.path else path
        assert target.exists() and target.is_relative_to(ROOT), link
        assert not parts.fragment or parts.fragment in anchors(target), link


def test_documents_name_no_unknown_part() -> None:
    assert any("<!-- generated: " in path.read_text(encoding="utf-8") for path in DOCUMENTS)
    with pytest.raises(KeyError, match="nonsense"):
        generated.on_page_markdown("<!-- generated: nonsense -->")


@pytest.fixture(scope="module")
def browser() -> Iterator[Tab]:
    require_or_skip(find_browser() is not None, "no Chromium is installed, so the site is not seen in a browser")
    with tab() as opened:
        yield opened


@pytest.mark.parametrize(("width", "dark"), [(360, False), (1280, True)])
def test_a_browser_shows_pages_from_the_disk(
    browser: Tab, pages: dict[Path, Page], site: Path, width: int, dark: bool
) -> None:
    for path in pages:
        browser.requests.clear()
        browser.open(path, width, dark=dark)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width, path.name
        assert browser.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)"), path.name
        assert all(request.startswith((site.as_uri(), "data:")) for request in browser.requests)
        lightness = browser.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
        assert (lightness < 100) is dark
    assert browser.complaints == []


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_server_s_pages_can_be_searched(browser: Tab, site: Path) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        browser.requests.clear()
        browser.call("Page.navigate", url=f"http://127.0.0.1:{server.server_port}/reference/files.html")
        found = []
        for _ in range(100):
            # What is typed before the index is there is lost.
            browser.evaluate(
                "(query => query && (query.value = 'popcount', query.dispatchEvent(new Event('keyup'))))"
                "(document.getElementById('mkdocs-search-query'))"
            )
            found = browser.evaluate("[...document.querySelectorAll('#mkdocs-search-results a')].map(one => one.href)")
            if found:
                break
            time.sleep(0.1)
        assert any("how-it-works.html#a-binary-convolution" in link for link in found)
        assert all(request.startswith(f"http://127.0.0.1:{server.server_port}/") for request in browser.requests[1:])
    finally:
        server.shutdown()
        server.server_close()
