"""Every script in benchmarks/ can at least be started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kept_outcomes import Measured, of_seeds
from real_tables import CONTROLS, controlled
from tables_page import Goal, goals_of, sheet_of

from pools.data.recording import load_recording
from pools.mdp.tree import Tree

ROOT = Path(__file__).parents[1]
# As where what the benchmarks compare to is not installed; the script is the first argument.
START = """
import runpy, sys
sys.modules["stable_baselines3"] = None
del sys.argv[0]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


# Those with options; the others take the names of files, and one of them needs a fuzzer that is not installed.
SCRIPTS = [path for path in sorted((ROOT / "benchmarks").glob("*.py")) if "import tyro" in path.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_is_answered(script: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    command = [sys.executable, "-c", START, str(script), "--help"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout and "--help" in done.stdout


def test_real_tables_measures_every_item_once_and_writes_the_page_again(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    lines = ["item,task,prompt,model,score,cost,response"]
    for item in range(60):
        hard = item % 3 == 0
        prompt = f"what is {'one over' if hard else 'twice'} {item}"
        lines.append(f"{item},sums,{prompt},small,{int(not hard)},0.1,{item}")
        lines.append(f"{item},sums,{prompt},large,1,1.0,{generator.integers(99)}")
    (tmp_path / "sums.csv").write_text("\n".join(lines))
    (tmp_path / "tables.yaml").write_text("tables: [{name: sums, title: Sums, files: [sums.csv], hops: 2}]")
    page, work = tmp_path / "page.md", tmp_path / "work"
    command = [sys.executable, "benchmarks/real_tables.py", str(tmp_path), "--out", str(page), "--work", str(work)]
    command += ["--routers", "ridge", "fitted-q", "--encoder", "hashing"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    texts = []
    for more in ([], ["--report-only"]):
        done = subprocess.run([*command, *more], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        texts.append(page.read_text())
    assert texts[0] == texts[1]
    assert (tmp_path / "page" / "sums.png").is_file()
    for router in ("ridge", "fitted-q", "fitted-q, shuffled outcomes"):
        (kept,) = of_seeds(work / "sums" / router, [str(fold) for fold in range(5)])
        assert kept.items.tolist() == list(range(60))
    tree = load_recording(work / "sums" / "recording").tree
    said = [[tree.generation(item, node).response for node in (1, 2)] for item in range(60)]
    for control in CONTROLS:
        made = controlled(tree, control, seed=1)
        texts_of = [[made.generation(item, node).response for node in (1, 2)] for item in range(60)]
        assert (texts_of == said) == (control == "shuffled outcomes") and sorted(texts_of) == sorted(said)
        assert np.array_equal(made.score, tree.score) == (control == "shuffled answers")
        assert made.independent and made.complete
    # The words of the query tell which model is needed; if outcomes are dealt to other items they do not.
    ridge = next(line for line in texts[0].splitlines() if line.startswith("| ridge | 0."))
    assert "**+" in ridge
    control = next(line for line in texts[0].splitlines() if line.startswith("| fitted-q | shuffled outcomes"))
    assert "**+" not in control


def test_real_tables_joins_nothing_that_was_measured_on_another_table(tmp_path: Path) -> None:
    def measure(cost: str, *more: str) -> subprocess.CompletedProcess[str]:
        lines = ["item,task,prompt,model,score,cost,response"]
        for item in range(30):
            lines.append(f"{item},sums,what is twice {item},small,{item % 2},{cost},{item}")
            lines.append(f"{item},sums,what is twice {item},large,1,1.0,{item}")
        (tmp_path / "sums.csv").write_text("\n".join(lines))
        command = [sys.executable, "benchmarks/real_tables.py", str(tmp_path), "--out", str(tmp_path / "page.md")]
        command += ["--work", str(tmp_path / "work"), "--encoder", "hashing", *more]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    (tmp_path / "tables.yaml").write_text("tables: [{name: sums, title: Sums, files: [sums.csv], hops: 1}]")
    assert measure("0.1", "--routers", "ridge", "oracle").returncode == 0
    kept = tmp_path / "work" / "sums" / "ridge" / "0-1.npz"
    before = kept.stat().st_mtime_ns
    assert measure("0.1", "--routers", "ridge").returncode == 0 and kept.stat().st_mtime_ns == before
    mixed = measure("0.2", "--routers", "ridge")
    assert mixed.returncode == 2 and "are of different tables; measure them anew" in mixed.stderr
    assert kept.stat().st_mtime_ns > before
    assert measure("0.2", "--routers", "ridge", "oracle").returncode == 0


def test_goals_are_met_by_every_seed_and_on_every_table_or_not_at_all(
    synthetic_tree: Callable[..., Tree], tmp_path: Path
) -> None:
    tree = synthetic_tree(items=12, max_hops=1)
    items, weights = np.arange(len(tree.items)), np.array([0.0, 0.01])
    first = tree.level(1)
    best = int(tree.score[:, first].mean(axis=0).argmax())

    def keep(table: str, router: str, seed: int, quality: float, calls: list[float]) -> None:
        shape = len(weights), len(items)
        Measured(
            weights, items, np.full(shape, quality), np.full(shape, 1.0), np.zeros((*shape, len(first))),
            np.tile(calls, (len(weights), 1)), np.array(0.0), np.array("table code "),
        ).save(tmp_path / table / router / f"0-{seed}.npz")  # fmt: skip

    def goals(*tables: str) -> dict[str, Goal]:
        sheets = {table: sheet_of(tmp_path / table, tree, ["0"]) for table in tables}
        found = goals_of({n: s for n, s in sheets.items() if s is not None}, dict.fromkeys(tables, (0.0, 0.01)))
        return {goal.goal[:24]: goal for goal in found}

    spread = [1.0 / len(first)] * len(first)
    keep("one", "fitted-q", 1, 1.0, spread)
    keep("one", "ridge", 1, 0.5, spread)
    keep("one", "hierrouter", 1, 1.0, spread)
    value, collapse = "HierRouter's value not m", "HierRouter does not coll"
    assert goals("one")[value].met and goals("one")[collapse].met
    assert goals("one")["`hierrouter`, shuffled a"].met is None
    keep("one", "hierrouter", 2, 0.9, np.eye(len(first))[best].tolist())
    worse = goals("one")
    assert worse[value].met is False and "-0.0500" in worse[value].figure
    assert worse[collapse].met is False and "one at 0" in worse[collapse].figure
    keep("one", "hierrouter", 2, 1.0, spread)
    keep("two", "hierrouter", 1, 1.0, spread)  # but no fitted-q
    assert goals("one", "two")[value].met is None and goals("one", "two")[collapse].met is None


def test_ablation_prints_a_row_for_each_variant_and_yardstick() -> None:
    command = [sys.executable, "benchmarks/ablation.py", "--seeds", "2", "--share", "0.01"]
    command += ["--variants", "without query", "preset paper", "--cost-weight", "0.2", "--cost-weights", "0.1", "0.3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["without query", "preset paper", "best-pipeline-per-task", "oracle"]
    for row in rows:
        _, test, quality, cost = (float(cell.split(" ± ")[0]) for cell in row[1:5])
        assert test == pytest.approx(quality - 0.2 * cost, abs=2e-4)
        assert all(
            float(cell.split(" ± ")[0]) <= float(best) for cell, best in zip(row[1:3], rows[-1][1:3], strict=True)
        )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "holds no table that is known"),
        (["--tables", "arc"], "--tables arc: expected"),
        (["--peer", "routellm=nowhere"], "--peer routellm=nowhere: expected NAME=FOLDER"),
    ],
)
def test_real_tables_refuses_wrong_input_in_one_line(tmp_path: Path, given: list[str], said: str) -> None:
    if "--peer" in given:
        (tmp_path / "sums.csv").write_text("item,task,prompt,model,score,cost\n1,sums,one,small,1,0.1\n")
        (tmp_path / "tables.yaml").write_text("tables: [{name: sums, title: Sums, files: [sums.csv], hops: 1}]")
    command = [sys.executable, "benchmarks/real_tables.py", str(tmp_path), *given]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--model", "nobody"], "--model nobody: not of "),
        (["--task", "sums", "nothing"], "--task nothing: not of "),
        (["--hops", "4"], "--hops 4: not of "),
        (["--items", "0"], "--items 0: no request would be made"),
    ],
)
def test_bench_hf_refuses_what_the_recording_does_not_hold_in_one_line(given: list[str], said: str) -> None:
    command = [sys.executable, "benchmarks/bench_hf.py", *given]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr and done.stderr.count("\n") == 1
