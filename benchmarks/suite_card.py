"""What the suite `offline` is, and what it tells of routers: the page docs/results/suite.md.

    python benchmarks/suite_card.py --out docs/results/suite.md --pipelines docs/results/suite-pipelines.csv

On the recording and the policies that ship. Routers of the query alone, of several families, are fitted on train items;
the best of them on validation items is fitted again on both. HierRouter without STOP and of fewer hops is trained here,
as the policies that ship were. Gap: value from the best single model to the optimum, on test items.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from harness.evaluation.evaluate import Outcome, evaluate
from harness.evaluation.metrics import value
from pools.data.recording import load_recording
from pools.mdp.optimum import path_costs, solve
from pools.mdp.tree import Tree
from pools.types import Context
from routers import RouterRequest, load
from routers.router import Router, RoutingStates

FloatArray = NDArray[np.float64]
RESAMPLES = 10_000
ENDS = (2.5, 97.5)
FAMILIES = (
    "query-only:hashing",
    "query-only:surface",
    "knn",
    "ridge",
    "logistic",
    "extra-trees",
    "mlp",
    "matrix-factorisation",
)
"""Routers that see the query alone: a pipeline by ridge regression or neighbours, with two encoders, and one model."""
_NAME = re.compile(r"\b[A-Z][a-z]+\b")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Args:
    """What is measured, and where it is written."""

    recording: Path = Path("results/recordings/lightweight-offline")
    policies: Path = Path("results/policies/lightweight-offline")
    cost_weight: float = 2.0
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    retrained: tuple[int, ...] = (1, 2, 3, 4, 5)
    """seeds of the policies without STOP and of fewer hops; empty: none are trained"""
    cost_weights: tuple[float, ...] = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 30.0)
    """that the policies that are trained here serve, as those that ship"""
    out: Path | None = None
    pipelines: Path | None = None


@dataclass(frozen=True, eq=False)
class Misled:
    """A router that is shown what was answered to another item of the same kind, and what that cost."""

    router: Router
    tree: Tree
    other: Mapping[str, int]
    """by the query, the number of the item whose answers are shown"""
    spent: FloatArray

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` what the router does."""
        nodes = [self.tree.node(a for a in actions if a >= 0) for actions in states.actions.tolist()]
        others = [self.other[context.query] for context in states.contexts]
        contexts = [
            Context(own.query, self.tree.context(other, node).responses)
            for own, other, node in zip(states.contexts, others, nodes, strict=True)
        ]
        return self.router.act(replace(states, contexts=contexts, cost=self.spent[others, nodes]))


class Card:
    """Everything that is measured at one cost weight, on the test items of a recording."""

    def __init__(self, args: Args) -> None:
        self.args, self.weight = args, args.cost_weight
        self.tree = load_recording(args.recording).tree
        self.train, self.validation, self.test = (self.tree.select(s) for s in ("train", "validation", "test"))
        known = {(item.task, item.wording) for item in self.train.items}
        self.new = np.array([bool(i.wording) and (i.task, i.wording) not in known for i in self.test.items])
        self.kind = np.array([f"{i.task}: {i.kind}" if i.wording else i.task for i in self.test.items])
        singles = self.test.level(1)
        of_single = self.test.score[:, singles] - self.weight * self.test.cost[:, singles]
        self.single = of_single[:, of_single.mean(axis=0).argmax()]
        self.best_single = self.test.models[int(of_single.mean(axis=0).argmax())]
        self.optimum = solve(self.test, self.weight, allow_stop=True).value

    def request(self, **given: Any) -> RouterRequest:
        """What a router of the recording is for."""
        asked: dict[str, Any] = {
            **{"models": self.tree.models, "max_hops": self.tree.max_hops, "cost_model": self.tree.cost_model},
            **{"cost_weight": self.weight, "seed": 1},
            **{"train": self.train, "validation": self.validation, "evaluation": self.test},
        }
        return RouterRequest(**asked | given)

    def closed(self, values: FloatArray, chosen: NDArray[np.bool_] | None = None) -> float:
        """Share of the gap that values per item close, over all test items or the chosen ones."""
        here = np.ones(len(values), bool) if chosen is None else chosen
        single, optimum = self.single[here].mean(), self.optimum[here].mean()
        return float((values[here].mean() - single) / (optimum - single))

    def lead(self, mine: FloatArray, theirs: FloatArray) -> tuple[float, float, float]:
        """How much more of the gap is closed, in points of 100, with its paired 95% interval over items."""
        drawn = np.random.default_rng(1).integers(0, len(mine), (RESAMPLES, len(mine)))
        gap = (self.optimum - self.single)[drawn].mean(axis=1)
        ends = np.percentile((mine - theirs)[drawn].mean(axis=1) / gap, ENDS)
        whole = (mine - theirs).mean() / (self.optimum - self.single).mean()
        return 100 * float(whole), *(100 * ends).tolist()

    def policies(self) -> list[Router]:
        """HierRouter as it ships, a router a seed."""
        paths = {seed: self.args.policies / f"hierrouter-{seed}.safetensors" for seed in self.args.seeds}
        return [load("hierrouter", self.request(seed=seed), checkpoint=path) for seed, path in paths.items()]

    def trained(self, hops: int, allow_stop: bool) -> list[Outcome]:
        """HierRouter of so many hops, or without STOP, trained here: its outcomes on the test items."""
        train, validation, test = (part.shortened(hops) for part in (self.train, self.validation, self.test))
        asked = {"max_hops": hops, "allow_stop": allow_stop, "cost_weights": self.args.cost_weights}
        parts = {"train": train, "validation": validation, "evaluation": test}
        return [
            evaluate(load("hierrouter", self.request(**asked, **parts, seed=seed)), test)
            for seed in self.args.retrained
        ]

    def of_the_query(self) -> tuple[str, Outcome, dict[str, float]]:
        """The router of the query alone that is best on validation items, fitted on train items, and its outcome.

        It is then fitted as any router is. Also the value of each family on validation items.
        """
        on_validation = {}
        for family in FAMILIES:
            name, _, encoder = family.partition(":")
            options = {"encoder": encoder} if encoder else {}
            # `query-only` would fit on the validation items, too.
            tuned = self.train if name == "query-only" else self.validation
            router = load(name, self.request(validation=tuned), options=options)
            on_validation[family] = float(value(evaluate(router, self.validation), self.weight).mean())
        best = max(on_validation, key=on_validation.__getitem__)
        name, _, encoder = best.partition(":")
        options = {"encoder": encoder} if encoder else {}
        return best, evaluate(load(name, self.request(), options=options), self.test), on_validation

    def misled(self, router: Router) -> Outcome:
        """The router's outcome if it is shown the answers to another test item of the same kind."""
        rng = np.random.default_rng(1)
        other: dict[str, int] = {}
        for kind in dict.fromkeys(self.kind.tolist()):
            items = rng.permutation(np.flatnonzero(self.kind == kind))
            queries = [self.test.items[i].query for i in items]
            other.update(zip(queries, np.roll(items, 1).tolist(), strict=True))
        return evaluate(Misled(router, self.test, other, path_costs(self.test)), self.test)

    def fixed(self) -> dict[str, Outcome]:
        """The pipelines that read nothing: for all items, for each task, for each kind."""
        names = ("best-pipeline", "best-pipeline-per-task", "best-pipeline-per-kind")
        return {name: evaluate(load(name, self.request()), self.test) for name in names}

    def cheapest_of_quality(self, quality: float) -> tuple[str, float] | None:
        """The cheapest pipeline, of all items or of each kind, that has at least this quality on the test items.

        Of each kind: the Lagrangian's, so the frontier of per-kind choices made with the test items themselves known.
        """
        score, cost = self.test.score.astype(np.float64)[:, 1:], path_costs(self.test)[:, 1:]
        found = [
            (" > ".join(self.test.models[a] for a in self.test.pipeline(node + 1)), float(cost[:, node].mean()))
            for node in np.flatnonzero(score.mean(axis=0) >= quality).tolist()
        ]
        kinds = [np.flatnonzero(self.kind == kind) for kind in dict.fromkeys(self.kind.tolist())]
        per_kind = [(score[of].sum(axis=0), cost[of].sum(axis=0)) for of in kinds]
        for weight in np.geomspace(1e-3, 1e3, 601)[::-1]:
            taken = [int((q - weight * c).argmax()) for q, c in per_kind]
            reached = sum(q[node] for (q, _), node in zip(per_kind, taken, strict=True)) / len(score)
            if reached >= quality:
                spent = sum(c[node] for (_, c), node in zip(per_kind, taken, strict=True)) / len(score)
                found.append(("a pipeline of each kind", float(spent)))
                break
        return min(found, key=lambda each: each[1], default=None)


def mean_of(outcomes: Sequence[Outcome], figure: Callable[[Outcome], FloatArray]) -> FloatArray:
    """`[I]` a figure of each item, a mean over outcomes."""
    return np.mean([figure(outcome) for outcome in outcomes], axis=0)


def masked(query: str) -> str:
    """A query with its numbers and names made equal."""
    return _NUMBER.sub("0", _NAME.sub("Name", query))


def pipelines_csv(card: Card, path: Path) -> None:
    """Write the score of every pipeline on the test items of each kind, and its cost."""
    kinds = list(dict.fromkeys(card.kind.tolist()))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["pipeline", *kinds, "all", "cost"])
        cost = path_costs(card.test).mean(axis=0)
        for node in range(1, card.test.nodes):
            score = card.test.score[:, node]
            name = " > ".join(card.test.models[a] for a in card.test.pipeline(node))
            of_kinds = [f"{score[card.kind == kind].mean():.3f}" for kind in kinds]
            writer.writerow([name, *of_kinds, f"{score.mean():.3f}", f"{cost[node]:.6f}"])


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first to the right."""
    lines = [f"| {' | '.join(headers)} |", f"|---|{'---:|' * (len(headers) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def items_table(card: Card) -> str:
    """How many items of each task and split, and how many test items are near-duplicates of train items."""
    rows = []
    train = {masked(item.query) for item in card.train.items}
    alike = np.array([masked(item.query) in train for item in card.test.items])
    tasks = [*dict.fromkeys(item.task for item in card.tree.items), "all"]
    for task in tasks:
        parts = [
            sum(task in (item.task, "all") for item in part.items) for part in (card.train, card.validation, card.test)
        ]
        here = np.array([task in (item.task, "all") for item in card.test.items])
        rows.append(
            [task, *map(str, parts), *(str(int((here & of).sum())) for of in (card.new, alike, card.new & alike))]
        )
    headers = (
        "task",
        "train",
        "validation",
        "test",
        "of these worded as no train item",
        "equal to a train item but for names and numbers",
        "both",
    )
    return table(headers, rows)


def models_table(card: Card) -> str:
    """Scores of the single models and of the best pipelines of two and three hops, by kind of test item."""
    kinds = list(dict.fromkeys(card.kind.tolist()))
    rows = []
    for kind in kinds:
        score = card.test.score[card.kind == kind].mean(axis=0)
        singles = [f"{score[node]:.2f}" for node in card.test.level(1)]
        best = []
        for hops in (2, 3):
            node = int(card.test.level(hops)[score[card.test.level(hops)].argmax()])
            best.append(f"{score[node]:.2f} {' > '.join(card.test.models[a] for a in card.test.pipeline(node))}")
        rows.append([kind, str(int((card.kind == kind).sum())), *singles, *best])
    return table(("kind", "items", *card.test.models, "best of two hops", "best of three hops"), rows)


def gap_rows(card: Card, named: Mapping[str, list[Outcome]]) -> list[list[str]]:
    """A row per router: quality, cost, hops, value, the gap that it closes, and how far HierRouter is ahead."""
    mine = mean_of(named["hierrouter"], lambda outcome: value(outcome, card.weight))
    rows = []
    for name, outcomes in named.items():
        values = mean_of(outcomes, lambda outcome: value(outcome, card.weight))
        ahead = "" if name == "hierrouter" else "{:.0f} [{:.0f}, {:.0f}]".format(*card.lead(mine, values))
        figures = [
            mean_of(outcomes, figure).mean() for figure in (lambda o: o.quality, lambda o: o.cost, lambda o: o.hops)
        ]
        closed = [card.closed(value(outcome, card.weight)) for outcome in outcomes]
        spread = f" ({min(closed):.0%} to {max(closed):.0%})" if len(closed) > 1 else ""
        new = f"{card.closed(values, card.new):.0%}" if card.new.any() else "-"
        rows.append([
            name, f"{figures[0]:.3f}", f"{figures[1]:.4f}", f"{figures[2]:.2f}", f"{values.mean():.3f}",
            f"{card.closed(values):.0%}{spread}", new, ahead,
        ])  # fmt: skip
    return rows


GOALS = """Kind table at most 60%|{kinds:.0%}|{kinds_met}
Best router of the query alone at most 70%|{query:.0%}|{query_met}
HierRouter at least 85%, a mean over seeds|{ours:.0%}|{ours_met}
HierRouter 12 points ahead of the kind table, interval above 0|{over_kinds}|{over_kinds_met}
HierRouter 12 points ahead of the best of the query alone, interval above 0|{over_query}|{over_query_met}
At least 10% of the items end at hop {hops}|{late:.0%}|{late_met}
Answers shuffled within a kind lose 10 points of quality|{lost:.1f}|{lost_met}
Without STOP 10% of the gap lost, or 1.3 times the cost|{stop}|{stop_met}
HierRouter at most 70% of the cost of the cheapest fixed or per-kind pipeline of its quality|{cheapest}|{cheapest_met}
HierRouter closes 70% on new wording|{new:.0%}|{new_met}
Costs are worth 0.2 at this cost weight|{worth:.2f}|{worth_met}"""


HEADERS = ("router", "quality", "cost", "hops", "value", "gap closed", "on new wording", "HierRouter ahead, points")
PAGE = """# The suite `offline`, version 2

    python benchmarks/suite_card.py --out docs/results/suite.md --pipelines docs/results/suite-pipelines.csv

What it is made of, and why, is in [its design](../reference/offline-suite.md), written before. On {tested} test items,
cost weight {weight:g}. Gap: from the value of the best single model ({best_single}, {single:.3f}) to the exact
optimum's ({optimum:.3f}). HierRouter: the {policies} policies that ship, a mean over them; behind it the least and the
most.

## Goals

{goals}

## Items

{items}

Names and numbers made equal, test items of a known wording are train items: what differs is who is asked about, and
which numbers.

## Who closes how much of the gap

{gaps}

In brackets 95% paired bootstrap over items. Of the query alone were tried, with their values on validation items:
{on_validation}.

## Reading, stopping, hops

{reads}

*Answers shuffled*: the same policies are shown what was answered to another test item of the same kind, and what that
cost. *Without STOP* and of fewer hops: trained as the policies that ship, with {retrained} seeds.

## Models

Share of the test items of each kind that is right. All {pipelines} pipelines are in
[suite-pipelines.csv](suite-pipelines.csv).

{models}
"""


def page(card: Card) -> str:
    """The page in Markdown."""
    args, weight = card.args, card.weight
    policies = card.policies()
    family, of_query, on_validation = card.of_the_query()
    fixed = card.fixed()
    ours = [evaluate(router, card.test) for router in policies]
    fitted = evaluate(load("fitted-q", card.request()), card.test)
    named: dict[str, list[Outcome]] = {"hierrouter": ours, "fitted-q": [fitted]}
    named |= {f"best of the query alone: {family}": [of_query]}
    named |= {name: [outcome] for name, outcome in fixed.items()}
    shuffled = [card.misled(router) for router in policies]
    parts = {}
    if args.retrained:
        parts["without STOP"] = card.trained(card.test.max_hops, allow_stop=False)
        parts |= {
            f"{hops} hop{'s' if hops > 1 else ''}": card.trained(hops, True) for hops in range(1, card.test.max_hops)
        }
    mine = mean_of(ours, lambda o: value(o, weight))
    quality, cost = (mean_of(ours, figure).mean() for figure in (lambda o: o.quality, lambda o: o.cost))
    over = {
        name: card.lead(mine, value(outcome, weight))
        for name, outcome in (("kinds", fixed["best-pipeline-per-kind"]), ("query", of_query))
    }
    cheapest = card.cheapest_of_quality(quality)
    means = path_costs(card.test)[:, 1:].mean(axis=0)
    late = float(np.mean([o.end[:, card.test.level(card.test.max_hops)].sum(axis=1).mean() for o in ours]))
    lost = 100 * (quality - mean_of(shuffled, lambda o: o.quality).mean())
    stop, stop_met = "not measured", None
    if parts:
        never = parts["without STOP"]
        fewer = card.closed(mine) - card.closed(mean_of(never, lambda o: value(o, weight)))
        ratio = mean_of(never, lambda o: o.cost).mean() / cost
        stop, stop_met = f"{fewer:.0%}, {ratio:.2f} times", fewer >= 0.1 or ratio >= 1.3
    closed = {"kinds": value(fixed["best-pipeline-per-kind"], weight), "query": value(of_query, weight), "ours": mine}
    figures: dict[str, Any] = {name: card.closed(values) for name, values in closed.items()}
    figures |= {f"over_{name}": "{:.0f} points [{:.0f}, {:.0f}]".format(*lead) for name, lead in over.items()}
    figures |= {"hops": card.test.max_hops, "late": late, "lost": lost, "stop": stop}
    figures |= {
        "cheapest": "none has its quality" if cheapest is None else f"{cost / cheapest[1]:.0%} of {cheapest[0]}"
    }
    figures |= {"new": card.closed(mine, card.new), "worth": weight * (means.max() - means.min())}
    met = {
        **{"kinds": figures["kinds"] <= 0.6, "query": figures["query"] <= 0.7, "ours": figures["ours"] >= 0.85},
        **{f"over_{name}": lead[0] >= 12 and lead[1] > 0 for name, lead in over.items()},
        **{"late": late >= 0.1, "lost": lost >= 10, "stop": stop_met, "new": figures["new"] >= 0.7},
        **{"cheapest": cheapest is None or cost <= 0.7 * cheapest[1], "worth": figures["worth"] >= 0.2},
    }
    said = {f"{name}_met": {True: "met", False: "not met", None: ""}[passed] for name, passed in met.items()}
    return PAGE.format(
        tested=len(card.test.items), weight=weight, policies=len(policies), retrained=len(args.retrained),
        best_single=card.best_single, single=card.single.mean(), optimum=card.optimum.mean(), pipelines=means.size,
        goals=table(("goal", "figure", ""), [line.split("|") for line in GOALS.format(**figures, **said).split("\n")]),
        items=items_table(card),
        gaps=table(HEADERS, gap_rows(card, named)),
        on_validation=", ".join(f"{name} {attained:.3f}" for name, attained in on_validation.items()),
        reads=table(HEADERS, gap_rows(card, {"hierrouter": ours, "answers shuffled": shuffled, **parts})),
        models=models_table(card),
    )  # fmt: skip


def main() -> None:
    """Write the page, or print it."""
    args = tyro.cli(Args, description=__doc__)
    card = Card(args)
    text = page(card)
    if args.pipelines is not None:
        pipelines_csv(card, args.pipelines)
    if args.out is None:
        print(text)
    else:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
