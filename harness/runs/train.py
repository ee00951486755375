"""Train HierRouter from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from harness.evaluation.evaluate import evaluate
from harness.runs.manifest import provenance
from harness.runs.progress import generation_progress
from harness.runs.source import choose_sandbox, open_source
from routers.ppo_hierrouter import Args, training_bar
from routers.ppo_hierrouter import train as train_ppo

if TYPE_CHECKING:
    from harness.cli.options import Train


def train(options: Train, console: Console) -> Path:
    """Train on the train items, choose on the validation items, and write the checkpoint; where it is."""
    if options.live:
        choose_sandbox(options.sandbox, console)
    with generation_progress(console) as on_batch:
        source = open_source(options, on_batch)
        arguments = Args(
            out=options.out,
            resume=options.resume,
            seed=options.seed,
            track=options.track,
            preset=options.preset,
            allow_stop=options.allow_stop,
            cost=options.cost,
            cost_weight=options.cost_weight,
            cost_weights=options.cost_weights,
            encoder=options.encoder,
            total_timesteps=Args.total_timesteps if options.total_timesteps is None else options.total_timesteps,
            weights=options.weights,
        )
        # The date and the command would make equal trainings differ; versions and the source of the items do not.
        facts = {"source": source.description, "versions": provenance()["versions"]}
        chosen = {"task": list(options.task), "limit": options.limit}
        facts |= {"selection": {name: given for name, given in chosen.items() if given}}
        cost_model = source.pool.cost_model(options.cost)
        parts = source.tree.select("train"), source.tree.select("validation")
        # Over live models the bars are the generator's: two at once would overwrite each other.
        console.print(f"training HierRouter on {len(parts[0].items)} items ...")
        with training_bar(shown=console.is_terminal and source.generator is None) as report:
            router = train_ppo(arguments, *parts, cost_model, facts, report)
    if parts[1].complete and parts[1].items:
        attained = evaluate(router, parts[1], cost_model)
        figures = f"quality {attained.quality.mean():.3f}"
        figures += f", cost {attained.cost.mean():.3g} {cost_model.unit} per item" if cost_model.unit else ""
        console.print(f"on {len(parts[1].items)} validation items, on which it was chosen: {figures}", highlight=False)
    return options.out
