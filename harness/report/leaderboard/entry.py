"""An entry: what a router attained on each item of a recording, and how it was made."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from harness.evaluation.paired import Figures, ItemKey
from harness.evaluation.summary import Cost, Score
from harness.runs.folder import RunFolder
from pools.errors import UserError
from pools.names import check_name
from pools.schema import Schema, parse_json

FORMAT: Literal[1] = 1
TOLERANCE = 1e-6
"""Of the summary's means, which may be rounded."""


class Table(Schema):
    """What a router was evaluated on; entries of equal tables are ranked together."""

    title: str
    """Pool, suite and number of items."""
    recording: dict[str, str]
    """sha256 of each file of the recording."""
    split: str
    """Which of its items."""
    cost_model: str
    """How calls are billed."""
    cost_unit: str
    """Unit of the costs; empty if none are recorded."""
    cost_weight: Annotated[float, Field(ge=0)]
    """Lambda: quality given up for one unit of cost."""
    max_hops: Annotated[int, Field(ge=1)]
    """Horizon L."""
    allow_stop: bool
    """Whether a router may answer before the last hop."""

    @property
    def slug(self) -> str:
        """The name of its folder: of its title, and different for other tables."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]
        return f"{_slug(self.title.partition(':')[0])}-{digest}"


class Made(Schema):
    """How the run was made."""

    date: str
    """When, in UTC."""
    command: str
    """What makes it again."""
    commit: str | None
    """Of the code; null if unknown."""


class TaskItems(Schema):
    """Figures of the items of a task, in lists of equal length."""

    doc_id: list[int]
    """Number of the item in the task."""
    quality: list[Score]
    """Expected score."""
    cost: list[Cost] | None
    """Expected cost; null if none was recorded."""


class Entry(Schema):
    """A router on a table. A JSON file of a leaderboard is this."""

    format: Literal[1]
    """Version of this form."""
    table: Table
    """What it was evaluated on."""
    router: str
    """Its name, with what tells it from others of the name."""
    bound: bool
    """Whether it has seen the outcomes, so that it is a bound and not a router."""
    notes: list[str]
    """What a reader must know, as where it was trained."""
    made: Made
    """How."""
    quality: Score
    """Mean over the items."""
    cost: Cost | None
    """Mean over the items; null if none was recorded."""
    value: float
    """Mean of quality - cost_weight * cost."""
    items: dict[str, TaskItems]
    """By task."""

    @model_validator(mode="after")
    def agrees(self) -> Entry:
        """Raise ValueError if the means are not those of the items, or the items are no set of items."""
        check_name(self.router, "router")
        for task, of in self.items.items():
            lengths = {len(of.doc_id), len(of.quality), *([] if of.cost is None else [len(of.cost)])}
            if lengths == {0} or len(lengths) > 1 or len(set(of.doc_id)) < len(of.doc_id):
                raise ValueError(f"items of {task}: expected lists of one length, and each doc_id once")
            if (of.cost is None) != (not self.table.cost_unit) or (self.cost is None) != (of.cost is None):
                raise ValueError(f"items of {task}: expected costs if and only if there is a cost_unit")
        if not self.items:
            raise ValueError("there are no items")
        quality, cost = float(self.figures.quality.mean()), 0.0
        means = {"quality": quality}
        if self.figures.cost is not None:
            means["cost"] = cost = float(self.figures.cost.mean())
        means["value"] = quality - self.table.cost_weight * cost
        for name, mean in means.items():
            if not math.isclose(getattr(self, name), mean, rel_tol=TOLERANCE, abs_tol=TOLERANCE * abs(quality)):
                raise ValueError(f"{name} is {getattr(self, name):g}, but by the items it is {mean:g}")
        return self

    @property
    def keys(self) -> list[ItemKey]:
        """Task and number of each item, in order."""
        return [(task, doc_id) for task, of in self.items.items() for doc_id in of.doc_id]

    @property
    def figures(self) -> Figures:
        """Its figures, in the order of `keys`."""
        quality = np.array([each for of in self.items.values() for each in of.quality])
        if self.cost is None:
            return Figures(quality, None)
        return Figures(quality, np.array([each for of in self.items.values() for each in of.cost or ()]))

    def figures_of(self, keys: Sequence[ItemKey]) -> Figures:
        """Its figures on the items of these keys, in their order."""
        place = {key: number for number, key in enumerate(self.keys)}
        order, of = [place[key] for key in keys], self.figures
        return Figures(of.quality[order], None if of.cost is None else of.cost[order])

    @property
    def file(self) -> Path:
        """Where it is in the folder of entries."""
        return Path(self.table.slug) / f"{_slug(self.router)}.json"


def entries_of(run: RunFolder, label: str) -> Iterator[tuple[str, Entry]]:
    """An entry of each router of a run, by its name there. label: put behind the names of those it was asked for.

    Raises UserError for a run that cannot be compared with others: of live models, with a latency weight, or of means
    over several trainings, whose spread an entry does not hold.
    """
    summary, manifest = run.summary, run.manifest
    if summary.latency_weight:
        raise UserError(f"{run.path} has a latency weight; a leaderboard ranks by quality and cost")
    if several := next((name for name, router in run.routers.items() if router.seeds is not None), None):
        raise UserError(f"{run.path}: {several} is a mean over trainings; add a run of each --seed, with a --label")
    recording = manifest.source.get("sha256")
    if not isinstance(recording, dict):
        raise UserError(f"{run.path} is of live models; a leaderboard takes runs on recordings")
    if manifest.max_hops is None:
        raise UserError(f"{run.path} does not say its horizon: an earlier version made it; make the run again")
    table = Table(
        title=summary.title, recording=recording, split=summary.split, cost_model=summary.cost_model,
        cost_unit=summary.cost_unit, cost_weight=summary.cost_weight, max_hops=manifest.max_hops,
        allow_stop=manifest.arguments.allow_stop,
    )  # fmt: skip
    made = Made(date=str(manifest.date), command=manifest.command, commit=manifest.commit)
    for name, router in run.routers.items():
        items: dict[str, TaskItems] = {}
        for task in summary.tasks:
            rows = [row for row in run.rows[name] if row.task == task]
            costs = [row.cost for row in rows if row.cost is not None]
            items[task] = TaskItems(
                doc_id=[row.doc_id for row in rows],
                quality=[row.quality for row in rows],
                cost=costs if summary.cost_unit else None,
            )
        overall = router.overall
        cost = overall.cost if summary.cost_unit else None
        entry = Entry(
            format=FORMAT, table=table, router=f"{name} ({label})" if label and name in run.asked else name,
            bound=overall.bound, notes=list(overall.notes), made=made, quality=overall.quality, cost=cost,
            value=overall.quality - summary.cost_weight * (cost or 0.0), items=items,
        )  # fmt: skip
        yield name, entry


def read_entry(path: Path) -> Entry:
    """The entry of a file. Raises UserError for another file."""
    try:
        return parse_json(Entry, path.read_bytes())
    except (ValueError, UserError) as error:
        raise UserError(f"{path} is no entry: {error}; docs/reference/leaderboard.md has its form") from None


def _slug(text: str) -> str:
    return re.sub("[^a-z0-9.]+", "-", text.lower()).strip("-.") or "router"
