"""What mkdocs.yml cannot say: the README as the first page, notebooks as pages, the navigation, and what is not broken.

docs/README.md is the one list of all pages: the navigation has its headings, and below them its pages in its order. A
page that it lacks makes the strict build fail, since the navigation omits it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
INDEX = "pages.md"
MANY_COLUMNS = 10
"""A page with a table of so many columns gives it the room of the page's own list of headings."""
SHORT = re.compile(r"<code>([^<]*[- ][^<]*)</code>")
SHORTEST_LINE = 34
"""Characters of code that fit into a line of a telephone's screen, 400 pixels wide."""
WHOLE = re.compile(r"\[[^\][<>]{1,40}\]|[\w.]+(?:-[\w.]+)+")
"""An interval, or a name with hyphens."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are no Markdown file of docs/, and set the navigation."""
    index = files.get_file_from_path("README.md")
    assert index is not None
    files.remove(index)
    for name, path in {"index.md": "README.md", INDEX: "docs/README.md", "contributing.md": "CONTRIBUTING.md"}.items():
        files.append(File.generated(config, name, content=_moved((ROOT / path).read_text(encoding="utf-8"))))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(notebook)
        page = notebook_page(json.loads(Path(str(notebook.abs_src_path)).read_text(encoding="utf-8")))
        files.append(File.generated(config, notebook.src_uri.replace(".ipynb", ".md"), content=page))
    config.nav = navigation(_moved((ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to the README and to notebooks at their pages; make room for wide tables."""
    if any(line.count("|") > MANY_COLUMNS for line in re.findall(r"^\|[-|: ]+$", markdown, re.M)):
        page.meta["hide"] = ["toc"]
    markdown = markdown.replace("](../../README.md", "](../index.md")
    return re.sub(r"\]\((?!https?:)([^)\s]+)\.ipynb\)", r"](\1.md)", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Mark what a browser shall not break at a hyphen or a space: short code; in tables also intervals and names."""
    html = SHORT.sub(
        lambda code: code[0] if len(code[1]) > SHORTEST_LINE else f'<code class="whole">{code[1]}</code>', html
    )
    cell = re.compile(r"<td[^>]*>.*?</td>", re.S)
    text = re.compile(r"(?<=>)[^<>]+(?=<)")
    whole = r'<span class="whole">\g<0></span>'
    return cell.sub(lambda found: text.sub(lambda words: WHOLE.sub(whole, words[0]), found[0]), html)


def _moved(text: str) -> str:
    """The text of a page that lies elsewhere, with its links as they are from the top of the site."""
    text = re.sub(r"\]\(\s*docs/README\.md", f"]({INDEX}", text)
    text = re.sub(r"\]\(\s*docs/", "](", text)
    text = text.replace("](../README.md", "](index.md")
    return re.sub(r"\]\(\s*(?:\.\./)?CONTRIBUTING\.md", "](contributing.md", text)


def navigation(index: str) -> list[dict[str, Any]]:
    """The navigation: the headings of the index, as sections and groups within them, with the pages that each lists."""
    sections: list[dict[str, Any]] = []
    pages: list[Any] = []
    for level, title, page in re.findall(
        r"^(?:(##+) ([^:\n]+).*|- \[.*?\]\(([\w/.-]+)\.(?:md|ipynb)\).*)$", index, re.M
    ):
        if page:
            pages.append(f"{page}.md")
            continue
        within = sections if level == "##" else next(iter(sections[-1].values()))
        within.append({title: (pages := [])})
    return [{"Start": ["index.md", INDEX]}, *sections, {"About": ["design.md", "contributing.md"]}]


def notebook_page(notebook: dict[str, Any]) -> str:
    """A notebook as Markdown: its text, its code, and what it printed and drew when it was saved."""
    return "\n\n".join(part for cell in notebook["cells"] for part in _cell(cell)) + "\n"


def _cell(cell: dict[str, Any]) -> list[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    return [f"```python\n{source}\n```", *map(_output, cell["outputs"])]


def _output(output: dict[str, Any]) -> str:
    data = {name: "".join(content) for name, content in output.get("data", {}).items()}
    if "image/png" in data:
        return f'<img alt="{data["text/plain"]}" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "text/html" in data:  # a DataFrame, without its own looks
        html = re.sub(r"<style.*?</style>|\n", "", data["text/html"], flags=re.DOTALL)
        return '<div class="frame">' + re.sub(r"<(div|table|tr)[^>]*>", r"<\1>", html) + "</div>"
    return f"~~~~text\n{(data.get('text/plain') or ''.join(output['text'])).rstrip()}\n~~~~"  # a model may write ```
