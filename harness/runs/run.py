"""Evaluate routers on a suite and write the quality-versus-cost tables."""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from harness.evaluation.evaluate import Outcome, evaluate
from harness.evaluation.frontier_metrics import FrontierMetrics, frontier_metrics
from harness.evaluation.metrics import value
from harness.evaluation.summary import ARROW, Summary, frontier_point, pipeline_models, summarise
from harness.runs.checkpoints import has_options, shipped_checkpoint
from harness.runs.folder import check_run_target, new_run
from harness.runs.manifest import provenance, write_json, write_text
from harness.runs.progress import generation_progress
from harness.runs.source import Source, choose_sandbox, open_source, recording_name
from harness.runs.wandb import track
from harness.tables.export import latex, tidy
from harness.tables.grid import frontier_grid, task_grid
from harness.tables.terminal import markdown, overall_table, tables
from pools.cost import MOST_RATE, CostModel
from pools.errors import UserError, shown
from pools.mdp.tree import Tree
from pools.names import check_name
from pools.numbers import read_number
from pools.secrets import clean
from pools.weights import file_hash
from routers import Router, RouterRequest, load
from routers.checkpoint import read_checkpoint
from routers.options import parse_arguments
from routers.registry import (
    Taught,
    learns,
    load_taught,
    registered_name,
    router_options,
    teach,
)
from routers.router import NotedRouter, WeighingRouter

if TYPE_CHECKING:
    from harness.runs.config import Run

OPTIMUM = "oracle"
BOUNDS = {
    OPTIMUM: "exact optimum",
    "oracle:no-stop": "optimum of exactly L hops",
    "oracle:per-item": "cheapest way to each item's best score",
}
UNTRAINED = {"single", "pipeline", "random"}
# Of what a router's own model costs, whatever unit the pool's costs are in: its parameters / 10^12 per token.
ENCODER_UNIT = "T param-tokens"


@dataclass(frozen=True)
class Evaluation:
    """What routers attained on the items of a run.

    swept: by cost weight and router; the first cost weight is the run's own.
    loaded: the checkpoints that routers were loaded from. taught: the routers that learnt for this.
    """

    tree: Tree
    cost_model: CostModel
    routers: dict[str, Router]
    swept: dict[float, dict[str, Outcome]]
    loaded: dict[str, Path]
    taught: dict[str, Taught]


def run(options: Run, console: Console) -> Path:
    """Run the routers and their baselines, print the tables and write the run's folder; where it is.

    The folder holds `summary.json`, `items.parquet`, `manifest.json` and the tables as `.md`, `.tex` and `.csv`, and,
    where HierRouter was trained by this run, its checkpoint. An earlier run in it is replaced, whole at any moment.
    """
    start = time.monotonic()
    options = checked(options)
    if options.live:
        choose_sandbox(options.sandbox, console)
    with generation_progress(console) as on_batch:
        source = open_source(options, on_batch)
        items = evaluated_items(options, source)
        _check_two_models(options, items.models)
        out = _folder(options.out)  # what cannot be written is known before anything is computed
        try:
            evaluation = evaluate_routers(options, source, console)
            metrics = _frontier_metrics(options, evaluation) if len(evaluation.swept) > 1 else None
        except BaseException:
            _remove_if_empty(out)
            raise
    tree, cost_model, routers, swept = evaluation.tree, evaluation.cost_model, evaluation.routers, evaluation.swept
    cost_weights, first = tuple(swept), next(iter(swept))
    notes = {name: _notes(name, router, options, cost_weights, evaluation) for name, router in routers.items()}

    def figures(weight: float) -> Summary:
        at_weight = swept[weight]
        singles = [outcome for name, outcome in at_weight.items() if name.startswith("single:")]
        best_single = max(singles, key=lambda outcome: value(outcome, weight).mean(), default=None)
        return summarise(
            *(at_weight, best_single, OPTIMUM, tree, cost_model, weight, options.seed, notes),
            routing_cost_unit=ENCODER_UNIT,
        )

    split = "" if options.split == "all" else f" {options.split}"
    one_hop = ", one call each" if source.description.get("single_hop") else ""
    recording = source.description.get("recording")
    usual = recording in (None, recording_name(source.pool.name, source.suite))
    of = "" if usual or one_hop else f" (recording {recording})"
    swept_figures = {weight: figures(weight) for weight in cost_weights}
    summary = swept_figures[first].model_copy(
        update={
            "title": f"{source.pool.name} on {source.suite}{of}: {len(tree.items)}{split} items{one_hop}",
            "split": options.split,
            "frontier": [frontier_point(s) for s in swept_figures.values()] if len(cost_weights) > 1 else None,
            "frontier_metrics": metrics,
        }
    )
    manifest = run_manifest(options, source, cost_model, time.monotonic() - start)
    grids = [task_grid(summary), *([frontier_grid(summary)] if summary.frontier else [])]
    with new_run(out) as folder:
        for name, taught in evaluation.taught.items():
            taught.save(folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.safetensors")
        write_items(folder / "items.parquet", swept[first], tree, costs=bool(cost_model.unit))
        whole = [overall_table(summary), *(table for grid in grids for table in tables(grid))]
        write_text("\n".join(map(markdown, whole)), folder / "tables.md")
        write_text("\n".join(latex(grid, summary.title) for grid in grids), folder / "tables.tex")
        write_text(tidy(summary), folder / "tables.csv")
        write_json(summary.model_dump(mode="json"), folder / "summary.json")
        hashes = {path.name: file_hash(path) for path in sorted(folder.iterdir())}
        write_json({**manifest, "sha256": hashes}, folder / "manifest.json")
    for table in [overall_table(summary), *(table for grid in grids for table in tables(grid, console.width))]:
        console.print(table, end="\n\n")
    console.print(f"written to {out}", highlight=False, markup=False)
    if options.track:
        track(out, manifest, summary)
    return out


def checked(options: Run) -> Run:
    """The options with what the preset implies. Raises UserError for what is wrong whatever the source is."""
    if options.checkpoint is not None and options.checkpoint.is_dir():
        raise UserError(f"--checkpoint {options.checkpoint} is a folder; name a .safetensors file")
    if options.checkpoint is not None and not options.checkpoint.is_file():
        raise UserError(f"no such checkpoint: {options.checkpoint}; train one with python -m harness train")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"--seed {shown(options.seed)}: expected a whole number >= 0, and below 2**32")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out} is a file; name a folder")
    if options.out is not None and options.out.exists():
        check_run_target(options.out)
    read_cost_weights(options.cost_weight)
    return replace(options, allow_stop=False) if options.preset == "paper" else options


def evaluate_routers(options: Run, source: Source, console: Console) -> Evaluation:
    """Build every router that the options ask for, training what has to be, and evaluate each at every cost weight."""
    tree = evaluated_items(options, source)
    cost_weights = read_cost_weights(options.cost_weight)
    cost_model = source.pool.cost_model(options.cost)
    request = _request(options, source, tree)
    # All are built before the first is evaluated: one that cannot be costs no generation.
    names = router_names(options, source)
    given = router_arguments(options, names)
    loaded = _checkpoints(options, source, request, names, given)
    for name, path in loaded.items():
        if path != options.checkpoint:
            console.print(f"{name}: the shipped policy {path.name}; --retrain trains one", highlight=False)
    routers: dict[str, Router] = {}
    taught: dict[str, Taught] = {}
    for name in names:
        if name in loaded:
            routers[name] = load_taught(name, loaded[name], request).router
        elif learns(name):
            _check_complete(name, request)
            console.print(f"training {name} on {len(request.train.items) if request.train else 0} items ...")
            taught[name] = teach(name, request, given[name])
            routers[name] = taught[name].router
        else:
            routers[name] = load(name, request)
    swept = {
        cost_weights[0]: {name: evaluate(router, tree, cost_model, options.seed) for name, router in routers.items()}
    }
    for weight in cost_weights[1:]:
        at_weight = replace(request, cost_weight=weight)
        swept[weight] = {
            name: evaluate(_at(weight, name, router, at_weight, given), tree, cost_model, options.seed)
            for name, router in routers.items()
        }
    return Evaluation(tree, cost_model, routers, swept, loaded, taught)


def shipped_checkpoints(options: Run, source: Source) -> dict[str, Path]:
    """The checkpoints that ship which a run would load its routers from."""
    names = router_names(options, source)
    request = _request(options, source, evaluated_items(options, source))
    return _checkpoints(replace(options, checkpoint=None), source, request, names, router_arguments(options, names))


def _request(options: Run, source: Source, evaluation: Tree) -> RouterRequest:
    """What the routers of a run are for."""
    cost_weights = read_cost_weights(options.cost_weight)
    return RouterRequest(
        models=evaluation.models,
        max_hops=evaluation.max_hops,
        allow_stop=options.allow_stop,
        cost_model=source.pool.cost_model(options.cost),
        cost_weight=cost_weights[0],
        cost_weights=cost_weights if len(cost_weights) > 1 else (),
        seed=options.seed,
        weights=options.weights,
        train=source.tree.select("train"),
        validation=source.tree.select("validation"),
        evaluation=evaluation,
    )


def router_arguments(options: Run, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The options of each router that learns. Raises UserError for those of a router that was not asked for.

    `--router-args` are of the router that they name, or of the one that was asked for; `--encoder` and `--preset` are
    of all that have such an option.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in names if learns(name)}
    for name in found:
        known = {option.name for option in router_options(name)}
        shared = {"encoder": options.encoder, "preset": options.preset}
        found[name] |= {key: value for key, value in shared.items() if key in known}
    for text in options.router_args:
        router, colon, arguments = text.rpartition(":") if ":" in text.partition("=")[0] else ("", "", text)
        asked = [router] if colon else list(options.router)
        if len(asked) > 1:
            raise UserError(f"--router-args {text}: of which router? write NAME:{text}, one of {', '.join(asked)}")
        if asked[0] not in names:
            raise UserError(f"--router-args {text}: {asked[0]} is not among the routers {', '.join(names)}")
        if asked[0] not in found:
            raise UserError(f"--router-args {text}: {asked[0]} learns nothing and has no options")
        found[asked[0]] |= parse_arguments(arguments)
    return found


def _checkpoints(
    options: Run, source: Source, request: RouterRequest, names: Sequence[str], given: Mapping[str, Mapping[str, Any]]
) -> dict[str, Path]:
    """Which routers are loaded, and from where: `--checkpoint`, or what ships."""
    found: dict[str, Path] = {}
    if options.checkpoint is not None:
        header = read_checkpoint(options.checkpoint).header
        of = header.router
        found = {name: options.checkpoint for name in given if registered_name(name) == of}
        if not found:
            raise UserError(
                f"--checkpoint {options.checkpoint} is of router {of}, which is not among {', '.join(names)}; "
                "add it to --router, or name another checkpoint"
            )
        for name in found if options.router_args else ():
            if not has_options(header, name, given[name]):
                raise UserError(
                    f"--router-args: the {of} of --checkpoint {options.checkpoint} was trained with other options; "
                    "omit them, or train one"
                )
    whole = not options.task and options.limit is None
    for name in given:
        if name not in found and options.checkpoint is None and not options.retrain:
            path = shipped_checkpoint(name, given[name], request, source, whole)
            found |= {} if path is None else {name: path}
    return found


def _check_complete(name: str, request: RouterRequest) -> None:
    """Raise UserError where a run would have to ask live models before a router has learnt anything."""
    if request.train is not None and request.train.items and not request.train.complete:
        raise UserError(
            f"router {name} with --live needs --checkpoint, which python -m harness train --live writes where the "
            "router can learn from live models"
        )


def evaluated_items(options: Run, source: Source) -> Tree:
    """The items of the split that is evaluated. Raises UserError where there are none."""
    tree = source.tree if options.split == "all" else source.tree.select(options.split)
    if not tree.items:
        raise UserError(f"no items of split {options.split!r} in this selection; raise --limit, or use --split all")
    return tree


def run_manifest(options: Run, source: Source, cost_model: CostModel, seconds: float) -> dict[str, Any]:
    """How a run was made: what `manifest.json` holds."""
    return {
        **provenance(),
        "seed": options.seed,
        "arguments": {key: _plain(given) for key, given in asdict(options).items()},
        "suite": source.suite,
        "source": source.description,
        "pool": source.pool.to_dict(),
        "cost_model": asdict(cost_model),
        "seconds": round(seconds, 2),
    }


def router_names(options: Run, source: Source) -> list[str]:
    """The routers asked for, then the baselines that every table has, each once."""
    recorded = source.generator is None
    if not options.router:
        raise UserError("`--router` is empty; omit it to use hierrouter, or see python -m harness list routers")
    names = [check_name(name, "--router") for name in options.router]
    if options.baselines == "yes" or (options.baselines == "auto" and recorded):
        names += [*(f"single:{model}" for model in source.pool.model_names), "random"]
        # Chosen on train items, from every response of every pipeline.
        chosen = recorded and any(item.split == "train" for item in source.tree.items)
        names += ["best-pipeline", "best-pipeline-per-task"] if chosen else []
        # The optimum takes every response of every pipeline, which nobody wants to wait for.
        names += [OPTIMUM, *([] if options.allow_stop else [f"{OPTIMUM}:no-stop"])] if recorded else []
    return list(dict.fromkeys(names))


def read_cost_weights(text: str) -> tuple[float, ...]:
    """The cost weights of `--cost-weight`, separated by commas, each once. Raises UserError for what is none."""
    try:
        weights = tuple(dict.fromkeys(read_number(part, float) for part in text.split(",")))
    except ValueError:
        weights = (math.nan,)
    if not all(0 <= weight <= MOST_RATE for weight in weights):
        raise UserError(
            f"--cost-weight {text}: expected a number >= 0, in quality per unit of cost, and at most {MOST_RATE:g}, or "
            "several as in 0,0.1,1"
        )
    return weights


def _frontier_metrics(options: Run, evaluation: Evaluation) -> FrontierMetrics:
    """AIQ, APGR and CPT over the cost weights. Live models that no row asked are not asked for it."""
    tree, cost_model, swept = evaluation.tree, evaluation.cost_model, evaluation.swept
    request = RouterRequest(models=tree.models, max_hops=tree.max_hops, cost_model=cost_model)
    done = next(iter(swept.values()))
    singles = {
        model: done.get(name) or evaluate(load(name, request), tree, cost_model)
        for model in tree.models
        for name in [f"single:{model}"]
        if name in done or tree.complete
    }
    if len(singles) < len(tree.models):
        if options.strong is not None:
            raise UserError("--strong and --weak need every single model's answers: add --baselines yes")
        singles = {}
    return frontier_metrics(
        list(swept.values()), singles, bool(cost_model.unit), tree.max_hops, options.seed, options.strong, options.weak
    )


def _check_two_models(options: Run, models: Sequence[str]) -> None:
    """Raise UserError where `--strong` and `--weak` are not two models of the pool, or there is no frontier."""
    pair = (options.strong, options.weak)
    if pair == (None, None):
        return
    if None in pair or options.strong == options.weak:
        raise UserError("--strong and --weak go together: name two models of the pool")
    unknown = [model for model in pair if model not in models]
    if unknown:
        raise UserError(f"unknown model {unknown[0]!r} in --strong, --weak: the pool has {', '.join(models)}")
    if len(read_cost_weights(options.cost_weight)) < 2:
        raise UserError("--strong and --weak are for a frontier: give several cost weights, as 0,0.1,1")


def _at(
    weight: float, name: str, router: Router, request: RouterRequest, given: Mapping[str, Mapping[str, Any]]
) -> Router:
    """The router of that name for another cost weight, which the request has: told of it, or built anew."""
    return router.at(weight) if isinstance(router, WeighingRouter) else load(name, request, options=given.get(name))


def _folder(out: Path | None) -> Path:
    """The folder to write to, made where it is missing; without a name a new one that no other run has."""
    name = time.strftime("run-%Y%m%d-%H%M%S")
    names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    while out is None:
        with suppress(FileExistsError):
            path = Path("runs") / next(names)
            path.mkdir(parents=True)
            return path
    out.mkdir(parents=True, exist_ok=True)
    return out


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _notes(name: str, router: Router, options: Run, cost_weights: Sequence[float], evaluation: Evaluation) -> list[str]:
    """What a reader of the router's row must know."""
    if name in BOUNDS:
        return [f"{BOUNDS[name]}: a bound"]
    notes = []
    if name in evaluation.loaded:
        path = evaluation.loaded[name]
        notes.append(f"from {path.name}" if path == options.checkpoint else f"shipped policy, seed {options.seed}")
    elif name in evaluation.taught:
        notes.append("trained by this run")
    if isinstance(router, NotedRouter):
        notes += router.notes(cost_weights)
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
    columns["pipeline"] = [ARROW.join(pipeline_models(tree, node)) for node in likeliest.tolist()]
    columns["pipeline_share"] = np.concatenate([outcome.end.max(axis=1) for outcome in outcomes.values()]).tolist()
    calls = np.concatenate([outcome.calls for outcome in outcomes.values()])
    columns |= {f"calls:{model}": calls[:, index].tolist() for index, model in enumerate(tree.models)}
    # As an open file: pyarrow takes a path with a colon for an address.
    with path.open("wb") as file:
        pq.write_table(pa.table(columns), file, compression="zstd")


def _plain(given: object) -> object:
    return clean(str(given)) if isinstance(given, Path | str) else given
