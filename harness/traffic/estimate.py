"""Estimate routers on logged traffic. What `harness.estimate` and `python -m harness estimate` do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.console import Console

from harness.evaluation import router_output
from harness.evaluation.evaluate import action_probabilities
from harness.evaluation.off_policy import (
    MIN_EFFECTIVE,
    FloatArray,
    IntArray,
    Logged,
    RouterEstimate,
    TrafficSummary,
    as_logged,
    cross_fitted,
    doubly_robust_outcomes,
    estimate_router,
    ridge_outcomes,
)
from harness.runs.manifest import provenance, write_json
from harness.runs.routers import Named, RouterLike, check_checkpoint, named
from harness.tables.grid import traffic_grids
from harness.tables.terminal import tables
from pools.cost import COST_WEIGHT, MAX_RATE, read_prices, recorded_cost
from pools.data.traffic import LoggedCall, read_log
from pools.errors import UserError, shown
from pools.files import check_out_file
from pools.names import check_distinct, check_name
from pools.types import Context
from pools.weights import file_hash
from routers import Router, RouterRequest, RoutingStates, load
from routers.checkpoint import read_checkpoint
from routers.encoders.base import ContextEncoder, build_encoder
from routers.registry import learns, registered_name
from tasks import split_of

if TYPE_CHECKING:
    from harness.traffic.config import Estimate

NEEDED = (
    "routers are estimated from calls with a score and a propensity, the probability with which the model was chosen"
)
FIXED_RULE = "a log whose models were chosen by a fixed rule cannot tell what others would have answered"
DRAW = (
    "draw the model of some requests at random, and log the probability, or let all models answer a sample "
    "(docs/guides/traffic.md)"
)
MORE = "log more calls, or draw the models that it would call more often"


def estimate(
    logs: Path | str | Sequence[Path | str],
    routers: RouterLike | Sequence[RouterLike] | Mapping[str, RouterLike] = (),
    *,
    checkpoint: Path | str | None = None,
    split: Literal["train", "validation", "test", "all"] = "test",
    cost_weight: float = COST_WEIGHT,
    cost_unit: str | None = None,
    prices: Sequence[str] = (),
    quality_only: bool = False,
    encoder: str = "hashing",
    weights: Path | str | None = None,
    seed: int = 1,
) -> TrafficSummary:
    """Estimate what routers would have attained on logged calls, each of one model with its propensity.

    The parameters are the options of `python -m harness estimate`; a router is a name, an object or a class, as for
    `harness.evaluate`. Raises UserError for logs that do not tell, and if no router has enough overlap.
    """
    if not 0 <= cost_weight <= MAX_RATE:
        raise UserError(f"--cost-weight {shown(cost_weight)}: expected a number from 0 to {MAX_RATE:g}")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed {shown(seed)}: expected a whole number >= 0, and below 2**32")
    files = [Path(file) for file in ([logs] if isinstance(logs, str | Path) else logs)]
    if not files:
        raise UserError("no log was named; name one or several files of JSON lines, as in docs/guides/traffic.md")
    where = ", ".join(map(str, files))
    calls, outcome, unit, left_out = _usable_calls(files, cost_unit, prices, quality_only)
    if len({call.answered_by for call in calls}) == 1:
        raise UserError(f"{where}: all calls are of {calls[0].answered_by}; {DRAW}")
    if all(call.propensity == 1 for call in calls):
        raise UserError(f"{where}: every propensity is 1; {FIXED_RULE}; {DRAW}")
    weights = None if weights is None else Path(weights)
    checkpoint = None if checkpoint is None else Path(checkpoint)
    models = _models(calls, checkpoint)
    requests = {name: number for number, name in enumerate(dict.fromkeys(call.item for call in calls))}
    everything = Logged(
        np.array([models.index(call.answered_by) for call in calls]),
        np.array([call.propensity for call in calls], np.float64),
        np.array([requests[call.item] for call in calls]),
    )
    in_split = np.array([split in ("all", call.split or split_of(call.query)) for call in calls])
    logged = everything.of(in_split)
    if (found := len(np.unique(logged.item))) < MIN_EFFECTIVE:
        more = "log more" if split == "all" else "log more, or use --split all"
        raise UserError(f"{where}: {found} requests ({split} items), at least {MIN_EFFECTIVE} are needed; {more}")

    contexts = [Context(call.query) for call in calls]
    # Calls of other splits serve to predict outcomes, too.
    robust = _robust_outcomes(contexts, everything, outcome, len(models), encoder, seed, weights)[in_split]
    outcome, calls = outcome[in_split], list(compress(calls, in_split))
    request = RouterRequest(
        models=models, cost_model=recorded_cost(unit), cost_weight=cost_weight, seed=seed, weights=weights
    )
    start = np.zeros(len(calls), np.int64)
    states = RoutingStates(list(compress(contexts, in_split)), start, np.zeros(len(calls)), start[:, None] - 1)
    estimates: dict[str, RouterEstimate] = {}
    for name, router in _built(routers, models, checkpoint, request).items():
        chance = action_probabilities(router, states, len(models))[:, :-1]
        entry = estimate_router(chance, logged, outcome, robust, cost_weight)
        estimates[name] = replace(entry, routing_cost=float(router_output.own_cost(router, states).mean()))
    shadows = dict.fromkeys(call.shadow.router for call in calls if call.shadow is not None)
    for name in shadows:
        estimates[f"shadow:{name}"] = _shadow_estimate(name, calls, models, logged, outcome, robust, cost_weight)
    if all(entry.refused for entry in estimates.values()):
        name, entry = max(estimates.items(), key=lambda row: row[1].effective_requests)
        raise UserError(f"{where}: no router can be estimated; of {name}: {entry.refused}; {MORE}")
    return TrafficSummary(
        calls=len(calls),
        requests=found,
        split=split,
        left_out=left_out,
        models=models,
        cost_unit=unit,
        cost_weight=cost_weight,
        logged=as_logged(logged, outcome, cost_weight),
        routers=estimates,
    )


def estimate_command(options: Estimate, console: Console) -> None:
    """Print the estimates, and write them if a file is named."""
    check_out_file(options.out, options.force)
    of_the_command = ("router", "out", "force")
    given = {key: value for key, value in vars(options).items() if key not in of_the_command}
    summary = estimate(**given, routers=options.router)
    for what, number in summary.left_out.items():
        console.print(f"calls without a {what}, left out: {number:,}", highlight=False)
    for table in (table for grid in traffic_grids(summary) for table in tables(grid, console.width)):
        console.print(table, end="\n\n")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        logs = [{"file": file.name, "sha256": file_hash(file)} for file in options.logs]
        write_json({**asdict(summary), "logs": logs, "made": provenance()}, options.out)
        console.print(f"written to {options.out}", highlight=False, markup=False, soft_wrap=True)


def _usable_calls(
    files: Sequence[Path], cost_unit: str | None, prices: Sequence[str], quality_only: bool
) -> tuple[list[LoggedCall], FloatArray, str, dict[str, int]]:
    """The calls that lack nothing, their quality and cost `[n, 2]`, the costs' unit, and what others lack, counted.

    Without costs the unit is empty, and they are 0. Raises UserError if every call lacks something.
    """
    calls = [call for file in files for call in read_log(file)]
    where, price_of = ", ".join(map(str, files)), read_prices(prices)
    unit = (
        "" if quality_only else _unit(calls, [*([cost_unit] if cost_unit else []), *(["US$"] if prices else [])], where)
    )
    costs = [0.0 if quality_only else call.cost_at(price_of) for call in calls]
    if all(cost is None for cost in costs):
        raise UserError(f"{where}: no call has a cost; give --prices of its tokens, or --quality-only")
    needed = [
        {"score": call.score, "propensity": call.propensity, "cost": cost}
        for call, cost in zip(calls, costs, strict=True)
    ]
    lacking = [next((what for what, given in of.items() if given is None), None) for of in needed]
    whole = [number for number, what in enumerate(lacking) if what is None]
    if not whole:
        missing = Counter(what for of in needed for what, given in of.items() if given is None)
        counted = ", ".join(f"{number:,} have no {what}" for what, number in missing.items())
        advice = f"{NEEDED}; {FIXED_RULE}" if missing["propensity"] == len(calls) else NEEDED
        raise UserError(f"{where}: none of {len(calls):,} calls can be used, {counted}; {advice}")
    outcome = np.array([[needed[number]["score"], needed[number]["cost"]] for number in whole], np.float64)
    return [calls[number] for number in whole], outcome, unit, dict(Counter(filter(None, lacking)))


def _shadow_estimate(
    name: str,
    calls: Sequence[LoggedCall],
    models: Sequence[str],
    logged: Logged,
    outcome: FloatArray,
    robust: FloatArray,
    cost_weight: float,
) -> RouterEstimate:
    """Of a shadow router, by its logged decisions; calls without one are left out."""
    decided = np.array([call.shadow is not None and call.shadow.router == name for call in calls])
    shadows = [call.shadow for call in compress(calls, decided) if call.shadow is not None]
    if (hops := max(shadow.max_hops for shadow in shadows)) > 1:
        why = f"it may call {hops} models, and its first decision alone is logged; serve it with --max-hops 1"
        return RouterEstimate(0.0, why)
    # A model that no call was of has no column: its probability is missing, and so is overlap.
    chance = np.array([[shadow.choices.get(model, 0.0) for model in models] for shadow in shadows])
    entry = estimate_router(chance, logged.of(decided), outcome[decided], robust[decided], cost_weight)
    return replace(entry, undecided=int((~decided).sum()))


def _robust_outcomes(
    contexts: Sequence[Context],
    logged: Logged,
    outcome: FloatArray,
    models: int,
    encoder: str,
    seed: int,
    weights: Path | None,
) -> FloatArray:
    """`[n, M, 2]` doubly robust quality and cost of every model, of queries and outcomes `[n, 2]`."""

    def predict(known: IntArray, wanted: IntArray) -> FloatArray:
        learnt = [contexts[n] for n in known]
        embed = ContextEncoder(build_encoder(encoder, learnt, seed, weights), ("query",))
        vectors = embed(learnt), embed([contexts[n] for n in wanted])
        return ridge_outcomes(vectors[0], logged.action[known], outcome[known], vectors[1], models)

    predicted = cross_fitted(predict, logged.item, seed)
    return np.stack([doubly_robust_outcomes(predicted[..., k], outcome[:, k], logged) for k in range(2)], axis=2)


def _unit(calls: Sequence[LoggedCall], given: Sequence[str], where: str) -> str:
    """The unit that the calls name, or that is given, else US$. Raises UserError if these are several."""
    units = list(dict.fromkeys([*(call.cost_unit for call in calls if call.cost_unit), *given]))
    if len(units) > 1:
        raise UserError(f"{where}: costs in {shown(units[0])} and in {shown(units[1])}; convert them to one unit")
    return check_name(units[0], "--cost-unit, or cost_unit in the log,") if units else "US$"


def _models(calls: Sequence[LoggedCall], checkpoint: Path | None) -> tuple[str, ...]:
    """The models in the order of a checkpoint's actions, else as they come in the log.

    Raises UserError if the checkpoint has not all of them, or two have almost the same name.
    """
    found = tuple(dict.fromkeys(call.answered_by for call in calls))
    check_distinct(found, "model")
    if checkpoint is None:
        return found
    known = read_checkpoint(checkpoint).header.problem.models
    if unknown := next((model for model in found if model not in known), None):
        raise UserError(f"--checkpoint {checkpoint} is for the models {', '.join(known)}; the log has {unknown}, too")
    return known


def _built(
    routers: RouterLike | Sequence[RouterLike] | Mapping[str, RouterLike],
    models: Sequence[str],
    checkpoint: Path | None,
    request: RouterRequest,
) -> dict[str, Router]:
    """The routers by the names of their rows, then each model alone and random."""
    asked = named(routers)
    of_checkpoint = None if checkpoint is None else check_checkpoint(checkpoint, asked, {})
    baselines = [*(f"single:{model}" for model in models), "random"]
    built: dict[str, Router] = {}
    for name, given in {**asked, **{name: name for name in baselines if name not in asked}}.items():
        if not isinstance(given, Named):
            router: Router = given
        elif not learns(given):
            router = load(given, request)
        elif registered_name(given) == of_checkpoint:
            router = load(given, request, checkpoint=checkpoint)
        else:
            raise UserError(
                f"router {name} learns from the answers of every model, and a log has one; train it on a shadow sample "
                "(python -m harness import, then train --recording), and name its --checkpoint"
            )
        built[name] = router
    return built
