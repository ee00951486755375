"""The baseline of the regression check: what to run, and what came of it. Documented in docs/reference/baseline.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from harness.evaluation.paired import Figures, Results, checked_results
from harness.runs.manifest import Provenance, write_text
from harness.runs.run import read_cost_weights, read_router_args
from pools.errors import UserError
from pools.schema import Schema, parse_json

Measure = Literal["quality", "cost"]
MEASURES: tuple[Measure, ...] = ("quality", "cost")
Distance = Annotated[float, Field(ge=0)]
Spread = Mapping[tuple[str, str | None, str], float]


class BaselineRun(Schema, extra="forbid"):
    """What `check` runs: the options of `python -m harness run` that decide the figures; a misspelt one is refused."""

    router: Annotated[tuple[str, ...], Field(min_length=1)] = ("hierrouter",)
    """The routers."""
    router_args: tuple[str, ...] = ()
    """Options of routers that learn."""
    pool: str | None = None
    """The pool."""
    suite: str | None = None
    """The suite."""
    task: tuple[str, ...] = ()
    """Only these tasks."""
    recording: str | None = None
    """The recording, by default the shipped one of pool and suite."""
    limit: int | None = None
    """Only the first so many documents of each task."""
    split: Literal["train", "validation", "test", "all"] = "test"
    """Which items."""
    max_hops: int | None = None
    """Horizon L."""
    allow_stop: bool = True
    """Whether a router may answer before the last hop."""
    preset: Literal["default", "paper"] = "default"
    """Of HierRouter."""
    cost: Literal["paper", "dollars"] = "paper"
    """The cost model."""
    cost_weight: str = "0.1"
    """The lambda; of several, figures are checked at the first."""
    encoder: str = "hashing"
    """Encoder of the routers that learn."""
    checkpoint: str | None = None
    """A trained router."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    """The seed."""

    def parameters(self) -> dict[str, Any]:
        """The parameters of `harness.runs.run.evaluate` that they stand for."""
        given = self.model_dump(exclude={"router", "task", "cost_weight"})
        return {
            **given,
            "routers": self.router,
            "tasks": self.task,
            "cost_weights": read_cost_weights(self.cost_weight),
            "router_args": read_router_args(self.router_args, self.router),
            "recording": None if self.recording is None else Path(self.recording),
            "checkpoint": None if self.checkpoint is None else Path(self.checkpoint),
            "baselines": "no",
        }


class Items(Schema):
    """The items, in the order of the figures."""

    task: Annotated[list[str], Field(min_length=1)]
    """Of each item its task."""
    doc_id: list[int]
    """Of each item its document."""


class RouterFigures(Schema):
    """What a router attained on each item."""

    quality: list[float]
    """Score."""
    cost: list[float] | None
    """Cost; null where none was recorded."""


class RouterSpread(Schema):
    """How far other seeds of a router's training were from it, in each measure's unit."""

    overall: dict[Measure, Distance] = Field(default_factory=dict)
    """Over all items."""
    tasks: dict[str, dict[Measure, Distance]] = Field(default_factory=dict)
    """By task."""


class BaselineFile(Schema):
    """The file of a baseline."""

    format: Literal[1] = 1
    """Of this file."""
    run: BaselineRun
    """What is run."""
    cost_unit: str
    """Unit of the costs; empty where none were recorded."""
    items: Items
    """The items."""
    routers: Annotated[dict[str, RouterFigures], Field(min_length=1)]
    """By router."""
    spread: dict[str, RouterSpread] = Field(default_factory=dict)
    """By router that was trained for it."""
    provenance: Provenance
    """How it was made."""

    @model_validator(mode="after")
    def _agrees(self) -> BaselineFile:
        count = len(self.items.task)
        if len(self.items.doc_id) != count:
            raise ValueError(f"items has {count} tasks and {len(self.items.doc_id)} doc_ids, expected as many")
        if set(self.routers) != set(self.run.router):
            raise ValueError(f"routers are {', '.join(self.routers)}, but run.router is {', '.join(self.run.router)}")
        for name, router in self.routers.items():
            for measure in MEASURES if self.cost_unit else MEASURES[:1]:
                found = getattr(router, measure)
                if found is None or len(found) != count:
                    what = "none" if found is None else str(len(found))
                    raise ValueError(f"routers.{name}.{measure} has {what} of {count} numbers")
        return self

    @property
    def results(self) -> Results:
        """What each router attained."""
        items = tuple(zip(self.items.task, self.items.doc_id, strict=True))
        costs = bool(self.cost_unit)
        figures = {
            name: Figures(np.array(router.quality), np.array(router.cost, np.float64) if costs else None)
            for name, router in self.routers.items()
        }
        return Results(items, figures)

    @property
    def tolerated(self) -> Spread:
        """By router, task (None for all items) and measure, how far other seeds were from the router."""
        found: dict[tuple[str, str | None, str], float] = {}
        for name, router in self.spread.items():
            found |= {(name, None, measure): distance for measure, distance in router.overall.items()}
            found |= {(name, task, m): distance for task, of in router.tasks.items() for m, distance in of.items()}
        return found


def new_baseline(
    run: BaselineRun, results: Results, cost_unit: str, spread: Spread, provenance: Provenance
) -> BaselineFile:
    """The baseline that a run makes."""
    spreads: dict[str, dict[str, Any]] = {}
    for (router, task, measure), distance in spread.items():
        of_router = spreads.setdefault(router, {"overall": {}, "tasks": {}})
        of_scope = of_router["overall"] if task is None else of_router["tasks"].setdefault(task, {})
        of_scope[measure] = distance
    return BaselineFile(
        run=run,
        cost_unit=cost_unit,
        items=Items(task=[task for task, _ in results.items], doc_id=[doc_id for _, doc_id in results.items]),
        routers={
            name: RouterFigures(quality=f.quality.tolist(), cost=None if f.cost is None else f.cost.tolist())
            for name, f in results.routers.items()
        },
        spread={name: RouterSpread(**of_router) for name, of_router in spreads.items()},
        provenance=provenance,
    )


def write_baseline(baseline: BaselineFile, path: Path) -> None:
    """Write the file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(baseline.model_dump_json(indent=1) + "\n", path)


def read_baseline(path: Path) -> BaselineFile:
    """Read what `write_baseline` wrote. Raises UserError where there is none, or another form."""
    if not path.is_file():
        raise UserError(
            f"no baseline {path}; name one with --baseline, or make it: python -m harness check --baseline {path} "
            "--update --router ROUTER ..."
        )
    try:
        baseline = parse_json(BaselineFile, path.read_bytes())
    except ValueError as error:
        raise UserError(
            f"the baseline {path} cannot be read ({error}); restore the file, or delete it and make a new one with "
            "python -m harness check --update --router ROUTER ..."
        ) from None
    checked_results(baseline.results, f"the baseline {path}")
    return baseline


def run_of(given: Mapping[str, Any], earlier: BaselineRun | None) -> BaselineRun:
    """What to run: the options that were given, for the others what was run before, or the defaults."""
    plain = {name: _plain(value) for name, value in given.items()}
    try:
        return BaselineRun(**{**(earlier.model_dump() if earlier else {}), **plain})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        flag = str(first["loc"][0]).replace("_", "-")
        raise UserError(f"--{flag} {first['input']}: {first['msg']}") from None


def _plain(given: object) -> object:
    return str(given) if isinstance(given, Path) else given
