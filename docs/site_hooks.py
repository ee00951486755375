"""What mkdocs.yml cannot say: the README as the first page, notebooks as pages, and the navigation.

docs/README.md is the one list of all pages: the navigation has them in its order. A page that it lacks makes the
strict build fail, since the navigation omits it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
INDEX = "pages.md"
SECTIONS = {"notebooks": "Notebooks", "guides": "Guides", "reference": "Reference", "results": "Results"}


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


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links to the README and to notebooks at their pages."""
    markdown = markdown.replace("](../../README.md", "](../index.md")
    return re.sub(r"\]\((?!https?:)([^)\s]+)\.ipynb\)", r"](\1.md)", markdown)


def _moved(text: str) -> str:
    """The text of a page that lies elsewhere, with its links as they are from the top of the site."""
    text = re.sub(r"\]\(\s*docs/README\.md", f"]({INDEX}", text)
    text = re.sub(r"\]\(\s*docs/", "](", text)
    text = text.replace("](../README.md", "](index.md")
    return re.sub(r"\]\(\s*(?:\.\./)?CONTRIBUTING\.md", "](contributing.md", text)


def navigation(index: str) -> list[dict[str, Any]]:
    """The navigation: a section for each folder, with its pages in the order in which the index names them first."""
    linked = dict.fromkeys(re.findall(r"\]\(\s*([\w/.-]+)\.(?:md|ipynb)", index))
    pages = {folder: [f"{page}.md" for page in linked if page.startswith(f"{folder}/")] for folder in SECTIONS}
    sections = [{SECTIONS[folder]: found} for folder, found in pages.items() if found]
    return [{"Start": ["index.md"]}, *sections, {"About": ["design.md", "contributing.md", INDEX]}]


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
