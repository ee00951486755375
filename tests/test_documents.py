"""What the documents tell a reader to type is what the command line takes, and what they point to is there."""

from __future__ import annotations

import functools
import inspect
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas
import pytest
from lm_eval._cli import HarnessCLI

import harness
from command_line import call
from harness.cli.app import parse
from harness.serving.lm import RoutedLM
from harness.serving.routed import Routed, routed

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^ {4}(?:.*&& )?python -m harness (.*)$", re.MULTILINE)
WIDEST = 100
"""Characters of a line of code that the site shows beside its two lists of links, on a screen of 1,400 pixels."""


def read(page: Path) -> str:
    """A page, with commands that go on in the next line as one line."""
    return re.sub(r" \\\n +", " ", page.read_text(encoding="utf-8"))


COMMANDS = [command for page in PAGES for command in COMMAND.findall(read(page))]


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_a_command_is_one_that_is_taken(command: str) -> None:
    # `[RUN ...]` may be left out, and N stands for a number.
    arguments = shlex.split(re.sub(r"\[.*?\]", "", command), comments=True)
    if arguments[0] == "lm-eval":
        HarnessCLI()._parser.parse_args(["run", *arguments[1:]])
    parse([re.sub(r"^N$", "1", argument) for argument in arguments])


def test_guides_can_be_typed_one_after_another() -> None:
    """What is written by a guide is written by no other, and not twice: it would be refused, as it is there already."""
    guides = [README, *sorted((ROOT / "docs" / "guides").glob("*.md"))]
    made = re.compile(r"(?:--out |\.save\(\")([^\s\"]+)")
    written = [(out, page.name) for page in guides for out in made.findall(read(page))]
    outs = [out for out, _ in written]
    assert [each for each in written if outs.count(each[0]) > 1] == []


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
    text = read(README)
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
    assert printed[3].startswith("hierrouter: quality ") and (tmp_path / "runs" / "by-length" / "report.html").is_file()
    notes = names["again"].summary.routers["hierrouter"].overall.notes
    assert printed[4] == "" and notes == ["from stories.safetensors"]


class Followed:
    """A page done as it says in the current folder: its files written, its Python and its commands run, in its order.

    Commands that begin as `but` does are left out. names: of its Python. printed: its lines, white space aside. runs:
    the summary of each `run`.
    """

    PART = re.compile(
        r"^This is `(?P<file>[\w.-]+)`(?:(?!\n\n).)*\n\n```\w+\n(?P<content>.*?)^```|"
        r"^```python\n(?P<python>.*?)^```|^ {4}python -m harness (?P<command>[^\n]*)$",
        re.DOTALL | re.MULTILINE,
    )

    def __init__(
        self, page: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], but: str = "$"
    ) -> None:
        self.text = read(page)
        self.names: dict[str, Any] = {}
        self.runs: list[Any] = []
        self.printed: set[str] = set()
        for part in self.PART.finditer(self.text):
            if part["file"]:
                Path(part["file"]).write_text(part["content"], encoding="utf-8")
            elif part["python"]:
                exec(compile(part["python"], str(page), "exec"), self.names)
            elif not re.match(but, part["command"]):
                assert call(patch, *shlex.split(part["command"], comments=True)) == 0, part["command"]
            out = capsys.readouterr().out
            self.printed |= {" ".join(line.split()) for line in out.splitlines()}
            if folder := re.search("^written to (.*)$", out, re.MULTILINE):
                self.runs.append(json.loads((Path(folder[1]) / "summary.json").read_text(encoding="utf-8")))

    def prints_what_it_says(self) -> bool:
        """Whether each line of its blocks of output was printed."""
        said = re.findall(r"(?<=\n\n)```\n(.*?)```", self.text, re.DOTALL)
        return bool(said) and {" ".join(line.split()) for block in said for line in block.splitlines()} <= self.printed

    def rows(self) -> dict[str, list[float]]:
        """The numbers of its Markdown tables, by the name at the left."""
        found = re.findall(r"^\| ([\w:-]+) \|((?: [\d.]+ \|)+)$", self.text, re.MULTILINE)
        return {name: list(map(float, re.findall(r"[\d.]+", figures))) for name, figures in found}


def test_the_guide_on_traffic_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # A server is none to wait for, and what it logs has no scores.
    page = Followed(ROOT / "docs" / "guides" / "traffic.md", monkeypatch, capsys, but="serve|estimate traffic")
    assert page.prints_what_it_says()
    value = page.names["summary"].routers["by word"].value.doubly_robust
    assert value.low < 0.9 - 20 * 0.0055 < value.high


def test_the_guide_on_a_task_of_ones_own_goes_from_an_empty_folder_to_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").symlink_to(ROOT / "results")
    (tmp_path / "buttons").mkdir()
    monkeypatch.chdir(tmp_path / "buttons")
    page = Followed(ROOT / "docs" / "guides" / "own-task.md", monkeypatch, capsys)
    (run,) = page.runs
    assert len(page.rows()) == 6
    for name, (quality, cost, hops) in page.rows().items():
        overall = run["routers"][name]["overall"]
        assert [overall["quality"], overall["hops"]] == pytest.approx([quality, hops], abs=0.006), name
        assert overall["cost"] == pytest.approx(cost, abs=6e-6), name


def test_the_guide_on_latency_says_what_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = Followed(ROOT / "docs" / "guides" / "latency.md", monkeypatch, capsys)
    rows = page.rows()
    assert len(rows) == 3
    for name, figures in rows.items():
        latency = page.runs[0]["routers"][name]["latency"]
        assert [latency[key] for key in ("seconds", "p50", "p95", "p99", "tail_hops")] == pytest.approx(figures)
    plain, low, high = (run["routers"]["cascade"] for run in page.runs)  # latency weights
    assert low["overall"]["pipelines"] == plain["overall"]["pipelines"]
    assert (high["overall"]["quality"], high["latency"]["seconds"]) == (0.5, pytest.approx(0.3))
    assert high["overall"]["calls"] == {"small": 1, "large": 0}


def test_the_guide_on_tables_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = Followed(ROOT / "docs" / "guides" / "outcomes.md", monkeypatch, capsys, but="import arc_")
    assert page.prints_what_it_says()
    one_hop, cascades = (run["routers"] for run in page.runs)
    large, learnt = (one_hop[name]["overall"] for name in ("single:large", "hierrouter"))
    assert learnt["quality"] == large["quality"] and learnt["cost"] == pytest.approx(0.525 * large["cost"])
    for name, figures in page.rows().items():
        overall = cascades[name]["overall"]
        assert [overall[key] for key in ("quality", "cost", "hops")] == pytest.approx(figures), name


@pytest.mark.parametrize("name", ["guides/budgets", "reference/frontier", "reference/recordings", "reference/stress"])
def test_the_python_of_a_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shared in ("results", "tasks"):
        (tmp_path / shared).symlink_to(ROOT / shared)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for example in python_of(ROOT / "docs" / f"{name}.md"):
        exec(compile(example, f"docs/{name}.md", "exec"), names)


def test_the_guide_on_serving_prints_what_it_says(
    stand_in_weights: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    openai = pytest.importorskip("openai")
    testclient = pytest.importorskip("fastapi.testclient")
    from harness.serving.app import create_app
    from harness.serving.batcher import Dispatcher

    # The code model is not here, and is not asked: what loads all that the router may call is left out.
    monkeypatch.setattr(Routed, "behind_servers", lambda routed: False)
    app = create_app(Dispatcher(routed("hierrouter", "lightweight")), "hierrouter")
    client = testclient.TestClient(app, base_url="http://127.0.0.1:8000")
    monkeypatch.setattr(openai, "OpenAI", functools.partial(openai.OpenAI, http_client=client))
    assert Followed(ROOT / "docs" / "guides" / "serving.md", monkeypatch, capsys, but="").prints_what_it_says()


def test_the_guide_on_lm_eval_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("results", "tasks"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    page = Followed(ROOT / "docs" / "guides" / "lm-eval.md", monkeypatch, capsys, but="lm-eval")
    first = next(command for command in COMMAND.findall(page.text) if "recording=" in command)
    words = [sys.executable, "-m", "harness", *shlex.split(first), "--output_path", "out"]
    done = subprocess.run(words, capture_output=True, text=True)  # a process of its own: it sets up logging for good
    assert done.returncode == 0, done.stderr
    page.printed |= {" ".join(line.split()) for line in done.stdout.splitlines()}
    assert page.prints_what_it_says()
    assert "hierrouter: 440 requests, mean cost 0.0249 T param-tokens, 2.04 hops: reader 35%" in done.stderr
    (results,) = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(results.read_text(encoding="utf-8"))["config"]["routed"] == page.names["routed"]


def test_the_arguments_of_the_lm_eval_model_are_those_of_its_guide() -> None:
    text = (ROOT / "docs" / "guides" / "lm-eval.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    of_lm_eval = ["batch_size", "max_batch_size", "device", "unknown"]
    assert [*told, *of_lm_eval] == list(inspect.signature(RoutedLM).parameters)


def test_the_guide_on_a_gpu_computes_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "guides" / "gpu.md"
    [example] = python_of(page)
    exec(compile(example, str(page), "exec"), {})
    [printed] = re.findall(r"(?<=\n\n)```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert capsys.readouterr().out == printed


def test_the_guide_on_training_runs_on_the_pool_that_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = read(ROOT / "docs" / "guides" / "training.md")
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
        if name == "lm-eval":  # all options are lm-eval's
            continue
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


def test_the_index_has_every_page_once_by_its_title_and_says_what_is_on_it() -> None:
    index = ROOT / "docs" / "README.md"
    listed = re.findall(r"^(?:- )?\[(.+?)\]\(([^)]+\.md)\): \w.*$", index.read_text(encoding="utf-8"), re.MULTILINE)
    pages = [page for page in index.parent.rglob("*.md") if page != index]
    titles = [
        (page.read_text(encoding="utf-8").partition("\n")[0], str(page.relative_to(index.parent))) for page in pages
    ]
    assert sorted((f"# {title}", page) for title, page in listed) == sorted(titles)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:benchmarks|harness|pools|routers|tasks|tests)/[\w/]+\.(?:py|yaml|json)\b", text):
        assert (ROOT / name).is_file(), f"{page.name} names {name}"


def code_of(text: str) -> list[str]:
    """The lines of code of a page, and not what programs print: its indented blocks and its fences with a language."""
    language: str | None
    lines, language, text_before, in_list = [], None, False, False
    for line in text.splitlines():
        if mark := re.match(r"\s*(?:```|~~~~)(\w*)", line):
            language = (mark[1] or "text") if language is None else None
        elif language is not None:
            lines += [line] * (language != "text")
        elif line.startswith("    ") and not text_before and not in_list:
            lines.append(line.removeprefix("    "))
            continue
        elif line and not line.startswith(" "):
            in_list = line.startswith("- ") or (in_list and text_before)
        text_before = bool(line.strip())
    return lines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_of_code_is_wider_than_the_site_shows(page: Path) -> None:
    assert [line for line in code_of(page.read_text(encoding="utf-8")) if len(line) > WIDEST] == []
