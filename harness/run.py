"""Evaluate routers on a suite and write the quality-versus-cost tables."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from harness.evaluate import Outcome, evaluate
from harness.manifest import provenance, write_json
from harness.metrics import value
from harness.policies import shipped_policy
from harness.progress import generation_progress
from harness.source import Source, open_source
from harness.summary import frontier_point, pipeline_name, summarise
from harness.table import frontier_table, markdown, overall_table, task_table
from pools.errors import UserError
from pools.tree import Tree
from routers import Router, RouterRequest, load
from routers.hierrouter import HierRouter

if TYPE_CHECKING:
    from harness.cli import Run

OPTIMUM = "oracle"
UNTRAINED = {"single", "pipeline", "random"}
# An imported table's costs are in a unit of its own; a router's encoder is billed by its parameters.
ENCODER_UNIT = "T param-tokens"


def run(options: Run, console: Console) -> Path:
    """Run the routers and their baselines, print the tables and write the run's folder; where it is.

    The folder holds `summary.json`, `items.parquet`, `tables.md` and `manifest.json`, and, where HierRouter was trained
    by this run, its checkpoint.
    """
    start = time.monotonic()
    _check(options)
    if options.preset == "paper":
        options = replace(options, allow_stop=False)
    cost_weights = read_cost_weights(options.cost_weight)
    first = cost_weights[0]
    out = options.out or Path("runs") / time.strftime("run-%Y%m%d-%H%M%S")
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
            cost_weight=first,
            seed=options.seed,
            checkpoint=options.checkpoint,
            train=source.tree.select("train"),
            validation=source.tree.select("validation"),
            evaluation=tree,
            options=(
                ("encoder", options.encoder),
                ("preset", options.preset),
                ("cost_weights", " ".join(map(str, cost_weights)) if len(cost_weights) > 1 else ""),
            ),
            weights=options.weights,
        )
        out.mkdir(parents=True, exist_ok=True)  # what cannot be written is known before anything is computed
        try:
            # All are built before the first is evaluated: one that cannot be costs no generation.
            names = router_names(options, source)
            learns = options.checkpoint is None and any(_is_hierrouter(name) for name in names)
            shipped = shipped_policy(options, source, cost_weights) if learns else None
            if shipped is not None:
                console.print(f"HierRouter: the shipped policy {shipped.name}; --retrain trains one", highlight=False)
            elif learns:
                console.print(f"training HierRouter on {len(request.train.items if request.train else ())} items ...")
            with_shipped = replace(request, checkpoint=shipped or request.checkpoint)
            routers = {name: load(name, with_shipped if _is_hierrouter(name) else request) for name in names}
            outcomes = {name: evaluate(router, tree, cost_model, options.seed) for name, router in routers.items()}
            swept = {first: outcomes}
            for weight in cost_weights[1:]:
                swept[weight] = {
                    name: evaluate(_at(weight, name, router, request), tree, cost_model, options.seed)
                    for name, router in routers.items()
                }
        except BaseException:
            _remove_if_empty(out)
            raise
    notes = {name: _notes(name, router, options, cost_weights, shipped) for name, router in routers.items()}

    def figures(weight: float) -> dict[str, Any]:
        at_weight = swept[weight]
        singles = [outcome for name, outcome in at_weight.items() if name.startswith("single:")]
        best_single = max(singles, key=lambda outcome: value(outcome, weight).mean(), default=None)
        return summarise(
            *(at_weight, best_single, OPTIMUM, tree, cost_model, weight, options.seed, notes),
            routing_cost_unit=ENCODER_UNIT if source.pool.billed else source.pool.cost_unit,
        )

    split = "" if options.split == "all" else f" {options.split}"
    one_hop = ", one call each" if source.description.get("single_hop") else ""
    summary = {
        "title": f"{source.pool.name} on {source.suite}: {len(tree.items)}{split} items{one_hop}",
        "split": options.split,
        **figures(first),
    }
    if len(cost_weights) > 1:
        summary["frontier"] = [frontier_point(figures(weight)) for weight in cost_weights]
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
    tables += [frontier_table(summary)] if "frontier" in summary else []
    for name, router in routers.items():
        if isinstance(router, HierRouter) and learns and shipped is None:
            router.save(out / f"{name.replace(':', '-')}.safetensors")
    write_items(out / "items.parquet", outcomes, tree, costs=bool(cost_model.unit))
    (out / "tables.md").write_text("\n".join(markdown(table) for table in tables), encoding="utf-8")
    write_json(manifest, out / "manifest.json")
    write_json(summary, out / "summary.json")
    for table in tables:
        console.print(table)
    console.print(f"written to {out}", highlight=False, markup=False)
    if options.track:
        _track(manifest, summary)
    return out


def router_names(options: Run, source: Source) -> list[str]:
    """The routers asked for, then the baselines that every table has, each once."""
    recorded = source.generator is None
    names = list(options.router)
    if options.baselines == "yes" or (options.baselines == "auto" and recorded):
        names += [*(f"single:{model}" for model in source.pool.model_names), "random"]
        # Chosen on train items, from every response of every pipeline.
        chosen = recorded and any(item.split == "train" for item in source.tree.items)
        names += ["best-pipeline", "best-pipeline-per-task"] if chosen else []
        # The optimum takes every response of every pipeline, which nobody wants to wait for.
        names += [OPTIMUM, *([] if options.allow_stop else [f"{OPTIMUM}:no-stop"])] if recorded else []
    if not names:
        raise UserError("nothing to run: name a router with --router")
    return list(dict.fromkeys(names))


def read_cost_weights(text: str) -> tuple[float, ...]:
    """The cost weights of `--cost-weight`, separated by commas, each once. Raises UserError for what is none."""
    try:
        weights = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        weights = (math.nan,)
    if not all(0 <= weight < math.inf for weight in weights):
        raise UserError(
            f"--cost-weight {text}: expected a number >= 0, in quality per unit of cost, or several as in 0,0.1,1"
        )
    return weights


def _at(weight: float, name: str, router: Router, request: RouterRequest) -> Router:
    """The router of that name for another cost weight; HierRouter is not trained anew, but told."""
    return router.at(weight) if isinstance(router, HierRouter) else load(name, replace(request, cost_weight=weight))


def _check(options: Run) -> None:
    if options.checkpoint is not None and not options.checkpoint.is_file():
        raise UserError(f"no such checkpoint: {options.checkpoint}; train one with python -m harness train")
    if options.seed < 0:
        raise UserError(f"--seed {options.seed}: expected a whole number >= 0")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out} is a file; name a folder")


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _is_hierrouter(name: str) -> bool:
    return name.partition(":")[0] == "hierrouter"


def _notes(name: str, router: Router, options: Run, cost_weights: Sequence[float], shipped: Path | None) -> list[str]:
    """What a reader of the router's row must know."""
    if name.startswith(OPTIMUM):
        return ["exact optimum: a bound" if name == OPTIMUM else "optimum of exactly L hops: a bound"]
    notes = []
    if isinstance(router, HierRouter):
        origin = f"from {options.checkpoint.name}" if options.checkpoint else "trained by this run"
        notes.append(f"shipped policy, seed {options.seed}" if shipped else origin)
        config = router.config
        if not config.cost_weights and set(cost_weights) != {config.cost_weight}:
            notes.append(f"trained at cost weight {config.cost_weight:g} alone")
        elif config.cost_weights and not (
            min(config.cost_weights) <= min(cost_weights) and max(cost_weights) <= max(config.cost_weights)
        ):
            notes.append(f"trained at cost weights {min(config.cost_weights):g} to {max(config.cost_weights):g}")
    if options.split != "test" and name.partition(":")[0] not in UNTRAINED:
        notes.append("on items it was trained or chosen on")
    return notes


def write_items(path: Path, outcomes: Mapping[str, Outcome], tree: Tree, costs: bool = True) -> None:
    """One row per router and item: what it attained, in expectation; without costs their column is null.

    The columns are documented in docs/summary.md.
    """
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
    if not costs:
        columns["cost"] = [None] * len(columns["router"])
    likeliest = np.concatenate([outcome.end.argmax(axis=1) for outcome in outcomes.values()])
    columns["pipeline"] = [pipeline_name(tree, node) for node in likeliest.tolist()]
    columns["pipeline_share"] = np.concatenate([outcome.end.max(axis=1) for outcome in outcomes.values()]).tolist()
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
