"""A router over a pool as a model of lm-eval: `lm_eval --model routed --model_args pool=lightweight,router=...`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval.models
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import model_registry

from harness.manifest import origin
from harness.rollout import rollout
from harness.source import DEFAULT_HOPS
from pools.errors import UserError
from pools.live import LiveGenerator
from pools.pool import load_pool
from pools.recording import RecordedGenerator, load_recording
from pools.store import TransitionStore
from pools.tree import Tree
from pools.types import GenerationSettings, Generator, Item
from routers import RouterRequest, load
from tasks.lm_eval_task import generation_settings

# Of the hops before a multiple-choice question is scored; the task itself names none.
_HOP_SETTINGS = GenerationSettings((), 256)


class RoutedLM(LM):
    """Runs a router over a pool; hops are batched over requests and grouped by model.

    Text tasks are answered by the last response. Multiple-choice tasks are scored by the last hop's model, which reads
    what the hops before it answered. Scoring is billed as a hop for each choice.

    pool: name or file. router: as `--router`. recording: folder to replay instead of asking the models.
    weights: folder of weights. store: transition store of live models. checkpoint: of a trained router.
    max_hops: by default the recording's or the checkpoint's, else 2. seed: of what a stochastic router draws.
    """

    def __init__(
        self,
        pool: str = "lightweight",
        router: str = "hierrouter",
        recording: str | None = None,
        weights: str | None = None,
        store: str = "runs/stores/live.sqlite",
        checkpoint: str | None = None,
        max_hops: int | None = None,
        allow_stop: bool = True,
        seed: int = 1,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        self._generator: Generator
        if recording is not None:
            replayed = load_recording(Path(recording))
            self.pool, hops = replayed.pool, replayed.tree.max_hops
            self._generator = RecordedGenerator(replayed.tree)
        else:
            self.pool, hops = load_pool(pool), DEFAULT_HOPS
            folder = None if weights is None else Path(weights)
            self._generator = LiveGenerator(self.pool, folder, TransitionStore(Path(store), origin(self.pool)))
        self._cost_model = self.pool.cost_model("paper")
        if checkpoint is not None and max_hops is None and router.startswith("hierrouter"):
            from routers.hierrouter import load_checkpoint

            hops = load_checkpoint(Path(checkpoint)).config.max_hops
        self._max_hops, self._seed, self._spec = int(max_hops or hops), int(seed), router
        self._router = load(
            router,
            RouterRequest(
                models=self.pool.model_names,
                max_hops=self._max_hops,
                allow_stop=allow_stop,
                cost_model=self._cost_model,
                seed=self._seed,
                weights=None if weights is None else Path(weights),
                checkpoint=None if checkpoint is None else Path(checkpoint),
            ),
        )
        self._ledger = {"requests": 0, "cost": 0.0, "routing_cost": 0.0, "hops": 0}

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The last response of each request's episode."""
        asked = [(str(r.args[0]), generation_settings(r.task_name or "request", r.args[1])) for r in requests]
        tree, place = self._tree(asked)
        episodes = rollout(self._router, tree, self._cost_model, self._seed)
        self._bill(tree, episodes, place)
        answers = []
        for index, node in enumerate(episodes.node.tolist()):
            answers.append(tree.generation(index, node).response if node else "")
        return [answers[place[request]] for request in asked]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Log-likelihoods of the continuations, by the model that the router chose for the last hop."""
        if not isinstance(self._generator, LiveGenerator):
            raise UserError("a recording holds no likelihoods: multiple-choice tasks need the models, no recording=")
        asked = [(str(r.args[0]), _HOP_SETTINGS) for r in requests]
        tree, place = self._tree(asked)
        episodes = rollout(self._router, tree, self._cost_model, self._seed, answer_last=False)
        self._bill(tree, episodes, place)
        # A router that stopped after some response is scored by the model that gave it, before it answered.
        stopped = episodes.pending < 0
        last = np.where(stopped, tree.action(np.maximum(episodes.node, 1)), episodes.pending)
        node = np.where(stopped, tree.parent(np.maximum(episodes.node, 1)), episodes.node)
        scored: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for model in np.unique(last).tolist():
            mine = [n for n, request in enumerate(asked) if last[place[request]] == model]
            texts = [
                self._generator.text(model, tree.context(place[asked[n]], int(node[place[asked[n]]]))) for n in mine
            ]
            instances = [
                Instance("loglikelihood", requests[n].doc, (text, requests[n].args[1]), requests[n].idx)
                for n, text in zip(mine, texts, strict=True)
            ]
            lm = self._generator.language_model(model)
            found = lm.loglikelihood(instances)
            for n, text, result in zip(mine, texts, found, strict=True):
                scored[n] = result
                # Scoring a choice is a hop that ran: it reads the context and the continuation.
                read, written = (len(lm.tok_encode(part)) for part in (text, requests[n].args[1]))
                self._ledger["cost"] += float(self._cost_model.hop_cost(model, read, written))
                self._ledger["hops"] += 1
        return scored

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Not possible: perplexity has no query that could be routed."""
        raise UserError("perplexity tasks have no query to route; use --model hf for them")

    def get_model_info(self) -> dict[str, Any]:
        """The ledger, for lm-eval's `results["config"]`: cost and hops over all requests so far."""
        return {"routed": {**self._ledger, "cost_unit": self._cost_model.unit, "router": self._spec}}

    def _tree(self, asked: Sequence[tuple[str, GenerationSettings]]) -> tuple[Tree, dict[Any, int]]:
        distinct = list(dict.fromkeys(asked))
        items = [Item("lm-eval", n, query, settings, "test") for n, (query, settings) in enumerate(distinct)]
        tree = Tree(items, self.pool.model_names, self._max_hops, self._generator, lambda answers: [0.0] * len(answers))
        return tree, {request: index for index, request in enumerate(distinct)}

    def _bill(self, tree: Tree, episodes: Any, place: dict[Any, int]) -> None:
        self._ledger["requests"] += len(place)
        self._ledger["cost"] += float(episodes.cost.sum())
        self._ledger["routing_cost"] += float(episodes.routing_cost.sum())
        self._ledger["hops"] += int(tree.depth[episodes.node].sum())


# lm-eval fills its registry when `lm_eval.models` is imported; the start-up hook may have put the name there already.
assert lm_eval.models.MODEL_MAPPING
if "routed" not in model_registry:
    model_registry.register("routed", target=RoutedLM)
