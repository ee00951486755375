"""All routers by name: built, taught, or loaded from their checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pools.cost import MAX_RATE
from pools.errors import UserError, shown
from pools.mdp.tree import Tree
from pools.registry import Registry
from routers.checkpoint import (
    Header,
    Problem,
    no_checkpoint,
    options_as_saved,
    read_checkpoint,
    write_checkpoint,
)
from routers.encoders.base import check_encoder
from routers.options import Option, options_of, read_options
from routers.progress import listened_to
from routers.router import Learner, LearntRouter, Router, RouterRequest, VotingRouter, WeighingRouter

ROUTERS: Registry[Any] = Registry("router", "harness.routers", "routers", skip=("ppo_",))
"""What is registered is a learner, or is called with a RouterRequest and gives a router. Trainers register nothing."""
register, names, describe = ROUTERS.register, ROUTERS.names, ROUTERS.describe

HELD_OUT_EVERY = 5


@dataclass(frozen=True)
class Taught:
    """A router that has learnt, with what its checkpoint says of it."""

    router: LearntRouter
    header: Header

    def save(self, path: Path) -> None:
        """Write its checkpoint, whole or not at all."""
        write_checkpoint(path, self.header, self.router.save())


def _entry(router: str | type) -> tuple[str, Any, str]:
    """As `Registry.entry`. Raises UserError also for one that learns and is no dataclass: its fields are options."""
    name, entry, argument = ROUTERS.entry(router)
    if hasattr(entry, "fit") and not is_dataclass(entry):
        raise UserError(
            f"router {name} has a `fit` and is no dataclass; put @dataclass above it (docs/guides/routers.md)"
        )
    return name, entry, argument


def learns(router: str | type) -> bool:
    """Whether a router, by name or class, learns, so that it is taught or loaded. Raises UserError as `load`."""
    return hasattr(_entry(router)[1], "fit")


def registered_name(router: str | type) -> str:
    """The name that a router is registered by, without argument and file."""
    return _entry(router)[0]


def row_name(router: str) -> str:
    """The name of a router's row: as it was asked for, and of one in a file as the file registers it."""
    if not router.partition(":")[0].endswith(".py"):
        return router
    name, _, argument = _entry(router)
    return f"{name}:{argument}" if argument else name


def router_options(router: str | type) -> list[Option]:
    """The options of a router; none if it does not learn."""
    entry = _entry(router)[1]
    return options_of(entry) if hasattr(entry, "fit") else []


def explores(router: str | type) -> bool:
    """Whether a router learns by asking for what it needs: for long, and over live models, too."""
    return bool(getattr(_entry(router)[1], "explores", False))


def options_asked(router: str | type, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a router that learns, these among them, as its checkpoint would have them.

    Raises UserError for a variant or an option that it has not.
    """
    name, entry, argument = _entry(router)
    return options_as_saved(entry(**{**read_options(entry, options, name), **_variant(entry, name, argument)}))


def load(
    router: str | type,
    request: RouterRequest | None = None,
    *,
    checkpoint: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Router:
    """A router: `NAME`, or `NAME:ARGUMENT`; `FILE.py`, or `FILE.py:NAME` if the file registers several; or a class.

    One that learns is loaded from its checkpoint, for which a name is enough, or is taught with the items of the
    request. options: of one that learns. Raises UserError for a name that is not known, and if the router cannot be
    built from the request.
    """
    request = request or RouterRequest()
    name, entry, argument = _entry(router)
    if hasattr(entry, "fit"):
        if checkpoint is not None:
            return load_taught(router, Path(checkpoint), request).router
        return teach(router, request, options or {}).router
    if options:
        raise UserError(f"router {name} learns nothing and has no options; got {', '.join(options)}")
    _check_call(entry, f"router {name}", "a RouterRequest", request)
    return checked_router(entry(replace(request, argument=argument)), name)


def header_of(router: str | type, request: RouterRequest, options: Mapping[str, Any]) -> Header:
    """What the checkpoint of a router would say of itself, were it taught so. Raises UserError for a wrong option."""
    name, learner, request = _learner(router, request, options)
    return _header(name, learner, request)


def teach(router: str | type, request: RouterRequest, options: Mapping[str, Any]) -> Taught:
    """Fit a router that learns. Raises UserError if there is nothing to learn from, and for a wrong option."""
    name, learner, request = _learner(router, request, options)
    train, validation = items_to_learn_from(request, name, explores=getattr(learner, "explores", False))
    training = replace(request.training, name=f"{row_name(router) if isinstance(router, str) else name}-{request.seed}")
    with listened_to(training) as reporting:
        alone = replace(request, train=None, validation=None, evaluation=None, training=reporting)
        _check_call(learner.fit, f"router {name}: fit", "train, validation and request", train, validation, alone)
        learnt: LearntRouter = checked_router(learner.fit(train, validation, alone), name)
    return Taught(learnt, _header(name, learner, request))


def _learner(router: str | type, request: RouterRequest, options: Mapping[str, Any]) -> tuple[str, Any, RouterRequest]:
    """The registered name, the learner with its options, and the request as these change it."""
    name, entry, argument = _entry(router)
    learner = entry(**{**read_options(entry, options, name), **_variant(entry, name, argument)})
    if hasattr(learner, "adapted"):
        request = learner.adapted(request)
    _check_numbers(request)
    return name, learner, request


def _header(name: str, learner: Any, request: RouterRequest) -> Header:
    fitted_with = options_as_saved(learner)
    facts = {"options": fitted_with, "seed": request.seed, **request.training.facts}
    return Header(router=name, options=fitted_with, problem=Problem.of(request), training=facts)


def checked_router(built: Any, name: str) -> Any:
    """A router that somebody wrote. Raises UserError if it has not the one method of all, `act(states)`, or another."""
    if isinstance(built, VotingRouter):
        return built
    if not callable(getattr(built, "act", None)):
        raise UserError(
            f"router {name} is a {type(built).__name__} without `act`; expected act(states) -> actions "
            "(docs/guides/routers.md)"
        )
    _check_call(built.act, f"router {name}: act", "states", None)
    return built


def _check_call(function: Any, what: str, expected: str, *arguments: Any) -> None:
    """Raise UserError if a function that somebody wrote cannot be called with these arguments."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        given = inspect.signature(function)
        raise UserError(f"{what} takes {given}; expected {expected} (docs/guides/routers.md)") from None
    except ValueError:  # one that Python cannot look into
        return


def _check_numbers(request: RouterRequest) -> None:
    if not 0 <= request.seed < 2**32:
        raise UserError(f"--seed {shown(request.seed)}: expected a whole number from 0, and below 2**32")
    weights = [("cost-weight", request.cost_weight), *(("cost-weights", each) for each in request.cost_weights)]
    for name, weight in weights:
        if not 0 <= weight <= MAX_RATE:
            raise UserError(f"--{name} {shown(weight)}: expected a number of at least 0 and at most {MAX_RATE:g}")


def load_taught(router: str | type, path: Path, request: RouterRequest) -> Taught:
    """The router of a checkpoint, at the request's cost weight. Raises UserError if it is of another or of none."""
    name, entry, argument = _entry(router)
    variant = _variant(entry, name, argument)
    found = read_checkpoint(path)
    header, problem = found.header, found.header.problem
    if header.router != name:
        raise UserError(
            f"{path} is the checkpoint of router {header.router}, not of {name}; name that router, or another file"
        )
    problem.check(request, path)
    known = {f.name for f in fields(entry)}
    options = {key: value for key, value in header.options.items() if key in known}
    check_encoder(found.learnt)
    try:
        learner: Learner = entry(**{**read_options(entry, options, name), **variant})
        learnt: Any = learner.load(found.learnt, problem.request(request.weights))
    except (UserError, KeyError, TypeError, RuntimeError, ValueError) as error:
        if not entry.__module__.startswith("routers.") and not isinstance(error, UserError):
            raise UserError(
                f"{path}: the load of router {name} failed ({type(error).__name__}: {error}); it is given what its "
                "save gave"
            ) from None
        raise no_checkpoint(path, error) from None
    # Without models there is no run whose cost weight would count: the router is used by itself.
    if request.models and isinstance(learnt, WeighingRouter):
        learnt = learnt.at(request.cost_weight)
    return Taught(learnt, header)


def _variant(entry: Any, name: str, argument: str) -> Mapping[str, Any]:
    """The options that `NAME:VARIANT` stands for."""
    variants: Mapping[str, Mapping[str, Any]] = getattr(entry, "variants", {})
    if argument and argument not in variants:
        known = " or ".join([name, *(f"{name}:{variant}" for variant in variants)])
        raise UserError(f"unknown router {name}:{argument}: expected {known}")
    return variants.get(argument, {})


def train_items(request: RouterRequest, name: str, explores: bool = False) -> Tree:
    """The request's tree of train items. Raises UserError if there is nothing to learn from.

    explores: not every response has to be known.
    """
    tree = request.train
    if tree is None or not tree.items:
        raise UserError(
            f"router {name} learns from train items, and there are none: raise --limit, add tasks, import "
            "train rows, or name a recording that has some (--train-on)"
        )
    if not tree.complete and not explores:
        raise UserError(f"router {name} learns from every model's responses: evaluate it on a recording, not --live")
    return tree


def items_to_learn_from(request: RouterRequest, name: str, explores: bool = False) -> tuple[Tree, Tree]:
    """Trees of the items to fit on and of those to choose hyper-parameters on, which are others.

    The request's train and validation items; if there are no validation items, every fifth train item is held out.
    """
    tree, validation = train_items(request, name, explores), request.validation
    if validation is not None and validation.items:
        return tree, validation
    numbers = np.arange(len(tree.items))
    held_out = numbers % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return (tree.subset(numbers[~held_out]), tree.subset(numbers[held_out])) if held_out.any() else (tree, tree)
