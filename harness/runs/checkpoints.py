"""The trained policies that ship, and whether one of them is what a run asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.runs.source import RESULTS, Source
from routers.hierrouter import read_config

if TYPE_CHECKING:
    from harness.cli.options import Run

FOLDER = RESULTS / "policies"


def shipped_policy(options: Run, source: Source, cost_weights: Sequence[float]) -> Path | None:
    """The checkpoint that ships for this seed, where it was trained on the items that the run would; else None.

    It has to be of the same recording (by the hashes of its files, which hold pool, items and split), whole, and of the
    same encoder, STOP and cost model, and to serve all the cost weights; it may serve more. With live models it has to
    be of a recording of the same models (by their fingerprints) and the same suite, whatever tasks are asked for.
    """
    live = bool(source.description.get("live"))
    name = f"{source.pool.name}-{source.suite}" if live else source.description.get("recording")
    if name is None or options.retrain or (not live and (options.task or options.limit is not None)):
        return None
    path = FOLDER / name / f"hierrouter-{options.seed}.safetensors"
    if not path.is_file():
        return None
    config = read_config(path)
    arguments, trained_on = config.training.get("arguments", {}), config.training.get("source", {})
    of_models = (trained_on.get("recorded") or {}).get("models")
    alike = (
        of_models == source.description["models"] if live else trained_on.get("sha256") == source.description["sha256"]
    )
    same = (
        alike
        and not config.training.get("selection")
        and config.max_hops == source.tree.max_hops
        and (arguments.get("encoder"), arguments.get("preset")) == (options.encoder, options.preset)
        and (config.allow_stop, arguments.get("cost")) == (options.allow_stop, options.cost)
    )
    served = config.cost_weights or (config.cost_weight,)
    inside = min(served) <= min(cost_weights) and max(cost_weights) <= max(served)
    return path if same and inside else None
