"""`matrix-factorisation` beside RouteLLM's: the same embeddings, folds and items; value on items that neither saw.

    python benchmarks/matrix_factorisation.py --recordings runs/recordings/arc runs/recordings/gsm8k --weights DIR

RouteLLM's model (arXiv 2406.18665, section 4.2, and its training script) is written again here: a text of dimension d
is projected to 128 numbers, multiplied by a model's vector of length 1 and summed with weights; the difference of two
models' sums is fitted to which of them won, over all pairs of train outcomes that differ, by Adam (3e-4, weight decay
1e-5, batches of 64, 100 epochs), with noise of 0.1 on the text's vector. Its sums are no scores, so what one is worth
is chosen on validation items, for each cost weight. Test items are left out: every train and validation item is judged
once, by a router that never saw it. Values are means over the cost weights of `SHARES`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from harness.evaluation.metrics import Bootstrap
from pools.data.recording import load_recording
from pools.types import Context
from routers.encoders.base import ContextEncoder, build_encoder
from routers.one_hop import SHARES, Examples, MatrixFactorisation

FloatArray = NDArray[np.float64]
WORTH = (0.01, 0.03, 0.1, 0.3, 1.0)  # of one unit of RouteLLM's sums, in score


@dataclass(frozen=True)
class Options:
    """What is compared on what."""

    recordings: tuple[Path, ...]
    weights: Path | None = None
    """folder that holds the sentence encoder's weights"""
    encoder: str = "sentence"
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    folds: int = 5


def routellm(learnt: Examples, seed: int) -> Any:
    """RouteLLM's factors: a function from vectors `[n, d]` to one number for each model `[n, M]`."""
    drawn = torch.Generator().manual_seed(seed)
    vectors = torch.from_numpy(np.asarray(learnt.vectors, np.float32))
    models, width = learnt.score.shape[1], vectors.shape[1]
    of_model = torch.randn(models, 128, generator=drawn)
    project = (torch.rand(128, width, generator=drawn) * 2 - 1) / width**0.5
    combine = (torch.rand(128, generator=drawn) * 2 - 1) / 128**0.5
    parameters = [part.requires_grad_() for part in (of_model, project, combine)]
    optimizer = torch.optim.Adam(parameters, lr=3e-4, weight_decay=1e-5)
    pairs = np.nonzero(learnt.score[:, :, None] > learnt.score[:, None, :])
    item, winner, loser = (torch.from_numpy(part) for part in pairs)
    unit = torch.nn.functional.normalize
    for _ in range(100):
        for part in torch.randperm(len(item), generator=drawn).split(64):
            query = vectors[item[part]]
            query = query + 0.1 * torch.randn(query.shape, generator=drawn)
            ahead = unit(of_model[winner[part]]) - unit(of_model[loser[part]])
            loss = torch.nn.functional.softplus(-(ahead * (query @ project.T)) @ combine).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    bilinear = (project.T @ (unit(of_model) * combine).T).detach().numpy()
    return lambda queries: queries @ bilinear


def values(
    predicted: list[FloatArray], held_out: list[FloatArray], of: tuple[FloatArray, ...], shared: bool
) -> FloatArray:
    """`[W, n]` value on test items of what is best on validation items.

    predicted, held_out: `[n, M]` of each candidate, on test and validation items. of: scores and costs of test items,
    of validation items, mean costs and the cost weights. shared: one candidate for all cost weights.
    """
    score, cost, known, spent, mean, weights = of

    def attained(scores: FloatArray, costs: FloatArray, guess: FloatArray) -> FloatArray:
        rows = np.arange(len(scores))
        chosen = [(guess - weight * mean).argmax(axis=1) for weight in weights]
        return np.stack([scores[rows, c] - w * costs[rows, c] for w, c in zip(weights, chosen, strict=True)])

    judged = np.stack([attained(known, spent, guess).mean(axis=1) for guess in held_out])
    made = np.stack([attained(score, cost, guess) for guess in predicted])
    best = np.full(len(weights), judged.mean(axis=1).argmax()) if shared else judged.argmax(axis=0)
    return np.asarray(made[best, np.arange(len(weights))])


def main() -> None:
    """Fit both on every fold and seed, and print values and their difference."""
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    for path in options.recordings:
        tree = load_recording(path).tree
        tree = tree.subset(np.flatnonzero([item.split != "test" for item in tree.items]))
        nodes = tree.level(1)
        score, cost = tree.score[:, nodes].astype(np.float64), tree.cost[:, nodes]
        contexts = [Context(item.query) for item in tree.items]
        embed = ContextEncoder(build_encoder(options.encoder, contexts, 1, options.weights), ("query",))
        vectors, most = embed(contexts), cost.mean(axis=0).max()
        weights = np.array(SHARES) / most if most > 0 else np.zeros(1)
        found = {name: np.zeros((len(options.seeds), len(score))) for name in ("ours", "RouteLLM's")}
        seconds = dict.fromkeys(found, 0.0)
        for row, seed in enumerate(options.seeds):
            fold_of = np.random.default_rng(seed).permutation(len(score)) % options.folds
            for fold in range(options.folds):
                test, rest = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
                held, train = rest[::5], rest[np.arange(len(rest)) % 5 > 0]
                learnt = Examples(vectors[train], score[train], cost[train])
                of = score[test], cost[test], score[held], cost[held], learnt.cost.mean(axis=0), weights
                start = time.process_time()
                ours = list(MatrixFactorisation().candidates(learnt, seed))
                guess, judged = ([predict(vectors[part]) for predict in ours] for part in (test, held))
                found["ours"][row, test] = values(guess, judged, of, shared=True).mean(axis=0)
                seconds["ours"] += time.process_time() - start
                start = time.process_time()
                theirs = routellm(learnt, seed)
                guess, judged = ([worth * theirs(vectors[part]) for worth in WORTH] for part in (test, held))
                found["RouteLLM's"][row, test] = values(guess, judged, of, shared=False).mean(axis=0)
                seconds["RouteLLM's"] += time.process_time() - start
        bootstrap = Bootstrap.draw(len(score), 1, 1000)
        ahead = bootstrap.mean((found["ours"] - found["RouteLLM's"]).mean(axis=0))
        single = max(np.mean([score[:, m] - w * cost[:, m] for w in weights]) for m in range(len(nodes)))
        print(f"{path.name}: {len(score)} items, {len(nodes)} models; best single model {single:.4f}")
        for name, each in found.items():
            by_seed = " ".join(f"{value:.4f}" for value in each.mean(axis=1))
            print(f"  {name}: {each.mean():.4f} (seeds {by_seed}), {seconds[name]:.0f} s of a processor")
        print(f"  ours minus RouteLLM's: {ahead.mean:+.4f} [{ahead.low:+.4f}, {ahead.high:+.4f}]", flush=True)


if __name__ == "__main__":
    main()
