"""`serve --log` and `--shadow`: what is logged, that it is read again, and that nobody waits for it."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from shipped import RECORDING

import harness as api
from pools.data.recording import load_recording
from pools.data.traffic import read_log
from pools.errors import UserError
from pools.types import Item
from routers import RouterRequest, RoutingStates, load
from served import Model, chat, routed, serving

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from harness.serving import traffic_log
from harness.serving.app import create_app
from harness.serving.batcher import Dispatcher
from harness.serving.routed import Routed
from harness.serving.traffic_log import RouterShadow, ShadowProcess, TrafficLog, router_shadow

Run = Callable[..., int]
SLEEPS = 0.5
SLOW_ROUTER = f"""
import time
import numpy as np
from routers.registry import register

class Slow:
    def act(self, states):
        time.sleep({SLEEPS})
        return np.ones(len(states.contexts), int)

@register("slow")
def slow(request):
    return Slow()
"""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return [item for item in load_recording(RECORDING).tree.items if item.task == "stories"][:8]


def test_no_client_waits_for_a_slow_shadow_and_every_call_is_in_the_log(tmp_path: Path, items: list[Item]) -> None:
    (tmp_path / "slow.py").write_text(SLOW_ROUTER)
    log, waited = tmp_path / "deep" / "log.jsonl", []
    arguments = ("--recording", RECORDING, "--router", "random", "--max-hops", 1, "--log", log)
    with (
        serving(*arguments, "--shadow", tmp_path / "slow.py") as (process, address),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        for number, item in enumerate(items):
            asked = chat(item.query, "random", max_tokens=item.settings.max_new_tokens, stop=[*item.settings.until])
            start = time.monotonic()
            reply = client.post("/v1/chat/completions", json={**asked, "stream": number == 0})
            waited.append(time.monotonic() - start)
            assert reply.status_code == 200
        deadline = time.monotonic() + 30
        while 'harness_logged_total{outcome="written"} 2.0' not in client.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "") and "every request that was taken is answered" in out
    assert sorted(waited)[len(items) // 2] < SLEEPS / 2, waited
    found = lines(log)
    assert [line["request"]["messages"][0]["content"] for line in found] == [item.query for item in items]
    # The shadow is asked no more once the server ends, so that the end does not wait for it either.
    decided = [line["shadow"] for line in found if "shadow" in line]
    models = load_recording(RECORDING).tree.models
    assert 2 <= len(decided) < len(items)
    decision = {"router": "slow", "max_hops": 1, "choices": {models[1]: 1.0}}
    assert all(each == decision for each in decided)
    for line in found:
        assert line["propensity"] == pytest.approx(1 / len(models)) and line["cost_unit"] == "T param-tokens"
        assert line["model"] in models and line["response"]["usage"]["cost"] == line["cost"] > 0
        assert 0 <= line["seconds"] < SLEEPS and line["response"]["choices"][0]["message"]["content"]


class Sides:
    """Answers with the model that was asked, so that it shows in the log."""

    def generate(self, model: int, requests: list[Any]) -> list[Any]:
        return Model(lambda query: f"said {model}").generate(model, requests)


class Leans:
    """Prefers the first model for even numbers, the second for odd ones."""

    def probabilities(self, states: RoutingStates) -> np.ndarray:
        odd = np.array([int(context.query.split()[1]) % 2 for context in states.contexts])
        return np.where(odd[:, None] == [0, 1], 0.75, 0.25)

    def act(self, states: RoutingStates) -> np.ndarray:
        raise AssertionError("its probabilities are asked for")


def two_models(router: Any) -> Routed:
    opened = routed(Model(str))
    pool = type("Pool", (), {"model_names": ("a", "b"), "name": "p"})()
    return Routed("r", router, pool, Sides(), opened.cost_model, 1)  # type: ignore[arg-type]


def served(router: Any, queries: list[str], path: Path, shadow: RouterShadow | None = None) -> None:
    """Answer the queries, and log them."""
    dispatcher = Dispatcher(two_models(router))
    log = TrafficLog(path, "u", dispatcher.metrics, shadow)
    client = TestClient(create_app(dispatcher, "m", log=log))
    for query in queries:
        assert client.post("/v1/chat/completions", json=chat(query)).status_code == 200
    deadline = time.monotonic() + 30
    while f'harness_logged_total{{outcome="written"}} {len(queries)}.0' not in client.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert log.close(30) and dispatcher.close(30)


def score(path: Path, right: Callable[[dict[str, Any]], float]) -> None:
    """Write a score into each line of a log, as whoever judges answers does."""
    path.write_text("".join(json.dumps({**line, "score": right(line)}) + "\n" for line in lines(path)))


def test_what_two_servers_logged_is_a_shadow_sample_that_imports(tmp_path: Path, harness: Run) -> None:
    log, queries = tmp_path / "log.jsonl", [f"Number {n} of all" for n in range(20)]
    for model in ("a", "b"):
        served(load(f"single:{model}", RouterRequest(models=("a", "b"))), queries, log)
    score(log, lambda line: float(line["model"] == "a"))
    assert harness("import", log, "--out", tmp_path / "recording") == 0
    tree = load_recording(tmp_path / "recording").tree
    assert tree.models == ("a", "b") and [item.query for item in tree.items] == queries
    assert tree.score[:, 1:].tolist() == [[1.0, 0.0]] * 20 and tree.cost_model.unit == "u"
    assert tree.generation(3, 2).response == "said 1" and (tree.cost[:, 1:] == 12.0).all()


def test_the_log_of_a_router_that_draws_estimates_its_shadow(tmp_path: Path) -> None:
    log, queries = tmp_path / "log.jsonl", [f"Number {n} of all" for n in range(600)]
    served(
        Leans(),
        queries,
        log,
        RouterShadow("always a", load("single:a", RouterRequest(models=("a", "b"))), ("a", "b"), 1),
    )
    calls = read_log(log)
    odd = [int(call.query.split()[1]) % 2 for call in calls]
    assert all(
        call.propensity == (0.75 if (call.answered_by == "b") == bool(o) else 0.25)
        for call, o in zip(calls, odd, strict=True)
    )
    score(log, lambda line: float(line["model"] == "a"))
    found = api.estimate(log, split="all", cost_weight=0)
    quality = found.routers["shadow:always a"].quality
    assert quality is not None and quality.doubly_robust.mean == pytest.approx(1)
    assert quality.inverse_propensity.mean == pytest.approx(1, abs=0.2)
    assert found.routers["shadow:always a"] == found.routers["single:a"]


def test_the_seed_decides_what_is_drawn() -> None:
    def answered(seed: int) -> list[str]:
        dispatcher = Dispatcher(two_models(Leans()), seed=seed)
        client = TestClient(create_app(dispatcher, "m"))
        answers = [client.post("/v1/chat/completions", json=chat(f"Number {n}")).json() for n in range(40)]
        assert dispatcher.close(30)
        return [answer["choices"][0]["message"]["content"] for answer in answers]

    assert answered(1) == answered(1) != answered(2)


def test_what_the_log_has_no_room_for_is_dropped_and_counted_and_a_shadow_that_fails_costs_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(traffic_log, "ROOM", 2)
    asked, go = threading.Event(), threading.Event()

    class Stuck:
        def act(self, states: RoutingStates) -> np.ndarray:
            asked.set()
            assert go.wait(30)
            raise ValueError("no\nidea")

    dispatcher = Dispatcher(two_models(load("single:b", RouterRequest(models=("a", "b")))))
    log = TrafficLog(tmp_path / "log.jsonl", "u", dispatcher.metrics, RouterShadow("s", Stuck(), ("a", "b"), 1))
    client = TestClient(create_app(dispatcher, "m", log=log))
    for number in range(5):  # one is with the shadow, two wait, two are too many
        assert client.post("/v1/chat/completions", json=chat(f"query {number}")).status_code == 200
        assert asked.wait(30)
    assert 'harness_logged_total{outcome="dropped"} 2.0' in client.get("/metrics").text
    assert not log.close(0.05)
    go.set()
    assert log.close(30) and dispatcher.close(30)
    found = lines(tmp_path / "log.jsonl")
    assert [line["request"]["messages"][0]["content"] for line in found] == ["query 0", "query 1", "query 2"]
    assert not any("shadow" in line for line in found) and "shadow router s: no idea" in caplog.text


FAILING_ROUTER = """
import os
import numpy as np
from routers.registry import register

class Failing:
    def act(self, states):
        if states.contexts[0].query == "die":
            os._exit(1)
        if states.contexts[0].query == "fail":
            raise ValueError("no idea")
        return np.zeros(len(states.contexts), int)

@register("failing")
def failing(request):
    return Failing()
"""


def test_a_shadow_in_a_process_of_its_own_outlives_its_errors_and_is_missed_when_it_is_gone(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING_ROUTER)
    given = {"router": str(tmp_path / "failing.py"), "pool": "lightweight", "recording": RECORDING, "max_hops": 1}
    shadow = ShadowProcess(partial(router_shadow, **given))
    first = {load_recording(RECORDING).tree.models[0]: 1.0}
    assert shadow.choices("a query") == first and shadow.max_hops == 1
    with pytest.raises(UserError, match="ValueError: no idea"):
        shadow.choices("fail")
    assert shadow.choices("a query") == first
    with pytest.raises(UserError, match="the process of the shadow router has ended"):
        shadow.choices("die")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--shadow", "random"), "name one with --log"),
        (("--shadow-checkpoint", "x", "--log", "y"), "name that with --shadow"),
        (("--log", "log.jsonl", "--shadow", "no-such"), "no-such"),
    ],
)
def test_a_shadow_without_a_log_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harness: Run, capsys: Any, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert harness("serve", "--recording", RECORDING, "--router", "random", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
