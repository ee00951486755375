"""The page of `report` in a real browser, headless Chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Harness = Callable[..., int]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")

# The page is shown in a frame of the width that is asked for, and measured from outside: it allows no scripts itself.
FRAME = """<!doctype html><iframe src="page.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe><script>
onload = () => {
    const document = window.frames[0].document;
    window.document.body.textContent = JSON.stringify(EXPRESSION);
};
</script>"""


def measured(page: Path, expression: str, width: int, scheme: str = "light") -> Any:
    """What a JavaScript expression finds in the page, `document`. Fails where the browser complains of the page."""
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.replace("WIDTH", str(width)).replace("EXPRESSION", expression), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --allow-file-access-from-files --enable-logging=stderr --dump-dom"
    scheme_flag = f"--blink-settings=preferredColorScheme={['dark', 'light'].index(scheme)}"
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [CHROMIUM, *flags.split(), scheme_flag, profile, "--window-size=1600,1000", frame.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r"<body>(.*)</body>", done.stdout, re.S)
    assert found, done.stdout + done.stderr
    return json.loads(html.unescape(found[1]))


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

# All that can be unfolded.
OPEN = "document.querySelectorAll('details').forEach(d => d.open = true)"

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


# Texts of a figure that lie over each other.
OVERLAPS = """[...document.querySelectorAll("svg")].filter(s => getComputedStyle(s).display != "none").flatMap(s => {
    const boxes = [...s.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
    const found = [];
    for (const [i, [a, p]] of boxes.entries()) for (const [b, q] of boxes.slice(i + 1))
        if (Math.min(p.right, q.right) - Math.max(p.left, q.left) > 2
            && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 4) found.push([a, b]);
    return found;
})"""


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_its_window_and_draws_its_figures(page: Path, width: int) -> None:
    size = "document.documentElement.scrollWidth, document.body.scrollWidth"
    *widths, drawn, figures, overlaps = measured(
        page, f"[{size}, document.querySelectorAll('figure').length, {FIGURES}, {OVERLAPS}]", width
    )
    assert max(widths) <= width
    assert len(figures) == drawn >= 5
    for figure in figures:
        assert figure["width"] > 300 and figure["height"] > 100 and figure["texts"] > 2, figure
        assert figure["size"] >= 11, figure
        assert figure["outside"] == 0, figure
    assert overlaps == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_the_contrast_that_wcag_aa_asks_for(page: Path, scheme: str) -> None:
    paper, found = measured(
        page, f"[{OPEN}, getComputedStyle(document.body).backgroundColor, {CONTRAST}].slice(1)", 1000, scheme
    )
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}[scheme]
    assert len(found) > 200
    assert found[0][0] >= 4.5, found[:5]


def test_a_narrow_window_shows_quality_and_cost_and_what_scrolls_is_reached_with_the_keyboard(page: Path) -> None:
    ends = """[...document.querySelectorAll("thead th")].filter(h => ["quality", "cost"].includes(h.textContent))
        .map(h => h.getBoundingClientRect().right)"""
    unreachable = """[...document.querySelectorAll("*")].filter(e =>
        /auto|scroll/.test(getComputedStyle(e).overflowX + getComputedStyle(e).overflowY)
        && (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)
        && e.tabIndex < 0 && e != document.scrollingElement).map(e => e.outerHTML.slice(0, 80))"""
    reachable = """document.querySelectorAll('.scroll[tabindex="0"][aria-label]').length"""
    broken = "[...document.querySelectorAll('td small')].filter(e => e.offsetHeight > 24).map(e => e.textContent)"
    bold = "[...document.querySelectorAll('td')].filter(e => getComputedStyle(e).fontWeight > 400).length"
    found, lost, reached, *wrong = measured(
        page, f"[{OPEN}, {ends}, {unreachable}, {reachable}, {broken}, {bold}].slice(1)", 400
    )
    assert wrong == [[], 0], "an interval is one line, and bold is for what is best, in the cell"
    assert len(found) == 4 and max(found) <= 400  # of two runs
    assert lost == [] and reached >= 4
