"""Routers that learn from one recording and are used on another, or over live models; saved ones load everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
from harness.evaluation.rollout import rollout
from harness.runs.source import lessons_for, open_source
from harness.serving.lm import RoutedLM
from harness.serving.routed import routed
from pools.data.recording import load_recording, save_recording
from pools.errors import UserError
from pools.mdp.optimum import path_costs
from pools.mdp.tree import Tree
from pools.pool import CandidateModel, Pool, load_pool
from pools.types import Context, Generation, GenerationSettings, Item

SETTINGS = GenerationSettings(("zz",), 8)
CHEAP, MIXED, GOOD = "cheap", "mixed", "good"
Harness = Callable[..., int]


class _Made:
    """Ten tokens of each model."""

    def __init__(self, models: Sequence[str]) -> None:
        self.models = models

    def generate(self, model: int, requests: Sequence[tuple[Context, GenerationSettings]]) -> list[Generation]:
        return [Generation(f"{self.models[model]} says", 5, 5, "stop", 0.1) for _ in requests]


def _score(answers: Sequence[tuple[Item, str]]) -> list[float]:
    right = {CHEAP: 0.2, MIXED: 0.5, GOOD: 0.9}
    return [right[answer.split()[0]] for _, answer in answers]


def made_up(folder: Path, rates: dict[str, float], words: str, hops: int = 1, suite: str = "made-up") -> Path:
    """A recording in which `good` is right most often and `cheap` least often; items say `words`."""
    pool = Pool("made", tuple(CandidateModel(name, "hf", rate) for name, rate in rates.items()), "units", "made up")
    splits: Any = ("train", "validation", "test")
    items = [Item("t", n, f"{words} {n}", SETTINGS, splits[n % 3]) for n in range(30)]
    tree = Tree(items, pool.model_names, hops, pool.cost_model("paper"), _Made(pool.model_names), _score)
    tree.require([[n] for n in range(len(items))], [range(tree.nodes)])
    save_recording(tree, pool, {"suite": suite}, folder)
    return folder


def only_call(evaluation: harness.Evaluation, router: str) -> dict[str, float]:
    return {model: calls for model, calls in evaluation.summary.routers[router].overall.calls.items() if calls}


def test_what_is_learnt_elsewhere_is_charged_at_the_rates_of_the_pool_that_is_used(tmp_path: Path) -> None:
    # Ten tokens: 0.1, 0.2 and 0.3 where the answers were recorded; where they are used, the good model costs 5.
    there = made_up(tmp_path / "there", {CHEAP: 0.01, MIXED: 0.02, GOOD: 0.03}, "one")
    here = made_up(tmp_path / "here", {GOOD: 0.5, CHEAP: 0.01, MIXED: 0.02}, "other")  # and in another order
    alone = harness.evaluate(["best-pipeline", "ridge"], there, cost_weights=0.1)
    assert only_call(alone, "best-pipeline") == only_call(alone, "ridge") == {GOOD: 1.0}
    elsewhere = harness.evaluate(["best-pipeline", "ridge"], here, train_on=there, cost_weights=0.1)
    assert only_call(elsewhere, "best-pipeline") == only_call(elsewhere, "ridge") == {MIXED: 1.0}
    manifest = elsewhere.manifest
    assert manifest.learnt_from is not None and manifest.learnt_from["adapted"] == ["models", "rates"]
    assert manifest.source["recording"] == "here" and "adapted" not in manifest.source
    # Its rates are in no recording, so this run's command alone trains it again.
    assert [(of.router, of.command) for of in manifest.learnt if of.router == "ridge"] == [("ridge", None)]
    assert elsewhere.summary.routers["ridge"].overall.notes[0] == "trained by this run on there"
    # The same, asked for one query at a time.
    said: list[str] = []
    opened = routed("ridge", "made", recording=here, train_on=there, cost_weight=0.1, say=said.append)
    assert said[0] == "training ridge on 10 items of there ..." and said[1].startswith("ridge: trained in ")
    episodes = rollout(opened.router, opened.tree([("other 2", SETTINGS)]))
    assert opened.tree([("x", SETTINGS)]).pipeline(int(episodes.node[0])) == (2,)  # mixed


def test_models_that_the_pool_has_not_are_left_out(tmp_path: Path) -> None:
    there = made_up(tmp_path / "there", {CHEAP: 0.01, MIXED: 0.02, GOOD: 0.03}, "one", hops=2)
    pool = Pool("two", tuple(CandidateModel(n, "hf", r) for n, r in ((GOOD, 0.03), (CHEAP, 0.01))), "units", "x")
    found = lessons_for(open_source(recording=there), pool, 2, pool.cost_model("paper"))
    assert found.tree.models == (GOOD, CHEAP) and found.description["adapted"] == ["models"]
    known = load_recording(there).tree
    for node in range(1, found.tree.nodes):
        same = known.node({0: 2, 1: 0}[model] for model in found.tree.pipeline(node))
        assert path_costs(found.tree)[:, node] == pytest.approx(path_costs(known)[:, same])
        assert np.array_equal(found.tree.score[:, node], known.score[:, same])
    # Everything as it was recorded: nothing was adapted, so what ships for the recording would be used.
    assert (
        "adapted"
        not in lessons_for(open_source(recording=there), load(there), 1, load(there).cost_model("paper")).description
    )


def load(recording: Path) -> Pool:
    return load_recording(recording).pool


def test_on_the_recording_itself_nothing_changes(small_recording: Path) -> None:
    routers = ["knn", "cascade", "best-pipeline-per-task"]
    plain = harness.evaluate(routers, small_recording, max_hops=2).summary
    named = harness.evaluate(routers, small_recording, max_hops=2, train_on=small_recording).summary
    for summary in (plain, named):
        for name in summary.routers:
            summary.routers[name].overall.notes.clear()
    assert plain == named


def test_items_that_were_learnt_from_are_said(tmp_path: Path) -> None:
    rates = {CHEAP: 0.01, GOOD: 0.03}
    there, here = made_up(tmp_path / "there", rates, "one"), made_up(tmp_path / "here", rates, "other")
    said = "on items it was trained or chosen on"
    for recording, split, seen in ((there, "train", True), (there, "test", False), (here, "all", False)):
        notes = harness.evaluate("ridge", recording, train_on=there, split=split).summary.routers["ridge"].overall.notes  # type: ignore[arg-type]
        assert (said in notes) == seen


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    there = made_up(tmp_path / "there", {CHEAP: 0.01, MIXED: 0.02}, "one")
    here = made_up(tmp_path / "here", {CHEAP: 0.01, GOOD: 0.02}, "other", hops=2)
    with pytest.raises(UserError, match="--train-on there has no answers of good: it is of cheap, mixed"):
        harness.evaluate("ridge", here, train_on=there)
    two = made_up(tmp_path / "two", {CHEAP: 0.01, GOOD: 0.02}, "one")
    with pytest.raises(UserError, match="two has 1 hops, and routers are used for 2; use --max-hops 1"):
        harness.evaluate("ridge", here, train_on=two)
    assert harness.evaluate("ridge", here, train_on=two, max_hops=1).manifest.learnt_from is not None
    with pytest.raises(UserError, match="learns nothing; omit --train-on"):
        routed("single:good", "made", recording=here, train_on=two)
    with pytest.raises(UserError, match="--checkpoint is of a router that has learnt"):
        routed("ridge", "made", recording=here, train_on=two, checkpoint=tmp_path / "x.safetensors")
    source, pool = open_source(recording=two), load(here)
    dollars = replace(pool.cost_model("paper"), name="billed", unit="US$")
    with pytest.raises(UserError, match=r"has costs in units, and routers are used with costs in US\$"):
        lessons_for(source, pool, 1, dollars)


LEARNERS = (
    *("knn", "ridge", "logistic", "mlp", "matrix-factorisation", "extra-trees", "cascade", "fitted-q", "query-only"),
    "hierrouter",
)


@pytest.mark.parametrize("router", LEARNERS)
def test_a_saved_router_is_the_same_wherever_it_is_loaded(router: str, small_recording: Path, tmp_path: Path) -> None:
    policy = tmp_path / "p.safetensors"
    few = {"total_trees": 600, "num_trees": 300} if router == "hierrouter" else {}
    taught = harness.train(router, small_recording, max_hops=2, tasks=["records", "sums"], router_args=few, out=policy)
    run = harness.evaluate(router, small_recording, checkpoint=policy, max_hops=2, baselines="no")
    opened = routed(router, "lightweight", recording=small_recording, checkpoint=policy)
    asked = RoutedLM(router=router, recording=str(small_recording), checkpoint=str(policy))
    queries = [(item.query, item.settings) for item in run.tree.items]
    cost = run.outcomes[router].cost
    for loaded in (opened, asked._routed, replace(opened, router=taught.router)):
        assert loaded.max_hops == 2
        assert rollout(loaded.router, loaded.tree(queries)).cost == pytest.approx(cost)


def test_live_models_are_routed_by_what_was_learnt_from_their_recording(
    tiny_pool_file: Path, tiny_tasks: Path, tmp_path: Path, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    store, recorded = tmp_path / "store.sqlite", tmp_path / "tiny"
    asked = ("--pool", tiny_pool_file, "--suite", tiny_tasks / "suite.yaml", "--store", store)
    assert harness("record", *asked, "--max-hops", 2, "--out", recorded) == 0
    assert harness("run", "--recording", recorded, "--router", "knn", "--split", "all", "--out", tmp_path / "a") == 0
    live = ("run", "--live", *asked, "--router", "knn", "--split", "all")
    capsys.readouterr()
    assert harness(*live, "--out", tmp_path / "none") == 2
    assert "with --live needs --train-on" in capsys.readouterr().err
    assert harness(*live, "--train-on", recorded, "--out", tmp_path / "b") == 0
    found = [json.loads((tmp_path / name / "summary.json").read_text())["routers"]["knn"]["overall"] for name in "ab"]
    for figure in ("quality", "cost", "hops"):
        assert found[1][figure] == pytest.approx(found[0][figure])
    policy = RoutedLM(pool=str(tiny_pool_file), router="knn", train_on=str(recorded), store=str(store))
    assert policy._routed.max_hops == 2 and policy.pool == load_pool(str(tiny_pool_file))
