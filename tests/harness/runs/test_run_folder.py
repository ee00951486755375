"""The folder of a run: where one may be written, and that what does not agree is not read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from harness.runs.folder import load_run
from harness.runs.source import recording_folder
from pools.data.store import TransitionStore

Harness = Callable[..., int]
SMALL = recording_folder("lightweight", "offline").with_name("lightweight-offline-three-hops")
RUN = ("run", "--recording", SMALL, "--router", "random", "single:qa-specialist", "--baselines", "no")
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory, harness: Harness) -> Path:
    out = tmp_path_factory.mktemp("small") / "run"
    assert harness(*RUN, "--out", out) == 0
    return out


def _changed(number: int, **changes: Any) -> Callable[[Rows], Rows]:
    """One row with other values."""
    return lambda rows: [row | changes if row is rows[number] else row for row in rows]


def _exchanged(rows: Rows) -> Rows:
    """The scores of two tasks exchanged: overall nothing is another."""
    last = len(rows) // 2 - 1  # of the first router
    assert rows[0]["router"] == rows[last]["router"] and rows[0]["task"] != rows[last]["task"]
    scores = {0: rows[last]["quality"], last: rows[0]["quality"]}
    return [row | {"quality": scores.get(number, row["quality"])} for number, row in enumerate(rows)]


DISAGREEING: dict[str, tuple[Callable[[Rows], Rows], str]] = {
    "another score": (_changed(-1, quality=1.0), "quality of single:qa-specialist overall is"),
    "other costs": (lambda rows: [r | {"cost": r["cost"] * 1.01} for r in rows], "cost of random overall is"),
    "scores of another task": (_exchanged, "quality of random on rg_aiw is"),
    "a router more": (lambda rows: [*rows, rows[0] | {"router": "x"}], "rows of 'x', which the summary lacks"),
    "other tasks": (lambda rows: [row | {"task": "t"} for row in rows], "are of other tasks than the summary's"),
    "not a number": (_changed(0, quality=float("nan")), "is nan, expected a number from 0 to 1"),
    "infinite": (_changed(0, cost=float("inf")), "is inf, expected a finite number >= 0"),
    "above 1": (_changed(0, quality=1.5), "is 1.5, expected a number from 0 to 1"),
    "below 0": (_changed(0, cost=-1.0), "is -1.0, expected a finite number >= 0"),
}


def read(harness: Harness, folder: Path, out: Path) -> list[int]:
    """Exit codes of every command that reads the folder of a run."""
    report, compare = ("report", folder, "--out", out / "r.html"), ("compare", folder, "--against", "random")
    return [harness(*command) for command in (report, compare, ("check", "--run", folder))]


def unsealed(folder: Path) -> None:
    """Without checksums, as an earlier version wrote it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("case", DISAGREEING)
def test_items_that_do_not_agree_with_the_summary_are_refused(
    small_run: Path, tmp_path: Path, harness: Harness, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = DISAGREEING[case]
    folder = Path(shutil.copytree(small_run, tmp_path / "run"))
    unsealed(folder)
    load_run(folder)
    table = pq.read_table(folder / "items.parquet")
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), schema=table.schema), folder / "items.parquet")
    capsys.readouterr()
    assert read(harness, folder, tmp_path) == [2, 2, 2]
    said = capsys.readouterr().err
    assert said.count(message) == said.count("\n") == 3, said
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"quality": 1.5}, "quality: Input should be less than or equal to 1"),
        ({"quality_interval": [-0.5, 0.5]}, "quality_interval.0: Input should be greater than or equal to"),
        ({"cost": -1.0}, "cost: Input should be greater than or equal to 0, got -1.0"),
    ],
)
def test_a_summary_that_cannot_be_is_refused(
    small_run: Path,
    tmp_path: Path,
    harness: Harness,
    figures: dict[str, Any],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(small_run, tmp_path / "run"))
    summary = json.loads((folder / "summary.json").read_text())
    summary["routers"]["random"]["overall"] |= figures
    (folder / "summary.json").write_text(json.dumps(summary))
    capsys.readouterr()
    assert read(harness, folder, tmp_path) == [2, 2, 2]
    assert capsys.readouterr().err.count(f"routers.random.overall.{said}") == 3


def test_a_run_of_no_items_is_refused(
    small_run: Path, tmp_path: Path, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(small_run, tmp_path / "run"))
    unsealed(folder)
    summary = json.loads((folder / "summary.json").read_text()) | {"items": 0}
    for entry in summary["routers"].values():
        entry["overall"]["items"], entry["tasks"] = 0, {}
    (folder / "summary.json").write_text(json.dumps(summary))
    pq.write_table(pq.read_table(folder / "items.parquet").slice(0, 0), folder / "items.parquet")
    capsys.readouterr()
    assert read(harness, folder, tmp_path) == [2, 2, 2]
    assert capsys.readouterr().err.count("items: Input should be greater than or equal to 1") == 3


def test_files_of_two_runs_are_refused(
    small_run: Path, tmp_path: Path, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even if they agree: a manifest belongs to the files that were written with it."""
    assert harness(*RUN, "--seed", 2, "--out", tmp_path / "other") == 0
    capsys.readouterr()
    for name in ("summary.json", "manifest.json"):  # another seed, other intervals, the same means
        folder = Path(shutil.copytree(small_run, tmp_path / f"with {name}"))
        shutil.copy(tmp_path / "other" / name, folder)
        assert read(harness, folder, tmp_path) == [2, 2, 2]
        assert capsys.readouterr().err.count("summary.json is not of this run") == 3


def test_a_run_replaces_a_run_and_nothing_else(
    small_run: Path, tmp_path: Path, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = Path(shutil.copytree(SMALL, tmp_path / "recording"))
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "summary.json").write_text("mine")
    for folder in (recording, notes):
        before = {path: path.read_bytes() for path in folder.iterdir()}
        capsys.readouterr()
        assert harness(*RUN, "--out", folder) == 2
        assert "holds no run; name a new folder" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
    folder = Path(shutil.copytree(small_run, tmp_path / "run"))
    (folder / "notes.txt").write_text("mine")
    (folder / "mine.safetensors").write_text("mine")
    (folder / "manifest.json").write_text("{")  # a run all the same
    assert harness(*RUN, "--seed", 2, "--out", folder) == 0
    assert load_run(folder).manifest["seed"] == 2
    assert {path.name for path in folder.iterdir()} == {path.name for path in small_run.iterdir()} | {
        "notes.txt",
        "mine.safetensors",
    }


def test_paths_with_a_colon(
    tiny_pool_file: Path, tiny_tasks: Path, tmp_path: Path, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyarrow takes `exp:1` for an address; every command that writes or reads such a path."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"item": str(n), "task": "t", "prompt": f"question {n}", "model": model, "score": n % 2, "cost": 0.5}
        for n in range(30)
        for model in "ab"
    ]
    table = pa.Table.from_pylist(rows)
    pa.csv.write_csv(table, tmp_path / "t:1.csv")
    with (tmp_path / "t:1.parquet").open("wb") as file:
        pq.write_table(table, file)
    for file_format in ("csv", "parquet"):
        assert harness("import", f"t:1.{file_format}", "--format", file_format, "--out", f"{file_format}:1") == 0
    recording = ("--recording", "csv:1")
    assert harness("train", *recording, "--total-timesteps", 600, "--out", "p:1.safetensors") == 0
    run = ("run", *recording, "--router", "hierrouter", "--checkpoint", "p:1.safetensors")
    assert harness(*run, "--out", "exp:1") == harness(*run, "--seed", 2, "--out", "exp:2") == 0
    assert harness("report", "exp:1", "exp:2", "--out", "page:1.html") == harness("report", "exp:1") == 0
    assert harness("compare", "exp:1", "exp:2", "--out", "c:1.csv") == 0
    check = ("check", "--baseline", "b:1.json")
    assert harness(*check, "--update", *recording, "--router", "random") == 0
    assert harness(*check, "--run", "exp:1", "--junit", "j:1.xml") == 0
    selection = ("--pool", tiny_pool_file, "--suite", tiny_tasks / "suite.yaml", "--max-hops", 1, "--limit", 12)
    record = ("record", *selection, "--sandbox", "rlimits")
    assert harness(*record, "--store", "s:1", "--out", "rec:1") == 0
    store = TransitionStore(Path("s:1"))
    store.export_parquet(Path("e:1.parquet"))
    store.close()
    assert harness(*record, "--store", "s:2", "--reuse", "e:1.parquet", "--out", "rec:2") == 0
    assert harness("run", "--recording", "rec:2", "--router", "random", "--out", "exp:3") == 0


def test_runs_without_a_name_have_a_folder_each(
    tmp_path: Path, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form, *of: "run-20260101-000000")
    assert harness(*RUN) == harness(*RUN, "--seed", 2) == 0
    made = {path.name: load_run(path).manifest["seed"] for path in (tmp_path / "runs").iterdir()}
    assert made == {"run-20260101-000000": 1, "run-20260101-000000-2": 2}
