"""The page of `report` in a real browser: Chromium, spoken to over its debugging pipe, with no driver between."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Harness = Callable[..., int]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One page of a headless Chromium; a message is JSON that ends with a zero byte, in on descriptor 3, out on 4."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        child_in, self._to = os.pipe()
        self._from, child_out = os.pipe()
        flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe"
        # The shell puts the two descriptors where Chromium looks for them.
        script = f'exec "$0" {flags} --user-data-dir="$1" 3<&{child_in} 4>&{child_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, CHROMIUM, str(profile)],
            pass_fds=(child_in, child_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_in)
        os.close(child_out)
        self._buffer, self._number, self._session = b"", 0, ""
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Ask for something and wait for the answer; what the console says meanwhile is kept in `complaints`."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def wait_for(self, event: str) -> None:
        while self._read().get("method") != event:
            pass

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            read = os.read(self._from, 1 << 20)
            assert read, "Chromium has ended"
            self._buffer += read
        first, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        if message.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(message["params"]))
        return message

    def open(self, page: Path, width: int, scheme: str = "light") -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=page.resolve().as_uri())
        self.wait_for("Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(plain_run: Path, hostile_run: Path, tmp_path_factory: pytest.TempPathFactory, harness: Harness) -> Path:
    """Everything that a page may have: two runs, one of them with a frontier, one of three hops with hostile names."""
    out = tmp_path_factory.mktemp("page") / "page.html"
    assert harness("report", plain_run, hostile_run, "--out", out) == 0
    return out


FIGURES = """
[...document.querySelectorAll("svg")].filter(s => getComputedStyle(s).display != "none").map(s => {
    const frame = s.getBoundingClientRect();
    const texts = [...s.querySelectorAll("text")].map(t => t.getBoundingClientRect());
    return {
        name: s.querySelector("title").textContent, width: frame.width, height: frame.height, texts: texts.length,
        size: Math.min(...[...s.querySelectorAll("text")].map(t => parseFloat(getComputedStyle(t).fontSize)))
            * frame.width / s.viewBox.baseVal.width,
        outside: texts.filter(t => t.left < frame.left - 2 || t.right > frame.right + 2 || t.top < frame.top - 2
            || t.bottom > frame.bottom + 2).length,
    };
})
"""

# WCAG 2.2, 1.4.3: the contrast of each text with the nearest background behind it that is opaque.
CONTRAST = """
(() => {
    const numbers = text => text.match(/[\\d.]+/g).map(Number);
    const light = c => { const s = c / 255; return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4; };
    const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
    const behind = e => {
        for (; e; e = e.parentElement) {
            const found = numbers(getComputedStyle(e).backgroundColor);
            if (found.length == 3 || found[3] == 1) return found;
        }
        return [255, 255, 255];
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
    while (walker.nextNode()) {
        const parent = walker.currentNode.parentElement;
        if (!walker.currentNode.textContent.trim() || !parent.getClientRects().length) continue;
        const style = getComputedStyle(parent), svg = parent.closest("svg");
        if (svg && parent.tagName != "text") continue;
        const a = luminance(numbers(svg ? style.fill : style.color)), b = luminance(behind(parent));
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        found.push([ratio, walker.currentNode.textContent.trim().slice(0, 40)]);
    }
    return found.sort((x, y) => x[0] - y[0]);
})()
"""


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_its_window_and_draws_its_figures(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.body.scrollWidth") <= width
    figures = browser.evaluate(FIGURES)
    assert len(figures) == browser.evaluate("document.querySelectorAll('figure').length") >= 5
    for figure in figures:
        assert figure["width"] > 300 and figure["height"] > 100 and figure["texts"] > 2, figure
        assert figure["size"] >= 11, figure
        assert figure["outside"] == 0, figure
    assert not browser.complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_the_contrast_that_wcag_aa_asks_for(browser: Browser, page: Path, scheme: str) -> None:
    browser.open(page, 1000, scheme)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = browser.evaluate(CONTRAST)
    assert len(found) > 200
    assert found[0][0] >= 4.5, found[:5]


def test_what_scrolls_can_be_reached_with_the_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page, 400)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    unreachable = """[...document.querySelectorAll("*")].filter(e =>
        /auto|scroll/.test(getComputedStyle(e).overflowX + getComputedStyle(e).overflowY)
        && (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)
        && e.tabIndex < 0 && e != document.scrollingElement).map(e => e.outerHTML.slice(0, 80))"""
    assert browser.evaluate(unreachable) == []
    assert browser.evaluate("document.querySelectorAll('.scroll[tabindex=\"0\"][aria-label]').length") >= 4


def test_labels_of_the_plane_do_not_overlap(browser: Browser, page: Path) -> None:
    overlaps = """[...document.querySelectorAll("svg")].filter(s => getComputedStyle(s).display != "none").map(s => {
        const boxes = [...s.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
        const found = [];
        for (const [i, [a, p]] of boxes.entries()) for (const [b, q] of boxes.slice(i + 1))
            if (Math.min(p.right, q.right) - Math.max(p.left, q.left) > 2
                && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 4) found.push([a, b]);
        return [s.querySelector("title").textContent, found];
    }).filter(([, found]) => found.length)"""
    for width in (400, 1400):
        browser.open(page, width)
        assert browser.evaluate(overlaps) == []


def test_a_narrow_window_shows_quality_and_cost_without_scrolling(browser: Browser, page: Path) -> None:
    browser.open(page, 400)
    ends = """[...document.querySelectorAll("thead th")].filter(h => ["quality", "cost"].includes(h.textContent))
        .map(h => h.getBoundingClientRect().right)"""
    found = browser.evaluate(ends)
    assert len(found) == 4 and max(found) <= 400  # of two runs
