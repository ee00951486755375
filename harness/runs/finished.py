"""A finished run, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.evaluation.paired import Figures, ItemKey, Results, checked_results
from harness.runs.folder import load_run
from pools.errors import UserError


@dataclass(frozen=True)
class FinishedRun:
    """What a run attained and how it was made. cost_unit: empty where no costs were recorded."""

    results: Results
    cost_unit: str
    manifest: dict[str, Any]


def read_run(folder: Path) -> FinishedRun:
    """Read what `run` wrote. Raises UserError where the folder does not hold a whole run."""
    run = load_run(folder)
    unit: str = run.summary.cost_unit
    try:
        results = _results([row for rows in run.rows.values() for row in rows], costs=bool(unit))
    except (ValueError, TypeError) as error:
        raise UserError(f"{folder / 'items.parquet'} cannot be read ({error}); make the run again") from None
    return FinishedRun(checked_results(results, f"the run {folder}"), unit, run.manifest)


def _results(rows: list[dict[str, Any]], costs: bool) -> Results:
    by_router: dict[str, dict[ItemKey, tuple[float, float]]] = {}
    for row in rows:
        # A null is no number: as nan it is refused with the item's name.
        quality, cost = (np.nan if row[name] is None else float(row[name]) for name in ("quality", "cost"))
        mine, item = by_router.setdefault(row["router"], {}), (row["task"], row["doc_id"])
        if item in mine:
            raise ValueError(f"{row['router']} has {item[0]} {item[1]} twice")
        mine[item] = quality, cost
    if not rows:
        raise ValueError("items.parquet is empty")
    items = tuple(next(iter(by_router.values())))
    if any(set(mine) != set(items) for mine in by_router.values()):
        raise ValueError("its routers have different items")
    figures = {}
    for name, mine in by_router.items():
        quality, cost = np.array([mine[item] for item in items]).T
        figures[name] = Figures(quality, cost if costs else None)
    return Results(items, figures)


# The arguments of a run that decide its figures.
_ARGUMENTS = (
    *(
        "router_args",
        "cost_weight",
        "split",
        "limit",
        "task",
        "max_hops",
        "allow_stop",
        "preset",
        "encoder",
        "checkpoint",
        "seed",
    ),
)


def made_with(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What a run was made with, as far as it decides the figures: a name and a text for each, from its manifest."""

    def part(of: Mapping[str, Any], name: str) -> dict[str, Any]:
        found = of.get(name)
        return found if isinstance(found, dict) else {}

    source, cost_model, arguments = (part(manifest, name) for name in ("source", "cost_model", "arguments"))
    commit, edited, changes = str(manifest.get("commit") or "unknown").partition("+")
    facts: dict[str, Any] = {
        "recording": "none, live models" if source.get("live") else source.get("recording"),
        **{f"{name} of the recording": str(given)[:12] for name, given in part(source, "sha256").items()},
        "cost model": cost_model.get("name"),
        "cost unit": cost_model.get("unit"),
        "rates per token read": cost_model.get("input_rate"),
        "rates per token written": cost_model.get("output_rate"),
        **{name.replace("_", " "): arguments.get(name) for name in _ARGUMENTS},
        "commit": commit[:7] + edited + changes,
        **{f"version of {name}": given for name, given in part(manifest, "versions").items()},
    }
    return {name: _text(given) for name, given in facts.items()}


def _text(given: Any) -> str:
    if isinstance(given, list | tuple):
        return ", ".join(map(str, given)) or "none"
    return "none" if given is None else str(given)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One line for each thing that two manifests were made with differently: `seed: 1 -> 2`."""
    old, new = made_with(before), made_with(after)
    return [
        f"{name}: {old.get(name, 'none')} -> {new.get(name, 'none')}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name, "none") != new.get(name, "none")
    ]
