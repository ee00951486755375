"""A router over a pool as a model of lm-eval: `python -m harness lm-eval --model routed --model_args router=...`."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval.models
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import model_registry
from rich.console import Console

from harness.evaluation.rollout import Episodes, rollout
from harness.evaluation.summary import ARROW
from harness.runs.progress import generation_progress
from harness.serving.routed import Query, routed
from pools.cost import COST_WEIGHT
from pools.errors import UserError
from pools.mdp.tree import Tree
from pools.models.api import reason
from pools.models.engine import is_server, no_answer
from pools.models.generator import LiveGenerator
from pools.pool import CandidateModel
from pools.secrets import harmless
from pools.types import Generation, GenerationSettings, UpstreamError
from tasks.lm_eval_task import generation_settings

# Of the hops before a multiple-choice question is scored; the task itself names none.
_HOP_SETTINGS = GenerationSettings((), 256)


log = logging.getLogger("lm_eval.routed")  # below lm-eval's, which is shown


@dataclass
class Bill:
    """What a request came to.

    pipeline: the models in their order. calls: the same, but the one that scores choices is there once for each.
    """

    task: str
    pipeline: list[str]
    calls: list[str]
    cost: float
    routing_cost: float


class RoutedLM(LM):
    """Runs a router over a pool; hops are batched over requests and grouped by model.

    Text tasks are answered by the last response. Multiple-choice tasks are scored by the last hop's model, which reads
    what the hops before it answered. Scoring is billed as a hop for each choice. The arguments are documented in
    docs/guides/lm-eval.md; `batch_size`, `max_batch_size` and `device` are lm-eval's and have no effect: the pool says
    them.
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
        cost_weight: float = COST_WEIGHT,
        seed: int = 1,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        for name in unknown:
            known = list(inspect.signature(RoutedLM).parameters)[:-1]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
            raise UserError(f"model routed has no argument {name!r}; {hint}")
        numbers = {"max_hops": max_hops, "seed": seed}
        for name, given in numbers.items():
            if not (given is None or (isinstance(given, int) and not isinstance(given, bool))):
                raise UserError(f"model routed: {name}={given}: expected a whole number")
        if not isinstance(allow_stop, bool):
            raise UserError(f"model routed: allow_stop={allow_stop}: expected True or False")
        if not isinstance(cost_weight, int | float):
            raise UserError(f"model routed: cost_weight={cost_weight}: expected a number")
        with generation_progress(Console(stderr=True)):  # a router may learn, for minutes
            self._routed = routed(
                router,
                pool,
                recording=None if recording is None else Path(recording),
                train_on=None if train_on is None else Path(train_on),
                weights=None if weights is None else Path(weights),
                store=Path(store),
                checkpoint=None if checkpoint is None else Path(checkpoint),
                max_hops=max_hops,
                allow_stop=allow_stop,
                cost=cost,
                cost_weight=float(cost_weight),
                seed=seed,
                say=log.info,
            )
        self.pool, self._seed = self._routed.pool, seed
        self._bills: list[Bill] = []

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The last response of each request's episode."""
        asked = [(str(r.args[0]), generation_settings(r.task_name or "request", r.args[1])) for r in requests]
        tree, episodes, place, bills = self._episodes(requests, asked)
        self._charge(bills)
        return [tree.generation(index, int(episodes.node[index])).response for index in place]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Log-likelihoods of the continuations, by the model that the router chose for the last hop."""
        generator = self._routed.generator
        if not isinstance(generator, LiveGenerator):
            raise UserError("a recording holds no likelihoods: multiple-choice tasks need the models, no recording=")
        asked = [(str(r.args[0]), _HOP_SETTINGS) for r in requests]
        tree, episodes, place, bills = self._episodes(requests, asked, answer_last=False)
        # A router that stopped after some response is scored by the model that gave it, before it answered.
        stopped = episodes.pending < 0
        last = np.where(stopped, tree.action(np.maximum(episodes.node, 1)), episodes.pending)
        node = np.where(stopped, tree.parent(np.maximum(episodes.node, 1)), episodes.node)
        for index in np.flatnonzero(~stopped).tolist():
            bills[index].pipeline.append(self.pool.model_names[last[index]])
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
                if is_server(lm) and not isinstance(error, UserError):
                    raise _unscored(lm, self.pool.models[model], error) from harmless(error)
                if harmless(error) is None:  # lm-eval prints the traceback
                    raise UserError(f"model {self.pool.model_names[model]} failed: {error!r}") from None
                raise
            for n, text, result in zip(mine, texts, found, strict=True):
                scored[n] = result
                # Scoring a choice is a hop that ran: it reads the context and the continuation.
                read, written = (len(lm.tok_encode(part)) for part in (text, requests[n].args[1]))
                scoring = Generation("", read, written, "stop", 0.0)
                bills[place[n]].cost += self._routed.cost_model.hop_cost(model, scoring)
                bills[place[n]].calls.append(self.pool.model_names[model])
        self._charge(bills)
        return scored

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Not possible: perplexity has no query that could be routed."""
        raise UserError("perplexity tasks have no query to route; use --model hf for them")

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval's results say in `config`: what all requests so far cost, and who was called."""
        asked = {"router": self._routed.name, "pool": self.pool.name, "cost_unit": self._routed.cost_model.unit}
        tasks = {
            task: figures([bill for bill in self._bills if bill.task == task])
            for task in dict.fromkeys(bill.task for bill in self._bills)
        }
        return {"routed": {**asked, **figures(self._bills), "tasks": tasks}}

    def _charge(self, bills: Sequence[Bill]) -> None:
        """Keep the bills, and log what they come to."""
        self._bills += bills
        said = figures(bills)
        shares = ", ".join(f"{name} {share:.0%}" for name, share in list(said["pipelines"].items())[:5])
        cost = f"{said['cost']:.3g} {self._routed.cost_model.unit}"
        log.info(
            f"{self._routed.name}: {said['requests']} requests, mean cost {cost}, {said['hops']:.2f} hops: {shares}"
        )

    def _episodes(
        self, requests: Sequence[Instance], queries: list[Query], answer_last: bool = True
    ) -> tuple[Tree, Episodes, list[int], list[Bill]]:
        """One episode of each distinct query, which of them is that of each query, and what each came to."""
        place = {query: index for index, query in enumerate(dict.fromkeys(queries))}
        tree = self._routed.tree(list(place))
        with self._shown():
            episodes = rollout(self._routed.router, tree, self._seed, answer_last)
        # Of tasks that ask the same, the first is billed.
        task = {query: str(r.task_name or "") for r, query in reversed(list(zip(requests, queries, strict=True)))}
        bills = []
        for query, index in place.items():
            called = [tree.models[action] for action in tree.pipeline(int(episodes.node[index]))]
            costs = float(episodes.cost[index]), float(episodes.routing_cost[index])
            bills.append(Bill(task[query], called, called.copy(), *costs))
        return tree, episodes, [place[query] for query in queries], bills

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


def _unscored(lm: Any, model: CandidateModel, error: Exception) -> UserError:
    """Why the server behind a model has scored no choices."""
    instead = "use `local-completions` with a `tokenizer` and a server that has them (vLLM), or tasks that ask for text"
    if isinstance(error, NotImplementedError | AssertionError):  # lm-eval's, of its model types
        return UserError(f"model {model.name} gives no likelihoods: {str(error).rstrip('.')}; {instead}")
    if isinstance(error, LookupError | TypeError):
        missing = "its reply holds no log-probabilities of the prompt (`echo` and `logprobs`)"
        return UserError(f"model {model.name} gives no likelihoods: {missing}; {instead}")
    return UpstreamError(no_answer(lm, model, reason(error)))


def figures(bills: Sequence[Bill]) -> dict[str, Any]:
    """Means over requests, as `summary.json` has them over items: cost, hops, calls by model, shares of pipelines."""
    number = max(len(bills), 1)
    calls = Counter(name for bill in bills for name in bill.calls)
    pipelines = Counter(ARROW.join(bill.pipeline) for bill in bills)
    return {
        "requests": len(bills),
        "cost": sum(bill.cost for bill in bills) / number,
        "routing_cost": sum(bill.routing_cost for bill in bills) / number,
        "hops": calls.total() / number,
        "calls": {name: times / number for name, times in calls.most_common()},
        "pipelines": {name: times / number for name, times in pipelines.most_common()},
    }


# lm-eval fills its registry when `lm_eval.models` is imported.
assert lm_eval.models.MODEL_MAPPING
if "routed" not in model_registry:
    model_registry.register("routed", target=RoutedLM)
