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
from shipped import POLICY, RECORDING, edited

from harness.evaluation.paired import Figures, Results, compare_routers
from harness.regression import check as module
from pools.data.recording import load_recording, seal_recording
from pools.types import Context
from routers import RouterRequest
from routers.encoders.hashing import HashingEncoder
from routers.hierrouter import HierRouter
from routers.ppo_hierrouter import Agent
from routers.router import RoutingStates

READER, CODER = "single:reader", "single:qwen2.5-coder-0.5b"
ROUTERS = (READER, CODER, "knn")
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
def made(make: Callable[..., Path], small_recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baseline")
    return make(folder / "b.json", "--recording", small_recording, "--router", *ROUTERS)


@pytest.fixture
def baseline(made: Path, tmp_path: Path) -> Path:
    """A baseline of three routers on a part of the shipped recording, to be edited at will."""
    return Path(shutil.copy(made, tmp_path / "baseline.json"))


def chances(seed: int, falls: float = 0.0) -> tuple[Results, Results]:
    """Two runs of eight routers on two tasks, in which a tenth of the items came out otherwise, either way at random.

    falls: by how much the first router's quality is worse everywhere.
    """
    drawn = np.random.default_rng(seed)
    items = tuple(("ab"[n % 2], n) for n in range(160))
    before, after = {}, {}
    for name in "ABCDEFGH":
        quality, moved = drawn.random(160), drawn.random(160) < 0.5
        other = np.where(moved, drawn.random(160), quality)
        before[name] = Figures(quality, None)
        after[name] = Figures(other - (falls if name == "A" else 0), None)
    return Results(items, before), Results(items, after)


def judged(before: Results, after: Results) -> list[module.Finding]:
    pairs = [(name, name) for name in before.routers]
    tolerances = dict.fromkeys(("quality", "cost", "latency"), 0.0)
    compared = compare_routers(before, after, pairs, False, 1)
    return [f for c in compared for f in module._judge(c, {}, tolerances, "")]


def test_chance_is_called_worse_as_often_as_is_said_and_hardly_ever_if_corrected() -> None:
    plain, corrected, differing = [], [], 0
    for seed in range(40):
        before, after = chances(seed)
        findings = judged(before, after)
        differing += sum(f.differs for f in findings)
        plain.append(sum(bool(f.worse) for f in findings))
        corrected.append(sum(bool(f.worse) for f in module.correct(findings, before, after, 1)))
    assert differing == 40 * 8 * 3
    assert 0.6 < sum(plain) / (module.ONE_SIDE * differing) < 1.6
    assert sum(map(bool, plain)) > 10 and sum(map(bool, corrected)) <= 3


def test_what_is_worse_beyond_chance_stays_so_if_corrected() -> None:
    before, after = chances(1, falls=0.2)
    found = {(f.router, f.scope) for f in module.correct(judged(before, after), before, after, 1) if f.worse}
    assert {("A", "overall"), ("A", "a"), ("A", "b")} <= found


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
    assert {"hierrouter", "best-pipeline-per-task", "query-only", READER, CODER} <= set(shipped["routers"])
    scopes, routers = {*shipped["items"]["task"], "overall"}, shipped["routers"]
    figures = 2 * len(scopes) * len(routers)
    assert harness("check", "--junit", junit) == 0
    shown = capsys.readouterr().out
    assert f"check passed: none of {figures} figures of {len(routers)} routers is worse" in shown and not reasons(shown)
    assert all(name in shown for name in routers)
    root = ElementTree.parse(junit).getroot()
    [suite] = root
    for element in (root, suite):
        assert (element.get("tests"), element.get("failures"), element.get("errors")) == (str(figures), "0", "0")
        assert float(element.get("time", "")) > 0
    assert {(case.get("classname"), case.get("name")) for case in suite} == {
        (f"harness.regression.check.{router}", f"{scope} {measure}")
        for router in routers
        for scope in scopes
        for measure in ("quality", "cost")
    }
    assert not list(suite.iter("failure"))


def test_what_became_worse_is_found_and_named_until_the_baseline_is_updated(
    make: Callable[..., Path], small_recording: Path, tmp_path: Path, harness: Run, capsys: Any
) -> None:
    def plain(row: dict[str, Any]) -> None:
        times(10, row)  # so that a fifth more is a whole number of tokens

    def worse(row: dict[str, Any]) -> None:
        plain(row)
        if row["task"] == "records" and row["pipeline"] == ["reader"]:
            times(1.2, row)
        if row["task"] == "sums" and row["pipeline"] == ["qwen2.5-coder-0.5b"]:
            row["score"] = 0.0

    before, after = (edited(small_recording, tmp_path / change.__name__, change) for change in (plain, worse))
    baseline = make(tmp_path / "b.json", "--recording", before, "--router", READER, CODER)
    content, junit = baseline.read_bytes(), tmp_path / "junit.xml"
    command = ("check", "--baseline", baseline)
    capsys.readouterr()
    assert harness(*command, "--recording", after, "--junit", junit) == 1
    shown = capsys.readouterr().out
    assert baseline.read_bytes() == content
    found = reasons(shown)
    assert any(r.startswith(f"{READER}: cost on records rose by 20.0% (+") and "T param-tokens" in r for r in found)
    assert any(r.startswith(f"{CODER}: quality on sums fell by 1 (") for r in found)
    assert {r.partition(" by ")[0] for r in found} == {
        *(f"{READER}: cost {where} rose" for where in ("overall", "on records")),
        *(f"{CODER}: quality {where} fell" for where in ("overall", "on sums")),
    }
    assert "differs from the baseline in transitions.parquet of the recording" in shown
    suite = ElementTree.parse(junit).getroot()[0]
    failed = {(c.get("classname"), c.get("name")): c.find("failure") for c in suite if c.find("failure") is not None}
    assert suite.get("failures") == str(len(found)) == str(len(failed))
    assert (f"harness.regression.check.{READER}", "records cost") in failed
    assert {failure.get("message") for failure in failed.values() if failure is not None} == set(found)

    # What a fifth is allowed passes; less is not enough.
    quality = ("--tolerance-quality", 1, "--recording", after, "--tolerance-cost")
    assert [harness(*command, *quality, tolerance) for tolerance in (0.21, 0.1)] == [0, 1]
    make(baseline, "--recording", after)
    capsys.readouterr()
    assert harness(*command, "--recording", before) == 0
    shown = capsys.readouterr().out
    assert f"better: {READER}: cost on records fell by 16.7%" in shown and "--update would keep" in shown


def test_a_worse_policy_is_found_and_named(
    make: Callable[..., Path], small_recording: Path, tmp_path: Path, harness: Run, capsys: Any
) -> None:
    on, bad = ("--recording", small_recording), tmp_path / "bad.safetensors"
    assert harness("train", *on, "--total-timesteps", 10_000, "--cost-weight", 1000, "--out", bad) == 0
    assert harness("run", *on, "--checkpoint", bad, "--baselines", "no", "--out", tmp_path / "bad") == 0
    baseline = make(tmp_path / "b.json", *on, "--router", "hierrouter", "--checkpoint", POLICY)
    command = ("check", "--baseline", baseline)
    capsys.readouterr()
    assert harness(*command, "--run", tmp_path / "bad") == 1
    found = reasons(capsys.readouterr().out)
    assert any(r.startswith("hierrouter: quality overall fell by 0.") for r in found)
    assert harness(*command, "--checkpoint", bad) == 1
    shown = capsys.readouterr().out
    assert reasons(shown) == found and f"checkpoint: {POLICY} -> {bad}" in shown
    make(baseline, "--checkpoint", bad)
    assert harness(*command, "--checkpoint", POLICY, "--tolerance-cost", 1e6) == 0
    assert "better: hierrouter: quality overall rose by 0." in capsys.readouterr().out


@pytest.fixture(scope="module")
def of_the_shipped_policy(make: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline of the policy and of single models on the recording, as they ship."""
    return make(tmp_path_factory.mktemp("shipped") / "b.json", "--router", "hierrouter", READER, CODER)


def reads_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every response is lost on the way to the policy."""
    probabilities = HierRouter.probabilities

    def of_queries(self: HierRouter, states: RoutingStates) -> Any:
        return probabilities(self, replace(states, contexts=[Context(c.query) for c in states.contexts]))

    monkeypatch.setattr(HierRouter, "probabilities", of_queries)


def never_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best other action is taken instead."""
    logits = Agent.logits

    def without_stop(self: Agent, *seen: Any) -> Any:
        found = logits(self, *seen).clone()
        found[..., -1] = -np.inf
        return found

    monkeypatch.setattr(Agent, "logits", without_stop)


def gives_the_vectors_of_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy's encoder is read with its words in the places of others."""

    def load(cls: type[HashingEncoder], learnt: Any, _: Any) -> HashingEncoder:
        return cls(learnt["idf"], np.roll(learnt["components"], 1, axis=1))

    monkeypatch.setattr(HashingEncoder, "load", classmethod(load))


@pytest.mark.parametrize("fault", [reads_no_answer, never_stops, gives_the_vectors_of_other_words])
def test_a_router_that_is_broken_is_found_and_named(
    fault: Callable[[pytest.MonkeyPatch], None],
    of_the_shipped_policy: Path,
    harness: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    fault(monkeypatch)
    assert harness("check", "--baseline", of_the_shipped_policy) == 1
    shown = capsys.readouterr().out
    measure = "cost overall rose" if fault is never_stops else "quality overall fell"
    assert any(reason.startswith(f"hierrouter: {measure} by ") for reason in reasons(shown)), shown
    assert all(reason.startswith("hierrouter: ") for reason in reasons(shown))


def test_a_model_whose_cost_rises_by_a_fifth_is_found_and_named(
    of_the_shipped_policy: Path, tmp_path: Path, harness: Run, capsys: Any
) -> None:
    raised = Path(shutil.copytree(RECORDING, tmp_path / "raised"))

    def by_a_fifth(manifest: dict[str, Any]) -> None:
        [coder] = [model for model in manifest["pool"]["models"] if CODER.endswith(model["name"])]
        coder["base_rate"] *= 1.2

    rewrite(raised / "manifest.json", by_a_fifth)
    seal_recording(raised)
    assert harness("check", "--baseline", of_the_shipped_policy, "--recording", raised) == 1
    found = reasons(capsys.readouterr().out)
    assert any(reason.startswith(f"{CODER}: cost overall rose by 20.0%") for reason in found), found
    assert any(reason.startswith("hierrouter: cost overall rose by ") for reason in found)
    assert not any("quality" in reason or reason.startswith(READER) for reason in found)


def test_what_is_trained_anew_may_fall_as_far_as_other_seeds_did(
    make: Callable[..., Path], small_recording: Path, tmp_path: Path, harness: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import routers.ppo_hierrouter as trainer

    seeds, real = [], trainer.train

    def short(options: trainer.Options, train: Any, validation: Any, request: RouterRequest) -> Any:
        seeds.append(request.seed)
        return real(replace(options, total_timesteps=4_000), train, validation, request)

    monkeypatch.setattr(trainer, "train", short)
    monkeypatch.setattr(module, "OTHER_SEEDS", 2)
    on, routers = ("--recording", small_recording, "--max-hops", 2), ("--router", "hierrouter", READER)
    baseline = make(tmp_path / "b.json", *on, *routers, "--seed", 11)
    assert seeds == [11, 12, 13]
    spread = json.loads(baseline.read_text())["spread"]
    assert list(spread) == ["hierrouter"]
    quality = {}
    for seed in (11, 12, 13):
        out = tmp_path / str(seed)
        assert harness("run", *on, *routers, "--baselines", "no", "--retrain", "--seed", seed, "--out", out) == 0
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
        data["routers"][READER]["cost"] = [cost / 2 for cost in data["routers"][READER]["cost"]]
        scopes = {task: {"cost": 1.0} for task in data["items"]["task"]}
        del scopes["human_eval"]
        data["spread"] = {READER: {"overall": {"cost": 1.0}, "tasks": scopes}}

    rewrite(baseline, costs_half)
    assert harness("check", "--baseline", baseline) == 1
    [reason] = reasons(capsys.readouterr().out)
    assert reason.startswith(f"{READER}: cost on human_eval rose by 100.0%")


@pytest.mark.parametrize(("shift", "code"), [(-1e-10, 0), (-1e-6, 1)])
def test_only_differences_beyond_floating_point_count_whatever_the_order_of_items(
    baseline: Path, shift: float, code: int, harness: Run
) -> None:
    def change(data: dict[str, Any]) -> None:
        data["routers"]["knn"]["cost"] = [cost + shift for cost in data["routers"]["knn"]["cost"]]
        for columns in (data["items"], *data["routers"].values()):
            for values in filter(None, columns.values()):
                values.reverse()

    rewrite(baseline, change)
    assert harness("check", "--baseline", baseline) == code


def test_update_keeps_what_is_not_given(
    baseline: Path, make: Callable[..., Path], small_recording: Path, harness: Run
) -> None:
    make(baseline, "--task", "records", "human_eval", "--split", "all", "--limit", 60, "--allow-stop", "False")
    first = json.loads(baseline.read_text())
    assert first["run"]["router"] == list(ROUTERS) and first["run"]["allow_stop"] is False
    items = load_recording(small_recording).tree.items
    asked = [i.doc_id for i in items if i.task in ("records", "human_eval") and i.doc_id < 60]
    assert sorted(first["items"]["doc_id"]) == sorted(asked) and len(asked) == len(first["routers"]["knn"]["quality"])
    make(baseline, "--router", READER)
    second = json.loads(baseline.read_text())
    assert second["run"] == {**first["run"], "router": [READER]}
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
        (lambda data: data["routers"]["knn"]["quality"].pop(), "routers.knn.quality has {less} of {items} numbers"),
        (set_at("routers/knn/cost", None), "routers.knn.cost has 0 of {items} numbers"),
        (set_at("routers/knn/cost/3", float("nan")), "routers.knn.cost.3: "),
        (set_at("routers/knn/quality/3", "1"), "routers.knn.quality.3: Input should be a valid number"),
        (set_at("run/router", ["knn"]), "run.router is knn"),
        (set_at("run/live", True), "unknown key 'run.live'"),
        (set_at("format", 9), "format: Input should be 1, got 9"),
        (set_at("items/doc_id/0", 10**6), "2 are in one of the two alone, as records "),
        (lambda data: set_at("items/doc_id/1", data["items"]["doc_id"][0])(data), "items more than once"),
        (set_at("cost_unit", "US$"), "costs are in US$"),
    ],
)
def test_a_wrong_baseline_is_one_line_and_exit_code_2(
    baseline: Path, change: Any, message: str, harness: Run, capsys: Any
) -> None:
    items = len(json.loads(baseline.read_text())["items"]["task"])
    rewrite(baseline, change)
    before = baseline.read_bytes()
    assert harness("check", "--baseline", baseline, "--junit", baseline.with_name("j.xml")) == 2
    error = capsys.readouterr().err
    said = message.format(less=items - 1, items=items)
    assert said in error and error.startswith("harness: ") and error.count("\n") == 1
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
        ("--run {tmp} --update", "it has no summary.json"),
        ("--junit {tmp}/j.xml --update", "leave out --junit"),
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


def test_what_a_run_lacks_is_never_taken_for_equal(
    baseline: Path, small_recording: Path, tmp_path: Path, harness: Run, capsys: Any
) -> None:
    def run(name: str, *arguments: object) -> Path:
        given = ("--recording", small_recording, "--baselines", "no", *arguments, "--out", tmp_path / name)
        assert harness("run", *given) == 0
        return tmp_path / name

    def refused(folder: Path) -> str:
        capsys.readouterr()
        assert harness("check", "--baseline", baseline, "--run", folder) == 2
        return str(capsys.readouterr().err)

    assert "router knn of the baseline is not in the run" in refused(run("two", "--router", READER, CODER))
    assert "are in one of the two alone" in refused(run("all", "--router", *ROUTERS, "--split", "all"))
    whole = run("whole", "--router", *ROUTERS)
    assert harness("check", "--baseline", baseline, "--run", whole) == 0
    table = pq.read_table(whole / "items.parquet")
    costs = pa.array([float("nan"), *table["cost"].to_pylist()[1:]])
    pq.write_table(table.set_column(table.column_names.index("cost"), "cost", costs), whole / "items.parquet")
    assert "items.parquet" in refused(whole)


def test_the_shipped_policy_stays_the_same_on_another_recording(
    make: Callable[..., Path], small_recording: Path, harness: Run, tmp_path: Path, capsys: Any
) -> None:
    """What the shipped baseline's HierRouter does is compared, not what one trained on the other recording does."""
    tens = edited(small_recording, tmp_path / "tens", lambda row: times(10, row))
    baseline = make(tmp_path / "b.json", "--recording", tens, "--router", "hierrouter", "--checkpoint", POLICY)
    rewrite(baseline, lambda data: data["run"].update(checkpoint=None, recording=None))
    capsys.readouterr()
    assert harness("check", "--baseline", baseline, "--recording", tens) == 0
    passed = capsys.readouterr().out
    assert "check passed" in passed and "training" not in passed and "checkpoint" not in passed
    raised = edited(
        small_recording, tmp_path / "raised", lambda row: times(10 if len(row["pipeline"]) == 1 else 12, row)
    )
    assert harness("check", "--baseline", baseline, "--recording", raised) == 1
    failed = capsys.readouterr().out
    assert any(r.startswith("hierrouter: cost overall rose by") for r in reasons(failed)) and "training" not in failed
    assert "quality" not in "".join(reasons(failed))


def test_a_baseline_is_made_of_what_a_finished_run_was_asked_for(
    make: Callable[..., Path], small_recording: Path, harness: Run, tmp_path: Path, capsys: Any
) -> None:
    manifest = json.loads((small_recording / "manifest.json").read_text())
    pool = tmp_path / "pool.yaml"
    pool.write_text(json.dumps({key: value for key, value in manifest["pool"].items() if key != "billed"}))
    asked = ("--recording", small_recording, "--pool", pool, "--router", READER, "knn", "--cost-weight", "0.3")
    assert harness("run", *asked, "--max-hops", 2, "--baselines", "no", "--out", tmp_path / "run") == 0
    pool.unlink()  # the recording says what it holds
    baseline = make(tmp_path / "b.json", "--run", tmp_path / "run", "--seed", 2)
    run = json.loads(baseline.read_text())["run"]
    assert (run["router"], run["cost_weight"], run["max_hops"]) == ([READER, "knn"], "0.3", 2)
    assert (run["recording"], run["pool"], run["seed"]) == (str(small_recording), None, 2)
    assert harness("check", "--baseline", baseline) == 0


def test_a_commit_is_said_only_if_a_figure_differs(baseline: Path, harness: Run, capsys: Any) -> None:
    def older(data: dict[str, Any]) -> None:
        data["provenance"]["commit"] = "0" * 40
        data["run"]["router"] = [READER]
        data["routers"] = {READER: data["routers"][READER]}

    rewrite(baseline, older)
    assert harness("check", "--baseline", baseline) == 0
    shown = capsys.readouterr().out
    assert "differs from" not in shown and "figures that differ" not in shown and " figures of 1 router is" in shown
    rewrite(baseline, lambda data: data["routers"][READER]["cost"].__setitem__(0, 0.0))
    assert harness("check", "--baseline", baseline, "--tolerance-cost", 1) == 0
    shown = capsys.readouterr().out
    assert "differs from the baseline in commit: 0000000 -> " in shown and "figures that differ: 2; " in shown


def test_what_the_correction_no_longer_calls_worse_is_said(baseline: Path, harness: Run, capsys: Any) -> None:
    def seven_a_little_cheaper(data: dict[str, Any]) -> None:
        rows = [n for n, task in enumerate(data["items"]["task"]) if task == "sums"][:7]
        for name in ROUTERS:
            for n in rows:
                data["routers"][name]["cost"][n] *= 0.9

    rewrite(baseline, seven_a_little_cheaper)
    assert harness("check", "--baseline", baseline) == 1
    named = {reason.partition(" by ")[0] for reason in reasons(capsys.readouterr().out)}
    assert f"{READER}: cost on sums rose" in named
    junit = baseline.with_name("j.xml")
    assert harness("check", "--baseline", baseline, "--correction", "holm", "--junit", junit) == 0
    shown = capsys.readouterr().out
    said = [line for line in shown.splitlines() if line.startswith("may be chance: ")]
    assert {line.removeprefix("may be chance: ").partition(" by ")[0] for line in said} == named
    assert all("p = 0.0078, corrected 0.0" in line for line in said if READER in line)  # 2 ** -7
    assert "check passed" in shown and not list(ElementTree.parse(junit).getroot().iter("failure"))
