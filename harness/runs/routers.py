"""The routers of a run: by name, as an object or a class; built, trained or loaded, each for every cost weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.evaluation.evaluate import evaluate as outcome_of
from harness.evaluation.evaluate import mean_outcome
from harness.evaluation.metrics import value
from harness.evaluation.rollout import draw_actions, rollout, states_at
from harness.runs.checkpoints import has_options
from harness.runs.kept import Kept, teach_once
from pools.errors import UserError
from pools.mdp.tree import Tree
from pools.names import check_name
from pools.pool import Pool
from pools.types import Item
from routers import Router, RouterRequest, load
from routers.checkpoint import read_checkpoint
from routers.registry import (
    Taught,
    items_to_learn_from,
    learns,
    load_taught,
    registered_name,
    router_options,
    row_name,
)
from routers.router import NotedRouter, VotingRouter, WeighingRouter

Named = str | type
RouterLike = Named | Router
"""A router's name (`knn`, `single:MODEL`, `my_router.py`), a router, or the class of one."""

OPTIMUM = "oracle"
BOUNDS = {
    OPTIMUM: "exact optimum",
    "oracle:no-stop": "optimum of exactly L hops",
    "oracle:per-item": "cheapest way to each item's best score",
}
UNTRAINED = {"single", "pipeline", "random"}
FIT_ON_ALL = {"fitted-q", "query-only"}
"""Learners that are fitted on validation items, too."""
_SAME = 1e-9  # sums of the same values in another order differ by this much


@dataclass(frozen=True)
class RunRouter:
    """A router of a run, by the name of its row; of one that was trained with several seeds, one training.

    given: what it was asked for as; options: of one that learns. taught: where it learnt for this run. checkpoint: that
    it was loaded from; ships: whether that one is ours. kept: where it is kept until the run is finished.
    """

    name: str
    router: Router
    given: RouterLike
    options: Mapping[str, Any] = field(default_factory=dict)
    taught: Taught | None = None
    checkpoint: Path | None = None
    ships: bool = False
    seed: int = 1
    kept: Kept | None = None

    def at(self, request: RouterRequest) -> Router:
        """The router for the request's cost weight: told of it, or built anew."""
        if isinstance(self.router, WeighingRouter):
            return self.router.at(request.cost_weight)
        request = replace(request, seed=self.seed)
        if isinstance(self.given, Named) and learns(self.given):
            return teach_once(self.given, request, self.options, self.kept).router
        return load(self.given, request) if isinstance(self.given, Named) else self.router

    @property
    def follows(self) -> bool:
        """Whether it is cheap to have for another cost weight: told of it, or built without learning anew."""
        if isinstance(self.router, WeighingRouter):
            return True
        return isinstance(self.given, Named) and not learns(self.given) and registered_name(self.given) not in UNTRAINED

    @property
    def from_where(self) -> str:
        """How it came to be, if it has learnt; else empty."""
        if self.checkpoint is not None:
            return "shipped policy" if self.ships else f"from {self.checkpoint.name}"
        return "trained by this run" if self.taught is not None else ""


def row_notes(
    trainings: Sequence[RunRouter], cost_weights: Sequence[float], below_single: Sequence[float], seen: bool, on: str
) -> list[str]:
    """What a reader of a router's row must know.

    below_single: the cost weights at which `below_best_single` holds. seen: whether it is evaluated on items that it
    may have been trained or chosen on. on: the recording that was learnt from, where it is another than that of the
    run.
    """
    first = trainings[0]
    if first.name in BOUNDS:
        return [f"{BOUNDS[first.name]}: a bound"]
    notes = []
    for where in dict.fromkeys(filter(None, (training.from_where for training in trainings))):
        seeds = [training.seed for training in trainings if training.from_where == where]
        said = where + (f" on {on}" if on and not where.startswith("from") else "")
        if len(trainings) > 1:
            said += f", seed{'s'[: len(seeds) - 1]} {_ranges(seeds)}"
        elif first.ships:
            said += f", seed {first.seed}"
        notes.append(said)
    if below_single:
        at = ", ".join(f"{weight:g}" for weight in below_single)
        where = "" if len(below_single) == len(cost_weights) else f" at cost weight{'s'[: len(below_single) - 1]} {at}"
        notes.append(f"value below the best single model's on validation items{where}")
    if isinstance(first.router, NotedRouter):
        notes += first.router.notes(cost_weights)
    if seen and first.name.partition(":")[0] not in UNTRAINED:
        notes.append("on items it was trained or chosen on")
    return notes


def _ranges(numbers: Sequence[int]) -> str:
    """Rising numbers, in words: `1 to 3, 5`."""
    first = [n for n in numbers if n - 1 not in numbers]
    last = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in zip(first, last, strict=True))


def named(
    routers: RouterLike | Taught | Sequence[RouterLike | Taught] | Mapping[str, RouterLike | Taught],
) -> dict[str, RouterLike]:
    """The routers by the names of their rows; a router or a class goes by its class's name, a taught one by its own.

    One in a file goes by the name that the file registers.
    """
    found: dict[str, RouterLike] = {}
    if isinstance(routers, Mapping):
        for name, given in routers.items():
            found[check_name(name, "router")] = given.router if isinstance(given, Taught) else given
    else:
        for given in [routers] if isinstance(routers, str | type | Router | Taught) else routers:
            if isinstance(given, Taught):
                name, given = given.header.router, given.router
            else:
                name = row_name(given) if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)
            if name in found and given is not found[name] and given != found[name]:
                raise UserError(f"two routers are called {name}; name them, as {{'a': first, 'b': second}}")
            found[check_name(name, "--router")] = given
    for name, given in found.items():
        if not isinstance(given, str | type | Router):
            raise UserError(f"router {name} has no `act`; expected a name, a router, or the class of one")
    return found


def with_baselines(
    routers: Mapping[str, RouterLike], pool: Pool, recorded: bool, train: Sequence[Item], allow_stop: bool
) -> dict[str, RouterLike]:
    """These routers, then the baselines that every table has, each once; train: the items to learn from."""
    names = [*(f"single:{model}" for model in pool.model_names), "random"]
    # What takes every response of every pipeline is not asked of live models.
    if recorded and train:
        names += ["best-pipeline", "best-pipeline-per-task"]
        names += ["best-pipeline-per-kind"] if any(item.kind for item in train) else []
        names += ["query-only"]
    names += [OPTIMUM, *([] if allow_stop else [f"{OPTIMUM}:no-stop"])] if recorded else []
    return {**routers, **{name: name for name in names if name not in routers}}


def options_of_learners(
    routers: Mapping[str, RouterLike], shared: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The options of each router that learns.

    shared: of all that have such an option. own: by router. Raises UserError for those of one that is not there, or
    learns nothing.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, given in routers.items():
        if isinstance(given, Named) and learns(given):
            known = {option.name for option in router_options(given)}
            found[name] = {key: value for key, value in shared.items() if key in known}
    for name, options in own.items():
        if name not in routers:
            raise UserError(f"options of {name}, which is not among the routers {', '.join(routers)}")
        if name in found:
            found[name] |= options
        elif options:
            raise UserError(f"options of {name}, which learns nothing and has none: {', '.join(options)}")
    return found


def check_checkpoint(path: Path, routers: Mapping[str, RouterLike], own: Mapping[str, Mapping[str, Any]]) -> str:
    """The registered name of the router that a checkpoint is of.

    own: options that were asked for, by router. Raises UserError if it is of none of the routers, or of others.
    """
    header = read_checkpoint(path).header
    mine = {n: r for n, r in routers.items() if isinstance(r, Named) and registered_name(r) == header.router}
    if not mine:
        raise UserError(
            f"--checkpoint {path} is of router {header.router}, which is not among {', '.join(routers)}; add it to "
            "--router, or name another checkpoint"
        )
    if not all(has_options(header, router, own.get(name, {})) for name, router in mine.items()):
        raise UserError(
            f"--router-args: the {header.router} of --checkpoint {path} was trained with other options; omit them, or "
            "train one"
        )
    return header.router


def assemble(
    routers: Mapping[str, RouterLike],
    options: Mapping[str, Mapping[str, Any]],
    checkpoint_of: Callable[[Named, Mapping[str, Any], int], Path | None],
    ships: bool,
    request: RouterRequest,
    seeds: Sequence[int],
    kept: Kept | None,
    say: Callable[[str], None],
) -> dict[str, list[RunRouter]]:
    """Build every router, training what learns and is not loaded; before the first is evaluated.

    What learns nothing is built first, and every router is tried out as soon as it is built: one that somebody wrote
    may fail, and that is to be known before others are trained.
    By row: of one that learns a training for each of the seeds, else one. options: of those that learn. checkpoint_of:
    where one of these is loaded from for a seed, if anywhere; ships: whether that is one of ours. kept: where trained
    routers are kept until the run is finished. say: is told what takes a while.
    """
    rows: dict[str, list[RunRouter]] = {name: [] for name in routers}
    learners: dict[str, Named] = {n: r for n, r in routers.items() if isinstance(r, Named) and n in options}
    for name, given in routers.items():
        if name not in learners:
            router = load(given, request) if isinstance(given, Named) else given
            _try_out(router, request)
            rows[name].append(RunRouter(name, router, given, seed=request.seed))
    for name, given in learners.items():
        row = rows[name]
        for seed in seeds:
            with_seed = replace(request, seed=seed)
            which = name if len(seeds) == 1 else f"{name}, seed {seed}"
            if path := checkpoint_of(given, options[name], seed):
                taught = load_taught(given, path, with_seed)
                _try_out(taught.router, request)
                row.append(RunRouter(name, taught.router, given, options[name], None, path, ships, seed, kept))
                if not ships:
                    break  # one training, whatever the seeds
                say(f"{which}: the shipped policy {path.name}; --retrain trains one")
                continue
            if request.train is not None and request.train.items and not request.train.complete:
                raise UserError(
                    f"router {name} with --live needs --train-on, a recording to learn from, or --checkpoint, which "
                    "python -m harness train --live writes where the router can learn from live models"
                )
            if kept is not None and kept.has(given, with_seed, options[name]):
                say(f"{which}: as trained before, kept in {kept.folder}")
            else:
                say(f"training {which} on {len(request.train.items) if request.train else 0} items ...")
            taught = teach_once(given, with_seed, options[name], kept)
            _try_out(taught.router, request)
            row.append(RunRouter(name, taught.router, given, options[name], taught, seed=seed, kept=kept))
    return rows


def _try_out(router: Router, request: RouterRequest) -> None:
    """Run a router on the first item; with live models, which are not asked for it, for one decision.

    Raises what it raises, and UserError for an invalid action.
    """
    tree = request.evaluation
    if tree is None or isinstance(router, VotingRouter):
        return
    first, root = tree.subset([0]), np.zeros(1, np.int64)
    if first.complete:
        rollout(router, first, request.seed)
    else:
        states = states_at(first, root, root, np.zeros(1), first.pipelines())
        draw_actions(router, states, len(tree.models), np.random.default_rng(request.seed))


def items_apart(request: RouterRequest) -> tuple[Tree, Tree] | None:
    """The items that learners fit on, and those that they choose on; None without any apart, or all their outcomes."""
    if request.train is None or not request.train.items:
        return None
    fitted_on, chosen_on = items_to_learn_from(request, "", explores=True)
    return (fitted_on, chosen_on) if chosen_on is not fitted_on and chosen_on.complete else None


def below_best_single(
    trainings: Sequence[RunRouter],
    routers: Sequence[Router],
    tree: Tree,
    cost_weight: float,
    prices: tuple[float, float] | None = None,
) -> bool:
    """Whether a router that learnt is worth less than one model alone, on items that learners choose on.

    routers: its trainings, of which the mean counts, at the cost weight. prices: of a reward that charges for seconds,
    too, as the tree does; its cost weight is 1. No if it was fitted on these, too, as its value there says little.
    """
    given = trainings[0].given
    if not isinstance(given, Named) or not learns(given) or registered_name(given) in FIT_ON_ALL:
        return False
    single = tree.score[:, tree.level(1)] - cost_weight * tree.cost[:, tree.level(1)]
    outcomes = [outcome_of(router, tree, of.seed) for of, router in zip(trainings, routers, strict=True)]
    attained = value(mean_outcome(outcomes), *(prices or (cost_weight,)))
    return bool(attained.mean() < single.mean(axis=0).max() - _SAME)
