"""Train a router that learns, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.evaluation.evaluate import evaluate
from harness.runs.manifest import provenance
from harness.runs.progress import generation_progress
from harness.runs.source import choose_sandbox, open_source
from pools.errors import UserError
from routers import RouterRequest
from routers.checkpoint import state_beside
from routers.options import parse_arguments
from routers.ppo_hierrouter import training_bar
from routers.registry import learns, registered_name, router_options, teach
from routers.router import Training

if TYPE_CHECKING:
    from harness.runs.config import Train

WANDB_PROJECT = "hierrouter-harness"


def train(options: Train, console: Console) -> Path:
    """Train on the train items, choose on the validation items, and write the checkpoint; where it is."""
    name = options.router
    if not learns(name):
        raise UserError(f"router {name} learns nothing, so there is nothing to train; run it as it is")
    given = _options(options)
    out = options.out or Path("runs") / f"{registered_name(name)}.safetensors"
    state = state_beside(out, options.resume)
    if options.live:
        choose_sandbox(options.sandbox, console)
    with generation_progress(console) as on_batch:
        source = open_source(options, on_batch)
        # The date and the command would make equal trainings differ; versions and the source of the items do not.
        facts: dict[str, Any] = {"source": source.description, "versions": provenance()["versions"]}
        chosen = {"task": list(options.task), "limit": options.limit}
        facts |= {"selection": {key: value for key, value in chosen.items() if value}}
        cost_model, tree = source.pool.cost_model(options.cost), source.tree
        parts = tree.select("train"), tree.select("validation")
        console.print(f"training {name} on {len(parts[0].items)} items ...")
        # Over live models the bars are the generator's: two at once would overwrite each other.
        with training_bar(shown=console.is_terminal and source.generator is None) as report:
            request = RouterRequest(
                models=tree.models,
                max_hops=tree.max_hops,
                allow_stop=options.allow_stop,
                cost_model=cost_model,
                cost_weight=options.cost_weight,
                cost_weights=options.cost_weights,
                seed=options.seed,
                weights=options.weights,
                train=parts[0],
                validation=parts[1],
                training=Training(
                    state, options.resume, {"project": WANDB_PROJECT} if options.track else None, report, facts
                ),
            )
            taught = teach(name, request, given)
        taught.save(out)
    if parts[1].complete and parts[1].items:
        attained = evaluate(taught.router, parts[1], cost_model)
        figures = f"quality {attained.quality.mean():.3f}"
        figures += f", cost {attained.cost.mean():.3g} {cost_model.unit} per item" if cost_model.unit else ""
        console.print(f"on {len(parts[1].items)} validation items, on which it was chosen: {figures}", highlight=False)
    return out


def _options(options: Train) -> dict[str, Any]:
    """The router's options: `--router-args`, and the flags that stand for some."""
    known = {option.name for option in router_options(options.router)}
    shared: dict[str, Any] = {"encoder": options.encoder, "preset": options.preset}
    found = {key: value for key, value in shared.items() if key in known}
    found |= {} if options.total_timesteps is None else {"total_timesteps": options.total_timesteps}
    return found | parse_arguments(options.router_args)
