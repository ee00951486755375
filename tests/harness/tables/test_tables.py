"""The table by task on the screen, as LaTeX and as CSV: its figures, recomputed from the outcomes it is made of."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from harness.evaluation.metrics import verdict
from harness.evaluation.summary import Summary
from harness.tables.export import COLUMNS, latex, markdown, tidy
from harness.tables.grid import Cell, Grid, Row, grids, overall_grid, task_grid, wrapped
from harness.tables.terminal import tables

# By task and model, what each item scores. `good` is the best single model; `odd|one` is better at `b_&_c`, and no
# worse or better at `a_task` than chance allows; at `all_alike` everybody is right.
SCORES = {
    "a_task": {"good": [1, 1, 0, 1, 1, 0, 1, 1], "odd|one": [1, 0, 0, 1, 1, 0, 1, 1], "bad_100%": [0] * 8},
    "b_&_c": {"good": [0, 0, 1, 0], "odd|one": [1, 1, 1, 1], "bad_100%": [0, 0, 0, 0]},
    "all_alike": {"good": [1] * 3, "odd|one": [1] * 3, "bad_100%": [1] * 3},
    "human": {"good": [1] * 9, "odd|one": [0] * 9, "bad_100%": [0] * 9},
}
COSTS = {"good": 0.5, "odd|one": 0.25, "bad_100%": 0.125}
MODELS = list(COSTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, harness: Callable[..., int]) -> Path:
    """The folder of a run on these outcomes."""
    made = tmp_path_factory.mktemp("tables")
    with (made / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["item", "task", "prompt", "model", "score", "cost", "split"])
        for task, by_model in SCORES.items():
            for model, scores in by_model.items():
                for n, score in enumerate(scores):
                    writer.writerow([n, task, f"{task} {n}?", model, score, COSTS[model] * (1 + n), "test"])
    assert harness("import", made / "t.csv", "--out", made / "recording", "--cost-unit", "US$") == 0
    assert (
        harness(
            "run", "--cost-weight", 0.1, "--recording", made / "recording", "--router", "random", "--out", made / "run"
        )
        == 0
    )
    return made / "run"


@pytest.fixture(scope="module")
def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())  # type: ignore[no-any-return]


def typed(summary: dict[str, Any]) -> Summary:
    return Summary.model_validate_json(json.dumps(summary))


def expected(router: str) -> dict[str, tuple[float, float]]:
    """Quality and cost by task of a single model, or of random, by hand."""
    models = MODELS if router == "random" else [router.removeprefix("single:")]
    return {
        task: (
            float(np.mean([np.mean(by_model[m]) for m in models])),
            float(np.mean([COSTS[m] for m in models]) * (1 + (len(by_model["good"]) - 1) / 2)),
        )
        for task, by_model in SCORES.items()
    }


def resampled(difference: list[np.ndarray], resamples: int = 4000) -> list[float]:
    """The 95% interval of the mean over tasks, items drawn within each task: the long way round."""
    generator = np.random.default_rng(99)
    means = [
        np.mean([generator.choice(of_task, len(of_task)).mean() for of_task in difference]) for _ in range(resamples)
    ]
    return np.percentile(means, [2.5, 97.5]).tolist()


@pytest.mark.parametrize("router", ["random", *(f"single:{model}" for model in MODELS)])
def test_the_mean_over_tasks_is_of_tasks_and_not_of_items(summary: dict[str, Any], router: str) -> None:
    entry, by_hand, best = summary["routers"][router], expected(router), expected("good")
    macro = entry["macro"]
    quality, cost = (float(np.mean([figures[n] for figures in by_hand.values()])) for n in (0, 1))
    assert (macro["tasks"], macro["quality"], macro["cost"]) == (4, pytest.approx(quality), pytest.approx(cost))
    assert macro["quality"] != pytest.approx(entry["overall"]["quality"], abs=1e-3)
    assert macro["quality_ratio"] == pytest.approx(quality / np.mean([q for q, _ in best.values()]))
    assert macro["cost_ratio"] == pytest.approx(cost / np.mean([c for _, c in best.values()]))
    models = MODELS if router == "random" else [router.removeprefix("single:")]
    ahead = [np.mean([by_model[m] for m in models], axis=0) - by_model["good"] for by_model in SCORES.values()]
    assert macro["quality_ahead"] == pytest.approx(np.mean([a.mean() for a in ahead]))
    assert macro["quality_ahead_interval"] == pytest.approx(resampled(ahead), abs=0.04)
    for task, difference in zip(SCORES, ahead, strict=True):
        assert entry["tasks"][task]["quality_ahead"] == pytest.approx(difference.mean())


def test_a_verdict_is_an_interval_without_0() -> None:
    assert verdict([0.01, 0.3]) == "better" and verdict([-0.3, -0.01]) == "worse"
    assert verdict([0.0, 0.3]) == verdict([-0.3, 0.0]) == verdict([-0.1, 0.1]) == verdict([1e-17, 1e-17]) == "no"
    assert verdict(None) == ""


def test_what_is_best_and_what_is_significant(summary: dict[str, Any]) -> None:
    grid = task_grid(typed(summary))
    assert grid.headers == (*SCORES, "mean", "x best single")
    rows = {row.name: row for row in grid.rows}
    best = {name: [cell.best for cell in row.cells] for name, row in rows.items()}
    assert best["single:good"] == [True, False, False, True, True, False]
    assert best["single:odd|one"] == [False, True, False, False, False, False]
    assert not any(best["oracle"]), "a bound is no router, however good"
    marks = {name: [cell.mark for cell in row.cells] for name, row in rows.items()}
    assert marks["single:good"] == ["", "", "", "", "", ""]
    # At b_&_c three of four differ, so one resample in 256 has no difference; at a_task one of eight does. Over the
    # tasks -1/8, 3/4, 0 and -1 come to -0.09 +- 0.11.
    assert marks["single:odd|one"] == ["", "+", "", "-", "", ""]
    assert marks["single:bad_100%"] == ["-", "", "", "-", "-", ""]
    assert [rows[f"single:{model}"].cells[-1].lines for model in MODELS] == [
        ("1.00x", "1.00x"),
        (f"{(5 / 8 + 1 + 1 + 0) / (6 / 8 + 1 / 4 + 1 + 1):.2f}x", "0.50x"),
        (f"{1 / 3:.2f}x", "0.25x"),
    ]
    assert [cell.lines for cell in rows["items"].cells] == [("8",), ("4",), ("3",), ("9",), ("",), ("",)]
    assert [row.name for row in grid.rows if row.rule] == ["oracle", "items"]
    # In value, quality - 0.1 x cost over all 24 items, `bad_100%` loses 16 of 18 scores and saves little.
    assert (rows["single:bad_100%"].mark, rows["single:good"].mark, rows["oracle"].mark) == ("-", "", "+")


def test_small_costs_are_per_item_too_with_digits_that_tell_them_apart(summary: dict[str, Any]) -> None:
    small = json.loads(json.dumps(summary))
    for entry in small["routers"].values():
        for figures in (entry["overall"], entry["macro"], *entry["tasks"].values()):
            figures["cost"] /= 1000
    costs = [[float(cell.lines[1]) for cell in row.cells[:-1]] for row in task_grid(typed(small)).rows[:-1]]
    before = [[float(cell.lines[1]) for cell in row.cells[:-1]] for row in task_grid(typed(summary)).rows[:-1]]
    np.testing.assert_allclose(costs, np.array(before) / 1000, atol=5.1e-6)
    assert "cost per item in US$" in task_grid(typed(small)).caption[0]
    assert "cost per item in US$" in task_grid(typed(summary)).caption[0]


def test_without_a_single_model_nothing_is_compared(summary: dict[str, Any]) -> None:
    alone = json.loads(json.dumps(summary))
    alone["routers"] = {"random": alone["routers"]["random"]}
    for figures in (alone["routers"]["random"]["macro"], *alone["routers"]["random"]["tasks"].values()):
        figures |= dict.fromkeys(("quality_ratio", "cost_ratio", "quality_ahead_of_bar_interval"))
    alone["routers"]["random"]["overall"]["value_ahead_of_bar_interval"] = alone["best_bar"] = None
    grid = task_grid(typed(alone))
    assert all(not cell.mark and not cell.best for row in grid.rows for cell in row.cells)
    assert not any("best single" in clause or "best bar" in clause for clause in grid.caption)
    assert all(len(row.cells[-1].lines) == 1 and not row.mark for row in overall_grid(typed(alone)).rows)


def test_a_difference_that_prints_as_nothing_has_no_mark(summary: dict[str, Any]) -> None:
    for ahead, mark in ((0.0004, ""), (0.0006, "+"), (-0.0004, ""), (-0.0006, "-")):
        overall = summary["routers"]["random"]["overall"]
        overall["value_ahead_of_bar"], overall["value_ahead_of_bar_interval"] = ahead, sorted((ahead, ahead * 0.9))
        assert {row.name: row.mark for row in overall_grid(typed(summary)).rows}["random"] == mark


def test_the_csv_file_is_tidy(folder: Path) -> None:
    with (folder / "tables.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS) and len(COLUMNS) == 27
    by_key = {(row["router"], row["task"]): row for row in rows}
    routers = ["random", *(f"single:{model}" for model in MODELS), "oracle"]
    assert list(by_key) == [(router, task) for router in routers for task in (*SCORES, "mean", "all")]
    for router in routers[:-1]:
        for task, (quality, cost) in expected(router).items():
            row = by_key[router, task]
            assert float(row["quality"]) == pytest.approx(quality) and float(row["cost"]) == pytest.approx(cost)
            assert int(row["items"]) == len(SCORES[task]["good"])
            for name in ("quality", "cost"):
                assert float(row[f"{name}_low"]) <= float(row[name]) + 1e-9
                assert float(row[f"{name}_high"]) >= float(row[name]) - 1e-9
    odd = {task: by_key["single:odd|one", task] for task in (*SCORES, "mean", "all")}
    for column in ("significant", "significant_from_bar"):  # the best bar is the best single model here
        assert [odd[task][column] for task in SCORES] == ["no", "better", "no", "worse"]
    assert odd["all"]["gap_closed_from_bar"] == odd["all"]["gap_closed"] != ""
    assert float(odd["b_&_c"]["quality_ratio"]) == 4 and float(odd["human"]["cost_ratio"]) == pytest.approx(0.5)
    assert float(odd["all"]["quality"]) == pytest.approx((5 + 4 + 3) / 24) and odd["all"]["items"] == "24"
    assert float(odd["mean"]["quality"]) == pytest.approx((5 / 8 + 1 + 1 + 0) / 4) and odd["mean"]["items"] == "24"


def test_no_cell_of_the_csv_file_is_a_formula(summary: dict[str, Any]) -> None:
    odd = json.loads(json.dumps(summary))
    entry = odd["routers"]["random"]
    entry["overall"]["quality_ratio"] = -0.5
    entry["tasks"] = {f"{sign}1+1": figures for sign, figures in zip("=+-@", entry["tasks"].values(), strict=True)}
    odd["routers"] = {"=HYPERLINK(1)": entry}
    rows = list(csv.DictReader(io.StringIO(tidy(typed(odd)))))
    assert [row["task"] for row in rows] == ["'=1+1", "'+1+1", "'-1+1", "'@1+1", "mean", "all"]
    assert {row["router"] for row in rows} == {"'=HYPERLINK(1)"} and rows[-1]["quality_ratio"] == "-0.5"


@pytest.mark.parametrize("factor", [1e-9, 1e-4, 1.0, 1e5])
def test_an_interval_contains_its_estimate_as_they_are_shown(summary: dict[str, Any], factor: float) -> None:
    other = json.loads(json.dumps(summary))
    names = list(other["routers"])
    # The first router is cheap, the others are not.
    for name in names[:1] if factor < 1 else names:
        figures = other["routers"][name]["overall"]
        figures["cost"] *= factor
        figures["cost_interval"] = [bound * factor for bound in figures["cost_interval"]]
    for shown in (other, {**other, "routers": {names[0]: other["routers"][names[0]]}}):
        grid = overall_grid(typed(shown))
        for row, entry in zip(grid.rows, shown["routers"].values(), strict=True):
            for cell, name in ((row.cells[0], "quality"), (row.cells[1], "cost")):
                (low, high), figure, exact = cell.lines[1].split(".."), cell.lines[0].split()[-1], entry["overall"]
                assert float(low) <= float(figure) <= float(high)
                assert float(figure) == pytest.approx(exact[name], rel=0.06)
                assert (float(high) > 0) == (exact[f"{name}_interval"][1] > 0)
                assert len(low) <= 8, "columns stay narrow"


@pytest.mark.parametrize("width", [160, 80, 40])
def test_every_figure_is_shown_whole_at_every_width(summary: dict[str, Any], width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    made = tables(task_grid(typed(summary)), width)
    assert (len(made) > 1) == (width == 40)
    for table in made:
        console.print(table)
    shown = console.export_text()
    assert "…" not in shown and all(len(line) <= width for line in shown.splitlines())
    # The rows of all parts, each line's figures one after another.
    words = re.findall(r"[^\s]+", shown)
    for row in task_grid(typed(summary)).rows:
        for cell in row.cells:
            assert not cell.lines[0] or cell.lines[0] + cell.mark in words
            assert all(line in words for line in cell.lines[1:])
    assert shown.count("paired") == 1


def test_markdown_has_bold_figures_and_whole_names(summary: dict[str, Any], folder: Path) -> None:
    lines = markdown(task_grid(typed(summary))).splitlines()
    assert "| router | a_task | b_&_c | all_alike | human | mean | x best single |" in lines
    (odd,) = (line for line in lines if line.startswith("| single:odd"))
    assert odd == (
        "| single:odd\\|one | 0.625<br>1.1250 | **1.000**+<br>0.6250 | 1.000<br>0.5000 | 0.000-<br>1.2500 "
        "| 0.656<br>0.8750 | 0.88x<br>0.50x |"
    )
    assert odd in (folder / "tables.md").read_text(encoding="utf-8")


def test_latex_says_the_same(summary: dict[str, Any], folder: Path) -> None:
    text = (folder / "tables.tex").read_text(encoding="utf-8")
    over_all, by_task = (latex(grid, summary["title"]) for grid in grids(typed(summary)))
    assert text == f"{over_all}\n{by_task}"
    assert r"\label{tab:t-on-t}" in over_all and r"\caption{t on t: 24 test items, one call each: cost" in over_all
    assert r"\label{tab:t-on-t-by-task}" in by_task and "one call each, by task: quality" in by_task
    for escaped in (r"US\$", r"b\_\&\_c", r"bad\_100\%", r"odd\textbar{}one"):
        assert escaped in by_task
    body = by_task.partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert all(line.replace(r"\&", "").count("&") == len(SCORES) + 2 for line in rows)
    assert sum(line.count(r"\textbf") for line in rows) == 4
    assert rows[[line.startswith("single:odd") for line in rows].index(True)] == (
        r"single:odd\textbar{}one & 0.625 & \textbf{1.000}\rlap{$^{+}$} & 1.000 & 0.000\rlap{$^{-}$} "
        r"& 0.656 & 0.88x \\"
    )


HARD = '#1 50% & $x_y^z$ {~} \\cmd <a|b> "q" -- ü'


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_with_booktabs_alone(folder: Path, tmp_path: Path) -> None:
    cell = Cell(("0.5", "-0.1", "50%"), "+", best=True)
    hard = Grid(
        HARD, (HARD, "h_" * 20), (Row(HARD, (cell, Cell())), Row("b", (Cell(), cell), "-", HARD, True)), (HARD,)
    )
    (tmp_path / "hard.tex").write_text(latex(hard, HARD), encoding="utf-8")
    shutil.copy(folder / "tables.tex", tmp_path)
    document = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{tables}\input{hard}\end{document}"
    (tmp_path / "main.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in (tmp_path / "main.log").read_text(errors="replace")


def test_names_are_broken_where_they_may_be() -> None:
    assert wrapped("mmlu_formal_logic", 7) == ["mmlu_", "formal_", "logic"]
    assert wrapped("pipeline:registry-north>reader", 16) == ["pipeline:", "registry-north>", "reader"]
    assert wrapped("x best single", 7) == ["x best", "single"]
    assert "".join(wrapped("a__b--c", 3)) == "a__b--c"
