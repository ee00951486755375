"""The baseline of the regression check: what to run, and what came of it. Its form is documented in docs/check.md."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from harness.evaluation.metrics import FloatArray
from harness.evaluation.paired import Figures, Results, checked_results
from harness.runs.config import Run
from harness.runs.manifest import write_json
from pools.errors import UserError

FORMAT = 1
MEASURES = ("quality", "cost")
# The flags of `run` that decide the figures.
RUN_FIELDS = (
    *(
        "router",
        "router_args",
        "pool",
        "suite",
        "task",
        "recording",
        "limit",
        "split",
        "max_hops",
        "allow_stop",
        "preset",
    ),
    *("cost", "cost_weight", "encoder", "checkpoint", "seed"),
)


@dataclass(frozen=True)
class Baseline:
    """What to run, what each router attained, and how it was made.

    cost_unit: empty where no costs were recorded. spread: how far other seeds of its training were from a router, by
    (router, task or None for all items, measure), in the measure's unit; nothing for a router that was not trained.
    """

    options: Run
    results: Results
    cost_unit: str
    spread: Mapping[tuple[str, str | None, str], float]
    provenance: dict[str, Any]


def write_baseline(baseline: Baseline, path: Path) -> None:
    """Write the file, whole or not at all."""
    results = baseline.results
    spread: dict[str, Any] = {}
    for (router, task, measure), distance in baseline.spread.items():
        of_router = spread.setdefault(router, {"overall": {}, "tasks": {}})
        of_scope = of_router["overall"] if task is None else of_router["tasks"].setdefault(task, {})
        of_scope[measure] = distance
    data = {
        "format": FORMAT,
        "run": {name: _plain(getattr(baseline.options, name)) for name in RUN_FIELDS},
        "cost_unit": baseline.cost_unit,
        "items": {
            "task": [task for task, _ in results.items],
            "doc_id": [doc_id for _, doc_id in results.items],
        },
        "routers": {
            name: {"quality": f.quality.tolist(), "cost": None if f.cost is None else f.cost.tolist()}
            for name, f in results.routers.items()
        },
        "spread": spread,
        "provenance": baseline.provenance,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(data, path)


def read_baseline(path: Path) -> Baseline:
    """Read what `write_baseline` wrote. Raises UserError where there is none, or another form."""
    if not path.is_file():
        raise UserError(
            f"no baseline {path}; name one with --baseline, or make it: python -m harness check --baseline {path} "
            "--update --router ROUTER ..."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        return _baseline(_object(found, "the file"), path)
    except (ValueError, OverflowError, RecursionError) as error:
        shown = " ".join(str(error).split())
        raise UserError(
            f"the baseline {path} cannot be read ({shown}); restore the file, or delete it and make a new one with "
            "python -m harness check --update --router ROUTER ..."
        ) from None


def _baseline(found: dict[str, Any], path: Path) -> Baseline:
    if found.get("format") != FORMAT:
        raise ValueError(f"format is {found.get('format')!r}, this version reads {FORMAT}")
    options = _options(_object(found.get("run"), "run"))
    unit = found.get("cost_unit")
    if not isinstance(unit, str):
        raise ValueError(f"cost_unit is {unit!r}, expected a text, empty without costs")
    items = _object(found.get("items"), "items")
    tasks, documents = (_list(items.get(key), f"items.{key}", kind) for key, kind in (("task", str), ("doc_id", int)))
    if not tasks or len(tasks) != len(documents):
        raise ValueError(f"items has {len(tasks)} tasks and {len(documents)} doc_ids, expected as many, and some")
    routers = {}
    for name, entry in _object(found.get("routers"), "routers").items():
        entry = _object(entry, f"routers.{name}")
        columns = {measure: entry.get(measure) for measure in (MEASURES if unit else MEASURES[:1])}
        read = {m: _numbers(given, f"routers.{name}.{m}", len(tasks)) for m, given in columns.items()}
        routers[name] = Figures(read["quality"], read.get("cost"))
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"run.seed is {options.seed}, expected a whole number >= 0, and below 2**32")
    if not routers or set(routers) != set(options.router):
        raise ValueError(f"routers are {', '.join(routers) or 'none'}, but run.router is {', '.join(options.router)}")
    results = checked_results(Results(tuple(zip(tasks, documents, strict=True)), routers), f"the baseline {path}")
    spread = {}
    for name, entry in _object(found.get("spread"), "spread").items():
        entry = _object(entry, f"spread.{name}")
        scopes: dict[str | None, Any] = {None: entry.get("overall")}
        scopes.update(_object(entry.get("tasks"), f"spread.{name}.tasks"))
        for task, distances in scopes.items():
            for measure, distance in _object(distances, f"spread.{name} of {task or 'overall'}").items():
                if not _is_number(distance) or distance < 0:
                    raise ValueError(f"spread.{name}: {measure} is {distance!r}, expected a number >= 0")
                spread[name, task, measure] = float(distance)
    return Baseline(options, results, unit, spread, _object(found.get("provenance"), "provenance"))


def _options(given: dict[str, Any]) -> Run:
    """The flags of `run` from their JSON; a field that is missing, unknown or of another type is a ValueError."""
    given = {"router_args": [], **given}  # files from before there were any
    odd = sorted(set(given) ^ set(RUN_FIELDS))
    if odd:
        raise ValueError(f"run.{odd[0]} is {'not known' if odd[0] in given else 'missing'}")
    hints = get_type_hints(Run)
    return Run(**{name: _flag(given[name], hints[name], f"run.{name}") for name in RUN_FIELDS}, baselines="no")


def _flag(given: Any, hint: Any, where: str) -> Any:
    kinds = get_args(hint) if get_origin(hint) not in (Literal, tuple) else (hint,)
    for kind in kinds or (hint,):
        if get_origin(kind) is Literal and isinstance(given, str) and given in get_args(kind):
            return given
        if get_origin(kind) is tuple and isinstance(given, list) and all(isinstance(part, str) for part in given):
            return tuple(given)
        if kind is Path and isinstance(given, str):
            return Path(given)
        if isinstance(kind, type) and type(given) is kind:
            return given
    raise ValueError(f"{where} is {given!r}, which --{where.removeprefix('run.').replace('_', '-')} does not take")


def _object(found: Any, where: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{where} is {_short(found)}, expected an object")
    return found


def _list(found: Any, where: str, kind: type) -> list[Any]:
    if not isinstance(found, list) or not all(type(part) is kind for part in found):
        raise ValueError(f"{where} is {_short(found)}, expected a list of {kind.__name__}")
    return found


def _numbers(found: Any, where: str, count: int) -> FloatArray:
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(f"{where} is {_short(found)}, expected {count} numbers")
    wrong = next((part for part in found if not _is_number(part)), None)
    if wrong is not None or None in found:
        raise ValueError(f"{where} holds {_short(wrong)}, expected finite numbers")
    return np.array(found, np.float64)


def _is_number(found: Any) -> bool:
    return type(found) in (int, float) and math.isfinite(found)


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}, expected finite numbers")


def _short(found: Any) -> str:
    if isinstance(found, list | dict):
        return f"{'a list' if isinstance(found, list) else 'an object'} of {len(found)}"
    return "missing or null" if found is None else repr(found)[:60]


def _plain(given: object) -> object:
    return list(given) if isinstance(given, tuple) else str(given) if isinstance(given, Path) else given
