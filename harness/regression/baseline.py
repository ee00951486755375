"""The baseline of the regression check: what to run, and what came of it. Documented in docs/reference/baseline.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from harness.evaluation.paired import Figures, Measure, Results, checked_results
from harness.runs.manifest import Provenance, write_text
from harness.runs.run import read_cost_weights, read_router_args
from pools.cost import COST_WEIGHT
from pools.errors import UserError
from pools.schema import Schema, parse_json

MEASURES: tuple[Measure, ...] = ("quality", "cost", "latency")
Distances = dict[Measure, Annotated[float, Field(ge=0)]]


class BaselineRun(Schema, extra="forbid"):
    """What `check` runs: the options of `python -m harness run` that decide the figures; a misspelt one is refused."""

    router: Annotated[tuple[str, ...], Field(min_length=1)] = ("hierrouter",)
    router_args: tuple[str, ...] = ()
    pool: str | None = None
    suite: str | None = None
    task: tuple[str, ...] = ()
    recording: str | None = None
    limit: int | None = None
    split: Literal["train", "validation", "test", "all"] = "test"
    max_hops: int | None = None
    allow_stop: bool = True
    preset: Literal["default", "paper"] = "default"
    cost: str = "paper"
    cost_weight: str = f"{COST_WEIGHT:g}"
    """Of several, figures are checked at the first."""
    latency_weight: float = 0.0
    encoder: str = "hashing"
    checkpoint: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1

    def parameters(self) -> dict[str, Any]:
        """The parameters of `harness.runs.run.evaluate` that they stand for."""
        return {
            **self.model_dump(exclude={"router", "task", "cost_weight"}),
            "routers": self.router,
            "tasks": self.task,
            "cost_weights": read_cost_weights(self.cost_weight),
            "router_args": read_router_args(self.router_args, self.router),
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
    """Cost; null if none was recorded."""
    seconds: list[float] | None = None
    """Expected seconds; null without latency."""


class RouterSpread(Schema):
    """How far other seeds of a router's training were from it, in each measure's unit."""

    overall: Distances = Field(default_factory=dict)
    """Over all items."""
    tasks: dict[str, Distances] = Field(default_factory=dict)
    """By task."""

    def of(self, task: str | None) -> Distances:
        """By measure: on a task, or over all items."""
        return self.overall if task is None else self.tasks.setdefault(task, {})


class BaselineFile(Schema):
    """The file of a baseline."""

    format: Literal[1] = 1
    """Of this file."""
    run: BaselineRun
    """What is run."""
    cost_unit: str
    """Unit of the costs; empty if none were recorded."""
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
        # A router in a file goes by the name that the file registers.
        named = {name for name in self.run.router if not name.partition(":")[0].endswith(".py")}
        if not named <= set(self.routers) or len(self.routers) != len(set(self.run.router)):
            raise ValueError(f"routers are {', '.join(self.routers)}, but run.router is {', '.join(self.run.router)}")
        parallel: dict[str, Sequence[float]] = {"items.doc_id": self.items.doc_id}
        for name, figures in self.routers.items():
            parallel[f"routers.{name}.quality"] = figures.quality
            if self.cost_unit:
                parallel[f"routers.{name}.cost"] = figures.cost or []
            if figures.seconds is not None:
                parallel[f"routers.{name}.seconds"] = figures.seconds
        for name, numbers in parallel.items():
            if len(numbers) != len(self.items.task):
                raise ValueError(f"{name} has {len(numbers)} of {len(self.items.task)} numbers")
        return self

    @property
    def results(self) -> Results:
        """What each router attained."""
        items = tuple(zip(self.items.task, self.items.doc_id, strict=True))
        costs = bool(self.cost_unit)
        figures = {
            name: Figures(
                np.array(router.quality),
                np.array(router.cost, np.float64) if costs else None,
                None if router.seconds is None else np.array(router.seconds),
            )
            for name, router in self.routers.items()
        }
        return Results(items, figures)


def write_baseline(
    path: Path,
    run: BaselineRun,
    results: Results,
    cost_unit: str,
    spread: dict[str, RouterSpread],
    provenance: Provenance,
) -> None:
    """Write what a run makes a baseline of, whole or not at all."""
    baseline = BaselineFile(
        run=run,
        cost_unit=cost_unit,
        items=Items(task=[task for task, _ in results.items], doc_id=[doc_id for _, doc_id in results.items]),
        routers={
            name: RouterFigures(
                quality=f.quality.tolist(),
                cost=None if f.cost is None else f.cost.tolist(),
                seconds=None if f.seconds is None else f.seconds.tolist(),
            )
            for name, f in results.routers.items()
        },
        spread=spread,
        provenance=provenance,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(baseline.model_dump_json(indent=1) + "\n", path)


def read_baseline(path: Path) -> BaselineFile:
    """Read what `write_baseline` wrote. Raises UserError if there is none, or another form."""
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
