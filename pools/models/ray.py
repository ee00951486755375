"""A pool's models on the machines of a Ray cluster: actors per model, batches in, generations out.

Only this process writes to the store. Batches are handed out as actors become free, so what waits is here and not in
Ray's memory; a batch whose actor died is handed out again.
"""

from __future__ import annotations

import itertools
import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pools.errors import UserError
from pools.models.engine import Answers, LocalEngine, Request
from pools.pool import CandidateModel, Pool
from pools.secrets import clean, harmless

INSTALL = "pip install ray"
# Of an actor: the one that it runs, and one that is there when it has ended.
_IN_FLIGHT = 2
_PATIENCE = 5.0  # seconds until a cluster's machine has to be there


class Worker:
    """One model, in a process of its own; it is loaded with the first batch."""

    def __init__(self, pool: Pool, model: int, weights_dir: Path | None) -> None:
        self._engine, self._model = LocalEngine(pool, weights_dir), model

    def run(self, requests: Sequence[Request]) -> Answers:
        """The answers to requests of the same settings."""
        return self._engine.run_batch(self._model, requests)


@dataclass
class _Work:
    """What is left of one model's batches, and who is at it."""

    batches: Sequence[Sequence[Request]]
    waiting: deque[int]
    actors: list[Any] = field(default_factory=list)
    tries: dict[int, int] = field(default_factory=dict)


class RayEngine:
    """Runs each model in as many actors as its `resources` in the pool file say.

    address: of a running cluster (`auto`: the one that this machine belongs to); by default a Ray of this machine
    alone, for as long as this process lives. tries: how often a batch is handed out before the recording ends.
    Where the cluster has not the room for all models at once, they take turns. Weights must be found at the same paths
    on every machine, or come from the hub.
    """

    def __init__(self, pool: Pool, weights_dir: Path | None = None, address: str | None = None, tries: int = 5) -> None:
        try:
            import ray
        except ImportError:
            raise UserError(f"the Ray engine needs a package that is not installed: {INSTALL}") from None
        self.pool, self.tries = pool, tries
        self.weights_dir = None if weights_dir is None else weights_dir.resolve()
        if not ray.is_initialized():
            try:
                _knock(address or "")
                # Not None, with which Ray joins whatever cluster this machine or RAY_ADDRESS knows of.
                quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
                ray.init(address=address or "local", **quiet)
            except (OSError, ValueError, OverflowError, RuntimeError) as error:
                said = clean(" ".join(str(error).split()))[:200]
                raise UserError(f"no Ray cluster at {address}: {said}; check the address, or leave it away") from None
        for model in pool.models:
            self._check_room(model)

    def run(self, batches: Mapping[int, Sequence[Sequence[Request]]]) -> Iterator[tuple[int, int, Answers]]:
        """The batches of all models at the same time, as far as the cluster has room; yields them as they end.

        Raises UserError where a batch has failed in `tries` actors, and where a model cannot be loaded.
        """
        for together in self._turns(list(batches)):
            yield from self._run({model: batches[model] for model in together})

    def _run(self, batches: Mapping[int, Sequence[Sequence[Request]]]) -> Iterator[tuple[int, int, Answers]]:
        import ray

        works = {model: _Work(of_model, deque(range(len(of_model)))) for model, of_model in batches.items()}
        running: dict[Any, tuple[int, int, Any]] = {}
        try:
            for model, work in works.items():
                number = min(self.pool.models[model].resources.replicas, len(work.batches))
                work.actors = [self._actor(model) for _ in range(number)]
                for actor in itertools.chain.from_iterable(itertools.repeat(work.actors, _IN_FLIGHT)):
                    self._hand_out(model, work, actor, running)
            while running:
                (ended, *_), _ = ray.wait(list(running), num_returns=1)
                model, number, actor = running.pop(ended)
                work = works[model]
                try:
                    made = ray.get(ended)
                except ray.exceptions.RayActorError as error:
                    self._count_failure(model, work, number, error)
                    work.waiting.appendleft(number)
                    if actor in work.actors:  # its other batch may have been told first
                        work.actors.remove(actor)
                        work.actors.append(self._actor(model))
                    for other in work.actors:
                        self._hand_out(model, work, other, running)
                    continue
                except ray.exceptions.RayTaskError as error:
                    cause = error.cause
                    if isinstance(cause, UserError):
                        raise UserError(str(cause)) from None
                    said = clean(" ".join(str(cause).split()))
                    raise UserError(
                        f"model {self.pool.models[model].name} failed: {said[:300]}; what was "
                        "generated is stored, the same command goes on from there"
                    ) from harmless(error)
                yield model, number, made
                self._hand_out(model, work, actor, running)
        finally:
            for work in works.values():
                for actor in work.actors:
                    ray.kill(actor)

    def _hand_out(self, model: int, work: _Work, actor: Any, running: dict[Any, tuple[int, int, Any]]) -> None:
        busy = sum(of is actor for _, _, of in running.values())
        if work.waiting and busy < _IN_FLIGHT:
            number = work.waiting.popleft()
            running[actor.run.remote(list(work.batches[number]))] = model, number, actor

    def _count_failure(self, model: int, work: _Work, number: int, error: Exception) -> None:
        work.tries[number] = work.tries.get(number, 0) + 1
        if work.tries[number] >= self.tries:
            said = clean(" ".join(str(error).split()))[:300]
            raise UserError(
                f"the actors of model {self.pool.models[model].name} died {self.tries} times at the same batch: "
                f"{said}; check its memory and `resources`; what was generated is stored, so the same command goes on"
            )

    def _actor(self, model: int) -> Any:
        import ray

        resources = self.pool.models[model].resources
        needs = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus, "resources": resources.custom}
        # An actor that died is not restarted by Ray but made anew here, where its batches are known.
        return ray.remote(Worker).options(max_restarts=0, **needs).remote(self.pool, model, self.weights_dir)

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


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at `host:port` or `ray://host:port`: Ray itself would try for minutes."""
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
