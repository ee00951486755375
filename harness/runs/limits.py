"""The routers of a run set to a budget, a cap or a stated risk on validation items, and judged on those of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
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
    kept,
    limited,
    mixture,
    optimum_figures,
    setting,
)
from harness.evaluation.metrics import Bootstrap
from harness.evaluation.risk import least_margin
from harness.evaluation.sweep import sweep, sweepable
from harness.runs.routers import BOUNDS, FIT_ON_ALL, Named, RunRouter
from pools.cost import MAX_COST
from pools.errors import UserError, shown
from pools.mdp.constrained import ROUNDING, Mix, best_mix, within_cap
from pools.mdp.optimum import path_costs
from pools.mdp.tree import Tree
from pools.numbers import read_number
from routers import Router, RouterRequest, load
from routers.call_bounds import CallBounds
from routers.registry import items_to_learn_from, learns, registered_name
from routers.router import BudgetedRouter, VotingRouter

FloatArray = NDArray[np.float64]
RESOURCES: tuple[Resource, ...] = get_args(Resource)


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
    said = shown(", ".join(f"{name}={amount:g}" for name, amount in given.items()))
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
    if _parts(request) is None:
        raise UserError(f"{flag} sets routers on validation items, and there are none: raise --limit, or import some")
    if goals.model is not None and goals.model not in tree.models:
        raise UserError(f"--no-worse-than: unknown model {goals.model!r}; the pool has {', '.join(tree.models)}")
    if goals.budget is not None and _optimum(tree, goals) is None:
        spent = path_costs(_charging(tree, goals.resource))
        least = np.where(within_cap(tree, spent, _or_any(goals.cap))[0] > -np.inf, spent, np.inf).min(axis=1).mean()
        amount = f"cheapest call of each item costs {least:.3g} {tree.cost_model.unit}"
        if not of_cost:
            amount = f"shortest call of each item takes {least:.3g} seconds"
        raise UserError(f"{flag}: the {amount} on average; give at least that")


def set_and_judge(
    routers: Sequence[RunRouter], request: RouterRequest, goals: Goals, say: Callable[[str], None]
) -> tuple[Budget | None, NoWorseThan | None]:
    """Set the routers on validation items, and judge them on those that are evaluated.

    Without validation items it is the train items that learners hold out. Under a cap all routers that route are
    capped, for a stated risk, too. The bounds are left out: the optimum within the limits stands for them.
    """
    tree, parts = request.evaluation, _parts(request)
    assert tree is not None and parts is not None  # as `check_goals` saw
    fitted_on, chosen_on = parts
    request = replace(request, train=fitted_on, validation=chosen_on)
    say(f"setting the routers on {len(chosen_on.items)} validation items ...")
    capped = _capper(fitted_on, goals)
    curves = {r.name: _curve(r, request, capped, goals) for r in routers if r.name not in BOUNDS}
    draws = Bootstrap.draw(len(tree.items), request.seed)
    within = _within_limits(curves, _singles(request, capped, goals), request, goals, draws) if goals.limits else None
    at_risk = _no_worse_than(curves, request, goals, draws) if goals.model is not None else None
    return within, at_risk


@dataclass(frozen=True)
class Curve:
    """A router at `P` settings, each with what it attains on validation items. notes: for a reader."""

    settings: tuple[Setting, ...]
    routers: tuple[Router, ...]
    attained: tuple[Judged, ...]
    notes: tuple[str, ...] = ()

    @property
    def quality(self) -> FloatArray:
        """`[P, I]`."""
        return np.stack([each.quality for each in self.attained])


def _charging(tree: Tree, resource: Resource) -> Tree:
    """The tree, its costs those of what is limited: for latency they are seconds."""
    return tree if resource == "cost" else tree.charged(0.0, 1.0)


def _parts(request: RouterRequest) -> tuple[Tree, Tree] | None:
    """The items that routers are fitted on, and the others that are chosen on; None without any of these."""
    if request.train is None or not request.train.items:
        return None
    fitted_on, chosen_on = items_to_learn_from(request, "", explores=True)
    return None if chosen_on is fitted_on else (fitted_on, chosen_on)


def _capper(fitted_on: Tree, goals: Goals) -> Callable[[Router], Router]:
    """What puts a router under the cap. One that votes decides nothing before its calls, so it stays as it is.

    Routers are told of a cap on costs alone: what is left of it is in the unit that they know.
    """
    cap, of_seconds = goals.cap, goals.resource == "latency"
    if cap is None:
        return lambda router: router
    bounds = CallBounds.learn(_charging(fitted_on, goals.resource))

    def put(router: Router) -> Router:
        if isinstance(router, VotingRouter):
            return router
        told = router.within(cap) if isinstance(router, BudgetedRouter) and not of_seconds else router
        return CappedRouter(told, bounds, cap, of_seconds)

    return put


def _curve(router: RunRouter, request: RouterRequest, capped: Callable[[Router], Router], goals: Goals) -> Curve:
    """A router at the cost weights that its curve takes on train items, so that they do not depend on validation items.

    One that was fitted on validation items, too, is fitted anew, on train items alone.
    """
    train, notes = request.train, []
    assert train is not None
    if isinstance(router.given, Named) and learns(router.given) and registered_name(router.given) in FIT_ON_ALL:
        on_train = replace(request, validation=train)
        router = replace(router, router=load(router.given, on_train, options=router.options))
        notes.append("here fitted on train items alone")
    if goals.cap is not None and isinstance(router.router, VotingRouter):
        notes.append("cannot be capped")
    if goals.cap is not None and goals.resource == "latency" and isinstance(router.router, BudgetedRouter):
        notes.append("not told of a cap on seconds")

    def at(weight: float) -> Router:
        return capped(router.at(replace(request, cost_weight=weight)))

    weights = []
    if router.follows and sweepable(train):
        weights = sweep(lambda weight: outcome_of(at(weight), train, request.seed), train).cost_weights.tolist()
    if len(weights) < 2:
        return _on_validation([Setting()], [capped(router.router)], request, goals, notes)
    return _on_validation([Setting(cost_weight=w) for w in weights], [at(w) for w in weights], request, goals, notes)


def _singles(request: RouterRequest, capped: Callable[[Router], Router], goals: Goals) -> Curve:
    """The zero router: its settings are the single models."""
    routers = [capped(load(f"single:{model}", request)) for model in request.models]
    return _on_validation([Setting(model=model) for model in request.models], routers, request, goals, [])


def _on_validation(
    settings: Sequence[Setting], routers: Sequence[Router], request: RouterRequest, goals: Goals, notes: Sequence[str]
) -> Curve:
    assert request.validation is not None
    attained = [_judge(router, request.validation, goals, request.seed) for router in routers]
    return Curve(tuple(settings), tuple(routers), tuple(attained), tuple(notes))


def _judge(router: Router, tree: Tree, goals: Goals, seed: int) -> Judged:
    """What a router attains on the items of a tree."""
    outcome = outcome_of(router, tree, seed)
    seconds = None
    if goals.resource == "latency":
        assert outcome.waits is not None  # the run has seen that there is latency
        seconds = outcome.waits.mean
    limit = _or_any(goals.cap) * (1 + ROUNDING)
    if isinstance(router, VotingRouter):
        over = ((outcome.cost if seconds is None else seconds) > limit).astype(np.float64)
    else:
        over = (outcome.end * (path_costs(_charging(tree, goals.resource)) > limit)).sum(axis=1)
    return Judged(outcome.quality, outcome.cost, over, seconds)


def _optimum(tree: Tree, goals: Goals) -> tuple[Mix, FloatArray, NDArray[np.bool_]] | None:
    """The exact optimum within the limits, as a mix of nodes, with their quality, and who can be answered."""
    spent = path_costs(_charging(tree, goals.resource))
    quality, answered = within_cap(tree, spent, _or_any(goals.cap))
    mix = best_mix(quality, spent, _or_any(goals.budget))
    return None if mix is None else (mix, quality, answered)


def _or_any(limit: float | None) -> float:
    return np.inf if limit is None else limit


def _within_limits(
    curves: Mapping[str, Curve], singles: Curve, request: RouterRequest, goals: Goals, draws: Bootstrap
) -> Budget:
    tree, validation, seed = request.evaluation, request.validation, request.seed
    assert tree is not None and validation is not None
    found = _optimum(tree, goals)
    assert found is not None  # as `check_goals` saw
    mix, of_nodes, answered = found
    seconds = mix.of(path_costs(_charging(tree, "latency"))) if goals.resource == "latency" else None
    best = Judged(mix.of(of_nodes), mix.of(path_costs(tree)), np.zeros(len(tree.items)), seconds)

    def judged(curve: Curve, zero: Judged | None) -> tuple[Judged, Limited]:
        of_limited = Points(np.stack([each.spent for each in curve.attained]), curve.quality)
        shares, meets = setting(of_limited, _or_any(goals.budget))
        weights = np.array(list(shares.values()))
        attained = mixture(weights, [_judge(curve.routers[point], tree, goals, seed) for point in shares])
        on_validation = mixture(weights, [curve.attained[point] for point in shares])
        set_to = [curve.settings[point].model_copy(update={"share": share}) for point, share in shares.items()]
        return attained, limited(
            attained, on_validation, best.quality, zero, goals.budget, goals.cap, set_to, meets, curve.notes, draws
        )

    zero, of_zero = judged(singles, None)
    return Budget(
        resource=goals.resource,
        budget=goals.budget,
        cap=goals.cap,
        validation_items=len(validation.items),
        optimum=optimum_figures(best, mix.price, answered, draws),
        zero_router=of_zero,
        routers={name: judged(curve, zero)[1] for name, curve in curves.items()},
    )


def _no_worse_than(curves: Mapping[str, Curve], request: RouterRequest, goals: Goals, draws: Bootstrap) -> NoWorseThan:
    tree, validation, model = request.evaluation, request.validation, goals.model
    assert tree is not None and validation is not None and model is not None
    alone = load(f"single:{model}", request)
    reference, on_validation = (_judge(alone, of, goals, request.seed) for of in (tree, validation))
    routers: dict[str, Calibrated] = {}
    for name, curve in curves.items():
        if name == f"single:{model}":
            continue
        points = Points(np.stack([each.cost for each in curve.attained]), curve.quality)
        passed, point = cheapest_passing(points, on_validation.quality, goals.margin, goals.confidence, request.seed)
        figures = None
        if point is not None:
            figures = kept(
                _judge(curve.routers[point], tree, goals, request.seed),
                reference,
                curve.settings[point],
                goals.margin,
                float((curve.quality[point] - on_validation.quality).mean()),
                draws,
            )
        routers[name] = Calibrated(points=len(curve.settings), passed=passed, kept=figures, notes=list(curve.notes))
    return NoWorseThan(
        model=model,
        margin=goals.margin,
        confidence=goals.confidence,
        validation_items=len(validation.items),
        least_margin=least_margin(len(validation.items), goals.confidence),
        routers=routers,
    )
