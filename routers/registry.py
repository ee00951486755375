"""All routers by name: ours and those of a file by a decorator, those of packages by the group `harness.routers`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeVar

from pools.cost import CostModel
from pools.errors import UserError
from pools.mdp.tree import Tree
from pools.names import check_name
from routers.router import Router

GROUP = "harness.routers"


@dataclass(frozen=True)
class RouterRequest:
    """What a router is built from.

    argument: the text after the colon of its name, as in `single:<model>`.
    models: names of the candidate models; action `a` calls `models[a]`. max_hops: the horizon `L`.
    allow_stop: whether action `len(models)` (STOP) may be taken before the last hop.
    cost_model, cost_weight: what the reward charges. seed: of anything that is drawn.
    checkpoint: a trained router to load. train, validation: trees of the items that may be learnt from and tuned on.
    evaluation: the tree that is evaluated on. Only clairvoyant bounds may read its outcomes; a router that does is not
    one. (`best-pipeline-per-task` reads the names of its items' tasks.)
    options: settings of routers that are trained on the spot, by name.
    weights: folder of weights, for a router that runs a model of its own.
    """

    argument: str = ""
    models: tuple[str, ...] = ()
    max_hops: int = 1
    allow_stop: bool = True
    cost_model: CostModel | None = None
    cost_weight: float = 0.0
    seed: int = 1
    checkpoint: Path | None = None
    train: Tree | None = None
    validation: Tree | None = None
    evaluation: Tree | None = None
    options: tuple[tuple[str, str], ...] = ()
    weights: Path | None = None


Build = Callable[[RouterRequest], Router]
_B = TypeVar("_B", bound=Build)
_registered: dict[str, Build] = {}
_of_files: dict[str, list[str]] = {}
"""By the path of a user's file: the routers that it registers."""


def register(name: str) -> Callable[[_B], _B]:
    """Decorate a function `RouterRequest -> Router`, or a class built the same way, to make it known by a name.

    Raises UserError for a name that is none.
    """

    check_name(name, "router")

    def remember(build: _B) -> _B:
        _registered[name] = build
        return build

    return remember


def names() -> list[str]:
    """All known names; those that take an argument are written with a colon, as in `single:<model>`."""
    _import_ours()
    return sorted({*_registered, *(entry.name for entry in entry_points(group=GROUP))})


def load(name: str, request: RouterRequest | None = None, *, checkpoint: Path | str | None = None) -> Router:
    """Build a router: `name`, or `name:argument`; `file.py`, or `file.py:name` where the file registers several.

    A trained router needs nothing but its checkpoint: `load("hierrouter", checkpoint=path)`.
    Raises UserError for a name that is not known, and where the router cannot be built from the request.
    """
    request = request or RouterRequest()
    if checkpoint is not None:
        request = replace(request, checkpoint=Path(checkpoint))
    base, _, argument = name.partition(":")
    _import_ours()
    if base.endswith(".py"):
        base, argument = _of_file(Path(base), argument)
    build = _registered.get(base)
    if build is None:
        found = {entry.name: entry for entry in entry_points(group=GROUP)}
        if base not in found:
            close = get_close_matches(base, names(), 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"unknown router {name!r}: known are {', '.join(names())}{hint}")
        try:
            build = found[base].load()
        except Exception as error:
            raise UserError(
                f"router {base} of another package ({found[base].value}) cannot be imported: "
                f"{type(error).__name__}: {error}; mend or remove that package"
            ) from error
    assert build is not None
    return build(replace(request, argument=argument))


def _of_file(path: Path, rest: str) -> tuple[str, str]:
    """Import a file that the user names; the name and the argument of the router in it that `rest` asks for."""
    if not path.is_file():
        raise UserError(f"no such file: {path}; name one that registers a router, or a router by name")
    key = str(path.resolve())
    if key not in _of_files:
        before = dict(_registered)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        try:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        except Exception as error:
            raise UserError(f"{path} cannot be imported: {type(error).__name__}: {error}; mend it") from error
        _of_files[key] = [name for name, build in _registered.items() if before.get(name) is not build]
    found = _of_files[key]
    base, _, argument = rest.partition(":")
    if not base and len(found) == 1:
        return found[0], ""
    if base not in found:
        asked = f"has no router {base!r}" if base else "is asked for without the name of a router in it"
        raise UserError(f"{path} {asked}; it registers {', '.join(found) or 'none: decorate one with @register(NAME)'}")
    return base, argument


def describe(name: str) -> str:
    """One line on a router: the first of its builder's docstring, or the package that it is from."""
    _import_ours()
    if name in _registered:
        return (inspect.getdoc(_registered[name]) or "").partition("\n")[0]
    return next((f"of another package: {entry.value}" for entry in entry_points(group=GROUP, name=name)), "")


def _import_ours() -> None:
    """Import every public module beside this one: what registers a router there is known from then on."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.name.startswith("_"):
            importlib.import_module(f"routers.{module.name}")
