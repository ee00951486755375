"""A pool's models on the machines of a Ray cluster: actors per model, batches in, generations out.

Only this process writes to the store. Batches are handed out as actors become free, so what waits is here and not in
Ray's memory; a batch whose actor died is handed out again. Every few seconds the actors are asked what they have of the
batches under way.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pools.errors import UserError
from pools.extras import installing
from pools.models.engine import Answers, LocalEngine, Request, register_engine
from pools.models.progress import Batch, Loading, Progress, Silence, UnderWay
from pools.pool import CandidateModel, Pool
from pools.secrets import clean, harmless

# Of an actor: the one that it runs, and one that is there when it has ended.
_IN_FLIGHT = 2
_PATIENCE = 5.0  # seconds until a cluster's machine has to be there
_BETWEEN_LOOKS = 5.0  # seconds

Told = Mapping[type, Any]
"""What an actor told last of each kind: Loading and, of the batch under way, Silence and UnderWay."""


class Worker:
    """One model, in a process of its own; it is loaded with the first batch."""

    def __init__(self, pool: Pool, model: int, weights_dir: Path | None) -> None:
        self._engine, self._model = LocalEngine(pool, weights_dir, progress=self._tell), model
        self._told: dict[type, Any] = {}

    def run(self, requests: Sequence[Request]) -> tuple[Answers, Told]:
        """The answers to requests of the same settings, and what is told of loading."""
        answers = self._engine.run_batch(self._model, requests)
        self._told = {kind: event for kind, event in self._told.items() if kind is Loading}
        return answers, self.told()

    def told(self) -> Told:
        """What was told so far; answered while a batch runs."""
        return self._told.copy()

    def _tell(self, event: Loading | Silence | UnderWay | Batch) -> None:
        self._told[type(event)] = event


@register_engine("ray")
class RayEngine:
    """Runs each model in as many actors as its `resources` in the pool file say.

    address: of a running cluster (`auto`: the one that this machine belongs to); by default a Ray of this machine
    alone, for as long as this process lives. tries: how often a batch is handed out before the recording ends.
    Where the cluster has not the room for all models at once, they take turns. Weights must be found at the same paths
    on every machine, or come from the hub. progress: is told of loading, tokens and responses as it is in one process.
    """

    def __init__(
        self,
        pool: Pool,
        weights_dir: Path | None = None,
        address: str | None = None,
        tries: int = 5,
        progress: Progress | None = None,
    ) -> None:
        try:
            import ray
        except ImportError:
            raise UserError(f"the Ray engine needs a package that is not installed: {installing('ray')}") from None
        self.pool, self.tries, self._progress = pool, tries, progress or (lambda event: None)
        self.weights_dir = None if weights_dir is None else weights_dir.resolve()
        if not ray.is_initialized():
            # Or the failures of other actors are printed as tracebacks after our line.
            os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
            try:
                _knock(address or "")
                # Not None, with which Ray joins whatever cluster this machine or RAY_ADDRESS knows of.
                quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
                ray.init(address=address or "local", **quiet)
            except (OSError, ValueError, OverflowError, RuntimeError) as error:
                said = clean(" ".join(str(error).split()))[:200]
                raise UserError(f"no Ray cluster at {address}: {said}; check the address, or omit it") from None
        for model in pool.models:
            self._check_room(model)

    @classmethod
    def build(cls, argument: str, local: LocalEngine) -> RayEngine:
        """On the cluster of an address, or on a Ray of this machine if none is named."""
        return cls(local.pool, local.weights_dir, argument or None, progress=local.progress)

    def run(self, batches: Mapping[int, Sequence[Sequence[Request]]]) -> Iterator[tuple[int, int, Answers]]:
        """The batches of all models at the same time, as far as the cluster has room; yields them as they end.

        Raises UserError if a batch has failed in `tries` actors, and if a model cannot be loaded.
        """
        for together in self._turns(list(batches)):
            yield from self._run({model: batches[model] for model in together})

    def _run(self, batches: Mapping[int, Sequence[Sequence[Request]]]) -> Iterator[tuple[int, int, Answers]]:
        import ray

        waiting = {model: deque(enumerate(of_model)) for model, of_model in batches.items()}
        actors: list[tuple[int, Any]] = []
        running: dict[Any, tuple[int, int, Any]] = {}
        reports, next_look = _Reports(self._progress), time.monotonic()

        def hand_out(model: int, actor: Any) -> None:
            if waiting[model]:
                number, batch = waiting[model].popleft()
                running[actor.run.remote(list(batch))] = model, number, actor

        try:
            for model, of_model in batches.items():
                replicas = min(self.pool.models[model].resources.replicas, len(of_model))
                actors += [(model, self._actor(model)) for _ in range(replicas)]
            for model, actor in actors * _IN_FLIGHT:
                hand_out(model, actor)
            while running:
                if time.monotonic() >= next_look:
                    reports.ask([(self.pool.models[model].name, actor) for model, actor in actors])
                    next_look = time.monotonic() + _BETWEEN_LOOKS
                left = max(0.0, next_look - time.monotonic())
                ready, _ = ray.wait([*running, *reports.asked], num_returns=1, timeout=left)
                for ended in ready:
                    if ended not in running:
                        reports.receive(ended)
                        continue
                    model, number, actor = running.pop(ended)
                    answers, told = self._answers(model, ended)
                    reports.hear(self.pool.models[model].name, actor, told)
                    yield model, number, answers
                    reports.say_under_way(self.pool.models[model].name)
                    hand_out(model, actor)
        finally:
            for _, actor in actors:
                ray.kill(actor)

    def _answers(self, model: int, ended: Any) -> tuple[Answers, Told]:
        import ray

        name = self.pool.models[model].name
        try:
            answers: tuple[Answers, Told] = ray.get(ended)
            return answers
        except ray.exceptions.RayActorError as error:
            said = clean(" ".join(str(error).split()))[:300]
            raise UserError(
                f"the actors of model {name} died {self.tries} times at the same batch: {said}; check its memory and "
                "`resources`; what was generated is stored, so the same command goes on"
            ) from None
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from None
            said = clean(" ".join(str(error.cause).split()))[:300]
            raise UserError(
                f"model {name} failed: {said}; what was generated is stored, the same command goes on from there"
            ) from harmless(error)

    def _actor(self, model: int) -> Any:
        """An actor that Ray makes anew if it dies, and whose batches are then handed out again."""
        import ray

        resources = self.pool.models[model].resources
        needs = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus, "resources": resources.custom}
        # What it has so far is asked for in a group of its own, or the question would wait behind the batches.
        remote = ray.remote(concurrency_groups={"told": 1})(Worker)
        lasting = remote.options(max_restarts=-1, max_task_retries=self.tries - 1, **needs)
        return lasting.remote(self.pool, model, self.weights_dir)

    def _turns(self, models: Sequence[int]) -> list[list[int]]:
        """The models in groups that the cluster has room for at once."""
        turns: list[list[int]] = []
        left: dict[str, float] = {}
        for model in models:
            needs = _needs(self.pool.models[model])
            if not turns or any(need > left.get(name, 0.0) for name, need in needs.items()):
                turns.append([])
                left = dict(_cluster())
            turns[-1].append(model)
            left = {name: room - needs.get(name, 0.0) for name, room in left.items()}
        return turns

    def _check_room(self, model: CandidateModel) -> None:
        room = _cluster()
        for name, need in _needs(model).items():
            if need > room.get(name, 0.0):
                raise UserError(
                    f"model {model.name} needs {need:g} {name} for its {model.resources.replicas} actors, the cluster "
                    f"has {room.get(name, 0.0):g}; lower `replicas` or `resources` in the pool file, or add machines"
                )


class _Reports:
    """What the actors told last, passed on as if each model were in one process: batches under way are summed."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.asked: dict[Any, tuple[str, Any]] = {}
        """Model and actor of each question that is not answered."""
        self._last: dict[tuple[str, Any], Told] = {}
        self._loading: set[tuple[str, bool]] = set()

    def ask(self, actors: Sequence[tuple[str, Any]]) -> None:
        """Ask the actors, but for those that have not answered yet: they are being made."""
        waiting = set(self.asked.values())
        for model, actor in actors:
            if (model, actor) not in waiting:
                self.asked[actor.told.options(concurrency_group="told").remote()] = model, actor

    def receive(self, answer: Any) -> None:
        """Pass on what an actor answers; nothing if it died."""
        import ray

        model, actor = self.asked.pop(answer)
        with suppress(ray.exceptions.RayError):
            self.hear(model, actor, ray.get(answer))
            self.say_under_way(model)

    def hear(self, model: str, actor: Any, told: Told) -> None:
        """Pass on what is new of loading, told once for all actors, and of silence. What was asked before is old."""
        self.asked = {question: of for question, of in self.asked.items() if of != (model, actor)}
        before, self._last[model, actor] = self._last.get((model, actor), {}), told
        if (loading := told.get(Loading)) is not None:
            for event in [Loading(model), loading] if loading.seconds is not None else [loading]:
                if (step := (model, event.seconds is None)) not in self._loading:
                    self._loading.add(step)
                    self._progress(event)
        if (silence := told.get(Silence)) is not None and silence != before.get(Silence):
            self._progress(silence)

    def say_under_way(self, model: str) -> None:
        """Tell what the batches of a model's actors have so far."""
        under_way = [told[UnderWay] for (of, _), told in self._last.items() if of == model and UnderWay in told]
        responses, tokens = (sum(getattr(each, what) for each in under_way) for what in ("responses", "tokens_out"))
        if under_way:
            self._progress(UnderWay(model, responses, tokens))


def _knock(address: str) -> None:
    """Raise OSError if nobody listens at `host:port` or `ray://host:port`: Ray itself would try for minutes."""
    scheme, _, place = address.rpartition("://")
    host, _, port = place.rpartition(":")
    if scheme in ("", "ray") and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def _needs(model: CandidateModel) -> dict[str, float]:
    each = {"CPU": model.resources.num_cpus, "GPU": model.resources.num_gpus, **model.resources.custom}
    return {name: need * model.resources.replicas for name, need in each.items() if need}


def _cluster() -> dict[str, float]:
    import ray

    return dict(ray.cluster_resources())
