"""The Ray engine on a Ray of this machine: the same responses as in this process, whatever dies on the way."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from pools.data.store import TransitionStore
from pools.errors import UserError
from pools.models.engine import Answers, LocalEngine, Request, build_engine
from pools.models.generator import LiveGenerator
from pools.models.progress import Batch, Loading, Silence, UnderWay
from pools.pool import Pool, Resources, load_pool
from pools.types import Context, Generation, GenerationSettings

ray = pytest.importorskip("ray")
import pools.models.ray  # noqa: E402
from pools.models.ray import RayEngine, _Reports  # noqa: E402

SHORT, LONG = GenerationSettings((), 4), GenerationSettings(("zz",), 12)


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[Path]:
    """The folder of its logs."""
    started = ray.init(num_cpus=4, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    yield Path(started.address_info["session_dir"]) / "logs"
    ray.shutdown()


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that every test asks actors what they have, those that die, too."""
    monkeypatch.setattr(pools.models.ray, "_BETWEEN_LOOKS", 0.05)


@pytest.fixture
def pool(tiny_pool_file: Path) -> Pool:
    return load_pool(str(tiny_pool_file))


def requests(number: int) -> list[Request]:
    return [(Context(f"Question {n} of them", ("no",) * (n % 3)), (SHORT, LONG)[n % 2]) for n in range(number)]


def texts(made: Sequence[Generation]) -> list[tuple[str, int, int]]:
    return [(one.response, one.tokens_in, one.tokens_out) for one in made]


def resources(pool: Pool, *each: Resources) -> Pool:
    return replace(pool, models=tuple(replace(m, resources=r) for m, r in zip(pool.models, each, strict=True)))


def test_the_responses_are_those_of_this_process(pool: Pool, tmp_path: Path) -> None:
    asked = {0: requests(30), 1: requests(18)}
    here = LiveGenerator(pool).generate_all(asked)
    several = resources(pool, Resources(replicas=2), Resources())
    store = TransitionStore(tmp_path / "s", {"by": "ray"})
    there = LiveGenerator(several, store=store, engine=RayEngine(several))
    made = there.generate_all(asked)
    assert {model: texts(found) for model, found in made.items()} == {m: texts(found) for m, found in here.items()}
    assert len(store) == 48 and there.generate_all(asked) == made


def test_loading_tokens_and_responses_are_told_while_a_batch_runs(pool: Pool) -> None:
    told: list[Any] = []
    asked = [(Context(f"Question {n}"), GenerationSettings((), 500)) for n in range(4)]  # one batch
    made = LiveGenerator(pool, progress=told.append, engine="ray").generate(0, asked)
    begun, loading, loaded, *under_way, batch = told
    assert begun == Batch("tiny-a", 0, 4, 0, 0) and loading == Loading("tiny-a") and loaded.seconds > 0
    assert {type(event) for event in under_way} == {UnderWay} and batch.done == 4
    tokens = [event.tokens_out for event in under_way]
    assert tokens == sorted(tokens) and len(set(tokens)) > 2 and tokens[-1] <= sum(g.tokens_out for g in made) + 4


def test_the_actors_of_a_model_are_told_of_as_one() -> None:
    told: list[Any] = []
    reports, loads, loaded = _Reports(told.append), Loading("a"), Loading("a", 2.0)
    silence, one, other = Silence("a", "why"), UnderWay("a", 1, 10), UnderWay("a", 2, 30)

    def heard(actor: str, *events: Any, model: str = "a") -> list[Any]:
        told.clear()
        reports.hear(model, actor, {type(event): event for event in events})
        reports.say_under_way(model)
        return told

    assert heard("first") == []
    assert heard("first", loads) == [loads]
    assert heard("second", Loading("a", 3.0), silence) == [Loading("a", 3.0), silence]
    assert heard("second", Loading("a", 3.0), silence, other) == [other]
    assert heard("first", loaded, one) == [UnderWay("a", 3, 40)]
    assert heard("second", Loading("a", 3.0)) == [one], "its batch has ended"
    assert heard("third", Loading("b", 1.0), model="b") == [Loading("b"), Loading("b", 1.0)]


def test_what_an_actor_said_before_its_batch_ended_is_not_told(pool: Pool) -> None:
    """Or the batch would be counted twice; and nothing is said of an actor that died."""
    told: list[Any] = []
    actor = RayEngine(pool)._actor(0)
    reports = _Reports(told.append)
    reports.ask([("tiny-a", actor)])
    reports.ask([("tiny-a", actor)])
    assert len(reports.asked) == 1, "until it has answered"
    reports.hear("tiny-a", actor, {})
    assert not reports.asked
    ray.kill(actor)
    reports.ask([("tiny-a", actor)])
    [question] = reports.asked
    ray.wait([question])
    reports.receive(question)
    assert not told and not reports.asked


def test_models_that_do_not_fit_together_take_turns(pool: Pool) -> None:
    large = resources(pool, Resources(num_cpus=3), Resources(replicas=2, num_cpus=2))
    made = LiveGenerator(large, engine=RayEngine(large)).generate_all({0: requests(5), 1: requests(5)})
    assert [len(found) for found in made.values()] == [5, 5]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Resources(replicas=3, num_cpus=2), "needs 6 CPU for its 3 actors, the cluster has 4"),
        (Resources(num_gpus=1), "needs 1 GPU"),
        (Resources(custom={"tpu": 0.5}), "needs 0.5 tpu"),
    ],
)
def test_what_the_cluster_has_no_room_for_is_said_before_anything_runs(pool: Pool, given: Resources, said: str) -> None:
    with pytest.raises(UserError, match=said):
        RayEngine(resources(pool, Resources(), given))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999", "no-such-host.invalid:1"])
def test_where_nobody_listens_ray_is_not_asked(pool: Pool, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("it would try for minutes"))
    with pytest.raises(UserError, match=rf"no Ray cluster at {address}: .*; check the address") as error:
        RayEngine(pool, address=address)
    assert "\n" not in str(error.value)


def test_where_somebody_listens_who_is_no_ray(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(ConnectionError("nobody\nthere")))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"no Ray cluster at {address}: nobody there; check the address"):
            RayEngine(pool, address=address)


def test_without_an_address_no_cluster_is_joined(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **_: asked.append(address))
    for name in ("ray", "ray:", "ray:auto"):
        assert isinstance(build_engine(name, LocalEngine(pool)), RayEngine)
    assert asked == ["local", "local", "auto"]


def test_actors_that_are_killed_lose_nothing(pool: Pool, tmp_path: Path, counted: Any, faults: int) -> None:
    several = resources(pool, Resources(replicas=2), Resources())
    asked = {0: requests(60 * faults), 1: requests(60 * faults)}
    expected = LiveGenerator(pool).generate_all(asked)
    killed: list[int] = []
    done = threading.Event()

    def kill() -> None:
        while len(killed) < faults and not done.is_set():
            for process in psutil.Process().children(recursive=True):  # another Ray on this machine is left alone
                with suppress(psutil.Error):
                    if len(killed) < faults and process.name().startswith("ray::Worker"):
                        process.kill()
                        killed.append(process.pid)
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    store = TransitionStore(tmp_path / "s")
    try:
        made = LiveGenerator(several, store=store, engine=RayEngine(several, tries=50 * faults)).generate_all(asked)
    finally:
        done.set()
        killer.join()
    assert len(killed) == faults
    wrong = sum(texts(found) != texts(expected[model]) for model, found in made.items())
    counted("SIGKILL", "Ray actor", len(killed), lost=120 * faults - len(store), wrong=wrong)


def test_a_batch_that_kills_every_actor_ends_the_recording(pool: Pool, tmp_path: Path, monkeypatch: Any) -> None:
    import pools.models.ray as module

    class Poisoned(module.Worker):
        def run(self, requests: Sequence[Request]) -> Answers:
            if requests[0][1].max_new_tokens == 5:
                os._exit(1)
            return super().run(requests)

    monkeypatch.setattr(module, "Worker", Poisoned)
    store = TransitionStore(tmp_path / "s")
    generator = LiveGenerator(pool, store=store, engine=RayEngine(pool, tries=2))
    poisoned = [(Context("last"), GenerationSettings((), 5))]
    with pytest.raises(UserError, match=r"actors of model tiny-a died 2 times at the same batch.*is stored"):
        generator.generate(0, requests(10) + poisoned)
    assert 0 < len(store) <= 10


def test_a_model_that_cannot_be_loaded_is_said_as_in_this_process(pool: Pool) -> None:
    missing = replace(pool, models=(replace(pool.models[0], arguments={"dtype": "no such type"}), pool.models[1]))
    with pytest.raises(UserError, match="model tiny-a cannot be loaded") as error:
        LiveGenerator(missing, engine=RayEngine(missing)).generate(0, requests(2))
    assert "\n" not in str(error.value)


def test_a_key_is_in_no_log_of_the_cluster(pool: Pool, local_ray: Path) -> None:
    """lm-eval logs the request that failed, with its headers, in the actor's process."""
    key = "sk-of-a-server-that-answers-501"
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1/chat/completions?key={key}"
        header = {"Authorization": f"Bearer {key}"}
        arguments = {"model": "any", "base_url": url, "header": header, "num_concurrent": 4, "max_retries": 1}
        chat = {"lm_eval": "local-chat-completions", "chat_template": True, "weights": None}
        asking = replace(pool, models=(replace(pool.models[0], arguments=arguments, **chat),))
        with pytest.raises(UserError, match=r"key=\*\*\* did not answer: status 501") as error:
            LiveGenerator(asking, engine=RayEngine(asking)).generate(0, requests(3))
        server.shutdown()
    assert key not in str(error.value)
    logs = [path for path in local_ray.rglob("*") if path.is_file()]
    assert len(logs) > 10 and [path.name for path in logs if key.encode() in path.read_bytes()] == []
