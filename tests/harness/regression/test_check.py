"""The regression check: what is equal passes, what was made worse on purpose is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.regression import check as module
from harness.runs.source import RESULTS, recording_folder
from pools.data.recording import seal_recording
from routers import RouterRequest

RECORDING = recording_folder("lightweight", "offline")
POLICY = RESULTS / "policies" / RECORDING.name / "hierrouter-1.safetensors"
QA, CODER = "single:qa-specialist", "single:qwen2.5-coder-0.5b"
ROUTERS = (QA, CODER, "knn")
Change = Callable[[dict[str, Any]], None]
Run = Callable[..., int]


@pytest.fixture(scope="module")
def make(harness: Run) -> Callable[..., Path]:
    """`make(path, ...)`: the baseline that `check --update` writes."""

    def made(baseline: Path, *arguments: object) -> Path:
        assert harness("check", "--baseline", baseline, "--update", *arguments) == 0
        return baseline

    return made


@pytest.fixture(scope="module")
def made(make: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baseline")
    return make(folder / "b.json", "--recording", RECORDING, "--router", *ROUTERS)


@pytest.fixture
def baseline(made: Path, tmp_path: Path) -> Path:
    """A baseline of three routers on the shipped recording, to be edited at will."""
    return Path(shutil.copy(made, tmp_path / "baseline.json"))


def edited(folder: Path, change: Change) -> Path:
    """A copy of the recording in which `change` was made to each transition."""
    shutil.copytree(RECORDING, folder)
    table = pq.read_table(folder / "transitions.parquet")
    rows = table.to_pylist()
    for row in rows:
        change(row)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "transitions.parquet")
    seal_recording(folder)
    return folder


def times(factor: float, row: dict[str, Any]) -> None:
    """So many times the tokens."""
    row.update({name: round(row[name] * factor) for name in ("tokens_in", "tokens_out")})


def rewrite(path: Path, change: Change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def reasons(shown: str) -> list[str]:
    return [line.removeprefix("WORSE: ") for line in shown.splitlines() if line.startswith("WORSE: ")]


def test_the_shipped_baseline_passes_and_every_figure_is_a_test_case(tmp_path: Path, harness: Run, capsys: Any) -> None:
    shipped, junit = json.loads(module.SHIPPED.read_text()), tmp_path / "reports" / "junit.xml"
    assert {"hierrouter", "best-pipeline-per-task", "knn", QA, CODER} <= set(shipped["routers"])
    assert harness("check", "--junit", junit) == 0
    shown = capsys.readouterr().out
    assert "check passed: none of 84 figures of 6 routers is worse" in shown and not reasons(shown)
    assert all(name in shown for name in shipped["routers"])
    root = ElementTree.parse(junit).getroot()
    [suite] = root
    for element in (root, suite):
        assert (element.get("tests"), element.get("failures"), element.get("errors")) == ("84", "0", "0")
        assert float(element.get("time", "")) > 0
    assert {(case.get("classname"), case.get("name")) for case in suite} == {
        (f"harness.regression.check.{router}", f"{scope} {measure}")
        for router in shipped["routers"]
        for scope in {*shipped["items"]["task"], "overall"}
        for measure in ("quality", "cost")
    }
    assert not list(suite.iter("failure"))


def test_what_became_worse_is_found_and_named_until_the_baseline_is_updated(
    make: Callable[..., Path], tmp_path: Path, harness: Run, capsys: Any
) -> None:
    def plain(row: dict[str, Any]) -> None:
        times(10, row)  # so that a fifth more is a whole number of tokens

    def worse(row: dict[str, Any]) -> None:
        plain(row)
        if row["task"] == "rg_aiw" and row["pipeline"] == ["qa-specialist"]:
            times(1.2, row)
        if row["task"] == "human_eval" and row["pipeline"] == ["qwen2.5-coder-0.5b"]:
            row["score"] = 0.0

    before, after = edited(tmp_path / "before", plain), edited(tmp_path / "after", worse)
    baseline = make(tmp_path / "b.json", "--recording", before, "--router", QA, CODER)
    content, junit = baseline.read_bytes(), tmp_path / "junit.xml"
    command = ("check", "--baseline", baseline)
    capsys.readouterr()
    assert harness(*command, "--recording", after, "--junit", junit) == 1
    shown = capsys.readouterr().out
    assert baseline.read_bytes() == content
    found = reasons(shown)
    assert any(r.startswith(f"{QA}: cost on rg_aiw rose by 20.0% (+0.0") and "T param-tokens" in r for r in found)
    assert any(r.startswith(f"{CODER}: quality on human_eval fell by 0.") for r in found)
    assert {r.partition(" by ")[0] for r in found} == {
        *(f"{QA}: cost {where} rose" for where in ("overall", "on rg_aiw")),
        *(f"{CODER}: quality {where} fell" for where in ("overall", "on human_eval")),
    }
    assert "differs from the baseline in transitions.parquet of the recording" in shown
    suite = ElementTree.parse(junit).getroot()[0]
    failed = {(c.get("classname"), c.get("name")): c.find("failure") for c in suite if c.find("failure") is not None}
    assert suite.get("failures") == str(len(found)) == str(len(failed))
    assert (f"harness.regression.check.{QA}", "rg_aiw cost") in failed
    assert {failure.get("message") for failure in failed.values() if failure is not None} == set(found)

    # What a fifth is allowed passes; less is not enough.
    quality = ("--tolerance-quality", 1, "--recording", after, "--tolerance-cost")
    assert [harness(*command, *quality, tolerance) for tolerance in (0.21, 0.1)] == [0, 1]
    make(baseline, "--recording", after)
    capsys.readouterr()
    assert harness(*command, "--recording", before) == 0
    shown = capsys.readouterr().out
    assert f"better: {QA}: cost on rg_aiw fell by 16.7%" in shown and "--update would keep" in shown


def test_a_worse_policy_is_found_and_named(
    make: Callable[..., Path], tmp_path: Path, harness: Run, capsys: Any
) -> None:
    on, bad = ("--recording", RECORDING), tmp_path / "bad.safetensors"
    assert harness("train", *on, "--total-timesteps", 10_000, "--cost-weight", 1000, "--out", bad) == 0
    assert harness("run", *on, "--checkpoint", bad, "--baselines", "no", "--out", tmp_path / "bad") == 0
    baseline = make(tmp_path / "b.json", *on, "--router", "hierrouter")
    command = ("check", "--baseline", baseline)
    capsys.readouterr()
    assert harness(*command, "--run", tmp_path / "bad") == 1
    found = reasons(capsys.readouterr().out)
    assert any(r.startswith("hierrouter: quality overall fell by 0.") for r in found)
    assert harness(*command, "--checkpoint", bad) == 1
    shown = capsys.readouterr().out
    assert reasons(shown) == found and f"checkpoint: none -> {bad}" in shown
    make(baseline, "--checkpoint", bad)
    assert harness(*command, "--checkpoint", POLICY, "--tolerance-cost", 1e6) == 0
    assert "better: hierrouter: quality overall rose by 0." in capsys.readouterr().out


def test_what_is_trained_anew_may_fall_as_far_as_other_seeds_did(
    make: Callable[..., Path], tmp_path: Path, harness: Run, monkeypatch: pytest.MonkeyPatch
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
        assert harness("run", "--recording", RECORDING, "--retrain", "--seed", seed, "--out", out) == 0
        entry = json.loads((out / "summary.json").read_text())["routers"]["hierrouter"]
        quality[seed] = [entry["overall"]["quality"], *(figures["quality"] for figures in entry["tasks"].values())]
        assert harness("check", "--baseline", baseline, "--run", out) == 0
    furthest = np.max([np.abs(np.subtract(quality[s], quality[11])) for s in (12, 13)], axis=0)
    stated = [spread["hierrouter"]["overall"], *spread["hierrouter"]["tasks"].values()]
    assert [s["quality"] for s in stated] == pytest.approx(furthest)


def test_the_spread_is_tolerated_where_it_was_measured_and_nowhere_else(
    baseline: Path, harness: Run, capsys: Any
) -> None:
    def costs_half(data: dict[str, Any]) -> None:
        data["routers"][QA]["cost"] = [cost / 2 for cost in data["routers"][QA]["cost"]]
        scopes = {task: {"cost": 1.0} for task in data["items"]["task"]}
        del scopes["human_eval"]
        data["spread"] = {QA: {"overall": {"cost": 1.0}, "tasks": scopes}}

    rewrite(baseline, costs_half)
    assert harness("check", "--baseline", baseline) == 1
    [reason] = reasons(capsys.readouterr().out)
    assert reason.startswith(f"{QA}: cost on human_eval rose by 100.0%")


@pytest.mark.parametrize(("shift", "code"), [(-1e-10, 0), (-1e-6, 1)])
def test_only_differences_beyond_floating_point_count_whatever_the_order_of_items(
    baseline: Path, shift: float, code: int, harness: Run
) -> None:
    def change(data: dict[str, Any]) -> None:
        data["routers"]["knn"]["cost"] = [cost + shift for cost in data["routers"]["knn"]["cost"]]
        for columns in (data["items"], *data["routers"].values()):
            for values in columns.values():
                values.reverse()

    rewrite(baseline, change)
    assert harness("check", "--baseline", baseline) == code


def test_update_keeps_what_is_not_given(baseline: Path, make: Callable[..., Path], harness: Run) -> None:
    make(baseline, "--task", "rg_aiw", "human_eval", "--split", "all", "--limit", 9, "--allow-stop", "False")
    first = json.loads(baseline.read_text())
    assert first["run"]["router"] == list(ROUTERS) and first["run"]["allow_stop"] is False
    assert len(first["items"]["task"]) == 18 == len(first["routers"]["knn"]["quality"])
    make(baseline, "--router", QA)
    second = json.loads(baseline.read_text())
    assert second["run"] == {**first["run"], "router": [QA]}
    assert {"date", "commit", "versions", "source"} <= set(second["provenance"])
    assert list(baseline.parent.iterdir()) == [baseline]
    assert harness("check", "--baseline", baseline) == 0


def set_at(path: str, value: object) -> Change:
    def change(data: Any) -> None:
        *keys, last = path.split("/")
        for key in keys:
            data = data[key]
        data[int(last) if isinstance(data, list) else last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["routers"]["knn"]["quality"].pop(), "routers.knn.quality has 310 of 311 numbers"),
        (set_at("routers/knn/cost", None), "routers.knn.cost has 0 of 311 numbers"),
        (set_at("routers/knn/cost/3", float("nan")), "routers.knn.cost.3: "),
        (set_at("routers/knn/quality/3", "1"), "routers.knn.quality.3: Input should be a valid number"),
        (set_at("run/router", ["knn"]), "run.router is knn"),
        (set_at("run/live", True), "unknown key 'run.live'"),
        (set_at("format", 9), "format: Input should be 1, got 9"),
        (set_at("items/doc_id/0", 10**6), "2 are in one of the two alone, as rg_aiw "),
        (set_at("items/doc_id/0", 3), "items more than once"),
        (set_at("cost_unit", "US$"), "costs are in US$"),
    ],
)
def test_a_wrong_baseline_is_one_line_and_exit_code_2(
    baseline: Path, change: Any, message: str, harness: Run, capsys: Any
) -> None:
    rewrite(baseline, change)
    before = baseline.read_bytes()
    assert harness("check", "--baseline", baseline, "--junit", baseline.with_name("j.xml")) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("harness: ") and error.count("\n") == 1
    assert list(baseline.parent.iterdir()) == [baseline] and baseline.read_bytes() == before


def test_a_damaged_baseline_is_not_overwritten(tmp_path: Path, harness: Run, capsys: Any) -> None:
    path = tmp_path / "b.json"
    path.write_text("[" * 100_000)
    for update in ((), ("--update",)):
        assert harness("check", "--baseline", path, *update) == 2
        error = capsys.readouterr().err
        assert "cannot be read" in error and error.count("\n") == 1
    assert path.read_text() == "[" * 100_000 and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--baseline {tmp}/none.json", "no baseline"),
        ("--baseline {tmp}", "is a folder"),
        ("--router knn", "give it with --update"),
        ("--run {tmp}", "it has no summary.json"),
        ("--run {tmp} --recording {tmp}", "leave it out"),
        ("--run {tmp} --update", "leave out --run"),
        ("--tolerance-quality nan", "expected a number >= 0"),
        ("--junit {tmp}", "is a folder"),
        ("--recording {tmp}", "is not a recording"),
        ("--checkpoint {tmp}/none", "is not there; train one with"),
        ("--update --router nobody", "unknown router"),
        ("--update --cost-weight -1", "expected a number >= 0"),
        ("--update --seed -1", "--seed -1"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(
    baseline: Path, arguments: str, message: str, harness: Run, capsys: Any
) -> None:
    before = baseline.read_bytes()
    given = arguments.format(tmp=baseline.parent).split()
    mine = () if "--baseline" in given else ("--baseline", baseline)
    assert harness("check", *mine, *given) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert baseline.read_bytes() == before


def test_what_a_run_lacks_is_never_taken_for_equal(baseline: Path, tmp_path: Path, harness: Run, capsys: Any) -> None:
    def run(name: str, *arguments: object) -> Path:
        given = ("--recording", RECORDING, "--baselines", "no", *arguments, "--out", tmp_path / name)
        assert harness("run", *given) == 0
        return tmp_path / name

    def refused(folder: Path) -> str:
        capsys.readouterr()
        assert harness("check", "--baseline", baseline, "--run", folder) == 2
        return str(capsys.readouterr().err)

    assert "router knn of the baseline is not in the run" in refused(run("two", "--router", QA, CODER))
    assert "are in one of the two alone" in refused(run("all", "--router", *ROUTERS, "--split", "all"))
    whole = run("whole", "--router", *ROUTERS)
    assert harness("check", "--baseline", baseline, "--run", whole) == 0
    table = pq.read_table(whole / "items.parquet")
    costs = pa.array([float("nan"), *table["cost"].to_pylist()[1:]])
    pq.write_table(table.set_column(table.column_names.index("cost"), "cost", costs), whole / "items.parquet")
    assert "items.parquet" in refused(whole)


def test_the_shipped_policy_stays_the_same_on_another_recording(
    make: Callable[..., Path], harness: Run, tmp_path: Path, capsys: Any
) -> None:
    """What the shipped baseline's HierRouter does is compared, not what one trained on the other recording does."""
    tens = edited(tmp_path / "tens", lambda row: times(10, row))
    baseline = make(tmp_path / "b.json", "--recording", tens, "--router", "hierrouter", "--checkpoint", POLICY)
    rewrite(baseline, lambda data: data["run"].update(checkpoint=None, recording=None))
    capsys.readouterr()
    assert harness("check", "--baseline", baseline, "--recording", tens) == 0
    passed = capsys.readouterr().out
    assert "check passed" in passed and "training" not in passed and "checkpoint" not in passed
    dear = edited(tmp_path / "dear", lambda row: times(10 if len(row["pipeline"]) == 1 else 12, row))
    assert harness("check", "--baseline", baseline, "--recording", dear) == 1
    failed = capsys.readouterr().out
    assert any(r.startswith("hierrouter: cost overall rose by") for r in reasons(failed)) and "training" not in failed
    assert "quality" not in "".join(reasons(failed))
