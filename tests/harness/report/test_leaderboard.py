"""`leaderboard`: entries of runs, a page of entries, and entries that are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import harness as api

Run = Callable[..., int]


@pytest.fixture(scope="module")
def runs(small_recording: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs on one recording, of other routers."""
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for name, routers in (("one", ["cascade"]), ("two", ["knn", "random"])):
        path = folder / name
        api.evaluate(routers, small_recording, cost_weights=[0.5], seed=len(made) + 1).save(path)
        made.append(path)
    return made[0], made[1]


def test_runs_become_entries_and_the_page_ranks_them(
    runs: tuple[Path, Path], tmp_path: Path, harness: Run, capsys: Any
) -> None:
    folder = tmp_path / "entries"
    assert harness("leaderboard", runs[0], "--entries", folder) == 0
    assert harness("leaderboard", runs[1], "--entries", folder, "--label", "seed 2") == 0
    summary = api.load_run(runs[0]).summary
    files = sorted(path.name for path in folder.glob("*/*.json"))
    assert {"cascade.json", "knn-seed-2.json", "random-seed-2.json", "random.json", "oracle.json"} <= set(files)
    page = (folder / "README.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(rows) == len(files) and rows[-1].startswith("| oracle") and rows[-1].endswith("| a bound |")
    value = summary.routers["cascade"].overall.quality - 0.5 * (summary.routers["cascade"].overall.cost or 0)
    (cascade,) = (row for row in rows if row.startswith("| cascade"))
    assert f"| {value:.3f}<br>" in cascade
    values = [float(row.split("|")[2].split("<br>")[0]) for row in rows[:-1]]
    assert values == sorted(values, reverse=True)
    # The page is a function of the entries, and a run that is added again is no new entry.
    capsys.readouterr()
    assert harness("leaderboard", runs[0], "--entries", folder) == 0
    assert f"entries: {len(files)}, new: 0" in capsys.readouterr().out
    assert (folder / "README.md").read_text(encoding="utf-8") == page


def test_entries_that_contradict_themselves_or_others_are_refused_and_nothing_is_written(
    runs: tuple[Path, Path], tmp_path: Path, harness: Run, capsys: Any
) -> None:
    folder = tmp_path / "entries"
    assert harness("leaderboard", runs[0], "--entries", folder) == 0
    (file,) = folder.glob("*/cascade.json")
    whole, page = json.loads(file.read_text()), (folder / "README.md").read_text()
    task = next(iter(whole["items"]))
    better = json.loads(json.dumps(whole))
    better["items"][task]["quality"][0] = 1.0 - better["items"][task]["quality"][0]
    fewer = json.loads(json.dumps(whole))
    for column in fewer["items"][task].values():
        del column[1:]
    figures = [(q, c) for of in fewer["items"].values() for q, c in zip(of["quality"], of["cost"], strict=True)]
    fewer["quality"], fewer["cost"] = (sum(each) / len(figures) for each in zip(*figures, strict=True))
    fewer["value"] = fewer["quality"] - 0.5 * fewer["cost"]
    for changed, said in (
        (better, f"quality is {whole['quality']:g}, but by the items it is"),
        ({**whole, "value": whole["value"] + 0.1}, "value is"),
        ({**whole, "router": "other"}, "is in another place than its table and router say"),
        ({**whole, "format": 2}, "format"),
        (fewer, "has other items than"),
    ):
        file.write_text(json.dumps(changed))
        assert harness("leaderboard", "--entries", folder) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert (folder / "README.md").read_text() == page
    # Of the same name with other figures: it needs a name of its own.
    other = {**whole, "items": {**whole["items"], task: {**whole["items"][task]}}}
    other["items"][task]["quality"] = [1.0 - q for q in other["items"][task]["quality"]]
    quality = [q for of in other["items"].values() for q in of["quality"]]
    other["quality"] = sum(quality) / len(quality)
    other["value"] = other["quality"] - 0.5 * other["cost"]
    file.write_text(json.dumps(other))
    assert harness("leaderboard", runs[0], "--entries", folder) == 2
    assert "is there with other figures; give a --label" in capsys.readouterr().err


def test_a_page_of_ones_own_is_kept(runs: tuple[Path, Path], tmp_path: Path, harness: Run, capsys: Any) -> None:
    (tmp_path / "README.md").write_text("# My project\n")
    assert harness("leaderboard", runs[0], "--entries", tmp_path) == 2
    assert "README.md is there; name another file, or replace it with --force" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    (tmp_path / "README.md").unlink()
    assert harness("leaderboard", runs[0], "--entries", tmp_path) == 0
    assert harness("leaderboard", runs[0], "--entries", tmp_path / ".." / tmp_path.name) == 0


def test_what_cannot_be_ranked_together_is_not(
    runs: tuple[Path, Path], small_recording: Path, tmp_path: Path, harness: Run, capsys: Any
) -> None:
    """Of one hop the exact optimum is another, and a mean over trainings is no entry."""
    folder = tmp_path / "entries"
    api.evaluate("cascade", small_recording, cost_weights=[0.5], max_hops=1).save(tmp_path / "one-hop")
    assert harness("leaderboard", runs[0], tmp_path / "one-hop", "--entries", folder) == 0
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page.count("| a bound |") == 2 and "at most 1 hop\n" in page
    # A horizon that is asked for, and is the recording's own, is the same table.
    hops = api.load_run(runs[0]).manifest.max_hops
    api.evaluate("ridge", small_recording, cost_weights=[0.5], max_hops=hops, baselines="no").save(tmp_path / "asked")
    assert harness("leaderboard", tmp_path / "asked", "--entries", folder) == 0
    assert (folder / "README.md").read_text(encoding="utf-8").count("## ") == 2
    api.evaluate("knn", small_recording, cost_weights=[0.5], seeds=2, baselines="no").save(tmp_path / "seeds")
    assert harness("leaderboard", tmp_path / "seeds", "--entries", folder) == 2
    assert "knn is a mean over trainings; add a run of each --seed" in capsys.readouterr().err


def test_a_folder_without_entries_is_refused(tmp_path: Path, harness: Run, capsys: Any) -> None:
    assert harness("leaderboard", "--entries", tmp_path / "none") == 2
    assert "holds no entries; name runs" in capsys.readouterr().err


def test_the_page_in_the_documents_is_of_the_entries_that_ship(tmp_path: Path, harness: Run, monkeypatch: Any) -> None:
    root = Path(__file__).parents[3]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(root / "results" / "leaderboard", tmp_path / "results" / "leaderboard")
    page = Path("docs/results/leaderboard.md")
    assert harness("leaderboard", "--entries", "results/leaderboard", "--out", page) == 0
    assert page.read_text(encoding="utf-8") == (root / page).read_text(encoding="utf-8")


def test_a_page_is_made_again_and_no_other_file_is_replaced(
    runs: tuple[Path, Path], tmp_path: Path, harness: Run, capsys: Any
) -> None:
    first, second, page = tmp_path / "first", tmp_path / "second", tmp_path / "page.md"
    assert harness("leaderboard", runs[0], "--entries", first, "--out", page) == 0
    assert harness("leaderboard", runs[1], "--entries", first, "--label", "seed 2", "--out", page) == 0
    assert "seed 2" in (made := page.read_text())
    assert harness("leaderboard", runs[0], "--entries", second, "--out", page) == 2
    assert "--force" in capsys.readouterr().err and page.read_text() == made and not second.exists()
    assert harness("leaderboard", runs[0], "--entries", second, "--out", page, "--force") == 0
    assert "seed 2" not in page.read_text()
