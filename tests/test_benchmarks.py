"""Every script in benchmarks/ can at least be started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kept_outcomes import of_seeds
from real_tables import CONTROLS, controlled
from tables_page import cliques

from pools.data.recording import load_recording

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


def test_ablation_prints_a_row_for_each_variant_and_yardstick() -> None:
    command = [sys.executable, "benchmarks/ablation.py", "--seeds", "2", "--total-timesteps", "2000"]
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


def test_groups_are_the_largest_sets_without_two_that_are_told_apart() -> None:
    alike = np.eye(4, dtype=bool)
    for one, other in ((0, 1), (1, 2), (0, 2), (2, 3)):
        alike[one, other] = alike[other, one] = True
    assert sorted(cliques(alike, [], [0, 1, 2, 3], [])) == [(0, 1, 2), (2, 3)]


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
