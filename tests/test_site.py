"""The site: the strict build passes, its navigation has every page, and nothing is fetched from another host."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

import harness

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `mkdocs build --strict` makes it: a link or an anchor that is not there makes it fail."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    out = tmp_path_factory.mktemp("site") / "site"
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(out), strict=True))
    return out


def test_every_page_and_notebook_is_there_and_in_the_navigation(site: Path) -> None:
    navigation = (site / "index.html").read_text(encoding="utf-8")
    for source in [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]:
        page = source.relative_to(ROOT / "docs").with_suffix("").as_posix()
        page = "pages" if page == "README" else page
        assert (site / page / "index.html").is_file(), page
        assert re.search(rf'<a href="{page}/" class="md-nav__link', navigation), f"docs/README.md does not list {page}"


def test_nothing_is_fetched_from_another_host(site: Path) -> None:
    fetched = re.compile(r"""<(script|img|iframe|source|link)\b[^>]*\b(src|href)=["']?(https?:)?//[^>]*>""")
    for page in site.rglob("*.html"):
        assert not fetched.search(page.read_text(encoding="utf-8")), page.relative_to(site)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet.name


def test_the_api_page_has_every_public_name_with_its_parameters(site: Path) -> None:
    page = unescape((site / "reference" / "api" / "index.html").read_text(encoding="utf-8"))
    for name in harness.__all__:
        assert re.search(rf'id="(harness|pools\.errors)\.{name}"', page), name
    assert "<li><code>recording</code>: folder to replay" in re.sub(r"</?p>\s*", "", page)


def test_a_notebook_shows_its_table_and_its_figure(site: Path) -> None:
    page = (site / "notebooks" / "quickstart" / "index.html").read_text(encoding="utf-8")
    assert "<td>0.9491</td>" in page, "the optimum's quality, of a DataFrame"
    assert 'src="data:image/png;base64,' in page and "<style scoped>" not in page


def test_guides_stand_in_groups_as_in_the_index(site: Path) -> None:
    page = (site / "guides" / "run" / "index.html").read_text(encoding="utf-8")
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    groups = re.findall("^### (.*)$", index, re.MULTILINE)
    places = [page.index(f">{title}<" if f">{title}<" in page else f"\n    {title}\n") for title in groups]
    assert groups and places == sorted(places)


def test_options_intervals_and_names_are_not_broken_and_long_code_is(site: Path) -> None:
    guide = (site / "guides" / "run" / "index.html").read_text(encoding="utf-8")
    assert '<code class="whole">--latency-weight</code>' in guide
    assert '<pre><span></span><code class="whole">' not in guide
    long = (site / "reference" / "installation" / "index.html").read_text(encoding="utf-8")
    assert '<code>python -c "import harness; print(harness.__file__)"</code>' in long
    table = (site / "results" / "real-tables" / "index.html").read_text(encoding="utf-8")
    assert re.search(r'<span class="whole">\[[\d., ]+\]</span></td>', table)
    assert '<span class="whole">gpt-4-1106-preview</span>' in table
    assert 'data-md-type="toc" hidden' in table and 'data-md-type="toc" hidden' not in guide
