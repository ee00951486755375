"""The trained routers that ship, and whether one of them is what a run asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.runs.source import RESULTS, Source
from routers.checkpoint import Header, read_checkpoint
from routers.registry import options_asked, registered_name
from routers.router import RouterRequest

FOLDER = RESULTS / "policies"


def shipped_path(recording: str, router: str | type, seed: int) -> Path | None:
    """The checkpoint of a router that ships for a recording and a seed; None if none does."""
    path = FOLDER / recording / f"{registered_name(router)}-{seed}.safetensors"
    return path if path.is_file() else None


def has_options(header: Header, router: str | type, options: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's router was trained with these options, whatever its others are."""
    asked = options_asked(router, options)
    return all(header.options.get(name) == asked[name] for name in options)


def shipped_checkpoint(
    router: str | type, options: Mapping[str, Any], request: RouterRequest, source: Source, whole: bool
) -> Path | None:
    """The checkpoint that ships for this seed, if it is what this router would learn here; else None.

    It has to be of the same recording (by the hashes of its files, which hold pool, items and split), not adapted to
    another pool, and of all of its items (`whole`), to have the options that were asked for, to be of the same hops,
    STOP, cost model and latency weight, and to serve all the cost weights; it may serve more. With live models it has
    to be of a recording of the same models (by their fingerprints) and the same suite.
    """
    live = bool(source.description.get("live"))
    name = f"{source.pool.name}-{source.suite}" if live else source.description.get("recording")
    path = None if name is None or not (live or whole) else shipped_path(str(name), router, request.seed)
    if path is None:
        return None
    found = read_checkpoint(path).header
    learnt_from = found.training.get("source", {})
    if live:
        of_models = (learnt_from.get("recorded") or {}).get("models")
        same_items = of_models == source.description["models"]
    else:
        same_items = learnt_from.get("sha256") == source.description["sha256"]
    problem, cost = found.problem, request.cost_model
    same = (
        same_items
        and not source.description.get("adapted")
        and not found.training.get("selection")
        and has_options(found, router, options)
        and (problem.max_hops, problem.allow_stop) == (request.max_hops, request.allow_stop)
        and cost is not None
        and problem.cost in (None, cost.name)
        and problem.prices == request.prices
        and problem.serves(request.cost_weights or (request.cost_weight,))
    )
    return path if same else None
