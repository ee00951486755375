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

from harness.recorder.verify import draw
from pools.data.recording import load_recording, seal_recording
from pools.data.store import TransitionStore

Run = Callable[..., int]


@pytest.fixture(scope="module")
def names(tiny_pool_file: Path, tiny_tasks: Path) -> tuple[object, ...]:
    return ("--pool", tiny_pool_file, "--suite", tiny_tasks / "suite.yaml")


@pytest.fixture(scope="module")
def recorded(names: tuple[object, ...], harness: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "tiny"
    places = ("--store", folder.parent / "s.sqlite", "--out", folder)
    assert harness("record", *names, "--max-hops", 2, *places) == 0
    return folder


@pytest.fixture
def verify(names: tuple[object, ...], harness: Run) -> Run:
    """`verify(recording, ...)`: all of it."""
    return lambda recording, *more: harness("verify", "--recording", recording, *names, "--sample", 1000, *more)


@pytest.fixture
def edited(recorded: Path, tmp_path: Path) -> Callable[..., Path]:
    """`edited(score=0.0)`: a copy of the recording; a row of a second hop, on which nothing hangs, is another."""

    def edit(**changes: Any) -> Path:
        folder = Path(shutil.copytree(recorded, tmp_path / "other"))
        table = pq.read_table(folder / "transitions.parquet")
        rows = table.to_pylist()
        row = next(row for row in rows if len(row["pipeline"]) == 2 and row["score"] == 1.0)
        row.update({key: new(row[key]) if callable(new) else new for key, new in changes.items()})
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "transitions.parquet")
        seal_recording(folder)
        return folder

    return edit


def pool_with(tiny_pool_file: Path, old: str, new: str) -> Path:
    """A copy of the pool file, beside it, in which the text `old` (a pattern) is another."""
    path = tiny_pool_file.with_name(f"{abs(hash(new))}.yaml")
    path.write_text(re.sub(old, new, tiny_pool_file.read_text(), flags=re.M))
    return path


def test_what_was_recorded_is_generated_again(recorded: Path, verify: Run, tmp_path: Path, capsys: Any) -> None:
    assert verify(recorded, "--out", tmp_path / "deep" / "report.json") == 0
    shown = capsys.readouterr().out
    assert "100.0% of 96 responses equal" in shown and "96 of 96 scores re-computed equal" in shown
    report = json.loads((tmp_path / "deep" / "report.json").read_text())
    assert (report["holds"], report["equal"], report["differ"]) == (True, 1.0, [])


def test_another_response_is_listed_with_its_scores(
    edited: Callable[..., Path], verify: Run, tmp_path: Path, capsys: Any
) -> None:
    other = edited(response="abc", score=1.0)  # an odd number of letters, so its score is right
    report = tmp_path / "report.json"
    assert verify(other, "--at-least", 0.98, "--out", report) == 0
    [flip] = json.loads(report.read_text())["differ"]
    assert (flip["recorded"], flip["score"], flip["rescored"], flip["new_score"]) == ("abc", 1.0, 1.0, 1.0)
    assert flip["generated"] != "abc" and len(flip["pipeline"]) == 2
    assert "what differs" in capsys.readouterr().out
    assert verify(other, "--at-least", 1) == 1
    assert "does NOT hold" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("score", lambda _: 0.0, "95 of 96 scores re-computed equal"),
        ("tokens_in", lambda number: number + 1, "95 of 96 token counts: the recording does NOT hold"),
        ("tokens_out", lambda number: number + 1, "95 of 96 token counts: the recording does NOT hold"),
    ],
)
def test_a_wrong_score_or_count_fails(
    column: str, change: Any, message: str, edited: Callable[..., Path], verify: Run, capsys: Any
) -> None:
    assert verify(edited(**{column: change})) == 1
    assert message in capsys.readouterr().out.replace("\n", " ")


def test_a_pool_that_only_runs_its_models_otherwise_verifies(
    recorded: Path, names: tuple[object, ...], tiny_pool_file: Path, harness: Run
) -> None:
    pool = pool_with(tiny_pool_file, "batch_size: 4", "batch_size: 3")
    assert harness("verify", "--recording", recorded, "--pool", pool, *names[2:]) == 0


@pytest.mark.parametrize("what", ["models", "tasks"])
def test_other_models_and_tasks_are_refused(what: str, edited: Callable[..., Path], verify: Run, capsys: Any) -> None:
    other = edited()
    manifest = json.loads((other / "manifest.json").read_text())
    name = list(manifest[what])[-1]
    manifest[what][name] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    seal_recording(other)
    assert verify(other) == 2
    assert f"{what[:-1]} {name} is missing or another one than was recorded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("verify --sample 0", "--sample 0"),
        ("verify --seed -1", "--seed -1"),
        ("verify --out {tmp}", "is no place for a file"),
        ("verify --at-least 2", "--at-least 2"),
        ("verify --recording {recorded} --pool lightweight", "is not what"),
        ("record --max-hops 0", "--max-hops 0"),
        ("record --resident 0", "--resident 0"),
        ("record --ray-address auto", "--ray-address belongs to --engine ray"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(
    arguments: str, message: str, recorded: Path, harness: Run, tmp_path: Path, capsys: Any
) -> None:
    assert harness(*arguments.format(tmp=tmp_path, recorded=recorded).split()) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_sample_is_of_different_transitions_and_follows_its_seed(recorded: Path) -> None:
    tree = load_recording(recorded).tree
    assert len(set(draw(tree, 50, 1))) == 50
    assert draw(tree, 50, 1) == draw(tree, 50, 1) != draw(tree, 50, 2)
    assert all(node > 0 for _, node in draw(tree, 1000, 1)) and len(draw(tree, 1000, 1)) == 96


@pytest.fixture(params=["recording", "exported store"])
def earlier(request: pytest.FixtureRequest, recorded: Path, tmp_path: Path) -> Path:
    if request.param == "recording":
        return recorded
    TransitionStore(recorded.parent / "s.sqlite").export_parquet(tmp_path / "store.parquet")
    return tmp_path / "store.parquet"


def test_a_longer_recording_reuses_what_there_is(
    earlier: Path, recorded: Path, names: tuple[object, ...], harness: Run, tmp_path: Path, capsys: Any
) -> None:
    places = ("--store", tmp_path / "s.sqlite", "--out", tmp_path / "deeper", "--reuse", earlier)
    before = load_recording(recorded)
    reused, first = before.manifest["counts"]["distinct_requests"], before.manifest["origins"]
    for again in (False, True):  # the second time all is in the store, and no more is generated
        assert harness("record", *names, "--max-hops", 3, *places, "--resident", 1) == 0
        assert f"{reused} responses taken from" in capsys.readouterr().out.replace("\n", " ")
        after = load_recording(tmp_path / "deeper")
        requests, origins = after.manifest["counts"]["distinct_requests"], after.manifest["origins"]
        assert after.manifest["reused_responses"] == (requests if again else reused)
        assert len(TransitionStore(tmp_path / "s.sqlite")) == requests == sum(one["responses"] for one in origins)
        if earlier == recorded:
            assert {"recording": "tiny", "origins": first, "responses": reused} in origins
        else:  # generated by the same models with the same versions, then and now
            assert origins == [{**first[0], "responses": requests}]
        assert after.tree.complete and (after.tree.score[:, : before.tree.nodes] == before.tree.score).all()


def test_other_models_cannot_be_reused(
    earlier: Path, names: tuple[object, ...], tiny_pool_file: Path, harness: Run, tmp_path: Path, capsys: Any
) -> None:
    pool = pool_with(tiny_pool_file, "    weights:", '    template: "{{ query }}!"\n    weights:')
    places = ("--store", tmp_path / "s.sqlite", "--out", tmp_path / "out", "--reuse", earlier)
    assert harness("record", "--pool", pool, *names[2:], *places) == 2
    assert "none of its models" in capsys.readouterr().err


def test_another_pools_recording_is_not_replaced(
    recorded: Path, names: tuple[object, ...], tiny_pool_file: Path, harness: Run, tmp_path: Path, capsys: Any
) -> None:
    pool = pool_with(tiny_pool_file, "^name: .*", "name: another")
    places = ("--store", tmp_path / "s.sqlite", "--out", recorded)
    assert harness("record", "--pool", pool, *names[2:], "--max-hops", 2, *places) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "holds a recording of pool tiny" in said and "--force" in said
    assert load_recording(recorded).pool.name == "tiny"
    copy = Path(shutil.copytree(recorded, tmp_path / "copy"))
    assert harness("record", "--pool", pool, *names[2:], "--max-hops", 2, *places[:-1], copy, "--force") == 0
    assert load_recording(copy).pool.name == "another"


def test_pool_and_suite_are_found_where_they_were_recorded_from(
    tiny_tasks: Path, tiny_pool_file: Path, harness: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """They are named as a user would, and seen from the recording: all three may be moved together."""
    project = tmp_path / "project"
    shutil.copytree(tiny_pool_file.parent, project / "models")
    shutil.copytree(tiny_tasks, project / "tasks")
    suite = project / "tasks" / "suite.yaml"
    suite.write_text(suite.read_text().replace(str(tiny_tasks), str(project / "tasks")))
    monkeypatch.chdir(project)
    named = ("--pool", "models/tiny.yaml", "--suite", "tasks/suite.yaml", "--max-hops", 1, "--limit", 2)
    assert harness("record", *named, "--store", "s.sqlite", "--out", "runs/tiny") == 0
    files = json.loads((project / "runs" / "tiny" / "manifest.json").read_text())["files"]
    assert files == {"pool": "../../models/tiny.yaml", "suite": "../../tasks/suite.yaml"}
    monkeypatch.chdir(tmp_path)
    assert harness("verify", "--recording", "project/runs/tiny") == 0
    (project / "models" / "tiny.yaml").rename(project / "models" / "other.yaml")
    capsys.readouterr()
    assert harness("verify", "--recording", "project/runs/tiny") == 2
    said = capsys.readouterr().err
    assert "recorded with the pool tiny, which does not ship" in said and "../../models/tiny.yaml" in said
    assert harness("verify", "--recording", "project/runs/tiny", "--pool", "project/models/other.yaml") == 0


def test_a_recording_of_a_task_without_a_suite_is_verified_with_the_file_that_was_recorded(
    tiny_tasks: Path, tiny_pool_file: Path, harness: Run, tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(tiny_tasks, tmp_path / "tasks")
    task, out = tmp_path / "tasks" / "tiny_text.yaml", tmp_path / "made"
    named = ("--pool", tiny_pool_file, "--max-hops", 1, "--limit", 2, "--store", tmp_path / "s.sqlite")
    assert harness("record", *named, "--task", task, "--out", out) == 0
    assert json.loads((out / "manifest.json").read_text())["files"]["task:tiny_text"] == "../tasks/tiny_text.yaml"
    assert harness("verify", "--recording", out) == 0
    included = ("--task", "tiny_text", "--include-path", task.parent, "--out", tmp_path / "included")
    assert harness("record", *named, *included) == 0
    assert harness("verify", "--recording", tmp_path / "included") == 0
    (tmp_path / "mine.yaml").write_text("name: mine\ntasks: [{name: tiny_text}]\n")
    of_suite = ("--suite", tmp_path / "mine.yaml", "--include-path", task.parent, "--out", tmp_path / "of-suite")
    assert harness("record", *named, *of_suite) == 0
    assert harness("verify", "--recording", tmp_path / "of-suite") == 0
    elsewhere = task.parent.rename(tmp_path / "moved")
    assert harness("verify", "--recording", tmp_path / "included", "--include-path", elsewhere) == 0
    elsewhere.rename(task.parent)
    task.unlink()
    capsys.readouterr()
    assert harness("verify", "--recording", out) == 2
    said = capsys.readouterr().err
    assert "the suite tiny_text, which does not ship; its task's file was ../tasks/tiny_text.yaml" in said
    assert "as record was given them (--task)" in said
    assert harness("verify", "--recording", out, "--task", tiny_tasks / "tiny_text.yaml") == 0
    assert harness("verify", "--recording", out, "--task", "tiny_text", "--include-path", tiny_tasks) == 0
