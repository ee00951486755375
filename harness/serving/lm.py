"""A router over a pool as a model of lm-eval: `lm_eval --model routed --model_args pool=lightweight,router=...`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lm_eval.models
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import model_registry
from rich.console import Console

from harness.evaluation.rollout import Episodes, rollout
from harness.runs.progress import generation_progress
from harness.serving.routed import Query, routed
from pools.errors import UserError
from pools.mdp.tree import Tree
from pools.models.generator import LiveGenerator
from pools.secrets import harmless
from pools.types import Generation, GenerationSettings
from tasks.lm_eval_task import generation_settings

# Of the hops before a multiple-choice question is scored; the task itself names none.
_HOP_SETTINGS = GenerationSettings((), 256)


class RoutedLM(LM):
    """Runs a router over a pool; hops are batched over requests and grouped by model.

    Text tasks are answered by the last response. Multiple-choice tasks are scored by the last hop's model, which reads
    what the hops before it answered. Scoring is billed as a hop for each choice.

    pool: name or file. router: as `--router`. recording: folder to replay instead of asking the models.
    train_on: recording to learn from, of models of the same names. checkpoint: of a trained router.
    weights: folder of weights. store: transition store of live models.
    max_hops: by default those of the recording, of what is learnt from or of the checkpoint, else 3. cost: name of the
    cost model.
    seed: of what a stochastic router draws.
    """

    def __init__(
        self,
        pool: str = "lightweight",
        router: str = "hierrouter",
        recording: str | None = None,
        train_on: str | None = None,
        weights: str | None = None,
        store: str = "runs/stores/live.sqlite",
        checkpoint: str | None = None,
        max_hops: int | None = None,
        allow_stop: bool = True,
        cost: str = "paper",
        seed: int = 1,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        self._routed = routed(
            router,
            pool,
            recording=None if recording is None else Path(recording),
            train_on=None if train_on is None else Path(train_on),
            weights=None if weights is None else Path(weights),
            store=Path(store),
            checkpoint=None if checkpoint is None else Path(checkpoint),
            max_hops=None if max_hops is None else int(max_hops),
            allow_stop=allow_stop,
            cost=cost,
            seed=int(seed),
            say=logging.getLogger("lm_eval.models.routed").info,  # shown as what lm-eval says itself
        )
        self.pool, self._seed = self._routed.pool, int(seed)
        self._ledger = {"requests": 0, "cost": 0.0, "routing_cost": 0.0, "hops": 0}

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The last response of each request's episode."""
        asked = [(str(r.args[0]), generation_settings(r.task_name or "request", r.args[1])) for r in requests]
        tree, episodes, place = self._episodes(asked)
        return [tree.generation(index, int(episodes.node[index])).response for index in place]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Log-likelihoods of the continuations, by the model that the router chose for the last hop."""
        generator = self._routed.generator
        if not isinstance(generator, LiveGenerator):
            raise UserError("a recording holds no likelihoods: multiple-choice tasks need the models, no recording=")
        asked = [(str(r.args[0]), _HOP_SETTINGS) for r in requests]
        tree, episodes, place = self._episodes(asked, answer_last=False)
        # A router that stopped after some response is scored by the model that gave it, before it answered.
        stopped = episodes.pending < 0
        last = np.where(stopped, tree.action(np.maximum(episodes.node, 1)), episodes.pending)
        node = np.where(stopped, tree.parent(np.maximum(episodes.node, 1)), episodes.node)
        scored: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for model in np.unique(last).tolist():
            mine = [n for n, index in enumerate(place) if last[index] == model]
            texts = [generator.text(model, tree.context(place[n], int(node[place[n]]))) for n in mine]
            instances = [
                Instance("loglikelihood", requests[n].doc, (text, requests[n].args[1]), requests[n].idx)
                for n, text in zip(mine, texts, strict=True)
            ]
            with self._shown():
                lm = generator.language_model(model)
            try:
                found = lm.loglikelihood(instances)
            except Exception as error:
                if harmless(error) is None:  # lm-eval prints the traceback
                    raise UserError(f"model {self.pool.model_names[model]} failed: {error!r}") from None
                raise
            for n, text, result in zip(mine, texts, found, strict=True):
                scored[n] = result
                # Scoring a choice is a hop that ran: it reads the context and the continuation.
                read, written = (len(lm.tok_encode(part)) for part in (text, requests[n].args[1]))
                scoring = Generation("", read, written, "stop", 0.0)
                self._ledger["cost"] += self._routed.cost_model.hop_cost(model, scoring)
                self._ledger["hops"] += 1
        return scored

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Not possible: perplexity has no query that could be routed."""
        raise UserError("perplexity tasks have no query to route; use --model hf for them")

    def get_model_info(self) -> dict[str, Any]:
        """The ledger, for lm-eval's `results["config"]`: cost and hops over all requests so far."""
        return {"routed": {**self._ledger, "cost_unit": self._routed.cost_model.unit, "router": self._routed.name}}

    def _episodes(self, queries: list[Query], answer_last: bool = True) -> tuple[Tree, Episodes, list[int]]:
        """One episode of each distinct query, billed once; and which of them is that of each query."""
        place = {query: index for index, query in enumerate(dict.fromkeys(queries))}
        tree = self._routed.tree(list(place))
        with self._shown():
            episodes = rollout(self._routed.router, tree, self._seed, answer_last)
        self._ledger["requests"] += len(place)
        self._ledger["cost"] += float(episodes.cost.sum())
        self._ledger["routing_cost"] += float(episodes.routing_cost.sum())
        self._ledger["hops"] += int(tree.depth[episodes.node].sum())
        return tree, episodes, [place[query] for query in queries]

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """What models load and answer meanwhile is said on standard error: lm-eval prints its results on the other."""
        generator = self._routed.generator
        if not isinstance(generator, LiveGenerator):
            yield
            return
        with generation_progress(Console(stderr=True)) as generator.progress:
            yield
        generator.progress = None


# lm-eval fills its registry when `lm_eval.models` is imported; the start-up hook may have put the name there already.
assert lm_eval.models.MODEL_MAPPING
if "routed" not in model_registry:
    model_registry.register("routed", target=RoutedLM)
