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


def test_the_readme_is_short_and_explains_its_table_before_it() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    before, _, table = text.partition("\n| router |")
    for column in table.splitlines()[0].strip(" |").split(" | "):
        assert f"**{column}**" in before, f"the column {column} is not explained before the table"


def test_the_commands_of_the_readme_make_its_table_and_its_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = README.read_text(encoding="utf-8")
    run, report, *_ = COMMAND.findall(text)
    monkeypatch.chdir(tmp_path)
    for command in (run, report):
        assert call(monkeypatch, *shlex.split(command)) == 0, command
    table = (tmp_path / "runs" / "first" / "tables.md").read_text(encoding="utf-8").split("\n**")[0].strip()
    assert table in text, "stale: copy the first table of runs/first/tables.md"
    picture = ROOT / "docs" / "quality-cost.png"
    made = tmp_path / "runs" / "first" / "report-figures" / "plane-1.png"
    assert picture.read_bytes() == made.read_bytes(), f"stale: copy {made.name} to docs/{picture.name}"


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


def test_the_guide_on_a_gpu_computes_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "guides" / "gpu.md"
    [example] = python_of(page)
    exec(compile(example, str(page), "exec"), {})
    [printed] = re.findall(r"(?<=\n\n)```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert capsys.readouterr().out == printed


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
    for name, text in made["pages"]().items():
        written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
        assert written == text, "stale: python docs/make_reference.py writes it again"


def test_the_page_of_commands_has_each_option_that_help_has(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    for name, section in zip(*[iter(re.split(r"^## `(.*)`$", page, flags=re.MULTILINE)[1:])] * 2, strict=True):
        with pytest.raises(SystemExit):
            parse([name, "--help"])
        shown, listed = options_in(capsys.readouterr().out), options_in(section)
        assert set(re.findall(r"^- `--(?:no-)?([a-z-]+)", section, re.MULTILINE)) <= shown == listed | {"help"}, name


def options_in(text: str) -> set[str]:
    """The options that a text names, without dashes, those that switch off as those that switch on."""
    return set(re.findall(r"(?<![\w-])--(?:no-)?([a-z][a-z-]+)", text))


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


def test_the_index_has_every_page_once_and_says_what_is_on_it() -> None:
    index = ROOT / "docs" / "README.md"
    listed = re.findall(r"^(?:- )?\[[^\]]+\]\(([^)]+\.md)\): \w.*$", index.read_text(encoding="utf-8"), re.MULTILINE)
    pages = [str(page.relative_to(index.parent)) for page in index.parent.rglob("*.md") if page != index]
    assert sorted(listed) == sorted(pages)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:benchmarks|harness|pools|routers|tasks|tests)/[\w/]+\.(?:py|yaml|json)\b", text):
        assert (ROOT / name).is_file(), f"{page.name} names {name}"
