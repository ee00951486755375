"""Evaluate routers on a suite and write the quality-versus-cost tables."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from harness.evaluate import Outcome, evaluate
from harness.manifest import provenance, write_json
from harness.metrics import value
from harness.progress import generation_progress
from harness.source import Source, open_source
from harness.summary import summarise
from harness.table import markdown, overall_table, task_table
from pools.errors import UserError
from pools.tree import Tree
from routers import RouterRequest, load

if TYPE_CHECKING:
    from harness.cli import Run

OPTIMUM = "oracle"


def run(options: Run, console: Console) -> Path:
    """Run the routers and their baselines, print the tables and write the run's folder; where it is.

    The folder holds `summary.json`, `items.parquet`, `tables.md` and `manifest.json`, and, where HierRouter was trained
    by this run, its checkpoint.
    """
    start = time.monotonic()
    if options.cost_weight < 0:
        raise UserError(f"--cost-weight {options.cost_weight}: expected a number >= 0, in quality per unit of cost")
    out = options.out or Path("runs") / time.strftime("run-%Y%m%d-%H%M%S")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder")
    with generation_progress(console) as on_batch:
        source = open_source(options, on_batch)
        tree = source.tree if options.split == "all" else source.tree.select(options.split)
        if not tree.items:
            raise UserError(f"no items of split {options.split!r} in this selection; raise --limit, or use --split all")
        cost_model = source.pool.cost_model(options.cost)
        request = RouterRequest(
            models=tree.models,
            max_hops=tree.max_hops,
            allow_stop=options.allow_stop,
            cost_model=cost_model,
            cost_weight=options.cost_weight,
            seed=options.seed,
            checkpoint=options.checkpoint,
            train=source.tree.select("train"),
            validation=source.tree.select("validation"),
            evaluation=tree,
            options=(("encoder", options.encoder),),
        )
        outcomes: dict[str, Outcome] = {}
        checkpoints: dict[str, Any] = {}
        for name in router_names(options, source):
            if name.startswith("hierrouter"):
                how = f"from {options.checkpoint}" if options.checkpoint else "trained now on the train items"
                console.print(f"{name}: {how}", highlight=False)
            router = load(name, request)
            if hasattr(router, "save") and options.checkpoint is None:
                checkpoints[name] = router
            outcomes[name] = evaluate(router, tree, cost_model, options.seed)
    singles = [outcome for name, outcome in outcomes.items() if name.startswith("single:")]
    best_single = max(singles, key=lambda outcome: value(outcome, options.cost_weight).mean(), default=None)
    summary = {
        "title": f"{source.pool.name} on {source.suite}: {len(tree.items)} {options.split} items".replace("all ", ""),
        **summarise(outcomes, best_single, OPTIMUM, tree, cost_model, options.cost_weight, options.seed),
    }
    manifest = {
        **provenance(),
        "seed": options.seed,
        "arguments": {key: _plain(given) for key, given in asdict(options).items()},
        "source": source.description,
        "pool": source.pool.to_dict(),
        "cost_model": asdict(cost_model),
        "seconds": round(time.monotonic() - start, 2),
    }
    tables = [overall_table(summary), task_table(summary)]
    out.mkdir(parents=True, exist_ok=True)
    for name, router in checkpoints.items():
        router.save(out / f"{name.replace(':', '-')}.safetensors")
    write_items(out / "items.parquet", outcomes, tree)
    (out / "tables.md").write_text("\n".join(markdown(table) for table in tables), encoding="utf-8")
    write_json(manifest, out / "manifest.json")
    write_json(summary, out / "summary.json")
    for table in tables:
        console.print(table)
    console.print(f"written to {out}", highlight=False)
    if options.track:
        _track(manifest, summary)
    return out


def router_names(options: Run, source: Source) -> list[str]:
    """The routers asked for, then the baselines that every table has, each once."""
    baselines = options.baselines if options.baselines is not None else source.generator is None
    always = [*(f"single:{model}" for model in source.pool.model_names), "random", OPTIMUM] if baselines else []
    names = list(dict.fromkeys([*options.router, *always]))
    if not names:
        raise UserError("nothing to run: name a router with --router")
    return names


def write_items(path: Path, outcomes: Mapping[str, Outcome], tree: Tree) -> None:
    """One row per router and item: what it attained, in expectation."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = len(tree.items)
    columns = {
        "router": np.repeat(list(outcomes), count).tolist(),
        "task": [item.task for item in tree.items] * len(outcomes),
        "doc_id": [item.doc_id for item in tree.items] * len(outcomes),
        "split": [item.split for item in tree.items] * len(outcomes),
    }
    for name in ("quality", "cost", "routing_cost", "hops"):
        columns[name] = np.concatenate([getattr(outcome, name) for outcome in outcomes.values()]).tolist()
    calls = np.concatenate([outcome.calls for outcome in outcomes.values()])
    columns |= {f"calls:{model}": calls[:, index].tolist() for index, model in enumerate(tree.models)}
    partial = path.with_name(path.name + ".partial")
    pq.write_table(pa.table(columns), partial, compression="zstd")
    partial.replace(path)


def _plain(given: object) -> object:
    return str(given) if isinstance(given, Path) else given


def _track(manifest: dict[str, Any], summary: dict[str, Any]) -> None:
    import wandb

    logged = wandb.init(project="hierrouter-harness", job_type="run", config=manifest)
    for router, entry in summary["routers"].items():
        for key, figure in entry["overall"].items():
            if isinstance(figure, int | float) and not isinstance(figure, bool):
                logged.summary[f"{router}/{key}"] = figure
    logged.finish()
