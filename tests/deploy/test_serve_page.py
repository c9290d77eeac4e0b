"""The server's page in a real browser, with the browser's own test pattern as a camera."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bssl_tf_deploy import conditions
from bssl_tf_deploy.bundle import read_bundle, write_bundle
from bssl_tf_deploy.predictor import Predictor
from tests.conftest import require_or_skip
from tests.deploy import bundles, test_detection
from tests.deploy.test_serve import Slow, in_thread
from tests.reports.browser import Tab, find_browser, tab

# Who clicks on the button is the test.
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
ROWS = "[...document.querySelectorAll('#found tr')].map(row => [...row.cells].map(cell => cell.textContent))"
SAID = "document.getElementById('say').textContent"
# How much of the canvas has the colour of a frame: the first label's, and none in a white picture.
FRAMED = """
(() => { const {width, height} = view, pixels = pen.getImageData(0, 0, width, height).data; let count = 0;
  for (let at = 0; at < pixels.length; at += 4) count += Math.min(pixels[at], pixels[at + 1], pixels[at + 2]) < 200;
  return [width, height, count]; })()
"""


@pytest.fixture(scope="module")
def opened() -> Iterator[Tab]:
    require_or_skip(find_browser() is not None, "no Chromium is installed, so the page is not seen in a browser")
    with tab(*CAMERA) as made:
        yield made


@pytest.fixture
def browser(opened: Tab) -> Tab:
    """What tests before did is forgotten."""
    opened.complaints.clear()
    opened.requests.clear()
    return opened


def wait(browser: Tab, expression: str, until: Callable[[Any], object]) -> Any:
    """The value of an expression when it is as it should be."""
    end = time.monotonic() + 60
    while not until(value := browser.evaluate(expression)):
        assert time.monotonic() < end, (value, browser.evaluate(SAID), browser.complaints)
        time.sleep(0.1)
    return value


def choose(browser: Tab, file: Path) -> None:
    """What a person does in the browser's dialogue for files."""
    found = browser.call("Runtime.evaluate", expression="document.getElementById('file')")
    browser.call("DOM.setFileInputFiles", files=[str(file)], objectId=found["result"]["objectId"])


@pytest.fixture
def classifier(tmp_path: Path) -> Predictor:
    return Predictor(read_bundle(bundles.write(tmp_path / "bundle")), Slow())


def test_a_camera_is_classified_live(
    browser: Tab, classifier: Predictor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(conditions, "state", lambda: {"temperature_c": 61.5, "throttled": ["throttled now"]})
    with in_thread(classifier) as port:
        browser.open(f"http://127.0.0.1:{port}/", 390)
        wait(browser, "document.getElementById('board').textContent",
             lambda text: text == "classification, board at 62 °C, throttled now")  # fmt: skip
        browser.evaluate("document.getElementById('camera').click()")
        rows = wait(browser, ROWS, lambda rows: len(rows) == 3)
        assert {label for label, _ in rows} == set(bundles.LABELS)
        assert all(score.endswith(" %") for _, score in rows)
        said = wait(browser, SAID, lambda text: text.startswith("Network "))
        assert " ms, with transfer " in said
        calls: Slow = classifier._interpreter  # type: ignore[assignment]
        before = calls.calls
        wait(browser, "1", lambda _: calls.calls > before + 3)
        assert browser.evaluate("view.width") > 300
        assert browser.evaluate("document.documentElement.scrollWidth") <= 390
        browser.evaluate("document.getElementById('camera').click()")
        assert browser.evaluate("document.getElementById('camera').textContent") == "Start camera"
    assert browser.complaints == []
    assert {url.split("/")[2] for url in browser.requests if url.startswith("http")} == {f"127.0.0.1:{port}"}


def test_boxes_are_drawn_into_an_upload(browser: Tab, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    outputs = [rng.normal(size=(2, *shape)).astype(np.float32) for shape in test_detection.SHAPES.values()]
    inputs = rng.random((2, test_detection.SIZE, test_detection.SIZE, 3)).astype(np.float32)
    write_bundle(tmp_path / "bundle", test_detection.manifest(), b"model", [inputs], outputs, ["a", "b"])
    predictor = Predictor(read_bundle(tmp_path / "bundle"), test_detection.Fixed())
    # Turned by its Exif: boxes are where people see the objects.
    path, exif = tmp_path / "wide.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (320, 640), "white").save(path, exif=exif)
    with in_thread(predictor) as port:
        browser.open(f"http://127.0.0.1:{port}/", 1280)
        choose(browser, path)
        rows = wait(browser, ROWS, lambda rows: len(rows) == 2)
        assert [label for label, _ in rows] == list(test_detection.LABELS)
        # The test's own reading of pixels is complained of.
        assert browser.complaints == []
        width, height, framed = browser.evaluate(FRAMED)
        assert (width, height) == (640, 320) and framed > 500
        [[first, _]] = predictor.detect(path)
        inside = f"[...pen.getImageData({round(first.left)}, {round(first.top + 20)}, 1, 1).data].slice(0, 3)"
        outside = f"[...pen.getImageData({round(first.left) - 9}, {round(first.top + 20)}, 1, 1).data].slice(0, 3)"
        assert min(browser.evaluate(inside)) < 200 and browser.evaluate(outside) == [255, 255, 255]
        # What is not an image is said, and the page goes on.
        (tmp_path / "bad.jpg").write_bytes(b"no image")
        choose(browser, tmp_path / "bad.jpg")
        wait(browser, SAID, lambda text: text.startswith("error[image]: "))
        choose(browser, path)
        wait(browser, SAID, lambda text: text.startswith("Network "))


def test_the_page_takes_a_token_and_keeps_it_from_addresses(
    browser: Tab, classifier: Predictor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BSSL_TF_TOKEN", "correct-horse-battery")
    Image.new("RGB", (64, 64), "white").save(tmp_path / "a.png")
    with in_thread(classifier) as port:
        browser.open(f"http://127.0.0.1:{port}/", 1280)
        wait(browser, "document.getElementById('lock').hidden", lambda hidden: hidden is False)
        assert "token is missing or wrong" in wait(browser, "document.getElementById('board').textContent", bool)
        browser.evaluate(
            "(() => { const field = document.getElementById('token'); field.value = 'correct-horse-battery';"
            " field.dispatchEvent(new Event('change')); })()"
        )
        wait(browser, "document.getElementById('board').textContent", lambda text: text.startswith("classification"))
        choose(browser, tmp_path / "a.png")
        wait(browser, ROWS, lambda rows: len(rows) == 3)
        # Once more, as after a pause.
        browser.open(f"http://127.0.0.1:{port}/", 1280)
        wait(browser, "document.getElementById('board').textContent", lambda text: text.startswith("classification"))
    assert not [url for url in browser.requests if "battery" in url]
    assert browser.complaints and all("401" in complaint for complaint in browser.complaints)


def test_its_policy_runs_no_other_script(browser: Tab, classifier: Predictor) -> None:
    with in_thread(classifier) as port:
        browser.open(f"http://127.0.0.1:{port}/", 1280)
        browser.evaluate(
            "(() => { const made = document.createElement('script'); made.textContent = \"document.title = 'run'\";"
            " document.body.append(made); const shown = new Image(); shown.src = 'http://localhost/a.png'; })()"
        )
        assert browser.evaluate("document.title") == "bssl-tf"
        wait(browser, "1", lambda _: sum("Content Security Policy" in one for one in browser.complaints) >= 2)
