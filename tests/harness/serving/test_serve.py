"""`serve` as its users meet it: a process of its own, the openai client, lm-eval, curl's view of limits and metrics."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import harness
from harness.runs.source import recording_folder
from pools.cost import paper_cost
from pools.data.recording import load_recording
from pools.types import Item

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")

ROOT = Path(harness.__file__).parent.parent
RECORDING = recording_folder("lightweight", "offline")
ROUTER = "pipeline:qa-specialist>math-specialist"
KEY = "a key of its own"


@contextmanager
def serving(*arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its address; it is ended by SIGTERM, and has to end well."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "harness", "serve", "--port", "0", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        said = process.stdout.readline()
        found = re.search(r"at (http://\S+)/v1", said)
        assert found, said + process.stderr.read()
        yield process, found[1]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, ""), out
        assert "every request that was taken is answered" in out
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of a fixed pipeline over the shipped recording, with a key; its address."""
    arguments = ("--recording", RECORDING, "--router", ROUTER, "--name", "two-hops", "--max-body-bytes", 20_000)
    with serving(*arguments, HARNESS_API_KEY=KEY) as (_, address):
        yield address


@pytest.fixture(scope="module")
def items() -> list[Item]:
    tree = load_recording(RECORDING).tree
    return [item for item in tree.items if item.task == "rg_leg_counting"][:8]


def asked(item: Item, **more: Any) -> dict[str, Any]:
    """The request that asks an item's question with its settings."""
    settings = {"max_tokens": item.settings.max_new_tokens, "stop": list(item.settings.until)}
    return {"model": "two-hops", "messages": [{"role": "user", "content": item.query}], **settings, **more}


@pytest.fixture
def client(server: str) -> Any:
    return openai.OpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0)


def test_the_openai_client_gets_the_recorded_answer_and_what_it_cost(client: Any, items: list[Item]) -> None:
    recording = load_recording(RECORDING)
    tree, cost_model = recording.tree, recording.pool.cost_model("paper")
    for item in items[:3]:
        index = tree.items.index(item)
        first, node = (
            tree.node(map(tree.models.index, p)) for p in (["qa-specialist"], ["qa-specialist", "math-specialist"])
        )
        raw = client.chat.completions.with_raw_response.create(**asked(item))
        got = raw.parse()
        assert got.choices[0].message.content == tree.generation(index, node).response
        assert got.choices[0].finish_reason == tree.generation(index, node).finish_reason
        hops = [tree.generation(index, n) for n in (first, node)]
        assert got.usage.prompt_tokens == sum(hop.tokens_in for hop in hops)
        assert got.usage.completion_tokens == sum(hop.tokens_out for hop in hops)
        cost = float(tree.hop_cost(cost_model, [index] * 2, [first, node]).sum())
        assert got.usage.cost == pytest.approx(cost) and float(raw.headers["x-cost"]) == pytest.approx(cost, rel=1e-5)
        assert [hop["model"] for hop in got.usage.route] == ["qa-specialist", "math-specialist"]
        assert raw.headers["x-route"] == "qa-specialist > math-specialist"
        assert raw.headers["x-cost-unit"] == got.usage.cost_unit == "T param-tokens"


def test_streaming_gives_the_same_text(client: Any, items: list[Item]) -> None:
    whole = client.chat.completions.create(**asked(items[0]))
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(**asked(items[0]), **options))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage.cost == whole.usage.cost and len({chunk.id for chunk in chunks}) == 1


def test_models_are_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["two-hops"]
    assert client.models.retrieve("two-hops").object == "model"
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        client.models.retrieve("gpt")


def test_many_clients_at_once_get_their_own_answers(client: Any, items: list[Item]) -> None:
    alone = [client.chat.completions.create(**asked(item)).choices[0].message.content for item in items]
    with ThreadPoolExecutor(16) as threads:
        made = list(threads.map(lambda item: client.chat.completions.create(**asked(item)), items * 8))
    assert [one.choices[0].message.content for one in made] == alone * 8


def test_lm_eval_evaluates_it_from_outside(server: str, items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    arguments = {
        "base_url": f"{server}/v1/chat/completions",
        "model": "two-hops",
        "num_concurrent": 4,
        "max_retries": 1,
    }
    found = lm_eval.simple_evaluate(
        model="local-chat-completions",
        model_args=arguments,
        tasks=["rg_leg_counting"],
        task_manager=TaskManager(include_path=str(ROOT / "tasks")),
        limit=len(items),
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    tree = load_recording(RECORDING).tree
    node = tree.node([tree.models.index("qa-specialist"), tree.models.index("math-specialist")])
    expected = [tree.score[tree.items.index(item), node] for item in items]
    (score,) = (value for key, value in found["results"]["rg_leg_counting"].items() if isinstance(value, float))
    assert score == pytest.approx(sum(expected) / len(items))


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"model": "another"}, 404, "there is no model 'another'; there is 'two-hops'"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "role"),
        ({"messages": [{"role": "user", "content": "never recorded"}]}, 422, "the recording has no response"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 100_000}, 400, "at most 1024 are allowed"),
        ({"n": 2}, 400, "n:"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"logit_bias": {"50256": -100}}, 400, "logit_bias"),
        ({"stop": ["a", "b", "c", "d", "e"]}, 400, "at most 4 texts of 200 characters"),
        ({"stop": "x" * 201}, 400, "at most 4 texts of 200 characters"),
        ({"messages": [{"role": "user", "content": " \n"}]}, 400, "the messages are empty"),
        ({"messages": [{"role": "user", "content": "x" * 30_000}]}, 413, "more than 20000 bytes"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "surrogate"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_the_apis_form(
    server: str, items: list[Item], change: dict[str, Any], status: int, said: str
) -> None:
    body = json.dumps({**asked(items[0]), **change})
    headers = {"Authorization": f"Bearer {KEY}", "content-type": "application/json"}
    got = httpx.post(f"{server}/v1/chat/completions", content=body, headers=headers, timeout=60)
    assert got.status_code == status, got.text
    error = got.json()["error"]
    assert said in error["message"] and error["code"] == status and "\n" not in error["message"]


def test_what_asks_for_nothing_is_accepted(client: Any, items: list[Item]) -> None:
    nothing = {"tools": [], "functions": [], "logit_bias": {}, "response_format": {"type": "text"}}
    assert client.chat.completions.create(**asked(items[0]), extra_body=nothing).usage.cost > 0
    assert client.chat.completions.create(**asked(items[0]), extra_body=dict.fromkeys(nothing)).usage.cost > 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"x"', b'{"model": "two-hops"}'])
def test_garbage_is_refused(server: str, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "content-type": "application/json"}
    got = httpx.post(f"{server}/v1/chat/completions", content=body, headers=headers, timeout=60)
    assert got.status_code == 400 and got.json()["error"]["message"]


def test_a_body_of_unknown_length_is_limited_too(server: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    headers = {"Authorization": f"Bearer {KEY}", "content-type": "application/json"}
    got = httpx.post(f"{server}/v1/chat/completions", content=endless(), headers=headers, timeout=60)
    assert got.status_code == 413


def test_without_the_key_nothing_is_told_but_health(server: str, items: list[Item]) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}, {"Authorization": "ü"}):
        encoded = {name: value.encode() for name, value in headers.items()}
        for path in ("/v1/models", "/metrics", "/docs", "/openapi.json"):
            assert httpx.get(server + path, headers=encoded).status_code == 401
        got = httpx.post(f"{server}/v1/chat/completions", json=asked(items[0]), headers=encoded)
        assert got.status_code == 401 and got.json()["error"]["type"] == "authentication_error"
        assert httpx.get(f"{server}/health", headers=encoded).json() == {"status": "ok"}


def test_metrics_count_requests_hops_and_cost(server: str, client: Any, items: list[Item]) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    def read() -> dict[tuple[str, str], float]:
        text = httpx.get(f"{server}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
        families = text_string_to_metric_families(text)
        return {
            (s.name, ",".join(value for _, value in sorted(s.labels.items()))): s.value
            for family in families
            for s in family.samples
        }

    before = read()
    made = [client.chat.completions.create(**asked(item)) for item in items]
    after = read()

    def grown(name: str, label: str = "") -> float:
        return after[name, label] - before.get((name, label), 0.0)

    assert grown("harness_requests_total", "200") == len(items)
    assert grown("harness_hops_total", "qa-specialist") == grown("harness_hops_total", "math-specialist") == len(items)
    cost = sum(hop["cost"] for one in made for hop in one.usage.route if hop["model"] == "math-specialist")
    assert grown("harness_cost_total", "math-specialist") == pytest.approx(cost)
    written = sum(hop["tokens_out"] for one in made for hop in one.usage.route if hop["model"] == "qa-specialist")
    assert grown("harness_tokens_total", "written,qa-specialist") == written
    assert grown("harness_request_seconds_count") == len(items)
    assert after["harness_queries_waiting", ""] == 0


def test_sigterm_answers_what_was_taken(tiny_pool_file: Path) -> None:
    arguments = ("--pool", tiny_pool_file, "--router", "single:tiny-a", "--max-hops", 1)
    with serving(*arguments) as (process, address), ThreadPoolExecutor(8) as threads:
        body = {"model": "single:tiny-a", "max_tokens": 200, "messages": [{"role": "user", "content": "Go on, 1"}]}
        made = [threads.submit(httpx.post, f"{address}/v1/chat/completions", json=body, timeout=60) for _ in range(8)]
        deadline = time.monotonic() + 60
        while "harness_requests_open 8.0" not in httpx.get(f"{address}/metrics").text and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        answers = [future.result() for future in made]
        assert [answer.status_code for answer in answers] == [200] * 8
        assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
        process.wait(60)


def test_the_shipped_policy_is_served_with_its_own_horizon(tmp_path: Path) -> None:
    item = next(item for item in load_recording(RECORDING).tree.items if item.task == "rg_aiw")
    with serving("--recording", RECORDING) as (_, address):
        body = {**asked(item), "model": "hierrouter"}
        got = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60).json()
        assert 1 <= len(got["usage"]["route"]) <= 2 and got["usage"]["cost"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--router", "nobody"), "unknown router"),
        (("--pool", "nobody"), "nobody"),
        (("--router", "majority-vote"), "majority-vote asks every model and routes nothing"),
        (("--port", "-1"), "--port -1"),
        (("--batch-size", "0"), "--batch-size 0"),
        (("--host", "256.0.0.1"), "cannot listen at 256.0.0.1"),
        (("--api-key-file", "nowhere"), "--api-key-file nowhere cannot be read"),
        (("--seed", "77"), "no checkpoint of router hierrouter ships for pool lightweight and seed 77"),
        (("--weights", "nowhere"), "no such folder"),
    ],
)
def test_what_makes_no_server_is_said_in_one_line(
    harness: Callable[..., int], capsys: Any, arguments: tuple[str, ...], said: str
) -> None:
    defaults = () if {"--pool", "--weights"} & set(arguments) else ("--recording", RECORDING)
    assert harness("serve", *defaults, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_port_that_is_taken_is_said(harness: Callable[..., int], capsys: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert harness("serve", "--recording", RECORDING, "--port", port) == 2
    assert f"cannot listen at 127.0.0.1:{port}" in capsys.readouterr().err


def test_too_many_that_wait_are_refused_and_slow_ones_time_out(synthetic_tree: Callable[..., Any]) -> None:
    from fastapi.testclient import TestClient

    from harness.serving.app import Limits, create_app
    from harness.serving.batcher import Dispatcher
    from harness.serving.routed import Routed
    from pools.pool import load_pool
    from pools.types import Generation
    from routers import RouterRequest, load

    go = threading.Event()

    class Slow:
        def generate(self, model: int, requests: Any) -> list[Generation]:
            assert go.wait(60)
            return [Generation("done", 1, 1, "stop", 0.0) for _ in requests]

    def open() -> Routed:
        router = load("single:a", RouterRequest(models=("a", "b"), max_hops=1))
        return Routed("single:a", router, load_pool("lightweight"), Slow(), paper_cost((1.0, 1.0, 1.0), "u"), 1)

    dispatcher = Dispatcher(open, batch_size=1, waiting=2)
    client = TestClient(create_app(dispatcher, "m", None, Limits(seconds=1.0)))
    body = {"model": "m", "messages": [{"role": "user", "content": "q"}]}
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: client.post("/v1/chat/completions", json=body), range(8)))
    statuses = [answer.status_code for answer in made]
    assert set(statuses) == {503, 504} and 2 <= statuses.count(504) <= 3
    refused = next(answer for answer in made if answer.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    go.set()
    while dispatcher.length:  # those that were given up are taken out as the thread comes to them
        time.sleep(0.01)
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    dispatcher.close()


def test_a_model_that_fails_is_an_error_of_the_apis_form_and_ends_nothing() -> None:
    from fastapi.testclient import TestClient

    from harness.serving.app import Limits, create_app
    from harness.serving.batcher import Dispatcher
    from harness.serving.routed import Routed
    from pools.pool import load_pool
    from pools.types import Generation
    from routers import RouterRequest, load

    class Fails:
        def generate(self, model: int, requests: Any) -> list[Generation]:
            if any(context.query == "fail" for context, _ in requests):
                raise RuntimeError("out of memory at a secret text")
            return [Generation("done", 1, 1, "stop", 0.0) for _ in requests]

    router = load("single:a", RouterRequest(models=("a", "b"), max_hops=1))
    routed = Routed("single:a", router, load_pool("lightweight"), Fails(), paper_cost((1.0, 1.0, 1.0), "u"), 1)
    dispatcher = Dispatcher(lambda: routed)
    client = TestClient(create_app(dispatcher, "m", None, Limits()))

    def ask(query: str) -> Any:
        body = {"model": "m", "messages": [{"role": "user", "content": query}]}
        return client.post("/v1/chat/completions", json=body)

    failed = ask("fail")
    error = failed.json()["error"]
    assert (failed.status_code, error["type"], error["message"]) == (
        500,
        "server_error",
        "a model failed: RuntimeError",
    )
    assert ask("work").status_code == 200
    assert 'harness_requests_total{status="500"} 1.0' in client.get("/metrics").text
    dispatcher.close()
