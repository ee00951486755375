"""The routers of a run set to a budget, a cap or a stated risk on validation items, and judged on those of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

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
RESOURCES = ("cost",)
"""What can be limited."""


@dataclass(frozen=True)
class Goals:
    """What routers are set to: the best quality within a budget and a cap, in the unit of costs, or a risk, or both.

    budget: on the mean of items. cap: on each. model: whose quality is kept but for `margin`, with `confidence`.
    """

    budget: float | None = None
    cap: float | None = None
    model: str | None = None
    margin: float = 0.0
    confidence: float = 0.95

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
    amounts = {option: float(next(iter(given.values()))) for option, given in limits.items()}
    model, margin = next(iter(kept_to.items()), (None, 0.0))
    return Goals(**amounts, model=model, margin=float(margin), confidence=confidence)


def _refused(option: str, given: Mapping[str, float], expected: str) -> UserError:
    said = shown(", ".join(f"{name}={amount:g}" for name, amount in given.items()))
    return UserError(f"{_flag(option)} {said}: expected {expected}, as in {AMOUNTS[option]}")


def check_goals(goals: Goals, request: RouterRequest) -> None:
    """Raise UserError for goals that cannot be met, or that nothing is there for; before anything is trained."""
    tree = request.evaluation
    assert tree is not None
    flag = "--budget" if goals.budget is not None else "--cap" if goals.cap is not None else "--no-worse-than"
    if not tree.complete:
        raise UserError(f"{flag} needs every response of every pipeline; use a recording, not --live")
    if not tree.cost_model.unit:
        raise UserError(f"{flag}: no costs were recorded here; record them, or omit it")
    if _parts(request) is None:
        raise UserError(f"{flag} sets routers on validation items, and there are none: raise --limit, or import some")
    if goals.model is not None and goals.model not in tree.models:
        raise UserError(f"--no-worse-than: unknown model {goals.model!r}; the pool has {', '.join(tree.models)}")
    if goals.budget is not None and _optimum(tree, goals) is None:
        spent = path_costs(tree)
        least = np.where(within_cap(tree, spent, _or_any(goals.cap))[0] > -np.inf, spent, np.inf).min(axis=1).mean()
        raise UserError(
            f"--budget cost={goals.budget:g}: the cheapest call of each item costs {least:.3g} {tree.cost_model.unit} "
            "on average; give at least that"
        )


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
    capped, capping = _capper(fitted_on, goals.cap), goals.cap is not None
    curves = {r.name: _curve(r, request, capped, capping) for r in routers if r.name not in BOUNDS}
    draws = Bootstrap.draw(len(tree.items), request.seed)
    within = _within_limits(curves, _singles(request, capped), request, goals, draws) if goals.limits else None
    at_risk = _no_worse_than(curves, request, goals, draws) if goals.model is not None else None
    return within, at_risk


@dataclass(frozen=True)
class Curve:
    """A router at `P` settings, each with what it is called. points: on validation items. notes: for a reader."""

    settings: tuple[Setting, ...]
    routers: tuple[Router, ...]
    points: Points
    notes: tuple[str, ...] = ()


def _parts(request: RouterRequest) -> tuple[Tree, Tree] | None:
    """The items that routers are fitted on, and the others that are chosen on; None without any of these."""
    if request.train is None or not request.train.items:
        return None
    fitted_on, chosen_on = items_to_learn_from(request, "", explores=True)
    return None if chosen_on is fitted_on else (fitted_on, chosen_on)


def _capper(fitted_on: Tree, cap: float | None) -> Callable[[Router], Router]:
    """What puts a router under the cap. One that votes decides nothing before its calls, so it stays as it is."""
    if cap is None:
        return lambda router: router
    bounds = CallBounds.learn(fitted_on)

    def put(router: Router) -> Router:
        if isinstance(router, VotingRouter):
            return router
        told = router.within(cap) if isinstance(router, BudgetedRouter) else router
        return CappedRouter(told, bounds, cap)

    return put


def _curve(router: RunRouter, request: RouterRequest, capped: Callable[[Router], Router], capping: bool) -> Curve:
    """A router at the cost weights that its curve takes on train items, so that they do not depend on validation items.

    One that was fitted on validation items, too, is fitted anew, on train items alone.
    """
    train, notes = request.train, []
    assert train is not None
    if isinstance(router.given, Named) and learns(router.given) and registered_name(router.given) in FIT_ON_ALL:
        on_train = replace(request, validation=train)
        router = replace(router, router=load(router.given, on_train, options=router.options))
        notes.append("here fitted on train items alone")
    if capping and isinstance(router.router, VotingRouter):
        notes.append("cannot be capped")

    def at(weight: float) -> Router:
        return capped(router.at(replace(request, cost_weight=weight)))

    weights = sweep(at, train, request.seed).cost_weights.tolist() if router.follows and sweepable(train) else []
    if len(weights) < 2:
        return _on_validation([Setting()], [capped(router.router)], request, notes)
    return _on_validation([Setting(cost_weight=w) for w in weights], [at(w) for w in weights], request, notes)


def _singles(request: RouterRequest, capped: Callable[[Router], Router]) -> Curve:
    """The zero router: its settings are the single models."""
    routers = [capped(load(f"single:{model}", request)) for model in request.models]
    return _on_validation([Setting(model=model) for model in request.models], routers, request, [])


def _on_validation(
    settings: Sequence[Setting], routers: Sequence[Router], request: RouterRequest, notes: Sequence[str]
) -> Curve:
    assert request.validation is not None
    outcomes = [outcome_of(router, request.validation, request.seed) for router in routers]
    points = Points(np.stack([o.cost for o in outcomes]), np.stack([o.quality for o in outcomes]))
    return Curve(tuple(settings), tuple(routers), points, tuple(notes))


def _judge(router: Router, request: RouterRequest, cap: float | None) -> Judged:
    """What a router attains on the items that are evaluated."""
    tree = request.evaluation
    assert tree is not None
    outcome = outcome_of(router, tree, request.seed)
    limit = _or_any(cap) * (1 + ROUNDING)
    if isinstance(router, VotingRouter):
        over = (outcome.cost > limit).astype(np.float64)
    else:
        over = (outcome.end * (path_costs(tree) > limit)).sum(axis=1)
    return Judged(outcome.quality, outcome.cost, over)


def _optimum(tree: Tree, goals: Goals) -> tuple[Mix, FloatArray, NDArray[np.bool_]] | None:
    """The exact optimum within the limits, as a mix of nodes, with their quality, and who can be answered."""
    spent = path_costs(tree)
    quality, answered = within_cap(tree, spent, _or_any(goals.cap))
    mix = best_mix(quality, spent, _or_any(goals.budget))
    return None if mix is None else (mix, quality, answered)


def _or_any(limit: float | None) -> float:
    return np.inf if limit is None else limit


def _within_limits(
    curves: Mapping[str, Curve], singles: Curve, request: RouterRequest, goals: Goals, draws: Bootstrap
) -> Budget:
    tree, validation = request.evaluation, request.validation
    assert tree is not None and validation is not None
    found = _optimum(tree, goals)
    assert found is not None  # as `check_goals` saw
    mix, of_nodes, answered = found
    best = mix.of(of_nodes)

    def judged(curve: Curve, zero: Judged | None) -> tuple[Judged, Limited]:
        shares, meets = setting(curve.points, _or_any(goals.budget))
        points, weights = list(shares), np.array(list(shares.values()))
        attained = mixture(weights, [_judge(curve.routers[point], request, goals.cap) for point in points])
        quality, cost = (float(weights @ of[points].mean(axis=1)) for of in (curve.points.quality, curve.points.cost))
        set_to = [curve.settings[point].model_copy(update={"share": share}) for point, share in shares.items()]
        return attained, limited(
            attained, best, zero, goals.budget, goals.cap, set_to, meets, quality, cost, curve.notes, draws
        )

    zero, of_zero = judged(singles, None)
    return Budget(
        resource=RESOURCES[0],
        budget=goals.budget,
        cap=goals.cap,
        validation_items=len(validation.items),
        optimum=optimum_figures(best, mix.of(path_costs(tree)), mix.price, answered, draws),
        zero_router=of_zero,
        routers={name: judged(curve, zero)[1] for name, curve in curves.items()},
    )


def _no_worse_than(curves: Mapping[str, Curve], request: RouterRequest, goals: Goals, draws: Bootstrap) -> NoWorseThan:
    validation, model = request.validation, goals.model
    assert validation is not None and model is not None
    alone = load(f"single:{model}", request)
    reference, on_validation = _judge(alone, request, None), outcome_of(alone, validation).quality
    routers: dict[str, Calibrated] = {}
    for name, curve in curves.items():
        if name == f"single:{model}":
            continue
        passed, point = cheapest_passing(curve.points, on_validation, goals.margin, goals.confidence, request.seed)
        figures = None
        if point is not None:
            figures = kept(
                _judge(curve.routers[point], request, None),
                reference,
                curve.settings[point],
                goals.margin,
                float((curve.points.quality[point] - on_validation).mean()),
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
