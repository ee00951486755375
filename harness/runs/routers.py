"""The routers of a run: by name, as an object or a class; built, trained or loaded, each for every cost weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.runs.checkpoints import has_options, shipped_checkpoint
from harness.runs.source import Source
from pools.errors import UserError
from pools.names import check_name
from routers import Router, RouterRequest, load
from routers.checkpoint import read_checkpoint
from routers.registry import Taught, learns, load_taught, registered_name, router_options, teach
from routers.router import NotedRouter, WeighingRouter

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


@dataclass(frozen=True)
class RunRouter:
    """A router of a run, by the name of its row.

    given: what it was asked for as; options: of one that learns. taught: where it learnt for this run. checkpoint: that
    it was loaded from; ships: whether that one is ours.
    """

    name: str
    router: Router
    given: RouterLike
    options: Mapping[str, Any] = field(default_factory=dict)
    taught: Taught | None = None
    checkpoint: Path | None = None
    ships: bool = False

    def at(self, request: RouterRequest) -> Router:
        """The router for the request's cost weight: told of it, or built anew."""
        if isinstance(self.router, WeighingRouter):
            return self.router.at(request.cost_weight)
        if isinstance(self.given, Named):
            return load(self.given, request, options=self.options)
        return self.router

    def notes(self, cost_weights: Sequence[float], seed: int, split: str) -> list[str]:
        """What a reader of its row must know."""
        if self.name in BOUNDS:
            return [f"{BOUNDS[self.name]}: a bound"]
        notes = []
        if self.checkpoint is not None:
            notes.append(f"shipped policy, seed {seed}" if self.ships else f"from {self.checkpoint.name}")
        elif self.taught is not None:
            notes.append("trained by this run")
        if isinstance(self.router, NotedRouter):
            notes += self.router.notes(cost_weights)
        if split != "test" and self.name.partition(":")[0] not in UNTRAINED:
            notes.append("on items it was trained or chosen on")
        return notes


def named(routers: RouterLike | Sequence[RouterLike] | Mapping[str, RouterLike]) -> dict[str, RouterLike]:
    """The routers by the names of their rows; a router or a class goes by its class's name."""
    if isinstance(routers, Mapping):
        return {check_name(name, "router"): given for name, given in routers.items()}
    several = [routers] if isinstance(routers, str | type | Router) else list(routers)
    found: dict[str, RouterLike] = {}
    for given in several:
        name = given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)
        if name in found and given is not found[name] and given != found[name]:
            raise UserError(f"two routers are called {name}; name them, as {{'a': first, 'b': second}}")
        found[check_name(name, "--router")] = given
    return found


def with_baselines(routers: Mapping[str, RouterLike], source: Source, allow_stop: bool) -> dict[str, RouterLike]:
    """These routers, then the baselines that every table has, each once."""
    recorded = source.generator is None
    names = [*(f"single:{model}" for model in source.pool.model_names), "random"]
    # Chosen on train items, from every response of every pipeline.
    chosen = recorded and any(item.split == "train" for item in source.tree.items)
    names += ["best-pipeline", "best-pipeline-per-task"] if chosen else []
    # The optimum takes every response of every pipeline, which nobody wants to wait for.
    names += [OPTIMUM, *([] if allow_stop else [f"{OPTIMUM}:no-stop"])] if recorded else []
    return {**routers, **{name: name for name in names if name not in routers}}


def options_of_each(
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
        if name not in found and options:
            raise UserError(f"options of {name}, which learns nothing and has none: {', '.join(options)}")
        if name in found:
            found[name] |= options
    return found


def learners(routers: Mapping[str, RouterLike], options: Mapping[str, Any]) -> dict[str, Named]:
    """The routers that learn: those that have options."""
    return {name: given for name, given in routers.items() if name in options and isinstance(given, Named)}


def shipped(
    routers: Mapping[str, RouterLike],
    options: Mapping[str, Mapping[str, Any]],
    request: RouterRequest,
    source: Source,
    whole: bool,
) -> dict[str, Path]:
    """The checkpoints that ship of the routers that learn; whole: whether all items of the recording are used."""
    found: dict[str, Path] = {}
    for name, router in learners(routers, options).items():
        path = shipped_checkpoint(router, options[name], request, source, whole)
        found |= {} if path is None else {name: path}
    return found


def of_checkpoint(
    path: Path,
    routers: Mapping[str, RouterLike],
    options: Mapping[str, Mapping[str, Any]],
    own: Mapping[str, Mapping[str, Any]],
) -> dict[str, Path]:
    """The routers that a checkpoint is of. Raises UserError where it is of none of them, or of other options."""
    header = read_checkpoint(path).header
    known = learners(routers, options)
    found = {name: path for name, router in known.items() if registered_name(router) == header.router}
    if not found:
        raise UserError(
            f"--checkpoint {path} is of router {header.router}, which is not among {', '.join(routers)}; add it to "
            "--router, or name another checkpoint"
        )
    for name in found:
        if own.get(name) and not has_options(header, known[name], options[name]):
            raise UserError(
                f"--router-args: the {header.router} of --checkpoint {path} was trained with other options; omit them, "
                "or train one"
            )
    return found


def assemble(
    routers: Mapping[str, RouterLike],
    options: Mapping[str, Mapping[str, Any]],
    loaded: Mapping[str, Path],
    ships: bool,
    request: RouterRequest,
    say: Callable[[str], None],
) -> list[RunRouter]:
    """Build every router, training what learns and is not loaded; before the first is evaluated.

    loaded: the checkpoints of some, and whether they ship. say: is told what takes a while.
    """
    made = []
    for name, given in routers.items():
        if name in loaded and isinstance(given, Named):
            taught = load_taught(given, loaded[name], request)
            made.append(RunRouter(name, taught.router, given, options[name], checkpoint=loaded[name], ships=ships))
            if ships:
                say(f"{name}: the shipped policy {loaded[name].name}; --retrain trains one")
        elif name in options and isinstance(given, Named):
            if request.train is not None and request.train.items and not request.train.complete:
                raise UserError(
                    f"router {name} with --live needs --checkpoint, which python -m harness train --live writes where "
                    "the router can learn from live models"
                )
            say(f"training {name} on {len(request.train.items) if request.train else 0} items ...")
            taught = teach(given, request, options[name])
            made.append(RunRouter(name, taught.router, given, options[name], taught))
        elif isinstance(given, Named):
            made.append(RunRouter(name, load(given, request), given))
        else:
            made.append(RunRouter(name, given, given))
    return made
