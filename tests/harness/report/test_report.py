"""What the page of `report` says, that it is safe and the same each time, and what it refuses."""

from __future__ import annotations

import html
import itertools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.report.examples import choose_examples
from harness.report.figures.style import drawing_style
from harness.report.groups import group
from harness.report.html import _figure
from harness.report.page import plane
from harness.report.result_text import main_result, paired_value
from harness.runs.folder import ItemRow, load_runs

Harness = Callable[..., int]
VOID = {"meta", "link", "br", "img", "wbr"}


class Page(HTMLParser):
    """The page's text without its style and figures, its elements, and whether each end fits its beginning."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.text, self.elements, self.open = "", [], list[str]()
        self.feed(content)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "svg"} & set(self.open):
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def of_another_recording(run: Path) -> Path:
    """The run, now said to be of a recording that has other bytes."""
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["source"]["sha256"]["items.parquet"] = "0" * 64
    (run / "manifest.json").write_text(json.dumps(manifest))
    return run


@pytest.fixture(scope="session")
def plain_page(plain_run: Path, harness: Harness) -> str:
    assert harness("report", plain_run) == 0
    return (plain_run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def hostile_page(hostile_run: Path, harness: Harness) -> str:
    assert harness("report", hostile_run) == 0
    return (hostile_run / "report.html").read_text(encoding="utf-8")


def test_the_pipelines_of_a_router_are_those_of_its_items(plain_run: Path) -> None:
    run = load_runs([plain_run])[0]
    for name, entry in run.routers.items():
        pipelines = entry.overall.pipelines
        assert sum(pipelines.values()) == pytest.approx(1)
        assert list(pipelines.values()) == sorted(pipelines.values(), reverse=True)
        hops = sum(share * len(pipeline) for pipeline, share in pipelines.items())
        assert hops == pytest.approx(entry.overall.hops)
        for model, calls in entry.overall.calls.items():
            found = sum(share * pipeline.count(model) for pipeline, share in pipelines.items())
            assert found == pytest.approx(calls)
        if all(row.pipeline_share == 1 for row in run.rows[name]):
            counted = [row.pipeline for row in run.rows[name]]
            assert all(counted.count(p) / len(counted) == pytest.approx(s) for p, s in pipelines.items())


def test_the_page_has_every_figure_of_the_summary(plain_run: Path, plain_page: str) -> None:
    run, page = load_runs([plain_run])[0], Page(plain_page)
    assert page.count("table") == 3  # routers, cost weights, tasks
    assert all("scope" in attributes for tag, attributes in page.elements if tag == "th")
    assert page.count("caption") == page.count("table")
    for name, entry in run.routers.items():
        overall = entry.overall
        assert name in page.text
        assert f"{overall.quality:.3f}" in page.text
        assert "{:.3f} to {:.3f}".format(*overall.quality_interval) in page.text
        assert f"{overall.gap_closed:.0%}".replace("-", "−") in page.text
        assert all(f"{figures.quality:.3f}" in page.text for figures in entry.tasks.values())
        assert f"{name.removeprefix('single:')}: quality {overall.quality:.3f}" in plain_page  # for who cannot see
    command = json.loads((plain_run / "manifest.json").read_text())["command"]
    assert command in page.text
    assert len(list((plain_run / "report-figures").iterdir())) == 2 * 2 + 2 * len(re.findall("<h3>", plain_page))


def test_every_figure_is_there_for_wide_and_narrow_windows_and_has_a_name(plain_page: str) -> None:
    figures = [attributes for tag, attributes in Page(plain_page).elements if tag == "svg"]
    assert len(figures) == 2 * plain_page.count("<figure>") >= 6
    assert [f["class"] for f in figures] == ["wide", "narrow"] * (len(figures) // 2)
    assert all(f["role"] == "img" and f["aria-labelledby"] for f in figures)
    identifiers = re.findall(r' id="([^"]+)"', plain_page)
    assert len(identifiers) == len(set(identifiers))
    referred = set(re.findall(r'(?:href="#|url\(#)([^")]+)', plain_page))
    referred |= {name for f in figures for name in str(f["aria-labelledby"]).split()}
    assert referred <= set(identifiers)


def test_labels_of_the_plane_keep_off_points_and_each_other(plain_run: Path) -> None:
    (found,) = group(load_runs([plain_run]))
    with drawing_style(False):
        figure = plane(found).draw(False)
        figure.set_dpi(192)  # the PNG file's
        figure.canvas.draw()
        (axes,) = figure.axes
        # Less its margins: letters do not fill their line.
        labels = [text.get_window_extent().shrunk(0.98, 0.7) for text in axes.texts if text.get_text()]
        points = [
            axes.transData.transform((run.routers[name].overall.cost, run.routers[name].overall.quality))
            for _, run, name in found.routers
        ]
        # Routers whose points meet share a label of several lines.
        names = [name for text in axes.texts for name in text.get_text().splitlines()]
        assert len(names) == len(points) > len(labels) > 5
        assert not [box for box in labels for x, y in points if box.contains(x, y)]
        assert not [(a, b) for a, b in itertools.combinations(labels, 2) if a.overlaps(b)]


def test_the_result_in_words_has_the_figures_of_the_summary(plain_run: Path) -> None:
    run = load_runs([plain_run])[0]
    said = " ".join(main_result(run))
    overall, best = run.routers["knn"].overall, run.summary.best_single
    assert best is not None
    assert f"knn attains a quality of {overall.quality:.3f}" in said
    ahead = paired_value(run, "knn", best)
    assert ahead.difference == pytest.approx(overall.value_ahead)
    assert [ahead.low, ahead.high] == pytest.approx(overall.value_ahead_interval)


@pytest.mark.parametrize(
    ("better", "worse", "words"),
    [
        (20, 2, "is ahead of best-pipeline-per-task by 0.060 in quality"),
        (2, 20, "is behind best-pipeline-per-task by 0.060 in quality"),
        (12, 10, "300 items do not tell knn and best-pipeline-per-task apart"),
        # All five one way: the bootstrap's interval excludes 0, but of 32 ways to flip them two are as uneven.
        (5, 0, "300 items do not tell knn and best-pipeline-per-task apart"),
    ],
)
def test_the_result_in_words_says_what_interval_and_test_allow(
    plain_run: Path, better: int, worse: int, words: str
) -> None:
    run = load_runs([plain_run])[0]
    quality = {"knn": [1.0] * better + [0.0] * worse, "best-pipeline-per-task": [0.0] * better + [1.0] * worse}
    scores = {name: [*quality.get(name, [0.5] * (better + worse)), *[1.0] * 300][:300] for name in run.routers}
    items = {name: [ItemRow.model_construct(quality=q, cost=0.0) for q in of] for name, of in scores.items()}
    update = {"items": 300, "cost_unit": "", "cost_weight": 0.0, "best_bar": "best-pipeline-per-task"}
    summary = run.summary.model_copy(update=update)
    changed = replace(run, summary=summary, rows=items)
    assert words in " ".join(main_result(changed))
    if not worse:
        ahead = paired_value(changed, "knn", "best-pipeline-per-task")
        assert ahead.low > 0 and ahead.p > 0.05


def test_examples_are_the_first_that_differ_as_the_recording_has_them(plain_run: Path, plain_page: str) -> None:
    run = load_runs([plain_run])[0]
    quality = {(name, r.task, r.doc_id): r.quality for name, rows in run.rows.items() for r in rows}
    best, examples = run.summary.best_single, choose_examples(run, "knn")
    assert examples and best is not None
    for example in examples:
        mine, theirs = (quality[route.router, example.task, example.doc_id] for route in example.routes)
        assert example.routes[1].router == (best if example.gain else "oracle")
        assert (mine - theirs if example.gain else theirs - mine) >= 0.5
        assert [route.hops[-1].score for route in example.routes] == pytest.approx([mine, theirs])
        earlier = [r.doc_id for r in run.rows["knn"] if r.task == example.task and r.doc_id < example.doc_id]
        rival = example.routes[1].router
        for doc_id in earlier:
            mine, theirs = (quality[name, example.task, doc_id] for name in ("knn", rival))
            assert (mine - theirs if example.gain else theirs - mine) < 0.5
        assert html.escape(example.query, quote=False).splitlines()[0] in plain_page.replace("&#34;", '"').replace(
            "&#39;", "'"
        )


def test_text_of_models_and_data_stays_text(hostile_run: Path, hostile_page: str) -> None:
    page = Page(hostile_page)
    assert not {"script", "img", "b", "i", "u"} & {tag for tag, _ in page.elements}
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert '<script>alert("owned")</script>' in page.text
    assert '<script>alert("model")</script>' in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert choose_examples(load_runs([hostile_run])[0], "knn")
    assert not re.findall(r'(?:src|href)="(?!#|data:)', hostile_page)
    for figure in (hostile_run / "report-figures").glob("*.svg"):
        content = figure.read_text(encoding="utf-8")
        assert "<script" not in content and "<text" in content


def test_the_same_runs_give_the_same_bytes(plain_run: Path, plain_page: str, tmp_path: Path, harness: Harness) -> None:
    assert harness("report", plain_run, "--out", tmp_path / "deep" / "again.html") == 0
    assert (tmp_path / "deep" / "again.html").read_text(encoding="utf-8") == plain_page
    names = {path.name for path in (plain_run / "report-figures").iterdir()}
    assert {path.name for path in (tmp_path / "deep" / "again-figures").iterdir()} == names
    assert not list(tmp_path.rglob("*.partial"))


def test_several_runs_share_tables_and_plane(
    plain_run: Path, hostile_run: Path, tmp_path: Path, harness: Harness
) -> None:
    second = shutil.copytree(plain_run, tmp_path / "second" / "plain")
    assert harness("report", plain_run, second, hostile_run, "--out", tmp_path / "all.html") == 0
    content = (tmp_path / "all.html").read_text(encoding="utf-8")
    assert len(re.findall('id="plane-[0-9]+-wide-title"', content)) == 2  # of the same items, and of others
    assert "knn (second/plain)" in content and "random (second/plain)" not in content
    assert Page(content).count("table") == 3 + 3 + 2
    assert len(group(load_runs([plain_run, second]))) == 1
    of_another_recording(second)
    assert [len(found.runs) for found in group(load_runs([plain_run, second]))] == [1, 1]


def test_another_run_in_the_same_folder_leaves_no_report_of_the_first(tmp_path: Path, harness: Harness) -> None:
    def contents() -> set[str]:
        return {path.name for path in tmp_path.iterdir()}

    run = ("run", "--router", "random", "--limit", 3, "--out", tmp_path)
    assert harness(*run) == harness("report", tmp_path) == 0
    assert {"report.html", "report-figures"} <= contents()
    assert harness(*run) == 0
    assert not {"report.html", "report-figures"} & contents() and "summary.json" in contents()


def test_without_costs_there_is_no_plane_and_the_page_says_so(tmp_path: Path, harness: Harness) -> None:
    table = tmp_path / "t.csv"
    rows = [f"q{n},t,question {n},{m},{(n + k) % 2}" for n in range(40) for k, m in enumerate("ab")]
    table.write_text("\n".join(["item,task,prompt,model,score", *rows]))
    assert harness("import", table, "--quality-only", "--out", tmp_path / "r") == 0
    assert harness("run", "--recording", tmp_path / "r", "--router", "knn", "--out", tmp_path / "run") == 0
    assert harness("report", tmp_path / "run") == 0
    content = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "No costs were recorded" in content
    assert 'id="plane' not in content


def test_a_recording_that_is_gone_or_changed_is_said(hostile_run: Path, tmp_path: Path, harness: Harness) -> None:
    folder = of_another_recording(shutil.copytree(hostile_run, tmp_path / "run"))
    assert harness("report", folder) == 0
    assert "is not at hand" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("summary.json", None, "is not the folder of a run: it has no summary.json"),
        ("manifest.json", "{}", "has not the form"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(
    file: str,
    content: str | None,
    message: str,
    plain_run: Path,
    tmp_path: Path,
    harness: Harness,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shutil.copytree(plain_run, tmp_path / "run")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content.encode("latin-1"))
    assert harness("report", folder, "--out", tmp_path / "page.html") == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_places_that_cannot_be_written_are_refused(
    plain_run: Path, tmp_path: Path, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    assert harness("report", plain_run, "--out", tmp_path) == 2
    assert "is no place for a file" in capsys.readouterr().err
    (tmp_path / "page-figures").write_text("mine")
    assert harness("report", plain_run, "--out", tmp_path / "page.html") == 2
    assert "is a file" in capsys.readouterr().err
    assert harness("report", plain_run, plain_run) == 2
    assert "twice" in capsys.readouterr().err


def test_signs_of_print_are_in_numbers_alone() -> None:
    for given, shown in {
        "worst -0.013: registry-north": "worst −0.013: registry-north",
        "-0.040..-0.010": "−0.040 to −0.010",
        "5%..10%": "5% to 10%",
        "< -100%": "< −100%",
        "40% qwen2.5-coder-0.5b": "40% qwen2.5-coder-0.5b",
        "-": "−",
    }.items():
        assert _figure(given) == shown
