"""The folder of a run: written whole or not at all, read back and checked."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pools.errors import UserError, shown
from pools.whole_file import finish_moving, holds_nothing, whole_folder

Rows = list[dict[str, Any]]

_NUMBER, _NUMBER_OR_NONE = (int, float), (int, float, type(None))
_FIGURES: dict[str, tuple[type, ...]] = {
    "items": (int,),
    "quality": _NUMBER,
    "quality_interval": (list,),
    "cost": _NUMBER_OR_NONE,
    "cost_interval": (list, type(None)),
}
_OVERALL: dict[str, tuple[type, ...]] = _FIGURES | {
    "hops": _NUMBER,
    "value": _NUMBER,
    "regret": _NUMBER_OR_NONE,
    "gap_closed": _NUMBER_OR_NONE,
    "value_ahead": _NUMBER_OR_NONE,
    "value_ahead_interval": (list, type(None)),
    "routing_cost": _NUMBER,
    "routing_cost_unit": (str,),
    "collapsed_to": (str, type(None)),
    "bound": (bool,),
    "exact": (bool,),
    "notes": (list,),
}
_POINT = {key: _OVERALL[key] for key in ("quality", "cost", "hops", "gap_closed")}
_SUMMARY: dict[str, tuple[type, ...]] = {
    "title": (str,),
    "cost_model": (str,),
    "cost_unit": (str,),
    "cost_weight": _NUMBER,
    "items": (int,),
    "routers": (dict,),
}
_AGAINST_ZERO: dict[str, tuple[type, ...]] = {"aiq": _NUMBER, "aiq_ahead": _NUMBER, "aiq_ahead_interval": (list,)}
_AGAINST_TWO: dict[str, tuple[type, ...]] = {"apgr": _NUMBER, "cpt_50": _NUMBER_OR_NONE, "cpt_80": _NUMBER_OR_NONE}
_MANIFEST: dict[str, tuple[type, ...]] = {
    "seed": (int,),
    **dict.fromkeys(("arguments", "source", "versions", "sha256"), (dict,)),
}
_COLUMNS = ("router", "task", "doc_id", "quality", "cost")
_FILES = ("summary.json", "items.parquet", "manifest.json")
# What other commands put into the folder of a run; of an earlier run it means nothing.
_ABOUT_IT = ("wandb.json", "report.html", "report-figures")
# Figures are sums and means in floating point.
_NOISE = 1e-9
_RANGES = {
    "quality": (-_NOISE, 1 + _NOISE, "a number from 0 to 1"),
    "cost": (-_NOISE, sys.float_info.max, "a finite number >= 0"),
}


@dataclass(frozen=True)
class RunFolder:
    """What `python -m harness run` left in a folder.

    name: short, and different for each run of a report.
    summary, manifest: the content of the two JSON files; docs/summary.md documents the first.
    items: per router the rows of `items.parquet`, each router's items in the same order.
    """

    path: Path
    name: str
    summary: dict[str, Any]
    manifest: dict[str, Any]
    items: dict[str, Rows]

    @property
    def routers(self) -> dict[str, dict[str, Any]]:
        """Per router its `overall` and `tasks` figures."""
        found: dict[str, dict[str, Any]] = self.summary["routers"]
        return found

    @property
    def asked(self) -> list[str]:
        """The routers that the run was asked for; the others are its baselines."""
        named = [name for name in self.manifest["arguments"].get("router", ()) if name in self.routers]
        return named or [next(iter(self.routers))]

    @property
    def best_single(self) -> str | None:
        """The single model with the best value, which the ratios and the gap are measured against."""
        singles = [name for name in self.routers if name.startswith("single:")]
        return max(singles, key=lambda name: self.routers[name]["overall"]["value"], default=None)


def check_run_target(folder: Path) -> None:
    """Raise UserError where a folder holds something that is no run."""
    finish_moving(folder, _FILES[0])
    if not _holds_run(folder) and not holds_nothing(folder, _FILES[0]):
        raise UserError(f"{folder} is there and holds no run; name a new folder, or one that holds a run")


@contextmanager
def new_run(folder: Path) -> Iterator[Path]:
    """Where to write the files of a run that shall be in `folder`; an earlier run is replaced as a whole, or stays."""

    def of_earlier_run() -> list[str]:
        try:
            hashes = load_run(folder).manifest.get("sha256", {})
        except UserError:  # none, or a damaged one
            hashes = {}
        return [*_ABOUT_IT, *(path.name for path in folder.glob("*.safetensors") if path.name in hashes)]

    with whole_folder(folder, _FILES[0], of_earlier_run, lambda: check_run_target(folder)) as partial:
        yield partial


def _holds_run(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _FILES)


def load_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """The runs of these folders, each under a short name of its own. Raises UserError for what is no run."""
    if not folders:
        raise UserError("no run was named; name a folder that python -m harness run wrote")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a run was named twice; name each folder once")
    runs = [load_run(folder) for folder in folders]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{folder.resolve().parent.name}/{folder.resolve().name}" for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def load_run(folder: Path) -> RunFolder:
    """The run of one folder, under the folder's name. Raises UserError for what is no run."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    finish_moving(folder, _FILES[0])
    for name in _FILES:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} is not the folder of a run: it has no {name}; name one that python -m harness run wrote"
            )
    contents = {name: (folder / name).read_bytes() for name in _FILES}
    summary, manifest = (_object(folder / name, contents[name]) for name in ("summary.json", "manifest.json"))
    path = folder / "summary.json"
    try:
        _check_summary(summary)
        path = folder / "manifest.json"
        _check({"sha256": {}, **manifest}, _MANIFEST, "the top level")
        asked = manifest["arguments"].get("router", [])
        if not isinstance(asked, list) or not all(isinstance(name, str) for name in asked):
            raise ValueError("arguments.router is no list of names")
        path = folder / "items.parquet"
        rows = pq.read_table(pa.BufferReader(contents[path.name])).to_pylist()
        items = _by_router(rows, summary)
        _check_figures(items, summary)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError, pa.ArrowException) as error:
        raise UserError(f"{path} has not the form that this version reads ({error}); make the run again") from None
    hashes = manifest.get("sha256", {})  # what an earlier version wrote has none
    for name, content in contents.items():
        if name in hashes and hashes[name] != hashlib.sha256(content).hexdigest():
            raise UserError(f"{folder / name} is not of this run: the manifest has another sha256; make the run again")
    return RunFolder(folder, folder.name, summary, manifest, items)


def _object(path: Path, content: bytes) -> dict[str, Any]:
    def refuse(text: str) -> None:
        raise ValueError(f"{text} is no number of JSON")

    try:
        found = json.loads(content.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); make the run again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object; make the run again")
    return found


def _check_summary(summary: dict[str, Any]) -> None:
    _check(summary, _SUMMARY, "the top level")
    if not summary["routers"]:
        raise ValueError("there is no router")
    if summary["items"] < 1:
        raise ValueError("there is no item")
    tasks = None
    for name, entry in summary["routers"].items():
        _check(entry, {"overall": (dict,), "tasks": (dict,)}, name)
        _check(entry["overall"], _OVERALL, f"overall of {name}")
        if summary["cost_unit"] and None in (entry["overall"]["cost"], entry["overall"]["cost_interval"]):
            raise ValueError(f"{name} has no cost, but there is a unit of costs")
        if any(other.startswith("single:") for other in summary["routers"]) and None in (
            entry["overall"]["value_ahead"],
            entry["overall"]["value_ahead_interval"],
        ):
            raise ValueError(f"{name} is not compared with the best single model, which there is")
        for task, figures in entry["tasks"].items():
            _check(figures, _FIGURES, f"{task} of {name}")
        if tasks is not None and list(entry["tasks"]) != tasks:
            raise ValueError(f"{name} has other tasks than the routers before it")
        tasks = list(entry["tasks"])
        shares = entry["overall"].get("pipelines", {})
        if not isinstance(shares, dict) or not all(isinstance(s, _NUMBER) and 0 <= s <= 1.001 for s in shares.values()):
            raise ValueError(f"pipelines of {name} are no shares")
    for point in summary.get("frontier", ()):
        _check(point, {"cost_weight": _NUMBER, "routers": (dict,)}, "frontier")
        if list(point["routers"]) != list(summary["routers"]):
            raise ValueError("frontier has other routers than the table")
        for name, figures in point["routers"].items():
            _check(figures, _POINT, f"frontier of {name}")
    if summary.get("frontier_metrics") is not None:
        _check_frontier_metrics(summary["frontier_metrics"], list(summary["routers"]))


def _check_frontier_metrics(metrics: Any, routers: list[str]) -> None:
    _check(metrics, {"zero_router": (dict, type(None)), "two_models": (dict, type(None))}, "frontier_metrics")
    zero, two = metrics["zero_router"], metrics["two_models"]
    compared: list[tuple[Any, dict[str, tuple[type, ...]]]] = []
    if zero is not None:
        _check(zero, {"aiq": _NUMBER}, "zero_router")
        _check(metrics, {"cost_range": (list,)}, "frontier_metrics")
        compared.append((metrics, _AGAINST_ZERO))
    if two is not None:
        _check(two, {"undefined": (str, type(None))}, "two_models")
        if two["undefined"] is None:
            _check(two, {"strong": (str,), "weak": (str,)}, "two_models")
            compared.append((two, _AGAINST_TWO))
    for by_router, form in compared:
        _check(by_router, {"routers": (dict,)}, "frontier_metrics")
        if list(by_router["routers"]) != routers:
            raise ValueError("frontier_metrics has other routers than the table")
        for name, figures in by_router["routers"].items():
            _check(figures, form, f"frontier_metrics of {name}")


def _check(found: Any, form: dict[str, tuple[type, ...]], place: str) -> None:
    """Raise ValueError where a value is missing, of another type, or, in an interval, no pair of finite numbers."""
    if not isinstance(found, dict):
        raise ValueError(f"{place} is no object")
    for key, types in form.items():
        value: Any = found.get(key)
        if key not in found or not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ValueError(f"{key} is missing or of another type in {place}")
        pair = value if isinstance(value, list) and key.endswith(("_interval", "_range")) else None
        if pair is not None and len(pair) != 2:
            raise ValueError(f"{key} is no pair in {place}")
        numbers = pair or ([value] if isinstance(value, _NUMBER) else [])
        if not all(isinstance(number, _NUMBER) and math.isfinite(number) for number in numbers):
            raise ValueError(f"{key} is no finite number in {place}")
        low, high, expected = _RANGES.get(key.removesuffix("_interval"), (-math.inf, math.inf, ""))
        if not all(low <= number <= high for number in numbers):
            raise ValueError(f"{key} is {shown(value)} in {place}, expected {expected}")


def _by_router(rows: Rows, summary: dict[str, Any]) -> dict[str, Rows]:
    missing = [name for name in _COLUMNS if rows and name not in rows[0]]
    if missing:
        raise ValueError(f"there is no column {missing[0]}")
    grouped: dict[str, Rows] = defaultdict(list)
    for row in rows:
        grouped[row["router"]].append(row)
    order = [(row["task"], row["doc_id"]) for row in grouped[next(iter(summary["routers"]))]]
    for name in summary["routers"]:
        if len(grouped[name]) != summary["items"]:
            raise ValueError(f"{len(grouped[name])} rows of {name} for {summary['items']} items")
        if any(not isinstance(row["quality"], float) for row in grouped[name]):
            raise ValueError(f"a row of {name} has no quality")
        if [(row["task"], row["doc_id"]) for row in grouped[name]] != order:
            raise ValueError(f"the rows of {name} are of other items than the first router's, or in another order")
    return dict(grouped)


def _check_figures(items: dict[str, Rows], summary: dict[str, Any]) -> None:
    """Raise ValueError where a row has a figure that cannot be, or the summary is not of these rows."""
    if others := [name for name in items if items[name] and name not in summary["routers"]]:
        raise ValueError(f"it has rows of {shown(others[0])}, which the summary lacks")
    measures = ("quality", "cost") if summary["cost_unit"] else ("quality",)
    for name, rows in items.items():
        for measure in measures:
            low, high, expected = _RANGES[measure]
            for row in rows:
                if row[measure] is None or not low <= row[measure] <= high:
                    place = f"{name} on {row['task']} {row['doc_id']}"
                    raise ValueError(f"{measure} of {place} is {shown(row[measure])}, expected {expected}")
        entry = summary["routers"][name]
        by_task: dict[str, Rows] = defaultdict(list)
        for row in rows:
            by_task[row["task"]].append(row)
        if set(by_task) != set(entry["tasks"]):
            raise ValueError(f"the rows of {name} are of other tasks than the summary's")
        for place, found, figures in (
            ("overall", rows, entry["overall"]),
            *((f"on {task}", by_task[task], figures) for task, figures in entry["tasks"].items()),
        ):
            if len(found) != figures["items"]:
                raise ValueError(f"{name} {place} has {len(found)} rows, and {figures['items']} items in the summary")
            for measure in measures:
                mean = math.fsum(row[measure] for row in found) / len(found)
                if not math.isclose(mean, figures[measure], rel_tol=1e-6, abs_tol=_NOISE):
                    both = f"{mean:.6g} by its rows and {figures[measure]:.6g} by the summary"
                    raise ValueError(f"{measure} of {name} {place} is {both}")
