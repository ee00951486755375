"""The shipped HierRouters against each single model and the best pipelines, per task: the table of docs/hierrouter.md.

    python benchmarks/five_seeds.py

Quality and cost are means over the five seeds; behind `±` are 95% intervals over seeds (Student's t). The improvement
factor is the ratio of qualities, the added cost the difference of costs. Over all items their 95% intervals are given
too, by resampling the items, the same ones for both (so they hold for these five policies on other items).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import tyro
from numpy.typing import NDArray
from scipy import stats

FloatArray = NDArray[np.float64]
OTHERS = "single:math-specialist single:qa-specialist single:qwen2.5-coder-0.5b best-pipeline best-pipeline-per-task"


@dataclass(frozen=True)
class Args:
    """What is shown."""

    seeds: int = 5
    others: tuple[str, ...] = tuple(OTHERS.split())
    resamples: int = 10_000


def by_item(run: Path, router: str) -> tuple[list[str], FloatArray]:
    """The task of each item, and `[I, 2]` quality and cost of a router."""
    rows = [row for row in pq.read_table(run / "items.parquet").to_pylist() if row["router"] == router]
    rows.sort(key=lambda row: (row["task"], row["doc_id"]))
    return [row["task"] for row in rows], np.array([[row["quality"], row["cost"]] for row in rows])


def half(values: FloatArray) -> float:
    """Half the width of the 95% interval of the mean."""
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


def main() -> None:
    """Run the seeds and print the table."""
    args = tyro.cli(Args, description=__doc__)
    with tempfile.TemporaryDirectory() as name:
        runs = [Path(name) / str(seed) for seed in range(1, args.seeds + 1)]
        for seed, run in enumerate(runs, 1):
            command = [sys.executable, "-m", "harness", "run", "--seed", str(seed), "--out", str(run)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        order = list(json.loads((runs[0] / "summary.json").read_text())["routers"]["hierrouter"]["tasks"])
        tasks, _ = by_item(runs[0], "hierrouter")
        ours = np.stack([by_item(run, "hierrouter")[1] for run in runs])  # [seeds, I, 2]
        theirs = {other: by_item(runs[0], other)[1] for other in args.others}
        gaps = np.array([json.loads((run / "summary.json").read_text())["routers"]["hierrouter"] for run in runs])
        closed = np.array([row["overall"]["gap_closed"] for row in gaps])
    masks = [np.array([task == each for task in tasks]) for each in order] + [np.ones(len(tasks), bool)]
    print(f"| | {' | '.join(order)} | all items |\n|---{'|---:' * len(masks)}|")
    cells = []
    for mask in masks:
        means = ours[:, mask].mean(axis=1)  # [seeds, 2]
        (q, c), (dq, dc) = means.mean(axis=0), (half(means[:, 0]), half(means[:, 1]))
        cells.append(f"{q:.3f} ± {dq:.3f}<br>{c:.4f} ± {dc:.4f}")
    print(f"| hierrouter | {' | '.join(cells)} |")
    mean = ours.mean(axis=0)
    drawn = np.random.default_rng(1).integers(0, len(tasks), (args.resamples, len(tasks)))
    for other, theirs_each in theirs.items():
        cells = []
        for mask in masks:
            (q, c), (oq, oc) = mean[mask].mean(axis=0), theirs_each[mask].mean(axis=0)
            cells.append((f"x{q / oq:.2f}" if oq > 0 else "-") + f"<br>{c - oc:+.4f}")
        with np.errstate(divide="ignore", invalid="ignore"):
            a, b = mean[drawn].mean(axis=1), theirs_each[drawn].mean(axis=1)
            (low, high), (less, more) = (np.percentile(v, [2.5, 97.5]) for v in (a[:, 0] / b[:, 0], a[:, 1] - b[:, 1]))
        factor, added = cells[-1].split("<br>")
        cells[-1] = f"{factor} {low:.2f}..{high:.2f}<br>{added} {less:+.4f}..{more:+.4f}"
        print(f"| over {other.removeprefix('single:')} | {' | '.join(cells)} |")
    print(f"\ngap closed: {closed.mean():.1%} ± {half(closed):.1%}")


if __name__ == "__main__":
    main()
