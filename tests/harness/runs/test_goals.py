"""`run --budget`, `--cap` and `--no-worse-than`: a frontier known on paper, and the whole way on a recording."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness as harness_package
from harness.evaluation.limits import Budget, NoWorseThan
from harness.report.groups import group
from harness.report.page import plane
from harness.report.result_text import main_result
from harness.runs.goals import checked_goals, set_and_judge
from harness.runs.manifest import differences
from harness.runs.routers import RunRouter
from pools.errors import UserError
from pools.mdp.tree import Tree
from routers import RouterRequest, RoutingStates
from routers.registry import teach

ITEMS = 900


@dataclass(frozen=True)
class Threshold:
    """Calls the strong model where it gains more than it costs; it knows the gain of each query."""

    gain: Mapping[str, float]
    cost_weight: float = 0.0

    def at(self, cost_weight: float) -> Threshold:
        return replace(self, cost_weight=cost_weight)

    def act(self, states: RoutingStates) -> np.ndarray:
        gain = np.array([self.gain[context.query] for context in states.contexts])
        return (gain > 2 * self.cost_weight).astype(np.int64)


@pytest.fixture(scope="module")
def request_(synthetic_tree: Callable[..., Tree]) -> RouterRequest:
    """The strong model is right and costs 3; the weak one costs 1 and loses from 0 to 1 of a score, uniformly."""
    tree = synthetic_tree(items=ITEMS, models=2, max_hops=1, seed=1)
    gain = (np.arange(ITEMS) // 3 + 0.5) / (ITEMS // 3)  # the same in each split, which alternate
    tree.score[:, 1], tree.score[:, 2] = 1 - gain, 1
    tree.cost[:, 1:] = 1, 3
    train, validation, test = (tree.select(split) for split in ("train", "validation", "test"))
    return RouterRequest(
        models=tree.models, max_hops=1, cost_model=tree.cost_model, cost_weight=0.3, train=train,
        validation=validation, evaluation=test,
    )  # fmt: skip


def judged(request: RouterRequest, **goals: Any) -> tuple[Budget | None, NoWorseThan | None]:
    assert request.train is not None and request.validation is not None and request.evaluation is not None
    trees = request.train, request.validation, request.evaluation
    gain = {item.query: 1 - float(q) for t in trees for item, q in zip(t.items, t.score[:, 1], strict=True)}
    router = Threshold(gain)
    given = {"budget": None, "cap": None, "no_worse_than": None, "confidence": 0.95, **goals}
    wanted = checked_goals(**given)
    assert wanted is not None
    found = set_and_judge([RunRouter("threshold", router, router)], request, wanted, lambda text: None)
    return found.within, found.at_risk


@pytest.mark.parametrize("budget", [1.2, 2.0, 2.6])
def test_a_router_whose_curve_is_known_attains_what_the_budget_buys(request_: RouterRequest, budget: float) -> None:
    found, _ = judged(request_, budget={"cost": budget})
    assert found is not None
    router = found.routers["threshold"]
    # To every item with a gain above t the strong model: it costs 3 - 2 t and loses t^2 / 2. Nothing can be better.
    bought = 1 - ((3 - budget) / 2) ** 2 / 2
    assert router.quality == pytest.approx(bought, abs=0.002) and router.cost == pytest.approx(budget, abs=0.01)
    assert found.optimum.quality == pytest.approx(bought, abs=1e-3) and found.optimum.cost == pytest.approx(budget)
    assert found.optimum.price == pytest.approx((3 - budget) / 4, abs=0.01), "the gain at the threshold, for 2 of cost"
    assert router.behind == pytest.approx(found.optimum.quality - router.quality) and abs(router.behind) < 0.002
    # Mixing both models blindly buys the line between (1, 1/2) and (3, 1).
    assert found.zero_router.quality == pytest.approx(0.5 + (budget - 1) / 4)
    assert [each.share for each in found.zero_router.set_to] == pytest.approx([(3 - budget) / 2, (budget - 1) / 2])
    assert router.ahead_of_zero == pytest.approx(router.quality - found.zero_router.quality)


def test_a_cap_below_the_strong_model_leaves_the_weak_one(request_: RouterRequest) -> None:
    found, _ = judged(request_, cap={"cost": 2.5})
    assert found is not None and found.budget is None
    router = found.routers["threshold"]
    assert (router.cost, router.met, router.over_cap) == (1, None, 0) and router.quality == pytest.approx(0.5)
    assert found.optimum.quality == pytest.approx(0.5) and found.optimum.unanswered == 0
    found, _ = judged(request_, cap={"cost": 0.5})
    assert found is not None
    router = found.routers["threshold"]
    assert (router.cost, router.over_cap) == (1, 1), "some model must answer"
    assert (found.optimum.quality, found.optimum.cost, found.optimum.unanswered) == (0, 0, 1)
    assert router.quality > 0 == router.behind == found.zero_router.behind, (
        "what breaks the cap is no quality within it"
    )


def test_a_quality_is_kept_at_less_cost_and_verified_on_test_items(request_: RouterRequest) -> None:
    strong = request_.models[1]
    _, found = judged(request_, no_worse_than={strong: 0.05})
    assert found is not None
    tested = found.routers["threshold"]
    assert tested.kept is not None and 0 < tested.passed < tested.points
    assert tested.kept.held and -0.05 <= tested.kept.ahead < -0.005, "it uses some of the margin"
    # It loses t^2 / 2 and costs 3 - 2 t.
    assert tested.kept.cost == pytest.approx(3 - 2 * np.sqrt(-2 * tested.kept.ahead), abs=0.02)
    assert tested.kept.cost_ratio == pytest.approx(tested.kept.cost / 3)
    _, strict = judged(request_, no_worse_than={strong: 0.0})
    assert strict is not None and strict.routers["threshold"].kept is None, "equal is never shown to be not worse"


@dataclass(frozen=True)
class Lucky:
    """Calls the weak model, and on the items that it chose on the strong one: as a choice among many policies would."""

    known: frozenset[str]

    def act(self, states: RoutingStates) -> np.ndarray:
        return np.array([int(context.query in self.known) for context in states.contexts])

    def save(self) -> Mapping[str, Any]:
        return {}


@dataclass(frozen=True)
class ChoosesOnValidation:
    """Learns nothing but which items it is to be chosen on."""

    def fit(self, train: Tree, validation: Tree, request: RouterRequest) -> Lucky:
        return Lucky(frozenset(item.query for item in validation.items))

    def load(self, learnt: Any, request: RouterRequest) -> Lucky:
        raise AssertionError


def test_what_this_run_taught_is_taught_anew_as_validation_items_have_to_be_new_to_it(
    request_: RouterRequest,
) -> None:
    learner, taught = ChoosesOnValidation, teach(ChoosesOnValidation, request_, {})
    rows = [
        RunRouter("taught", taught.router, learner, taught=taught),
        RunRouter("loaded", taught.router, learner, checkpoint=Path("lucky.safetensors")),
    ]
    goals = checked_goals({"cost": 2.0}, None, {request_.models[1]: 0.05}, 0.95)
    assert goals is not None
    found = set_and_judge(rows, request_, goals, lambda text: None)
    assert found.within is not None and found.at_risk is not None
    assert found.within.routers["taught"].validation_quality == 1, "a budget sets the router that was trained"
    known, of = set(found.taught["taught"].router.known), found.at_risk.routers
    assert request_.train is not None and len(known) == ITEMS // 3 // 5
    assert known < {item.query for item in request_.train.items}, "a fifth of the train items"
    assert (of["taught"].kept, of["taught"].notes) == (None, ["here fitted on train items alone"])
    assert of["loaded"].kept is not None and not of["loaded"].kept.held
    assert of["loaded"].notes == ["chosen on these validation items: the confidence is not exact"]
    assert set(found.taught) == {"taught"}


def test_hierrouter_is_set_to_a_budget_and_taught_anew_for_a_stated_risk(small_recording: Path) -> None:
    found = harness_package.evaluate(
        "hierrouter", small_recording, max_hops=2, baselines="no", retrain=True, budget={"cost": 0.02},
        no_worse_than={"reader": 0.1}, router_args={"hierrouter": {"total_trees": 640, "sees": ("models",)}},
    )  # fmt: skip
    within, at_risk = found.summary.budget, found.summary.no_worse_than
    assert within is not None and at_risk is not None
    router, of = within.routers["hierrouter"], at_risk.routers["hierrouter"]
    assert router.meets_on_validation and all(each.cost_weight is not None for each in router.set_to)
    assert router.notes == [] and router.behind >= 0
    assert of.points > 1 and of.notes == ["here fitted on train items alone"]
    policies = [found.routers[0].taught, found.taught["hierrouter"]]
    weights = [np.asarray(each.router.save()["actor.4.weight"]) for each in policies if each is not None]
    assert len(weights) == 2 and not np.array_equal(*weights), "another policy"


LIMITS = ("--budget", "cost=0.02", "--cap", "cost=0.1", "--no-worse-than", "reader=0.1")


@pytest.fixture(scope="module")
def limited_run(tmp_path_factory: pytest.TempPathFactory, small_recording: Path, harness: Callable[..., int]) -> Path:
    """A run with all goals on a part of the shipped recording."""
    out = tmp_path_factory.mktemp("limits") / "out"
    given = ("--recording", small_recording, "--max-hops", 2, "--router", "knn", "majority-vote", "fitted-q", *LIMITS)
    assert harness("run", *given, "--router-args", "fitted-q:regression=ridge", "--out", out) == 0
    return out


def test_the_run_within_limits_has_its_section_and_its_tables(limited_run: Path) -> None:
    run = harness_package.load_run(limited_run)
    within, at_risk = run.summary.budget, run.summary.no_worse_than
    assert within is not None and at_risk is not None
    assert (within.budget, within.cap, at_risk.model, at_risk.margin) == (0.02, 0.1, "reader", 0.1)
    assert set(within.routers) == set(run.routers) - {"oracle"} == {*at_risk.routers, "single:reader"}
    assert within.optimum.cost <= 0.02 + 1e-9
    for name, figures in within.routers.items():
        assert figures.met == (figures.cost <= 0.02 + 1e-9)
        assert sum(each.share for each in figures.set_to) == pytest.approx(1)
        assert figures.meets_on_validation == (figures.validation_cost <= 0.02 + 1e-9)
        assert figures.behind == pytest.approx(within.optimum.quality - figures.quality)
        assert ("cannot be capped" in figures.notes) == (name == "majority-vote")
    assert within.routers["fitted-q"].notes == ["here fitted on train items alone"]
    assert within.routers["knn"].over_cap == 0 and (within.routers["majority-vote"].over_cap or 0) > 0
    tables = (limited_run / "tables.md").read_text()
    assert "**budget cost=0.02, cap cost=0.1**" in tables and "**no worse than reader by 0.1**" in tables
    assert tables.count("| zero router") == 1 and "no worse than reader" in (limited_run / "tables.tex").read_text()
    rows = list(csv.DictReader((limited_run / "tables.csv").read_text().splitlines()))
    of = {row["router"]: row for row in rows if row["task"] == within.title}
    assert set(of) == {*within.routers, "zero router", "optimum"}
    assert float(of["knn"]["cost"]) == within.routers["knn"].cost
    manifest = json.loads((limited_run / "manifest.json").read_text())
    assert manifest["arguments"]["budget"] == "cost=0.02" and manifest["arguments"]["confidence"] == 0.95
    assert sorted(path.name for path in limited_run.glob("*.safetensors")) == [
        "fitted-q.no-worse-than.safetensors", "fitted-q.safetensors", "knn.no-worse-than.safetensors", "knn.safetensors"
    ]  # fmt: skip


def test_the_report_shows_the_budget(limited_run: Path, tmp_path: Path) -> None:
    page = harness_package.write_report([limited_run], tmp_path / "r.html").read_text()
    assert "The dotted line is the budget" in page and "the optimum within a budget of 0.02: quality" in page
    run = harness_package.load_run(limited_run)
    within = run.summary.budget
    assert within is not None
    found = within.routers[run.asked[0]]
    first, second, third, *_ = main_result(run)
    assert first.startswith("Within a budget of 0.02 ") and f"quality of {found.quality:.3f}" in first
    assert f"at a cost of {found.cost:.3g}" in first and f"{within.optimum.quality:.3f}" in second
    assert third.startswith("Without these limits")
    drawn = plane(group([run])[0]).parts
    assert f"{run.asked[0]}: quality {found.quality:.3f}, cost {found.cost:.4g} {run.summary.cost_unit}" in drawn
    assert page.count("no worse than reader by 0.1") >= 1 and page.count("budget cost=0.02, cap cost=0.1") >= 1


def test_the_api_gives_the_same_and_the_other_figures_stay_as_they_are(
    limited_run: Path, small_recording: Path
) -> None:
    given: dict[str, Any] = {"recording": small_recording, "max_hops": 2}
    plain = harness_package.evaluate("knn", **given)
    limited = harness_package.evaluate("knn", **given, budget={"cost": 0.02}, cap={"cost": 0.1})
    found, asked = limited.summary, limited.manifest.arguments.model_dump()
    assert (asked["budget"], asked["cap"], asked["no_worse_than"]) == ("cost=0.02", "cost=0.1", None)
    ranged = ["trained for a range of cost weights: no -> yes"]
    assert differences(plain.manifest, limited.manifest) == ranged
    for weights, lines in (((2.0,), []), ((2.0, 3.0), ranged), ([2.0, 3.0], ranged), ("2,3", ranged)):
        arguments = plain.manifest.arguments.model_copy(update={"cost_weight": weights})
        said = differences(plain.manifest, plain.manifest.model_copy(update={"arguments": arguments}))
        assert [line for line in said if "range" in line] == lines
    of_command = harness_package.load_run(limited_run).manifest
    assert not any("range" in line for line in differences(limited.manifest, of_command)), "the command says the same"
    within = harness_package.load_run(limited_run).summary.budget
    assert found.budget is not None and within is not None
    assert found.budget.routers["knn"] == within.routers["knn"] and found.budget.optimum == within.optimum
    assert found.model_copy(update={"budget": None}) == plain.summary


@pytest.mark.parametrize(
    ("goals", "said"),
    [
        ({"budget": {"tokens": 1}}, "--budget 'tokens=1': expected an amount above 0 of cost or latency, as in cost="),
        (
            {"cap": {"latency": 2}},
            "--cap latency=2: the seconds of all models are shares of a batch's time, no latency; ",
        ),
        ({"cap": {"latency": 2}}, "or import a table with a column latency"),
        ({"cap": {"latency": 2}, "budget": {"cost": 1}}, "--budget and --cap are of one resource"),
        ({"cap": {"cost": 0}}, "--cap 'cost=0': expected an amount above 0"),
        ({"budget": {"cost": float("nan")}}, "expected an amount above 0"),
        ({"no_worse_than": {"reader": 1.5}}, "a margin in quality from 0 and below 1, as in MODEL=0.01"),
        ({"no_worse_than": {"nobody": 0.1}}, "unknown model 'nobody'; the pool has"),
        ({"no_worse_than": {"reader": 0.1}, "confidence": 1.0}, "--confidence 1: expected a probability"),
        ({"budget": {"cost": 1e-9}}, "the cheapest call of each item costs"),
        (
            {"cap": {"cost": 1}, "split": "validation"},
            "--cap cost=1 sets routers on validation items and judges them on",
        ),
        ({"no_worse_than": {"reader": 0.1}, "split": "all"}, "on test items: omit --split all"),
    ],
)
def test_what_is_no_goal_is_refused_in_one_line(small_recording: Path, goals: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        harness_package.evaluate("knn", small_recording, max_hops=2, **goals)
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory, harness: Callable[..., int]) -> Path:
    """Item n takes n + 1 hundredths of a second of `quick`, right if n is even, ten times that of `sure`, always right.

    Every third item is a train, a validation and a test item; the k-th test item, from 1 on, is n = 3 k - 1.
    """
    table = tmp_path_factory.mktemp("timed") / "t.csv"
    rows = ["item,task,prompt,model,score,cost,split,latency"]
    for n in range(60):
        of_both, split = f"q{n},t,Is {n:02d} even?", ("train", "validation", "test")[n % 3]
        rows.append(f"{of_both},quick,{1 - n % 2},1,{split},{(n + 1) / 100}")
        rows.append(f"{of_both},sure,1,3,{split},{(n + 1) / 10}")
    table.write_text("\n".join(rows))
    assert harness("import", table, "--hops", 2, "--out", table.with_suffix("")) == 0
    return table.with_suffix("")


def test_a_budget_of_seconds_buys_what_it_buys_on_paper(
    timed: Path, tmp_path: Path, harness: Callable[..., int]
) -> None:
    given = (
        "--recording",
        timed,
        "--router",
        "single:sure",
        "majority-vote",
        "--budget",
        "latency=1",
        "--out",
        tmp_path / "r",
    )
    assert harness("run", *given) == 0
    within = harness_package.load_run(tmp_path / "r").summary.budget
    assert within is not None and (within.resource, within.budget) == ("latency", 1)
    # `quick` takes 6.3 s of the 20 for all test items. Each of k = 2, 4, ... is won by `sure` for 0.27 k more: six of
    # them for 11.34, and of the next, for 3.78, as much as 13.7 leaves.
    assert within.optimum.quality == pytest.approx((10 + 6 + (13.7 - 11.34) / 3.78) / 20)
    assert within.optimum.seconds == pytest.approx(1) and within.optimum.price == pytest.approx(1 / 3.78)
    # On validation items `quick` takes 0.305 and `sure` 3.05 in the mean, on test items 0.315 and 3.15.
    zero, sure, vote = within.zero_router, within.routers["single:sure"], within.routers["majority-vote"]
    share = (1 - 0.305) / (3.05 - 0.305)
    assert [(each.model, each.share) for each in zero.set_to] == [
        ("quick", pytest.approx(1 - share)), ("sure", pytest.approx(share))
    ]  # fmt: skip
    assert zero.validation_seconds == pytest.approx(1) and zero.meets_on_validation and zero.met is False
    assert zero.seconds == pytest.approx(0.315 + share * 2.835) and zero.cost == pytest.approx(1 + share * 2)
    assert (sure.met, sure.meets_on_validation, sure.cost) == (False, False, 3) and sure.seconds == pytest.approx(3.15)
    assert vote.seconds == pytest.approx(3.15) and vote.cost == 4, "it waits for the longest call, and pays for all"
    tables = (tmp_path / "r" / "tables.md").read_text()
    assert "**budget latency=1**" in tables and "| router | quality | cost | seconds | met |" in tables
    rows = list(csv.DictReader((tmp_path / "r" / "tables.csv").read_text().splitlines()))
    assert [float(row["seconds"]) for row in rows if row["task"] == within.title][-1] == pytest.approx(1)
    page = harness_package.write_report([tmp_path / "r"], tmp_path / "r.html").read_text()
    assert "budget latency=1" in page and "The dotted line is the budget" not in page, "the plane is of costs"


@dataclass(frozen=True)
class Told:
    """Calls the first model; it takes a cap for one on costs."""

    def act(self, states: RoutingStates) -> np.ndarray:
        return np.where(states.hop == 0, 0, 2)

    def within(self, cap: float) -> Told:
        raise AssertionError(f"{cap} is in seconds")


def test_under_a_cap_of_seconds_what_is_left_is_that_of_the_calls_made(timed: Path) -> None:
    routers = ["pipeline:quick>sure", "majority-vote"]
    within = harness_package.evaluate(routers, timed, cap={"latency": 6.2}).summary.budget
    assert within is not None
    router, vote = within.routers["pipeline:quick>sure"], within.routers["majority-vote"]
    # The longest call of `sure` on train items took 5.8 s, so it is made while `quick` has taken no more than 0.4: for
    # k = 1, ..., 13. With the bound of `quick`, 0.58, for what it took no item would have it made.
    assert router.seconds == pytest.approx((0.33 * sum(range(1, 14)) + 0.03 * sum(range(14, 21))) / 20)
    assert router.quality == pytest.approx((13 + 3) / 20) and router.over_cap == 0
    assert within.optimum.quality == 1 and within.optimum.seconds == pytest.approx((0.03 * 100 + 0.3 * 110) / 20)
    assert vote.notes == ["cannot be capped"] and vote.over_cap == 0, "the longest of its calls takes 6 s"
    middle = harness_package.evaluate("majority-vote", timed, cap={"latency": 3.05}).summary.budget
    assert middle is not None and middle.routers["majority-vote"].over_cap == 0.5, "its longest call takes 0.3 k"
    told = harness_package.evaluate(Told(), timed, cap={"latency": 6.2}).summary.budget
    assert told is not None and told.routers["Told"].notes == ["not told of a cap on seconds"]
    tight = harness_package.evaluate(routers, timed, cap={"latency": 0.1}).summary.budget
    # Only k = 1, 2, 3 have a call that is short enough, `quick`, which is right for 1 and 3; a router must call one.
    assert tight is not None and tight.optimum.unanswered == pytest.approx(17 / 20)
    assert tight.optimum.quality == pytest.approx(2 / 20) and tight.optimum.seconds == pytest.approx(0.18 / 20)
    assert tight.routers["pipeline:quick>sure"].over_cap == pytest.approx(17 / 20)


def test_seconds_are_limited_where_nothing_has_a_cost(timed: Path, tmp_path: Path, harness: Callable[..., int]) -> None:
    table = timed.with_suffix(".csv")
    assert harness("import", table, "--quality-only", "--out", tmp_path / "t") == 0
    found = harness_package.evaluate("single:sure", tmp_path / "t", budget={"latency": 4})
    assert found.summary.budget is not None and found.summary.budget.routers["single:sure"].met
    for goals, said in (
        (
            {"budget": {"latency": 4}, "no_worse_than": {"sure": 0.1}},
            "--no-worse-than sure=0.1: no costs were recorded",
        ),
        ({"budget": {"cost": 4}}, "--budget cost=4: no costs were recorded"),
        ({"budget": {"latency": 0.3}}, "the shortest call of each item takes 0.315 seconds on average; give at least"),
    ):
        with pytest.raises(UserError, match=said):
            harness_package.evaluate("single:sure", tmp_path / "t", **goals)


def test_a_flag_of_another_form_is_refused(
    small_recording: Path, harness: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert harness("run", "--recording", small_recording, "--budget", "0.02", "--router", "knn") == 2
    assert "--budget '0.02': expected a name and a number, as in cost=0.02" in " ".join(capsys.readouterr().err.split())
    assert harness("run", "--recording", small_recording, "--cap", "cost=x", "--router", "knn") == 2
    assert "expected a name and a number, as in cost=0.05" in " ".join(capsys.readouterr().err.split())
