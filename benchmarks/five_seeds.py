"""Shipped HierRouters against single models and best pipelines, per task: the table of docs/results/hierrouter.md.

    python benchmarks/five_seeds.py

Quality and cost are means over the five seeds; behind `±` are 95% intervals over seeds (Student's t). The improvement
factor is the ratio of qualities, the added cost the difference of costs, each with its 95% interval by resampling the
items, the same ones for both (so they hold for these five policies on other items). Below: the share of the gap closed
on held-out and on train items, on which kinds of items the code model is called twice, and what the policies attain at
other cost weights, with their AIQ.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tyro
from numpy.typing import NDArray
from scipy import stats

from pools.data.recording import load_recording

FloatArray = NDArray[np.float64]
RECORDING = Path("results/recordings/lightweight-offline")
ENDS = (2.5, 97.5)
OTHERS = "single:math-specialist single:qa-specialist single:qwen2.5-coder-0.5b best-pipeline best-pipeline-per-task"


@dataclass(frozen=True)
class Args:
    """What is shown."""

    seeds: int = 5
    others: tuple[str, ...] = tuple(OTHERS.split())
    expensive: str = "qwen2.5-coder-0.5b"
    """the model whose second calls are counted"""
    resamples: int = 10_000
    cost_weights: tuple[float, ...] = (0.1, 1.0, 2.0, 3.0)


def by_item(run: Path, router: str) -> tuple[list[str], FloatArray]:
    """The task of each item, and `[I, 2]` quality and cost of a router."""
    rows = [row for row in pq.read_table(run / "items.parquet").to_pylist() if row["router"] == router]
    rows.sort(key=lambda row: (row["task"], row["doc_id"]))
    return [row["task"] for row in rows], np.array([[row["quality"], row["cost"]] for row in rows])


def called_twice(runs: Sequence[Path], model: str) -> dict[str, list[str]]:
    """By kind of item, of each seed: on how many HierRouter calls a model twice, and on how many that gains."""
    items = load_recording(RECORDING).tree.items
    kinds = {(item.task, item.doc_id): f"{item.task}, {item.kind}" if item.kind else item.task for item in items}
    found: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        rows = pq.read_table(run / "items.parquet").to_pylist()
        once = {(row["task"], row["doc_id"]): row["quality"] for row in rows if row["router"] == f"single:{model}"}
        twice = {kind: np.zeros(2, np.int64) for kind in kinds.values()}
        for row in rows:
            if row["router"] == "hierrouter" and row[f"calls:{model}"] > 1:
                item = row["task"], row["doc_id"]
                twice[kinds[item]] += [1, row["quality"] > once[item]]
        for kind, (calls, gains) in twice.items():
            found[kind].append(f"{calls} ({gains})")
    return found


def half(values: FloatArray) -> float:
    """Half the width of the 95% interval of the mean."""
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


def run(out: Path, seed: int, *arguments: str) -> dict[str, Any]:
    """The summary of a run."""
    command = [sys.executable, "-m", "harness", "run", "--seed", str(seed), "--out", str(out), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def over(mine: FloatArray, theirs: FloatArray, resamples: int) -> str:
    """A cell: the improvement factor and the added cost, each `[I, 2]` of quality and cost on the same items."""
    (q, c), (oq, oc) = mine.mean(axis=0), theirs.mean(axis=0)
    drawn = np.random.default_rng(1).integers(0, len(mine), (resamples, len(mine)))
    a, b = mine[drawn].mean(axis=1), theirs[drawn].mean(axis=1)
    added = f"{c - oc:+.4f} " + "..".join(f"{end:+.4f}" for end in np.percentile(a[:, 1] - b[:, 1], ENDS))
    if oq == 0:
        return f"-<br>{added}"
    # Where a resample holds nothing that the other one solves, its factor has no bound.
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.percentile(np.where(b[:, 0] > 0, a[:, 0] / b[:, 0], np.inf), ENDS, method="nearest")
    return f"x{q / oq:.2f} " + "..".join(f"{end:.2f}" for end in ends) + f"<br>{added}"


def main() -> None:
    """Run the seeds and print the table."""
    args = tyro.cli(Args, description=__doc__)
    seeds = range(1, args.seeds + 1)
    with tempfile.TemporaryDirectory() as name:
        runs = [Path(name) / str(seed) for seed in seeds]
        held_out = [run(out, seed) for seed, out in zip(seeds, runs, strict=True)]
        train = [run(Path(name) / f"train-{seed}", seed, "--split", "train") for seed in seeds]
        weights = ",".join(f"{weight:g}" for weight in args.cost_weights)
        swept = [run(Path(name) / f"swept-{seed}", seed, "--cost-weight", weights) for seed in seeds]
        tasks, _ = by_item(runs[0], "hierrouter")
        twice = called_twice(runs, args.expensive)
        hops = np.mean([summary["routers"]["hierrouter"]["overall"]["hops"] for summary in held_out])
        ours = np.stack([by_item(out, "hierrouter")[1] for out in runs])  # [seeds, I, 2]
        theirs = {other: by_item(runs[0], other)[1] for other in args.others}
    order = list(held_out[0]["routers"]["hierrouter"]["tasks"])
    masks = [np.array([task == each for task in tasks]) for each in order] + [np.ones(len(tasks), bool)]
    print(f"| | {' | '.join(order)} | all items |\n|---{'|---:' * len(masks)}|")
    cells = []
    for mask in masks:
        means = ours[:, mask].mean(axis=1)  # [seeds, 2]
        (q, c), (dq, dc) = means.mean(axis=0), (half(means[:, 0]), half(means[:, 1]))
        cells.append(f"{q:.3f} ± {dq:.3f}<br>{c:.4f} ± {dc:.4f}")
    print(f"| hierrouter | {' | '.join(cells)} |")
    mean = ours.mean(axis=0)
    for other, each in theirs.items():
        cells = [over(mean[mask], each[mask], args.resamples) for mask in masks]
        print(f"| over {other.removeprefix('single:')} | {' | '.join(cells)} |")
    print(f"\nhops: {hops:.2f}")
    print(f"{args.expensive} called twice on so many items (so many gain by it), of each seed:")
    for kind, counts in twice.items():
        if set(counts) != {"0 (0)"}:
            print(f"  {kind}: {', '.join(counts)}")
    for split, found in (("held-out", held_out), ("train", train)):
        closed = np.array([summary["routers"]["hierrouter"]["overall"]["gap_closed"] for summary in found])
        print(f"gap closed on {split} items: {closed.mean():.1%} ± {half(closed):.1%}")
    for router in ("hierrouter", "best-pipeline-per-task"):
        for number, weight in enumerate(args.cost_weights):
            points = [summary["frontier"][number]["routers"][router] for summary in swept]
            q, c, v = (np.mean([point[key] for point in points]) for key in ("quality", "cost", "value"))
            print(f"{router} at cost weight {weight:g}: quality {q:.3f}, cost {c:.4f}, value {v:.3f}")
        curves = [summary["frontier_metrics"]["routers"][router] for summary in swept]
        heights = [curve["aiq"] for curve in curves if curve is not None]
        said = f"{min(heights):.3f} to {max(heights):.3f}" if heights else "withheld"
        print(f"{router} AIQ, over all cost weights: {said}, of {len(heights)} of {len(curves)} seeds")


if __name__ == "__main__":
    main()
