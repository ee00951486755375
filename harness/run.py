"""Evaluate routers on a suite and write the quality-versus-cost tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from harness.evaluate import Outcome, evaluate
from harness.manifest import provenance, write_json
from harness.progress import generation_progress
from harness.source import Source, live, recorded, recording_folder
from harness.summary import summarise
from harness.table import markdown, overall_table, task_table
from pools.errors import UserError
from pools.types import Split
from routers import Router, RouterRequest, load

# Every table has them; on live models they would have to be generated, so there they must be asked for.
BASELINES = ("random", "oracle")


@dataclass(frozen=True)
class RunOptions:
    """What to run; the command line documents each field."""

    router: tuple[str, ...]
    baselines: bool | None
    pool: str
    suite: str
    task: tuple[str, ...]
    recording: Path | None
    live: bool
    weights: Path | None
    store: Path
    limit: int | None
    split: Literal["train", "validation", "test", "all"]
    max_hops: int | None
    allow_stop: bool
    cost: str
    cost_weight: float
    encoder: str
    checkpoint: Path | None
    seed: int
    out: Path | None
    track: bool


def run(options: RunOptions, console: Console) -> Path:
    """Run the routers and their baselines, print the tables and write the run's folder; where it is."""
    start = time.monotonic()
    if options.cost_weight < 0:
        raise UserError(f"--cost-weight {options.cost_weight}: expected a number >= 0, in quality per unit of cost")
    out = options.out or Path("runs") / time.strftime("run-%Y%m%d-%H%M%S")
    with generation_progress(console) as on_batch:
        source = open_source(options, on_batch)
        tree = source.tree if options.split == "all" else source.tree.select(options.split)
        if not tree.items:
            raise UserError(f"no items of split {options.split!r} in this selection; raise --limit, or --split all")
        cost_model = source.pool.cost_model(options.cost)
        outcomes: dict[str, Outcome] = {}
        routers: dict[str, Router] = {}
        for spec in _specs(options, source):
            request = _request(spec, options, source)
            routers[spec] = load(spec, request)
            outcomes[spec] = evaluate(routers[spec], tree, cost_model, options.seed)
    summary = summarise(outcomes, tree, cost_model, options.cost_weight, options.allow_stop, options.seed)
    summary["title"] = f"{source.pool.name} on {source.suite}, {options.split} items ({len(tree.items)})"
    manifest = {
        **provenance(),
        "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()},
        "source": source.description,
        "pool": source.pool.to_dict(),
        "cost_model": asdict(cost_model),
        "routers": {spec: describe(router) for spec, router in routers.items()},
        "seconds": round(time.monotonic() - start, 2),
    }
    _write(out, summary, manifest, outcomes, tree)
    tables = [overall_table(summary), task_table(summary)]
    for table in tables:
        console.print(table)
    console.print(f"written to {out}", highlight=False)
    if options.track:
        _track(options, summary)
    return out
