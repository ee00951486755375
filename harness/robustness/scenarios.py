"""What may change between what a router learnt and what it meets, as trees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from harness.robustness.wording import CHANGES, reworded
from pools.mdp.tree import Tree

AS_TRAINED = "as trained"
QUESTIONS = ("tasks", "kinds", "items", "retired", "new", "prices", "wording", "seeds")
SHARES = (0.05, 0.1, 0.25, 0.5)
OUTCOMES = (20, 100)
DRAWS = 3
FACTORS = (0.5, 2.0, 10.0)
SEEDS = 5
MIN_TRAIN, MIN_TESTED = 5, 10
"""Of fewer train items nothing is learnt; a kind of fewer test items is not left out, as its figure would be noise."""


@dataclass(frozen=True, eq=False)
class Trees:
    """What is known, and what is met.

    train, validation: a router that learns anew learns it from these. test: the items that it is judged on, at the
    prices that they are billed at. seen: the same as the router sees them, where that differs.
    """

    train: Tree
    validation: Tree
    test: Tree
    seen: Tree | None = None


@dataclass(frozen=True, eq=False)
class Scenario:
    """One change.

    question: which of `QUESTIONS` it is of. name: its column. trees: makes what is known and met.
    part: what is left out, retired or repriced, or which draw. anew: whether a router learns anew; else the one as
    trained meets it. kept: numbers of the models that are left, if one is retired. seed: of the training, where that is
    what changes.
    tested: numbers of the test items that it is judged on; None for all.
    """

    question: str
    name: str
    trees: Callable[[], Trees] = field(repr=False)
    part: str = ""
    anew: bool = True
    kept: tuple[int, ...] = ()
    seed: int | None = None
    tested: NDArray[np.int64] | None = None

    @property
    def key(self) -> str:
        """Names it among all scenarios."""
        return " / ".join(dict.fromkeys(filter(None, (self.question, self.name, self.part))))


@dataclass(frozen=True)
class Omitted:
    """What of a question cannot be asked of this recording. what: its columns or parts; empty for all of it."""

    question: str
    what: str
    why: str

    def __str__(self) -> str:
        """A line for a reader."""
        return f"{self.question}: {f'without {self.what}' if self.what else 'not asked'}: {self.why}"


def scenarios(known: Trees, questions: Sequence[str], seed: int) -> tuple[list[Scenario], list[Omitted]]:
    """Everything that is asked, and what cannot be.

    The first scenario is what the others are compared to: nothing changes.
    """
    asked: dict[str, Callable[[], Iterator[Scenario | Omitted]]] = {
        "tasks": lambda: _left_out(known, "task"),
        "kinds": lambda: _left_out(known, "kind"),
        "items": lambda: _few_items(known, seed),
        "retired": lambda: _retired(known),
        "new": lambda: _new(known, seed),
        "prices": lambda: _prices(known),
        "wording": lambda: _wording(known, seed),
        "seeds": lambda: (Scenario("seeds", f"seed {s}", lambda: known, seed=s) for s in range(seed + 1, seed + SEEDS)),
    }
    found = [each for question in questions for each in asked[question]()]
    made = [each for each in found if isinstance(each, Scenario)]
    return [Scenario(AS_TRAINED, AS_TRAINED, lambda: known), *made], [e for e in found if isinstance(e, Omitted)]


def _left_out(known: Trees, what: str) -> Iterator[Scenario | Omitted]:
    """Each task, or each kind of question of a task that has several, in turn: judged on it, learnt without it."""
    train, validation, test = (_groups(t, what) for t in (known.train, known.validation, known.test))
    counted = {str(group): int(n) for group, n in zip(*np.unique(test, return_counts=True), strict=True)}
    groups = [group for group in counted if group]
    asked = [group for group in groups if counted[group] >= MIN_TESTED and (train != group).sum() >= MIN_TRAIN]
    if len(counted) < 2:
        yield Omitted(f"{what}s", "", f"all test items are of one {what}" if groups else f"no task has several {what}s")
        return
    if few := [group for group in groups if group not in asked]:
        why = f"of a {what} at least {MIN_TESTED} test items are needed, and {MIN_TRAIN} train items of others"
        yield Omitted(f"{what}s", _listed(few) if asked else "", why)
    for group in asked:

        def trees(group: str = group) -> Trees:
            parts = [
                (known.train, train != group),
                (known.validation, validation != group),
                (known.test, test == group),
            ]
            return Trees(*(tree.subset(np.flatnonzero(chosen)) for tree, chosen in parts))

        column = "left out" if what == "kind" else group
        yield Scenario(f"{what}s", column, trees, part=group, tested=np.flatnonzero(test == group))


def _listed(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _groups(tree: Tree, what: str) -> NDArray[np.str_]:
    """`[I]` the task of each item, or task and kind; empty where a task has but one kind."""
    if what == "task":
        return np.array([item.task for item in tree.items], dtype=np.str_)
    kinds: dict[str, set[str]] = {}
    for item in tree.items:
        kinds.setdefault(item.task, set()).add(item.kind)
    several = [f"{i.task}: {i.kind}" if len(kinds[i.task]) > 1 and i.kind else "" for i in tree.items]
    return np.array(several, dtype=np.str_)


def _few_items(known: Trees, seed: int) -> Iterator[Scenario | Omitted]:
    """Random shares of the train and validation items, the smaller ones within the larger."""
    rng = np.random.default_rng(seed)
    order = [rng.permutation(len(tree.items)) for tree in (known.train, known.validation)]
    asked = [share for share in SHARES if round(share * len(order[0])) >= MIN_TRAIN]
    if few := [f"{share:.0%}" for share in SHARES if share not in asked]:
        what = f"of {len(order[0])} train items that" if asked else f"half of {len(order[0])} train items"
        why = f"{what} is fewer than the {MIN_TRAIN} that are needed"
        yield Omitted("items", ", ".join(few) if asked else "", why)
    for share in asked:

        def trees(share: float = share) -> Trees:
            few = [np.sort(of[: round(share * len(of))]) for of in order]
            return Trees(known.train.subset(few[0]), known.validation.subset(few[1]), known.test)

        yield Scenario("items", f"{share:.0%}", trees)


def _retired(known: Trees) -> Iterator[Scenario | Omitted]:
    """Each model in turn is gone."""
    models = known.test.models
    if len(models) < 3:
        yield Omitted("retired", "", "without one of two models nothing is left to choose from")
        return
    for number, model in enumerate(models):
        kept = tuple(m for m in range(len(models)) if m != number)

        def trees(kept: tuple[int, ...] = kept) -> Trees:
            left = [models[m] for m in kept]
            return Trees(*(tree.of_models(left) for tree in (known.train, known.validation, known.test)))

        yield Scenario("retired", "each in turn", trees, part=model, anew=False, kept=kept)


def _new(known: Trees, seed: int) -> Iterator[Scenario | Omitted]:
    """A model is new: with its outcomes few train items alone are known whole; several draws of these items."""
    rng, items = np.random.default_rng(seed), len(known.train.items)
    asked = [outcomes for outcomes in OUTCOMES if outcomes < items]
    if many := [f"{outcomes} outcomes" for outcomes in OUTCOMES if outcomes not in asked]:
        yield Omitted("new", ", ".join(many) if asked else "", f"there are only {items} train items")
    for draw in range(1, DRAWS + 1):
        order = rng.permutation(items)
        for outcomes in asked:

            def trees(few: NDArray[np.int64] = order[:outcomes]) -> Trees:
                return Trees(known.train.subset(np.sort(few)), known.validation.subset([]), known.test)

            yield Scenario("new", f"{outcomes} outcomes", trees, part=f"draw {draw}")


def _prices(known: Trees) -> Iterator[Scenario | Omitted]:
    """The price of the model whose calls cost the most goes up or down, told to the router and not."""
    test = known.test
    if not test.cost_model.unit:
        yield Omitted("prices", "", "no costs were recorded")
        return
    model = test.models[int(test.cost[:, test.level(1)].mean(axis=0).argmax())]
    for factor in FACTORS:

        def told(factor: float = factor) -> Trees:
            return Trees(*(tree.repriced({model: factor}) for tree in (known.train, known.validation, known.test)))

        def untold(factor: float = factor) -> Trees:
            return replace(known, test=test.repriced({model: factor}), seen=test)

        yield Scenario("prices", f"x{factor:g}, told", told, part=model)
        yield Scenario("prices", f"x{factor:g}, not told", untold, part=model, anew=False)


def _wording(known: Trees, seed: int) -> Iterator[Scenario]:
    """The queries in other words; the models' answers stay what they were."""
    for change in CHANGES:

        def trees(change: str = change) -> Trees:
            queries = [reworded(item.query, change, seed) for item in known.test.items]
            return replace(known, seen=known.test.reworded(queries))

        yield Scenario("wording", change, trees, anew=False)
