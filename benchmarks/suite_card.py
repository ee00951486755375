"""What the suite `offline` is, and what it tells of routers: the page docs/results/suite.md.

    python benchmarks/suite_card.py --out docs/results/suite.md --pipelines docs/results/suite-pipelines.csv

On the recording and the policies that ship. Routers of the query alone, of several families, are fitted on train items;
the best of them on validation items is fitted again on both. HierRouter without STOP and of fewer hops is trained here,
as the policies that ship were. Gap: value from the best single model to the optimum, on test items.
"""

from __future__ import annotations

import csv
import itertools
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
from harness.evaluation.summary import newly_worded
from pools.data.recording import load_recording
from pools.mdp.optimum import path_costs, solve
from pools.mdp.tree import Tree
from pools.types import Context
from routers import RouterRequest, load
from routers.encoders.base import build_encoder
from routers.router import Router, RoutingStates, WeighingRouter

FloatArray = NDArray[np.float64]
RESAMPLES = 10_000
ENDS = (2.5, 97.5)
PIPELINES = "query-only:hashing", "query-only:surface", "query-only:hashing+surface"
ONE_MODEL = "knn", "ridge", "logistic", "extra-trees", "mlp", "matrix-factorisation"
BLIND, FOREST = "hierrouter that sees no answer", "forest on words and sizes of numbers"
"""Routers that see the query alone: a pipeline by ridge regression or neighbours, with three encoders; one model; and
the strongest: HierRouter without the answers, and a forest that is told how large the query's numbers are."""
TREES, SIZES = 300, 6
ANSWERED = re.compile(r"Answer: (?!unknown)|```python")
FRONTIER = 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0
"""Cost weights at which HierRouter's cost at a pipeline's quality is looked for."""
_CAPITAL = re.compile(r"\b[A-Z][a-z]+\b")
_INSIDE = re.compile(r"(?<=[a-z0-9,;'] )[A-Z][a-z]+\b")
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
            Context(own.query, self.tree.context(other, node).responses, own.prefill)
            for own, other, node in zip(states.contexts, others, nodes, strict=True)
        ]
        return self.router.act(replace(states, contexts=contexts, cost=self.spent[others, nodes]))


class Card:
    """Everything that is measured at one cost weight, on the test items of a recording."""

    def __init__(self, args: Args) -> None:
        self.args, self.weight = args, args.cost_weight
        self.tree = load_recording(args.recording).tree
        self.train, self.validation, self.test = (self.tree.select(s) for s in ("train", "validation", "test"))
        self.new = newly_worded(self.test.items, self.train.items)
        worded = {item.task for item, new in zip(self.test.items, self.new, strict=True) if new}
        self.known = np.array([item.task in worded for item in self.test.items]) & ~self.new
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
        """The best on validation items of the routers of the query alone: its name, its test outcome, all values there.

        Every family is fitted on train items. The best, if it is meant to be fitted on validation items, too, is fitted
        again on both.
        """

        def outcome(family: str, tested: Tree, tuned: Tree) -> Outcome:
            name, _, encoder = family.partition(":")
            options: dict[str, Any] = {"encoder": encoder} if encoder else {}
            if family == FOREST:
                parts = [self.train] if tuned is self.train else [self.train, tuned]
                return self._forest(parts, tested)
            if family == BLIND:
                name, options = "hierrouter", {"sees": ("models", "query")}
            # `query-only` takes items that are given twice once.
            return evaluate(load(name, self.request(validation=tuned, evaluation=tested), options=options), tested)

        on_validation = {
            family: float(value(outcome(family, self.validation, tuned), self.weight).mean())
            for families, tuned in (((*PIPELINES, FOREST), self.train), ((*ONE_MODEL, BLIND), self.validation))
            for family in families
        }
        best = max(on_validation, key=on_validation.__getitem__)
        return best, outcome(best, self.test, self.validation), on_validation

    def _forest(self, parts: Sequence[Tree], tested: Tree) -> Outcome:
        """For each query the pipeline with the best value by extremely randomised trees."""
        from sklearn.ensemble import ExtraTreesRegressor

        embed = build_encoder("hashing+surface", [Context(i.query) for part in parts for i in part.items], 1, None)

        def seen(tree: Tree) -> FloatArray:
            queries = [item.query for item in tree.items]
            sizes = np.zeros((len(queries), SIZES))
            for row, query in enumerate(queries):
                numbers = [np.log1p(float(found)) for found in _NUMBER.findall(query)[:SIZES]]
                sizes[row, : len(numbers)] = numbers
            return np.concatenate([embed.encode(queries), sizes], axis=1)

        values = [part.score[:, 1:] - self.weight * path_costs(part)[:, 1:] for part in parts]
        forest = ExtraTreesRegressor(TREES, min_samples_leaf=3, random_state=1, n_jobs=-1)
        forest.fit(np.concatenate([seen(part) for part in parts]), np.concatenate(values))
        return _of_nodes(tested, 1 + forest.predict(seen(tested)).argmax(axis=1))

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

    def until_answered(self) -> Outcome:
        """For each task one pipeline, which ends at the first response that states an answer; chosen on train items.

        What a rule by hand attains that is told the task and recognises an answer, and reads nothing else.
        """
        of_train, of_test = self._first_answers(self.train), self._first_answers(self.test)
        worth = np.take_along_axis(self.train.score - self.weight * path_costs(self.train), of_train, axis=1)
        nodes = np.zeros(len(self.test.items), np.int64)
        for task in dict.fromkeys(item.task for item in self.test.items):
            learnt, tested = (np.array([i.task == task for i in tree.items]) for tree in (self.train, self.test))
            nodes[tested] = of_test[tested, worth[learnt].mean(axis=0).argmax()]
        return _of_nodes(self.test, nodes)

    def _first_answers(self, tree: Tree) -> NDArray[np.int64]:
        stated = np.zeros((len(tree.items), tree.nodes), bool)
        for item, node in itertools.product(range(len(tree.items)), range(1, tree.nodes)):
            stated[item, node] = ANSWERED.search(tree.generation(item, node).response) is not None
        return first_stated(tree, stated)

    def cheapest_of_quality(self, quality: float) -> tuple[str, float] | None:
        """The cheapest pipeline, of all items or of each kind, that has at least this quality on the test items.

        Of each kind exactly, by dynamic programming over how many items are right; scores are 0 or 1.
        """
        right, cost = self.test.score[:, 1:].astype(np.int64), path_costs(self.test)[:, 1:]
        needed = int(np.ceil(quality * len(right) - 1e-9))
        found = [
            (" > ".join(self.test.models[a] for a in self.test.pipeline(node + 1)), float(cost[:, node].mean()))
            for node in np.flatnonzero(right.sum(axis=0) >= needed).tolist()
        ]
        least = self._least_costs(right, cost)
        if np.isfinite(least[needed:]).any():
            found.append(("a pipeline of each kind", float(least[needed:].min()) / len(right)))
        return min(found, key=lambda each: each[1], default=None)

    def best_quality(self) -> float:
        """The best quality of any pipeline of each kind on the test items."""
        right = self.test.score[:, 1:].astype(np.int64)
        found = np.isfinite(self._least_costs(right, path_costs(self.test)[:, 1:]))
        return float(np.flatnonzero(found)[-1] / len(right))

    def cost_at(self, quality: float, policies: Sequence[Router]) -> tuple[float, float] | None:
        """What HierRouter costs at the least, a mean over seeds, where it has this quality, and the cost weight there.

        It is looked for at the cost weights `FRONTIER`. None: at none of them.
        """
        found = []
        for weight in FRONTIER:
            at_weight = [policy.at(weight) for policy in policies if isinstance(policy, WeighingRouter)]
            outcomes = [evaluate(policy, self.test) for policy in at_weight]
            if mean_of(outcomes, lambda o: o.quality).mean() >= quality:
                found.append((float(mean_of(outcomes, lambda o: o.cost).mean()), weight))
        return min(found, default=None)

    def _least_costs(self, right: NDArray[np.int64], cost: FloatArray) -> FloatArray:
        """The least cost of so many right items, by a pipeline of each kind; right, cost: `[I, N - 1]`."""
        told = np.array([f"{item.task}: {item.kind}" for item in self.test.items])
        least = np.full(len(right) + 1, np.inf)
        least[0] = 0.0
        for kind in dict.fromkeys(told.tolist()):
            here = told == kind
            after = np.full_like(least, np.inf)
            for solved, spent in zip(right[here].sum(axis=0).tolist(), cost[here].sum(axis=0).tolist(), strict=True):
                after[solved:] = np.minimum(after[solved:], least[: len(least) - solved] + spent)
            least = after
        return least


def first_stated(tree: Tree, stated: NDArray[np.bool_]) -> NDArray[np.int64]:
    """`[I, K]` of each item and each of the `K` longest pipelines the first node that is `stated`, else the last."""
    leaves = tree.level(tree.max_hops)
    found, node = np.repeat(leaves[None], len(tree.items), axis=0), leaves
    for _ in range(tree.max_hops):
        found = np.where(stated[:, node], node, found)
        node = tree.parent(node)
    return found


def _of_nodes(tree: Tree, nodes: NDArray[np.int64]) -> Outcome:
    """The outcome of episodes that end at a node `[I]` each."""
    items, end = np.arange(len(tree.items)), np.zeros((len(tree.items), tree.nodes))
    end[items, nodes] = 1.0
    quality, cost = tree.score[items, nodes].astype(np.float64), path_costs(tree)[items, nodes]
    hops: FloatArray = tree.depth[nodes].astype(np.float64)
    calls = np.stack([(tree.pipelines()[nodes] == m).sum(axis=1) for m in range(len(tree.models))], axis=1)
    return Outcome(quality, cost, np.zeros(len(items)), hops, calls.astype(np.float64), end, exact=True)


def mean_of(outcomes: Sequence[Outcome], figure: Callable[[Outcome], FloatArray]) -> FloatArray:
    """`[I]` a figure of each item, a mean over outcomes."""
    return np.mean([figure(outcome) for outcome in outcomes], axis=0)


def masked(queries: Sequence[str]) -> list[str]:
    """Queries with numbers and names made equal; a name is a word that one of them writes large inside a sentence."""
    names = {name for query in queries for name in _INSIDE.findall(query)}
    return [
        _NUMBER.sub("0", _CAPITAL.sub(lambda word: "Name" if word[0] in names else word[0], query)) for query in queries
    ]


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
    bare = dict(zip(card.tree.items, masked([item.query for item in card.tree.items]), strict=True))
    train = {bare[item] for item in card.train.items}
    alike = np.array([bare[item] in train for item in card.test.items])
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
        "test: worded as no train item",
        "test: a train item but for names and numbers",
        "test: both of these",
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
        for hops in range(2, card.test.max_hops + 1):
            node = int(card.test.level(hops)[score[card.test.level(hops)].argmax()])
            best.append(f"{score[node]:.2f} {' > '.join(card.test.models[a] for a in card.test.pipeline(node))}")
        rows.append([kind, str(int((card.kind == kind).sum())), *singles, *best])
    return table(
        ("kind", "items", *card.test.models, *(f"best of {hops} hops" for hops in range(2, card.test.max_hops + 1))),
        rows,
    )


def rounded(number: float, form: str) -> str:
    """A number in this form, where what rounds to 0 has no sign."""
    text = format(number, form)
    return text.removeprefix("-") if not text.strip("-0.%") else text


def lead_text(points: float, low: float, high: float) -> str:
    """A lead in points with its interval."""
    return f"{rounded(points, '.0f')} [{rounded(low, '.0f')}, {rounded(high, '.0f')}]"


def gap_rows(card: Card, named: Mapping[str, list[Outcome]]) -> list[list[str]]:
    """A row per router: quality, cost, hops, value, the gap that it closes, and how far HierRouter is ahead."""
    mine = mean_of(named["hierrouter"], lambda outcome: value(outcome, card.weight))
    rows = []
    for name, outcomes in named.items():
        values = mean_of(outcomes, lambda outcome: value(outcome, card.weight))
        ahead = "" if name == "hierrouter" else lead_text(*card.lead(mine, values))
        figures = [
            mean_of(outcomes, figure).mean() for figure in (lambda o: o.quality, lambda o: o.cost, lambda o: o.hops)
        ]
        closed = [card.closed(value(outcome, card.weight)) for outcome in outcomes]
        spread = f" ({rounded(min(closed), '.0%')} to {rounded(max(closed), '.0%')})" if len(closed) > 1 else ""
        new, known = (rounded(card.closed(values, of), ".0%") if of.any() else "-" for of in (card.new, card.known))
        rows.append([
            name, f"{figures[0]:.3f}", f"{figures[1]:.4f}", f"{figures[2]:.2f}", f"{values.mean():.3f}",
            rounded(card.closed(values), ".0%") + spread, new, known, ahead,
        ])  # fmt: skip
    return rows


@dataclass(frozen=True)
class Goal:
    """What the suite has to show. met: None if it was not measured."""

    what: str
    figure: str
    met: bool | None

    @property
    def row(self) -> list[str]:
        """Of the table of goals."""
        return [self.what, self.figure, {True: "yes", False: "**no**", None: "not measured"}[self.met]]


HEADERS = (
    "router",
    "quality",
    "cost",
    "hops",
    "value",
    "gap closed",
    "on new wording",
    "on these tasks' known wording",
    "HierRouter ahead, points",
)
PAGE = """# What the suite `offline` tells of routers

Who closes how much of the gap on version 2 of the suite, what reading and stopping are worth, and which model is right
on what. This page is made by

    python benchmarks/suite_card.py --out docs/results/suite.md \\
        --pipelines docs/results/suite-pipelines.csv

What it is made of, and why, is in [its design](../reference/offline-suite.md), written before. On {tested} test items,
cost weight {weight:g}. Gap: from the value of the best single model ({best_single}, {single:.3f}) to the exact
optimum's ({optimum:.3f}). HierRouter: the mean over the {policies} policies that ship, in round brackets the least and
the most; in square brackets 95% intervals of the paired bootstrap over items, of that mean. A kind is a task's own;
`mmlu_dev` has 57, its subjects.

## Goals

{goals}

The goal on costs compares costs per item at equal quality. If no pipeline has the quality that HierRouter has at cost
weight {weight:g}, it is compared at the best quality that a pipeline has: HierRouter's cost is then that at a higher
cost weight, the cheapest of {frontier} at which it has at least that quality.

## Items

{items}

A test item that is a train item but for names and numbers has the same words, with other names and numbers in them.

## Who closes how much of the gap

{gaps}

Routers of the query alone and their values on validation items: {on_validation}. The best of them is fitted again on
train and validation items. *Ended at the first answer*: a rule by hand; for each task, which it is told, the pipeline
that is best on train items if it ends at the first response that states an answer or is a program.

{by_task}

## Reading, stopping, hops

{reads}

*Answers shuffled*: the same policies are shown what was answered to another test item of the same kind, and what that
cost; subjects of `mmlu_dev` count as one kind here. *Without STOP* and of fewer hops: trained as the policies that
ship, with {retrained} seeds. STOP is worth something because calculator and reader do not repeat an answer that was
given ([design](../reference/offline-suite.md#candidates)): an answer that is not stopped at is lost, or bought from the
code model.

## Models

Share of the test items of each kind that is right; the best pipelines are chosen on these items. All {pipelines}
pipelines are in [suite-pipelines.csv](suite-pipelines.csv).

{models}
"""


def page(card: Card) -> str:
    """The page in Markdown."""
    args, weight, hops = card.args, card.weight, card.test.max_hops
    policies, fixed = card.policies(), card.fixed()
    family, of_query, on_validation = card.of_the_query()
    named = {
        "hierrouter": [evaluate(router, card.test) for router in policies],
        "fitted-q": [evaluate(load("fitted-q", card.request()), card.test)],
        f"best of the query alone: {family}": [of_query],
        **{name: [outcome] for name, outcome in fixed.items()},
        "best pipeline per task, ended at the first answer": [card.until_answered()],
    }
    ours = named["hierrouter"]
    reads = {"hierrouter": ours, "answers shuffled": [card.misled(router) for router in policies]}
    if args.retrained:
        reads["without STOP"] = card.trained(hops, allow_stop=False)
        reads |= {f"hops: {fewer}": card.trained(fewer, allow_stop=True) for fewer in range(1, hops)}
    means = path_costs(card.test)[:, 1:].mean(axis=0)
    found = goals(card, named, reads, policies, float(np.ptp(means)))
    return PAGE.format(
        tested=len(card.test.items), weight=weight, frontier=", ".join(f"{each:g}" for each in FRONTIER),
        policies=len(policies), retrained=len(args.retrained), best_single=card.best_single,
        single=card.single.mean(), optimum=card.optimum.mean(), pipelines=means.size,
        goals=table(("goal", "figure", "met"), [goal.row for goal in found]),
        items=items_table(card),
        gaps=table(HEADERS, gap_rows(card, named)),
        by_task=by_task(card, named),
        on_validation=", ".join(f"{name} {attained:.3f}" for name, attained in on_validation.items()),
        reads=table(HEADERS, gap_rows(card, reads)),
        models=models_table(card),
    )  # fmt: skip


def goals(
    card: Card,
    named: Mapping[str, list[Outcome]],
    reads: Mapping[str, list[Outcome]],
    policies: Sequence[Router],
    costs: float,
) -> list[Goal]:
    """The suite's goals; policies: HierRouter as it ships; costs: from the cheapest pipeline's on."""
    weight, hops = card.weight, card.test.max_hops

    def values(outcomes: Sequence[Outcome]) -> FloatArray:
        return mean_of(outcomes, lambda outcome: value(outcome, weight))

    def quality_cost(outcomes: Sequence[Outcome]) -> tuple[float, float]:
        return float(mean_of(outcomes, lambda o: o.quality).mean()), float(mean_of(outcomes, lambda o: o.cost).mean())

    ours = values(named["hierrouter"])
    quality, cost = quality_cost(named["hierrouter"])
    of_query = next(outcomes for name, outcomes in named.items() if "the query alone" in name)
    kinds, query = card.closed(values(named["best-pipeline-per-kind"])), card.closed(values(of_query))
    late = float(np.mean([o.end[:, card.test.level(hops)].sum(axis=1).mean() for o in named["hierrouter"]]))
    lost = 100 * (quality - quality_cost(reads["answers shuffled"])[0])
    found = [
        Goal("best pipeline per kind closes at most 60%", f"{kinds:.0%}", kinds <= 0.6),
        Goal("best router of the query alone closes at most 70%", f"{query:.0%}", query <= 0.7),
        Goal("HierRouter closes at least 85%", f"{card.closed(ours):.0%}", card.closed(ours) >= 0.85),
    ]
    for what, others in (("the kinds", named["best-pipeline-per-kind"]), ("the best of the query alone", of_query)):
        points, low, high = card.lead(ours, values(others))
        met = points >= 12 and low > 0
        found.append(Goal(f"it is 12 points ahead of {what}, interval above 0", lead_text(points, low, high), met))
    found.append(Goal(f"at least 10% of the items end at hop {hops}", f"{late:.0%}", late >= 0.1))
    found.append(Goal("answers shuffled within a kind lose 10 points of quality", f"{lost:.0f}", lost >= 10))
    if never := reads.get("without STOP"):
        gap, ratio = card.closed(ours) - card.closed(values(never)), quality_cost(never)[1] / cost
        figure, met = f"{gap:.0%} of the gap, {ratio:.2f} times the cost", bool(gap >= 0.1 or ratio >= 1.3)
        found.append(Goal("without STOP 10% of the gap is lost, or it costs 1.3 times as much", figure, met))
    what = "HierRouter costs at most 70% of the cheapest pipeline, of all items or of each kind, that has its quality"
    found.append(_cheaper_goal(card, what, quality, (cost, weight), policies))
    if card.new.any():
        new = card.closed(ours, card.new)
        found.append(Goal("it closes at least 70% on new wording", f"{new:.0%}", new >= 0.7))
    return [*found, Goal("costs are worth at least 0.2", f"{weight * costs:.2f}", weight * costs >= 0.2)]


def _cheaper_goal(
    card: Card, what: str, quality: float, mine: tuple[float, float] | None, policies: Sequence[Router]
) -> Goal:
    """That HierRouter is cheaper than pipelines of its quality; mine: its cost, and the cost weight that it is had at.

    If no pipeline has its quality, both are compared at the best quality that pipelines have.
    """
    cheapest, at = card.cheapest_of_quality(quality), f"quality {quality:.3f}"
    if cheapest is None:
        best = card.best_quality()
        cheapest, mine = card.cheapest_of_quality(best), card.cost_at(best, policies)
        at = f"quality {best:.3f}, the best of any pipeline"
    assert cheapest is not None
    if mine is None:
        return Goal(what, f"HierRouter does not come to {at}", False)
    (cost, weight), (name, theirs) = mine, cheapest
    figure = f"{cost / theirs:.0%}: {cost:.4f}, at cost weight {weight:g}, against {theirs:.4f} of {name}, at {at}"
    return Goal(what, figure, cost / theirs <= 0.7)


def by_task(card: Card, named: Mapping[str, list[Outcome]]) -> str:
    """How much of each task's gap every router closes; from the best single model of all items."""
    task_of = np.array([item.task for item in card.test.items])
    tasks = list(dict.fromkeys(task_of.tolist()))
    rows = []
    for name, outcomes in named.items():
        values = mean_of(outcomes, lambda outcome: value(outcome, card.weight))
        rows.append([name, *(rounded(card.closed(values, task_of == task), ".0%") for task in tasks)])
    late = card.test.level(card.test.max_hops)
    ends = mean_of(named["hierrouter"], lambda outcome: outcome.end[:, late].sum(axis=1))
    last = f"items that HierRouter ends at hop {card.test.max_hops}"
    rows.append([last, *(f"{ends[task_of == task].mean():.0%}" for task in tasks)])
    gaps = [(card.optimum - card.single)[task_of == task].sum() / len(task_of) for task in tasks]
    return table(("router", *tasks), [*rows, ["the gap, of all items'", *(f"{gap:.3f}" for gap in gaps)]])


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
