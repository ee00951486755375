"""The routers of a run set to a budget, a cap or a stated risk on validation items, and judged on those of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.capped import CappedRouter
from harness.evaluation.evaluate import evaluate as outcome_of
from harness.evaluation.frontier import Points
from harness.evaluation.limits import (
    Budget,
    Calibrated,
    Judged,
    Limited,
    NoWorseThan,
    Resource,
    Setting,
    cheapest_passing,
    kept_figures,
    limited_figures,
    mixture,
    optimum_figures,
    setting,
)
from harness.evaluation.metrics import Bootstrap
from harness.evaluation.risk import least_margin
from harness.evaluation.sweep import sweep, sweepable
from harness.runs.routers import BOUNDS, FIT_ON_ALL, Named, RunRouter, items_apart
from pools.cost import MAX_COST
from pools.errors import UserError, shown
from pools.mdp.constrained import ROUNDING, Mix, best_mix, within_cap
from pools.mdp.optimum import path_costs
from pools.mdp.tree import Tree
from pools.numbers import read_number
from routers import Router, RouterRequest, load
from routers.call_bounds import CallBounds
from routers.registry import Taught, learns, registered_name, teach
from routers.router import BudgetedRouter, VotingRouter

FloatArray = NDArray[np.float64]
RESOURCES: tuple[Resource, ...] = get_args(Resource)
CHOSE = "chosen on these validation items: the confidence is not exact"


@dataclass(frozen=True)
class Goals:
    """What routers are set to: the best quality within a budget and a cap, or a risk, or both.

    resource: what is limited. budget: on the mean of items. cap: on each. model: whose quality is kept but for
    `margin`, with `confidence`.
    """

    budget: float | None = None
    cap: float | None = None
    model: str | None = None
    margin: float = 0.0
    confidence: float = 0.95
    resource: Resource = "cost"

    @property
    def asked(self) -> str:
        """The first of the options that ask for it, as a user gives it."""
        if self.limits:
            name, amount = ("cap", self.cap) if self.budget is None else ("budget", self.budget)
            return f"--{name} {self.resource}={amount:g}"
        return f"--no-worse-than {self.model}={self.margin:g}"

    @property
    def limits(self) -> bool:
        """Whether there is a budget or a cap."""
        return self.budget is not None or self.cap is not None


AMOUNTS = {"budget": "cost=0.02", "cap": "cost=0.05", "no_worse_than": "MODEL=0.01"}
"""The options that take a name and a number, with an example of each."""


def read_amount(option: str, text: str | None) -> dict[str, float] | None:
    """`NAME=NUMBER` as a mapping of one. Raises UserError for another form."""
    if text is None:
        return None
    name, _, number = text.rpartition("=")
    with suppress(ValueError):
        if name:
            return {name: read_number(number, float)}
    raise UserError(f"{_flag(option)} {shown(text)}: expected a name and a number, as in {AMOUNTS[option]}") from None


def written_amount(given: Mapping[str, float]) -> str:
    """The inverse of `read_amount`."""
    return ", ".join(f"{name}={amount:.12g}" for name, amount in given.items())


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def checked_goals(
    budget: Mapping[str, float] | None,
    cap: Mapping[str, float] | None,
    no_worse_than: Mapping[str, float] | None,
    confidence: float,
) -> Goals | None:
    """What is asked for; None if nothing is. Raises UserError for what is no limit."""
    limits = {option: given for option, given in (("budget", budget), ("cap", cap)) if given is not None}
    for option, given in limits.items():
        if len(given) != 1 or not all(name in RESOURCES and 0 < amount < MAX_COST for name, amount in given.items()):
            raise _refused(option, given, f"an amount above 0 of {' or '.join(RESOURCES)}")
    kept_to = no_worse_than or {}
    if no_worse_than is not None and (len(kept_to) != 1 or not all(0 <= margin < 1 for margin in kept_to.values())):
        raise _refused("no_worse_than", kept_to, "a model and a margin in quality from 0 and below 1")
    if not 0.5 <= confidence < 1:
        raise UserError(f"--confidence {confidence:g}: expected a probability from 0.5 and below 1, as in 0.95")
    if not limits and no_worse_than is None:
        return None
    named: set[Any] = {name for given in limits.values() for name in given}
    if len(named) > 1:
        raise UserError("--budget and --cap are of one resource: give both of cost, or both of latency")
    amounts = {option: float(next(iter(given.values()))) for option, given in limits.items()}
    model, margin = next(iter(kept_to.items()), (None, 0.0))
    resource: Resource = named.pop() if named else "cost"
    return Goals(**amounts, model=model, margin=float(margin), confidence=confidence, resource=resource)


def _refused(option: str, given: Mapping[str, float], expected: str) -> UserError:
    said = shown(written_amount(given))
    return UserError(f"{_flag(option)} {said}: expected {expected}, as in {AMOUNTS[option]}")


def check_goals(goals: Goals, request: RouterRequest) -> None:
    """Raise UserError for goals that cannot be met, or that nothing is there for; before anything is trained."""
    tree = request.evaluation
    assert tree is not None
    flag, of_cost = goals.asked, goals.resource == "cost"
    if not tree.complete:
        raise UserError(f"{flag} needs every response of every pipeline; use a recording, not --live")
    if not tree.cost_model.unit and (of_cost or goals.model is not None):
        flag = flag if of_cost else f"--no-worse-than {goals.model}={goals.margin:g}"
        raise UserError(f"{flag}: no costs were recorded here; record them, or omit it")
    if items_apart(request) is None:
        raise UserError(f"{flag} sets routers on validation items, and there are none: raise --limit, or import some")
    if goals.model is not None and goals.model not in tree.models:
        raise UserError(f"--no-worse-than: unknown model {goals.model!r}; the pool has {', '.join(tree.models)}")
    if goals.budget is None:
        return
    judged = _Items.of(tree, goals.resource)
    if _optimum(judged, goals) is None:
        open_ = within_cap(tree, judged.spent, _or_any(goals.cap))[0] > -np.inf
        least = np.where(open_, judged.spent, np.inf).min(axis=1).mean()
        amount = f"cheapest call of each item costs {least:.3g} {tree.cost_model.unit}"
        if not of_cost:
            amount = f"shortest call of each item takes {least:.3g} seconds"
        raise UserError(f"{flag}: the {amount} on average; give at least that")


@dataclass(frozen=True)
class Reached:
    """What routers attain within the limits, and at a quality that is kept; each None if it was not asked for.

    taught: by router, those of the second that were taught for it, as validation items had to be new to them.
    """

    within: Budget | None = None
    at_risk: NoWorseThan | None = None
    taught: Mapping[str, Taught] = field(default_factory=dict)


def set_and_judge(
    routers: Sequence[RunRouter], request: RouterRequest, goals: Goals, say: Callable[[str], None]
) -> Reached:
    """Set the routers on validation items, and judge them on those that are evaluated.

    Without validation items it is the train items that learners hold out. Under a cap all routers that route are
    capped, for a stated risk, too. The bounds are left out: the optimum within the limits stands for them.
    What is fitted on validation items is taught anew, on train items alone; for a stated risk so is all that this run
    taught, since it chose on them.
    """
    tree, parts = request.evaluation, items_apart(request)
    assert tree is not None and parts is not None  # as `check_goals` saw
    fitted_on, chosen_on = parts
    say(f"setting the routers on {len(chosen_on.items)} validation items ...")
    judging = _Judging(
        goals=goals,
        request=replace(request, train=fitted_on, validation=chosen_on),
        train=fitted_on,
        validation=_Items.of(chosen_on, goals.resource),
        evaluation=_Items.of(tree, goals.resource),
        capped=_capper(fitted_on, goals),
        draws=Bootstrap.draw(len(tree.items), request.seed),
    )
    routers = [router for router in routers if router.name not in BOUNDS]
    curves = {r.name: _curve(r, _fitted_on_all(r), judging, say) for r in routers} if goals.limits else {}
    within = _within_limits(curves, judging) if goals.limits else None
    if goals.model is None:
        return Reached(within)
    for router in routers:
        anew = _fitted_on_all(router) or router.taught is not None
        if router.name not in curves or (anew and curves[router.name].taught is None):
            curves[router.name] = _curve(router, anew, judging, say)
    chose = {router.name for router in routers if router.checkpoint is not None}
    taught = {name: curve.taught for name, curve in curves.items() if curve.taught is not None}
    return Reached(within, _no_worse_than(curves, chose - set(taught), judging), taught)


@dataclass(frozen=True)
class _Items:
    """Items that routers are judged on. spent: `[I, N]` of what is limited, on the pipeline to each node."""

    tree: Tree
    spent: FloatArray

    @staticmethod
    def of(tree: Tree, resource: Resource) -> _Items:
        if resource == "cost":
            return _Items(tree, path_costs(tree))
        return _Items(tree, tree.path_seconds(*np.indices(tree.known.shape, sparse=True)))


@dataclass(frozen=True)
class _Judging:
    """What all routers are set to, on which items, and on which they are judged.

    request: its trees are those to learn from and to choose on. capped: puts a router under the cap.
    """

    goals: Goals
    request: RouterRequest
    train: Tree
    validation: _Items
    evaluation: _Items
    capped: Callable[[Router], Router]
    draws: Bootstrap

    def __call__(self, router: Router, items: _Items) -> Judged:
        """What a router attains on items."""
        outcome = outcome_of(router, items.tree, self.request.seed)
        seconds = None
        if self.goals.resource == "latency":
            assert outcome.waits is not None  # the run has seen that there is latency
            seconds = outcome.waits.mean
        limit = _or_any(self.goals.cap) * (1 + ROUNDING)
        if isinstance(router, VotingRouter):
            over = ((outcome.cost if seconds is None else seconds) > limit).astype(np.float64)
            return Judged(outcome.quality, outcome.cost, over, (1 - over) * outcome.quality, seconds)
        breaks = items.spent > limit
        within = (outcome.end * ~breaks * items.tree.score).sum(axis=1)
        return Judged(outcome.quality, outcome.cost, (outcome.end * breaks).sum(axis=1), within, seconds)

    def curve(
        self, settings: Sequence[Setting], routers: Sequence[Router], notes: Sequence[str], taught: Taught | None = None
    ) -> Curve:
        """The curve of a router that is these at its settings."""
        attained = tuple(self(router, self.validation) for router in routers)
        return Curve(tuple(settings), tuple(routers), attained, tuple(notes), taught)


@dataclass(frozen=True)
class Curve:
    """A router at `P` settings, each with what it attains on validation items. notes: for a reader.

    taught: what was taught for this.
    """

    settings: tuple[Setting, ...]
    routers: tuple[Router, ...]
    attained: tuple[Judged, ...]
    notes: tuple[str, ...] = ()
    taught: Taught | None = None

    @property
    def quality(self) -> FloatArray:
        """`[P, I]`."""
        return np.stack([each.quality for each in self.attained])


def _fitted_on_all(router: RunRouter) -> bool:
    """Whether it was fitted on the validation items, too."""
    given = router.given
    return isinstance(given, Named) and learns(given) and registered_name(given) in FIT_ON_ALL


def _capper(fitted_on: Tree, goals: Goals) -> Callable[[Router], Router]:
    """What puts a router under the cap. One that votes decides nothing before its calls, so it stays as it is.

    Routers are told of a cap on costs alone: what is left of it is in the unit that they know.
    """
    cap, of_seconds = goals.cap, goals.resource == "latency"
    if cap is None:
        return lambda router: router
    bounds = CallBounds.learn(fitted_on.charged(0.0, 1.0) if of_seconds else fitted_on)

    def put(router: Router) -> Router:
        if isinstance(router, VotingRouter):
            return router
        told = router.within(cap) if isinstance(router, BudgetedRouter) and not of_seconds else router
        return CappedRouter(told, bounds, cap, of_seconds)

    return put


def _curve(router: RunRouter, anew: bool, judging: _Judging, say: Callable[[str], None]) -> Curve:
    """A router at the cost weights that its curve takes on train items, so that they do not depend on validation items.

    anew: whether it is taught for this, on train items alone: what it chooses it then chooses on some of these.
    """
    goals, request, capped = judging.goals, judging.request, judging.capped
    notes, taught = [], None
    if anew:
        assert isinstance(router.given, Named)
        say(f"training {router.name} for this, on train items alone ...")
        taught = teach(router.given, replace(request, validation=None), router.options)
        router = replace(router, router=taught.router)
        notes.append("here fitted on train items alone")
    if goals.cap is not None and isinstance(router.router, VotingRouter):
        notes.append("cannot be capped")
    if goals.cap is not None and goals.resource == "latency" and isinstance(router.router, BudgetedRouter):
        notes.append("not told of a cap on seconds")

    def at(weight: float) -> Router:
        return capped(router.at(replace(request, cost_weight=weight)))

    weights = []
    if router.follows and sweepable(judging.train):
        curve = sweep(lambda weight: outcome_of(at(weight), judging.train, request.seed), judging.train)
        weights = curve.cost_weights.tolist()
    if len(weights) < 2:
        return judging.curve([Setting()], [capped(router.router)], notes, taught)
    return judging.curve([Setting(cost_weight=w) for w in weights], [at(w) for w in weights], notes, taught)


def _singles(judging: _Judging) -> Curve:
    """The zero router: its settings are the single models."""
    models = judging.request.models
    routers = [judging.capped(load(f"single:{model}", judging.request)) for model in models]
    return judging.curve([Setting(model=model) for model in models], routers, [])


def _optimum(items: _Items, goals: Goals) -> tuple[Mix, FloatArray, NDArray[np.bool_]] | None:
    """The exact optimum within the limits, as a mix of nodes, with their quality, and who can be answered."""
    quality, answered = within_cap(items.tree, items.spent, _or_any(goals.cap))
    mix = best_mix(quality, items.spent, _or_any(goals.budget))
    return None if mix is None else (mix, quality, answered)


def _or_any(limit: float | None) -> float:
    return np.inf if limit is None else limit


def _within_limits(curves: Mapping[str, Curve], judging: _Judging) -> Budget:
    goals, items = judging.goals, judging.evaluation
    found = _optimum(items, goals)
    assert found is not None  # as `check_goals` saw
    mix, of_nodes, answered = found
    quality, seconds = mix.of(of_nodes), mix.of(items.spent) if goals.resource == "latency" else None
    best = Judged(quality, mix.of(path_costs(items.tree)), np.zeros(len(quality)), quality, seconds)

    def judged(curve: Curve, zero: Judged | None) -> tuple[Judged, Limited]:
        of_limited = Points(np.stack([each.spent for each in curve.attained]), curve.quality)
        shares, meets = setting(of_limited, _or_any(goals.budget))
        weights = np.array(list(shares.values()))
        attained = mixture(weights, [judging(curve.routers[point], items) for point in shares])
        on_validation = mixture(weights, [curve.attained[point] for point in shares])
        set_to = [curve.settings[point].model_copy(update={"share": share}) for point, share in shares.items()]
        return attained, limited_figures(
            attained, on_validation, best.quality, zero, goals.budget, goals.cap, set_to, meets, curve.notes,
            judging.draws,
        )  # fmt: skip

    zero, of_zero = judged(_singles(judging), None)
    return Budget(
        resource=goals.resource,
        budget=goals.budget,
        cap=goals.cap,
        validation_items=len(judging.validation.tree.items),
        optimum=optimum_figures(best, mix.price, answered, judging.draws),
        zero_router=of_zero,
        routers={name: judged(curve, zero)[1] for name, curve in curves.items()},
    )


def _no_worse_than(curves: Mapping[str, Curve], chose: Set[str], judging: _Judging) -> NoWorseThan:
    """chose: the routers that may have chosen something on the validation items."""
    goals, seed, count = judging.goals, judging.request.seed, len(judging.validation.tree.items)
    model = goals.model
    assert model is not None
    alone = load(f"single:{model}", judging.request)
    reference, on_validation = judging(alone, judging.evaluation), judging(alone, judging.validation)
    routers: dict[str, Calibrated] = {}
    for name, curve in curves.items():
        if name == f"single:{model}":
            continue
        points = Points(np.stack([each.cost for each in curve.attained]), curve.quality)
        passed, point = cheapest_passing(points, on_validation.quality, goals.margin, goals.confidence, seed)
        figures = None
        if point is not None:
            figures = kept_figures(
                judging(curve.routers[point], judging.evaluation),
                reference,
                curve.settings[point],
                goals.margin,
                float((curve.quality[point] - on_validation.quality).mean()),
                judging.draws,
            )
        notes = [*curve.notes, *([CHOSE] if name in chose else [])]
        routers[name] = Calibrated(points=len(curve.settings), passed=passed, kept=figures, notes=notes)
    return NoWorseThan(
        model=model,
        margin=goals.margin,
        confidence=goals.confidence,
        validation_items=count,
        least_margin=least_margin(count, goals.confidence),
        routers=routers,
    )
