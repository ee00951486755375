"""What the documents tell a reader to type is what the command line takes, and what they point to is there."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas
import pytest

import harness
from command_line import call
from harness.cli.app import parse

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^ {4}(?:.*&& )?python -m harness (.*)$", re.MULTILINE)
COMMANDS = [command for page in PAGES for command in COMMAND.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_a_command_is_one_that_is_taken(command: str) -> None:
    # `[RUN ...]` may be left out, and N stands for a number.
    arguments = shlex.split(re.sub(r"\[.*?\]", "", command), comments=True)
    parse([re.sub(r"^N$", "1", argument) for argument in arguments])


def python_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_python_of_the_readme_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = python_of(README)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(README), "exec"), {})
    assert capsys.readouterr().out.strip() == example.split("# ")[1].split()[0]
    assert (tmp_path / "runs" / "mine" / "summary.json").is_file()


def test_the_python_of_the_api_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    printed = []
    for example in python_of(ROOT / "docs" / "guides" / "python.md"):
        with pandas.option_context("display.max_rows", None):
            exec(compile(example, "docs/guides/python.md", "exec"), names)
        printed.append(capsys.readouterr().out)
    assert printed[0].startswith("hierrouter ") and "T param-tokens" in printed[0]
    assert re.search(r"hierrouter +records +0\.", printed[1])
    assert printed[2].startswith("[(0.0, ")
    assert printed[3].startswith("hierrouter: quality ") and (tmp_path / "runs" / "before" / "report.html").is_file()
    assert printed[4] == "" and names["again"].summary.routers["hierrouter"].overall.notes == ["from mine.safetensors"]


def test_the_guide_on_traffic_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs" / "guides" / "traffic.md"
    made, object_of_ones_own = python_of(page)
    monkeypatch.chdir(tmp_path)
    exec(compile(made, str(page), "exec"), {})
    text = page.read_text(encoding="utf-8")
    for command in COMMAND.findall(text):
        if not re.match("serve|estimate traffic", command):  # a server; what it logs has no scores
            assert call(monkeypatch, *shlex.split(command)) == 0, command
    printed = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    for block in re.findall(r"(?<=\n\n)```\n(.*?)```", text, re.DOTALL):
        assert {" ".join(line.split()) for line in block.splitlines()} <= printed
    names: dict[str, Any] = {}
    exec(compile(object_of_ones_own, str(page), "exec"), names)
    value = names["summary"].routers["by word"].value.doubly_robust
    assert value.low < 0.9 - 20 * 0.0055 < value.high


def test_the_guide_on_training_runs_on_the_pool_that_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "guides" / "training.md").read_text(encoding="utf-8")
    (pool,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "three.yaml").write_text(pool, encoding="utf-8")
    for shared in ("results", "tasks"):
        (tmp_path / shared).symlink_to(ROOT / shared)
    monkeypatch.chdir(tmp_path)
    live, record, learnt = (
        next(c for c in COMMAND.findall(page) if c.startswith(f)) for f in ("run --l", "rec", "run --r")
    )
    for command in (f"{live} --out live", record, learnt):
        assert call(monkeypatch, *shlex.split(command)) == 0, command
    found = harness.load_run("live").summary.routers
    assert found["knn"].overall.quality > 3 * found["single:reader"].overall.quality


def test_the_reference_is_what_the_code_says() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))
    written = (ROOT / "docs" / "reference" / "summary.md").read_text(encoding="utf-8")
    assert written == made["reference"](), "stale: python docs/make_reference.py writes it again"


def anchors(page: Path) -> set[str]:
    """The names by which GitHub links to a page's headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"\s*\n\s*", "", page.read_text(encoding="utf-8"))):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        found = page.parent / name if name else page
        assert found.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(found), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:benchmarks|harness|pools|routers|tasks|tests)/[\w/]+\.(?:py|yaml|json)\b", text):
        assert (ROOT / name).is_file(), f"{page.name} names {name}"
