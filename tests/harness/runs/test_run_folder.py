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
from pools.data.store import TransitionStore
from pools.weights import file_hash

Harness = Callable[..., int]


@pytest.fixture(scope="module")
def run(small_recording: Path) -> tuple[object, ...]:
    """The command."""
    return ("run", "--recording", small_recording, "--router", "random", "single:reader", "--baselines", "no")


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory, run: tuple[object, ...], harness: Harness) -> Path:
    out = tmp_path_factory.mktemp("small") / "run"
    assert harness(*run, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def baseline(small_recording: Path, tmp_path_factory: pytest.TempPathFactory, harness: Harness) -> Path:
    """A baseline of a router of the run."""
    path = tmp_path_factory.mktemp("baseline") / "b.json"
    assert harness("check", "--update", "--baseline", path, "--recording", small_recording, "--router", "random") == 0
    return path


def with_json(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def sealed(folder: Path) -> None:
    """With the checksums of the files as they are, as if a run had written them so."""
    hashes = {path.name: file_hash(path) for path in folder.iterdir() if path.name != "manifest.json"}
    with_json(folder, "manifest.json", lambda manifest: manifest.update(sha256=hashes))


def another_figure(folder: Path) -> None:
    with_json(folder, "summary.json", lambda s: s["routers"]["random"]["overall"].update(quality=0.5))


def an_impossible_figure(folder: Path) -> None:
    with_json(folder, "summary.json", lambda s: s["routers"]["random"]["overall"].update(cost=-1.0))
    sealed(folder)


def impossible_rows(folder: Path) -> None:
    table = pq.read_table(folder / "items.parquet")
    rows = [row | {"quality": float("nan")} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "items.parquet")
    sealed(folder)


def no_items(folder: Path) -> None:
    with_json(folder, "summary.json", lambda summary: summary.update(items=0))
    sealed(folder)


def no_checksums(folder: Path) -> None:
    with_json(folder, "manifest.json", lambda manifest: manifest.pop("sha256"))


def no_checksum_of_the_items(folder: Path) -> None:
    with_json(folder, "manifest.json", lambda manifest: manifest["sha256"].pop("items.parquet"))


def stopped(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / ".trained").mkdir()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (stopped, "is of a run that was stopped; finish it"),
        (another_figure, "summary.json is not of this run"),
        (lambda folder: with_json(folder, "manifest.json", lambda m: m.pop("seed")), "`seed` is missing"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json has not the form"),
        (an_impossible_figure, "routers.random.overall.cost: Input should be greater than or equal to 0, got -1.0"),
        (impossible_rows, "0.quality: Input should be a finite number"),
        (no_items, "items: Input should be greater than or equal to 1"),
        (lambda folder: (folder / "items.parquet").unlink(), "it has no items.parquet"),
        (no_checksums, "has no sha256 of its summary.json"),
        (no_checksum_of_the_items, "has no sha256 of its items.parquet"),
    ],
)
def test_what_is_not_a_whole_run_is_refused(
    small_run: Path,
    baseline: Path,
    tmp_path: Path,
    harness: Harness,
    change: Any,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By every command that reads the folder of a run."""
    folder = Path(shutil.copytree(small_run, tmp_path / "run"))
    change(folder)
    capsys.readouterr()
    for command in (
        ("report", folder, "--out", tmp_path / "r.html"),
        ("compare", folder, "--against", "random"),
        ("check", "--baseline", baseline, "--run", folder),
    ):
        assert harness(*command) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1, err
    assert not (tmp_path / "r.html").exists()


def test_a_run_replaces_a_run_and_nothing_else(
    run: tuple[object, ...],
    small_recording: Path,
    small_run: Path,
    tmp_path: Path,
    harness: Harness,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recording = Path(shutil.copytree(small_recording, tmp_path / "recording"))
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "summary.json").write_text("mine")
    for folder in (recording, notes):
        before = {path: path.read_bytes() for path in folder.iterdir()}
        capsys.readouterr()
        assert harness(*run, "--out", folder) == 2
        assert "holds no run; name a new folder" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
    folder = Path(shutil.copytree(small_run, tmp_path / "run"))
    (folder / "notes.txt").write_text("mine")
    (folder / "mine.safetensors").write_text("mine")
    (folder / "manifest.json").write_text("{")  # a run all the same
    assert harness(*run, "--seed", 2, "--out", folder) == 0
    assert load_run(folder).manifest.seed == 2
    assert {path.name for path in folder.iterdir()} == {path.name for path in small_run.iterdir()} | {
        "notes.txt",
        "mine.safetensors",
    }


def test_a_run_that_fails_leaves_no_folder_but_one_that_was_there(tmp_path: Path, harness: Harness) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("mine", "new"):
        assert harness("run", "--recording", tmp_path / "none", "--router", "random", "--out", tmp_path / name) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_paths_with_a_colon(
    tiny_pool_file: Path, tiny_tasks: Path, tmp_path: Path, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyarrow takes `exp:1` for an address; every command whose files pyarrow writes or reads."""
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
    assert harness("run", "--recording", "csv:1", "--router", "random", "--out", "exp:1") == 0
    assert harness("report", "exp:1", "--out", "page:1.html") == 0
    selection = ("--pool", tiny_pool_file, "--suite", tiny_tasks / "suite.yaml", "--max-hops", 1, "--limit", 12)
    record = ("record", *selection, "--sandbox", "rlimits")
    assert harness(*record, "--store", "s:1", "--out", "rec:1") == 0
    store = TransitionStore(Path("s:1"))
    store.export_parquet(Path("e:1.parquet"))
    store.close()
    assert harness(*record, "--store", "s:2", "--reuse", "e:1.parquet", "--out", "rec:2") == 0


def test_paths_with_brackets_are_printed_as_they_are(
    run: tuple[object, ...],
    small_recording: Path,
    tmp_path: Path,
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In rich markup `[red]` is a colour, and `[/x]` an error."""
    monkeypatch.chdir(tmp_path)
    for out in ("a[red]b/[/x]/k.safetensors", "[/x].safetensors"):
        assert harness("train", "--recording", small_recording, "--router", "knn", "--out", out) == 0
        assert f"checkpoint written to {out}\n" in capsys.readouterr().out and Path(out).is_file()
    assert harness(*run, "--out", "[/x]") == 0
    assert "written to [/x]\n" in capsys.readouterr().out


def test_runs_without_a_name_have_a_folder_each(
    run: tuple[object, ...], tmp_path: Path, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form, *of: "run-20260101-000000")
    assert harness(*run) == harness(*run, "--seed", 2) == 0
    made = {path.name: load_run(path).manifest.seed for path in (tmp_path / "runs").iterdir()}
    assert made == {"run-20260101-000000": 1, "run-20260101-000000-2": 2}


def test_another_run_is_replaced_only_with_force(
    small_recording: Path, tmp_path: Path, harness: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    run = ("run", "--recording", small_recording, "--router", "random", "--baselines", "no", "--out", tmp_path / "run")
    assert harness(*run) == 0 and harness(*run) == 0  # the same again
    capsys.readouterr()
    assert harness(*run, "--seed", 2) == 2
    assert "holds another run (python -m harness run" in capsys.readouterr().err
    assert load_run(tmp_path / "run").manifest.seed == 1
    assert harness(*run, "--seed", 2, "--force") == 0 and load_run(tmp_path / "run").manifest.seed == 2
