"""The regression check: what is equal passes, what was made worse on purpose is found and named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import harness
from command_line import call
from harness.regression import check as module
from harness.runs.source import RESULTS, recording_folder
from pools.data.recording import seal_recording
from routers import RouterRequest

RECORDING = recording_folder("lightweight", "offline")
POLICY = RESULTS / "policies" / "lightweight-offline" / "hierrouter-1.safetensors"
QA, CODER = "single:qa-specialist", "single:qwen2.5-coder-0.5b"
ROUTERS = (QA, CODER, "knn")
Rows = list[dict[str, Any]]


def make(baseline: Path, *arguments: object) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert call(monkeypatch, "check", "--baseline", baseline, "--update", *arguments) == 0
    return baseline


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baseline")
    return make(folder / "b.json", "--recording", RECORDING, "--router", *ROUTERS)


@pytest.fixture
def baseline(made: Path, tmp_path: Path) -> Path:
    """A baseline of three routers on the shipped recording, to be edited at will."""
    return Path(shutil.copy(made, tmp_path / "baseline.json"))


def edited(folder: Path, change: Callable[[dict[str, Any]], None], source: Path = RECORDING) -> Path:
    """A copy of the recording in which `change` was made to each transition."""
    shutil.copytree(source, folder)
    table = pq.read_table(folder / "transitions.parquet")
    rows: Rows = table.to_pylist()
    for row in rows:
        change(row)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "transitions.parquet")
    seal_recording(folder)
    return folder


def tenfold(row: dict[str, Any]) -> None:
    """Ten times the tokens, so that a fifth more is a whole number of them."""
    row.update(tokens_in=row["tokens_in"] * 10, tokens_out=row["tokens_out"] * 10)


def dearer(row: dict[str, Any]) -> None:
    """The first hop of one model on one task costs a fifth more."""
    tenfold(row)
    if row["task"] == "rg_aiw" and row["pipeline"] == ["qa-specialist"]:
        row.update(tokens_in=row["tokens_in"] * 6 // 5, tokens_out=row["tokens_out"] * 6 // 5)


def dearer_second_hop(row: dict[str, Any]) -> None:
    """The second hop of every pipeline costs a fifth more."""
    tenfold(row)
    if len(row["pipeline"]) == 2:
        row.update(tokens_in=row["tokens_in"] * 6 // 5, tokens_out=row["tokens_out"] * 6 // 5)


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def reasons(shown: str) -> list[str]:
    return [line.removeprefix("WORSE: ") for line in shown.splitlines() if line.startswith("WORSE: ")]


def test_the_shipped_baseline_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    shipped = json.loads(module.SHIPPED.read_text())
    assert {"hierrouter", "best-pipeline-per-task", "knn", QA, CODER} <= set(shipped["routers"])
    assert call(monkeypatch, "check", "--junit", tmp_path / "j.xml") == 0
    shown = capsys.readouterr().out
    assert "check passed" in shown and all(name in shown for name in shipped["routers"])


def test_an_equal_run_passes_and_every_figure_is_a_test_case(
    baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    junit = tmp_path / "reports" / "junit.xml"
    assert call(monkeypatch, "check", "--baseline", baseline, "--junit", junit) == 0
    shown = capsys.readouterr().out
    assert "check passed: none of 42 figures of 3 routers is worse" in shown and not reasons(shown)
    root = ElementTree.parse(junit).getroot()
    [suite] = root
    for element in (root, suite):
        assert (element.get("tests"), element.get("failures"), element.get("errors")) == ("42", "0", "0")
        assert float(element.get("time", "")) > 0
    cases = {(case.get("classname"), case.get("name")) for case in suite}
    tasks = set(json.loads(baseline.read_text())["items"]["task"])
    expected = {
        (f"harness.regression.check.{router}", f"{scope} {measure}")
        for router in ROUTERS
        for scope in (*tasks, "overall")
        for measure in ("quality", "cost")
    }
    assert cases == expected and not list(suite.iter("failure"))


def test_a_dearer_hop_is_found_and_named_until_the_baseline_is_updated(
    baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    plain, raised = edited(tmp_path / "plain", tenfold), edited(tmp_path / "raised", dearer)
    make(baseline, "--recording", plain)
    before = baseline.read_bytes()
    junit = tmp_path / "junit.xml"
    command = ("check", "--baseline", baseline, "--junit", junit)
    assert call(monkeypatch, *command) == 0
    capsys.readouterr()
    assert call(monkeypatch, *command, "--recording", raised) == 1
    shown = capsys.readouterr().out
    assert baseline.read_bytes() == before
    found = reasons(shown)
    assert any(r.startswith(f"{QA}: cost on rg_aiw rose by 20.0% (+0.0") and "T param-tokens" in r for r in found)
    assert any(r.startswith(f"{QA}: cost overall rose by") for r in found)
    assert not any(CODER in r or "quality" in r or "human_eval" in r for r in found)
    assert "differs from the baseline in transitions.parquet of the recording" in shown
    suite = ElementTree.parse(junit).getroot()[0]
    failed = {(c.get("classname"), c.get("name")): c.find("failure") for c in suite if c.find("failure") is not None}
    assert suite.get("failures") == str(len(found)) == str(len(failed))
    assert (f"harness.regression.check.{QA}", "rg_aiw cost") in failed
    assert {failure.get("message") for failure in failed.values() if failure is not None} == set(found)

    # What a fifth is allowed passes; less is not enough.
    assert call(monkeypatch, *command, "--recording", raised, "--tolerance-cost", 0.21) == 0
    assert call(monkeypatch, *command, "--recording", raised, "--tolerance-cost", 0.1) == 1
    make(baseline, "--recording", raised)
    capsys.readouterr()
    assert call(monkeypatch, *command) == 0
    assert call(monkeypatch, *command, "--recording", plain) == 0  # cheaper
    shown = capsys.readouterr().out
    assert f"better: {QA}: cost on rg_aiw fell by 16.7%" in shown and "--update would keep" in shown


def test_a_task_that_is_answered_worse_is_found_and_named(
    baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def wrong(row: dict[str, Any]) -> None:
        if row["task"] == "human_eval" and row["pipeline"] == ["qwen2.5-coder-0.5b"]:
            row["score"] = 0.0

    other = edited(tmp_path / "other", wrong)
    command = ("check", "--baseline", baseline, "--recording", other)
    assert call(monkeypatch, *command) == 1
    shown = capsys.readouterr().out
    assert any(r.startswith(f"{CODER}: quality on human_eval fell by 0.") for r in reasons(shown))
    assert not any(QA in r for r in reasons(shown))
    assert call(monkeypatch, *command, "--tolerance-quality", 1, "--tolerance-cost", 1e6) == 0  # knn chooses anew


def test_a_worse_policy_is_found_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    on = ("--recording", RECORDING)
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    shutil.copy(RESULTS / "policies" / RECORDING.name / "hierrouter-1.safetensors", good)
    assert call(monkeypatch, "train", *on, "--total-timesteps", 10_000, "--cost-weight", 1000, "--out", bad) == 0
    baseline = make(tmp_path / "b.json", *on, "--router", "hierrouter", "--checkpoint", good)
    for policy in (good, bad):
        assert call(monkeypatch, "run", *on, "--checkpoint", policy, "--out", tmp_path / policy.stem) == 0
    command = ("check", "--baseline", baseline)
    assert call(monkeypatch, *command, "--run", tmp_path / "good") == 0
    capsys.readouterr()
    assert call(monkeypatch, *command, "--run", tmp_path / "bad") == 1
    found = reasons(capsys.readouterr().out)
    assert any(r.startswith("hierrouter: quality overall fell by 0.") for r in found)
    assert call(monkeypatch, *command, "--checkpoint", bad) == 1
    assert reasons(capsys.readouterr().out) == found
    # With the worse one as the baseline, the better one passes.
    make(baseline, "--checkpoint", bad)
    assert call(monkeypatch, *command, "--checkpoint", good, "--tolerance-cost", 1e6) == 0
    assert "better: hierrouter: quality overall rose by 0." in capsys.readouterr().out


def test_what_is_trained_anew_may_fall_as_far_as_other_seeds_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import routers.ppo_hierrouter as trainer

    seeds, real = [], trainer.train

    def short(options: trainer.Options, train: Any, validation: Any, request: RouterRequest) -> Any:
        seeds.append(request.seed)
        return real(replace(options, total_timesteps=10_000), train, validation, request)

    monkeypatch.setattr(trainer, "train", short)
    monkeypatch.setattr(module, "OTHER_SEEDS", 2)
    # No policy of these seeds ships.
    baseline = make(tmp_path / "b.json", "--recording", RECORDING, "--router", "hierrouter", QA, "--seed", 11)
    assert seeds == [11, 12, 13]
    spread = json.loads(baseline.read_text())["spread"]
    assert list(spread) == ["hierrouter"]
    quality = {}
    for seed in (11, 12, 13):
        out = tmp_path / str(seed)
        assert call(monkeypatch, "run", "--recording", RECORDING, "--retrain", "--seed", seed, "--out", out) == 0
        entry = json.loads((out / "summary.json").read_text())["routers"]["hierrouter"]
        quality[seed] = [entry["overall"]["quality"], *(figures["quality"] for figures in entry["tasks"].values())]
    furthest = np.max([np.abs(np.subtract(quality[s], quality[11])) for s in (12, 13)], axis=0)
    stated = [spread["hierrouter"]["overall"], *spread["hierrouter"]["tasks"].values()]
    assert [s["quality"] for s in stated] == pytest.approx(furthest)
    assert call(monkeypatch, "check", "--baseline", baseline) == 0
    for seed in (12, 13):
        assert call(monkeypatch, "check", "--baseline", baseline, "--run", tmp_path / str(seed)) == 0
    # Without the spread, whatever lies clear of the baseline fails.
    far = edited(tmp_path / "far", lambda row: row.update(score=0.0))
    assert call(monkeypatch, "check", "--baseline", baseline, "--recording", far) == 1


def test_the_spread_is_tolerated_where_it_was_measured_and_nowhere_else(
    baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def costs_half(data: dict[str, Any]) -> None:
        data["routers"][QA]["cost"] = [cost / 2 for cost in data["routers"][QA]["cost"]]
        scopes = {task: {"cost": 1.0} for task in data["items"]["task"]}
        del scopes["human_eval"]
        data["spread"] = {QA: {"overall": {"cost": 1.0}, "tasks": scopes}}

    rewrite(baseline, costs_half)
    assert call(monkeypatch, "check", "--baseline", baseline) == 1
    [reason] = reasons(capsys.readouterr().out)
    assert reason.startswith(f"{QA}: cost on human_eval rose by 100.0%")


@pytest.mark.parametrize(("shift", "code"), [(-1e-10, 0), (1e-10, 0), (-1e-6, 1), (1e-6, 0)])
def test_only_differences_beyond_floating_point_count(
    baseline: Path, shift: float, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(data: dict[str, Any]) -> None:
        data["routers"]["knn"]["cost"] = [cost + shift for cost in data["routers"]["knn"]["cost"]]

    rewrite(baseline, change)
    assert call(monkeypatch, "check", "--baseline", baseline) == code


def test_items_are_paired_whatever_their_order(baseline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def turn(data: dict[str, Any]) -> None:
        for columns in (data["items"], *data["routers"].values()):
            for values in columns.values():
                values.reverse()

    rewrite(baseline, turn)
    assert call(monkeypatch, "check", "--baseline", baseline) == 0


def test_update_keeps_what_is_not_given(baseline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(baseline, "--task", "rg_aiw", "human_eval", "--split", "all", "--limit", 9, "--allow-stop", "False")
    first = json.loads(baseline.read_text())
    assert first["run"]["router"] == list(ROUTERS) and first["run"]["allow_stop"] is False
    assert len(first["items"]["task"]) == 18 == len(first["routers"]["knn"]["quality"])
    make(baseline, "--router", QA)
    second = json.loads(baseline.read_text())
    assert second["run"] == {**first["run"], "router": [QA]}
    assert {"date", "commit", "versions", "source"} <= set(second["provenance"])
    assert list(baseline.parent.iterdir()) == [baseline]
    assert call(monkeypatch, "check", "--baseline", baseline) == 0


def one_number_less(data: dict[str, Any]) -> None:
    data["routers"]["knn"]["quality"].pop()


def set_at(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        *keys, last = path.split("/")
        for key in keys:
            data = data[int(key) if isinstance(data, list) else key]  # type: ignore[call-overload]
        data[int(last) if isinstance(data, list) else last] = value  # type: ignore[call-overload]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (one_number_less, " numbers"),
        (set_at("format", 9), "format: Input should be 1, got 9"),
        (set_at("routers/knn/cost/3", float("nan")), "routers.knn.cost.3: "),
        (set_at("routers/knn/cost/3", None), "routers.knn.cost.3: Input should be a valid number, got None"),
        (set_at("routers/knn/quality/3", "1"), "routers.knn.quality.3: Input should be a valid number"),
        (set_at("routers/knn/quality/3", True), "routers.knn.quality.3: Input should be a valid number"),
        (set_at("routers/knn/cost", None), " numbers"),
        (set_at("routers/other", {"quality": [], "cost": []}), "but run.router is"),
        (set_at("run/router", ["knn"]), "run.router is knn"),
        (lambda data: data.update(routers={}), "routers: Dictionary should have at least 1 item"),
        (set_at("run/seed", -1), "run.seed: Input should be greater than or equal to 0, got -1"),
        (set_at("run/seed", "1"), "run.seed: Input should be a valid integer"),
        (set_at("run/split", "tets"), "run.split: Input should be 'train', 'validation', 'test' or 'all', got 'tets'"),
        (set_at("run/allow_stop", 1), "run.allow_stop: Input should be a valid boolean"),
        (set_at("run/cost_weight", 0.1), "run.cost_weight: Input should be a valid string"),
        (set_at("run/live", True), "unknown key 'run.live'"),
        (set_at("run", []), "run: Input should be an object"),
        (set_at("items/doc_id/0", 0.5), "items.doc_id.0: Input should be a valid integer"),
        (set_at("items/task", []), "items.task: List should have at least 1 item"),
        (set_at("items/doc_id/0", 10**6), "rg_aiw 1000000"),
        (set_at("items/task/0", "rg_other"), "only in the baseline (rg_other"),
        (set_at("cost_unit", "US$"), "costs are in US$"),
        (
            set_at("spread", {"knn": {"overall": {"cost": -1}, "tasks": {}}}),
            "spread.knn.overall.cost: Input should be greater than or equal to 0",
        ),
    ],
)
def test_a_wrong_baseline_is_one_line_and_exit_code_2(
    baseline: Path, change: Any, message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    rewrite(baseline, change)
    before = baseline.read_bytes()
    assert call(monkeypatch, "check", "--baseline", baseline, "--junit", baseline.with_name("j.xml")) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("harness: ") and error.count("\n") == 1
    assert list(baseline.parent.iterdir()) == [baseline] and baseline.read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"format": 1', "[" * 100_000, '{"format": 1e999}', "\x00"])
def test_damaged_json_is_one_line_and_exit_code_2_and_is_not_overwritten(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    for update in ((), ("--update",)):
        assert call(monkeypatch, "check", "--baseline", path, *update) == 2
        error = capsys.readouterr().err
        assert "cannot be read" in error and error.count("\n") == 1
    assert path.read_text() == text and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--baseline {tmp}/none.json", "no baseline"),
        ("--baseline {tmp}", "is a folder"),
        ("--router knn", "give it with --update"),
        ("--seed 2", "give it with --update"),
        ("--run {tmp}", "it has no summary.json"),
        ("--run {tmp} --recording {tmp}", "leave it out"),
        ("--run {tmp} --update", "leave out --run"),
        ("--tolerance-cost -1", "expected a number >= 0"),
        ("--tolerance-quality nan", "expected a number >= 0"),
        ("--junit {tmp}", "is a folder"),
        ("--recording {tmp}", "is not a recording"),
        ("--checkpoint {tmp}/none", "is not there; train one with"),
        ("--update --router nobody", "unknown router"),
        ("--update --cost-weight -1", "expected a number >= 0"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(
    baseline: Path, arguments: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    before = baseline.read_bytes()
    given = arguments.format(tmp=baseline.parent).split()
    mine = () if "--baseline" in given else ("--baseline", baseline)
    assert call(monkeypatch, "check", *mine, *given) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert baseline.read_bytes() == before


def damaged_run(folder: Path, column: str, values: Sequence[object]) -> None:
    table = pq.read_table(folder / "items.parquet")
    index = table.column_names.index(column)
    pq.write_table(table.set_column(index, column, pa.array(values, table.schema.field(column).type)),
                   folder / "items.parquet")  # fmt: skip


def test_what_a_run_lacks_is_never_taken_for_equal(
    baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def run(name: str, *arguments: object) -> Path:
        given = ("--recording", RECORDING, "--baselines", "no", *arguments, "--out", tmp_path / name)
        assert call(monkeypatch, "run", *given) == 0
        return tmp_path / name

    def refused(folder: Path) -> str:
        capsys.readouterr()
        assert call(monkeypatch, "check", "--baseline", baseline, "--run", folder) == 2
        return str(capsys.readouterr().err)

    assert "router knn of the baseline is not in the run" in refused(run("two", "--router", QA, CODER))
    assert "only in the run" in refused(run("all", "--router", *ROUTERS, "--split", "all"))
    assert "only in the baseline (rg_aiw" in refused(run("one", "--router", *ROUTERS, "--task", "human_eval"))
    whole = run("whole", "--router", *ROUTERS)
    assert call(monkeypatch, "check", "--baseline", baseline, "--run", whole) == 0
    costs = pq.read_table(whole / "items.parquet")["cost"].to_pylist()
    damaged_run(whole, "cost", [float("nan"), *costs[1:]])
    assert "items.parquet is not of this run" in refused(whole)


def test_a_score_that_is_no_number_is_refused(
    baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    other = edited(tmp_path / "other", lambda row: row.update(score=float("nan")))
    before = baseline.read_bytes()
    for update in ((), ("--update",)):
        assert call(monkeypatch, "check", "--baseline", baseline, "--recording", other, *update) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert baseline.read_bytes() == before


def test_from_outside_the_exit_code_says_it(baseline: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(harness.__file__).parent.parent)}

    def exit_code() -> int:
        command = [sys.executable, "-m", "harness", "check", "--baseline", str(baseline)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert "Traceback" not in done.stderr
        return done.returncode

    assert exit_code() == 0
    rewrite(baseline, set_at(f"routers/{QA}/cost", [0.0] * len(json.loads(baseline.read_text())["items"]["task"])))
    assert exit_code() == 1
    baseline.unlink()
    assert exit_code() == 2


def test_the_shipped_policy_stays_the_same_on_another_recording(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the shipped baseline's HierRouter does is compared, not what one trained on the other recording does."""
    tens = edited(tmp_path / "tens", tenfold)
    baseline = make(tmp_path / "b.json", "--recording", tens, "--router", "hierrouter", "--checkpoint", POLICY)
    rewrite(baseline, lambda data: data["run"].update(checkpoint=None, recording=None))
    capsys.readouterr()
    assert call(monkeypatch, "check", "--baseline", baseline, "--recording", tens) == 0
    passed = capsys.readouterr().out
    assert "check passed" in passed and "training" not in passed
    dear = edited(tmp_path / "dear", dearer_second_hop)
    assert call(monkeypatch, "check", "--baseline", baseline, "--recording", dear) == 1
    failed = capsys.readouterr().out
    assert "WORSE: hierrouter: cost overall rose by" in failed and "training" not in failed
    assert "quality" not in "".join(line for line in failed.splitlines() if line.startswith("WORSE"))
