"""`verify` finds what is not as it was recorded; `record --reuse` generates nothing twice."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command_line import call
from harness.recorder.verify import draw
from pools.data.recording import load_recording, seal_recording
from pools.data.store import TransitionStore


@pytest.fixture(scope="module")
def recorded(tiny_pool_file: Path, tiny_tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "tiny"
    selection = ("--pool", tiny_pool_file, "--suite", tiny_tasks / "suite.yaml", "--max-hops", 2)
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert call(monkeypatch, "record", *selection, "--store", folder.parent / "s.sqlite", "--out", folder) == 0
    return folder


def edited(recorded: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the recording in which one row of a second hop, so that nothing hangs on it, is another."""
    shutil.copytree(recorded, folder)
    table = pq.read_table(folder / "transitions.parquet")
    rows = table.to_pylist()
    change(next(row for row in rows if len(row["pipeline"]) == 2 and row["score"] == 1.0))
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "transitions.parquet")
    seal_recording(folder)
    return folder


@pytest.fixture
def names(tiny_pool_file: Path, tiny_tasks: Path) -> tuple[object, ...]:
    return ("--pool", tiny_pool_file, "--suite", tiny_tasks / "suite.yaml", "--sample", 1000)


def test_what_was_recorded_is_generated_again(
    recorded: Path, names: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert call(monkeypatch, "verify", "--recording", recorded, *names, "--out", tmp_path / "report.json") == 0
    shown = capsys.readouterr().out
    assert "100.0% of 96 responses equal" in shown and "96 of 96 scores re-computed equal" in shown
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["holds"], report["equal"], report["differ"]) == (True, 1.0, [])


def test_another_response_is_listed_with_its_scores(
    recorded: Path, names: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def other_response(row: dict[str, Any]) -> None:
        row.update(response="abc", score=1.0)  # an odd number of letters, so its score is right

    other = edited(recorded, tmp_path / "other", other_response)
    report = tmp_path / "report.json"
    assert call(monkeypatch, "verify", "--recording", other, *names, "--at-least", 0.98, "--out", report) == 0
    [flip] = json.loads(report.read_text())["differ"]
    assert (flip["recorded"], flip["score"], flip["rescored"], flip["new_score"]) == ("abc", 1.0, 1.0, 1.0)
    assert flip["generated"] != "abc" and len(flip["pipeline"]) == 2
    assert "what differs" in capsys.readouterr().out
    assert call(monkeypatch, "verify", "--recording", other, *names, "--at-least", 1) == 1
    assert "does NOT hold" in capsys.readouterr().out


def test_a_score_that_its_task_does_not_give_fails(
    recorded: Path, names: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    other = edited(recorded, tmp_path / "other", lambda row: row.update(score=0.0))
    assert call(monkeypatch, "verify", "--recording", other, *names) == 1
    assert "95 of 96 scores re-computed equal" in capsys.readouterr().out


def test_a_wrong_count_of_tokens_fails(
    recorded: Path, names: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for column in ("tokens_in", "tokens_out"):

        def one_more(row: dict[str, Any], column: str = column) -> None:
            row[column] += 1

        other = edited(recorded, tmp_path / column, one_more)
        assert call(monkeypatch, "verify", "--recording", other, *names) == 1
        assert "95 of 96 token counts: the recording does NOT hold" in capsys.readouterr().out.replace("\n", " ")


def test_a_pool_that_only_runs_its_models_otherwise_verifies(
    recorded: Path, names: tuple[object, ...], tiny_pool_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pool = tiny_pool_file.parent / "slower.yaml"
    pool.write_text(tiny_pool_file.read_text().replace("batch_size: 4", "batch_size: 3").replace("0.01", "7"))
    assert call(monkeypatch, "verify", "--recording", recorded, "--pool", pool, *names[2:]) == 0
    assert "the recording holds" in capsys.readouterr().out


def test_other_weights_are_refused(
    recorded: Path, names: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    other = tmp_path / "other"
    shutil.copytree(recorded, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["models"]["tiny-b"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    seal_recording(other)
    assert call(monkeypatch, "verify", "--recording", other, *names) == 2
    assert "tiny-b is another model now" in capsys.readouterr().err
    assert call(monkeypatch, "verify", "--recording", recorded, *names[2:], "--pool", "lightweight") == 2
    assert "is not what" in capsys.readouterr().err


def test_a_sample_is_of_different_transitions_and_follows_its_seed(recorded: Path) -> None:
    tree = load_recording(recorded).tree
    assert len(set(draw(tree, 50, 1))) == 50
    assert draw(tree, 50, 1) == draw(tree, 50, 1) != draw(tree, 50, 2)
    assert all(node > 0 for _, node in draw(tree, 1000, 1)) and len(draw(tree, 1000, 1)) == 96


def test_a_longer_recording_reuses_an_earlier_one(
    recorded: Path, tiny_pool_file: Path, tiny_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    selection = ("--pool", tiny_pool_file, "--suite", tiny_tasks / "suite.yaml", "--max-hops", 3)
    store = ("--store", tmp_path / "s.sqlite", "--out", tmp_path / "deeper", "--reuse", recorded)
    assert call(monkeypatch, "record", *selection, *store, "--resident", 1) == 0
    before, after = load_recording(recorded), load_recording(tmp_path / "deeper")
    assert f"{before.manifest['counts']['distinct_requests']} responses taken from" in capsys.readouterr().out
    reused = before.manifest["counts"]["distinct_requests"]
    assert after.manifest["reused_responses"] == reused
    by_origin = {origin.get("recording"): origin for origin in after.manifest["origins"]}
    assert by_origin["tiny"]["responses"] == reused and by_origin["tiny"]["origins"] == before.manifest["origins"]
    assert by_origin[None]["responses"] == after.manifest["counts"]["distinct_requests"] - reused
    assert by_origin[None]["versions"] == after.manifest["versions"]
    assert after.tree.complete and after.tree.max_hops == 3
    assert after.tree.shortened(2).contexts[:1] == before.tree.contexts[:1]
    assert (after.tree.score[:, : before.tree.nodes] == before.tree.score).all()
    assert len(TransitionStore(tmp_path / "s.sqlite")) == after.manifest["counts"]["distinct_requests"]


def test_a_recording_of_other_models_cannot_be_reused(
    recorded: Path, tiny_tasks: Path, tiny_pool_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pool = tiny_pool_file.parent / "renamed.yaml"
    pool.write_text(tiny_pool_file.read_text().replace("- name: tiny", "- name: other"))
    selection = ("--pool", pool, "--suite", tiny_tasks / "suite.yaml", "--max-hops", 1, "--reuse", recorded)
    assert call(monkeypatch, "record", *selection, "--store", tmp_path / "s.sqlite", "--out", tmp_path / "out") == 2
    assert "none of its models" in capsys.readouterr().err


def test_an_exported_store_can_be_reused(
    recorded: Path, tiny_pool_file: Path, tiny_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    number = TransitionStore(recorded.parent / "s.sqlite").export_parquet(tmp_path / "store.parquet")
    selection = ("--pool", tiny_pool_file, "--suite", tiny_tasks / "suite.yaml", "--max-hops", 2)
    places = ("--store", tmp_path / "s.sqlite", "--out", tmp_path / "again", "--reuse", tmp_path / "store.parquet")
    for _ in range(2):  # the second time all of them are in the store
        assert call(monkeypatch, "record", *selection, *places) == 0
        assert f"{number} responses taken from" in capsys.readouterr().out.replace("\n", " ")
        again, before = load_recording(tmp_path / "again"), load_recording(recorded)
        assert again.manifest["reused_responses"] == number
        assert again.manifest["origins"] == before.manifest["origins"]
        assert again.tree.contexts == before.tree.contexts


def test_an_exported_store_of_other_models_cannot_be_reused(
    recorded: Path, tiny_pool_file: Path, tiny_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    TransitionStore(recorded.parent / "s.sqlite").export_parquet(tmp_path / "store.parquet")
    pool = tiny_pool_file.parent / "other-templates.yaml"
    pool.write_text(tiny_pool_file.read_text().replace("weights:", 'template: "{{ query }}!"\n    weights:'))
    selection = ("--pool", pool, "--suite", tiny_tasks / "suite.yaml", "--max-hops", 1)
    places = ("--store", tmp_path / "s.sqlite", "--out", tmp_path / "out", "--reuse", tmp_path / "store.parquet")
    assert call(monkeypatch, "record", *selection, *places) == 2
    assert "none of its models" in capsys.readouterr().err


def test_another_pools_recording_is_not_replaced(
    recorded: Path, tiny_pool_file: Path, tiny_tasks: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pool = tiny_pool_file.parent / "renamed-pool.yaml"
    pool.write_text(re.sub(r"^name: .*", "name: another", tiny_pool_file.read_text(), flags=re.M))
    selection = ("--pool", pool, "--suite", tiny_tasks / "suite.yaml", "--max-hops", 2, "--out", recorded)
    assert call(monkeypatch, "record", *selection) == 2
    assert "holds a recording of pool tiny" in " ".join(capsys.readouterr().err.split())
    assert load_recording(recorded).pool.name == "tiny"
