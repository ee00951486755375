"""`serve` as its users meet it: a process of its own, the openai client, lm-eval, curl's view of limits and metrics."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from shipped import RECORDING

from pools.data.recording import load_recording
from pools.mdp.tree import Tree
from pools.types import Item
from served import ROOT, chat, serving

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")
HOPS = ["reader", "calculator"]
KEY = "a key of its own"
HEADERS = {"Authorization": f"Bearer {KEY}", "content-type": "application/json"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of a fixed pipeline over the shipped recording, with a key; its address."""
    arguments = ("--recording", RECORDING, "--router", f"pipeline:{'>'.join(HOPS)}", "--name", "two-hops")
    with serving(*arguments, "--max-body-bytes", 20_000, HARNESS_API_KEY=KEY) as (_, address):
        yield address


@pytest.fixture(scope="module")
def tree() -> Tree:
    """The first stories of the recording."""
    whole = load_recording(RECORDING).tree
    return whole.subset([n for n, item in enumerate(whole.items) if item.task == "stories"][:8])


@pytest.fixture(scope="module")
def items(tree: Tree) -> list[Item]:
    return list(tree.items)


def asked(item: Item, model: str = "two-hops", **more: Any) -> dict[str, Any]:
    """The request that asks an item's question with its settings."""
    settings = {"max_tokens": item.settings.max_new_tokens, "stop": list(item.settings.until)}
    return chat(item.query, model, **{**settings, **more})


@pytest.fixture
def client(server: str) -> Any:
    return openai.OpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0)


def test_the_openai_client_gets_the_recorded_answer_and_what_it_cost(
    client: Any, items: list[Item], tree: Tree
) -> None:
    for item in items[:3]:
        index = tree.items.index(item)
        first, node = (tree.node(map(tree.models.index, HOPS[:hops])) for hops in (1, 2))
        raw = client.chat.completions.with_raw_response.create(**asked(item))
        got = raw.parse()
        assert got.choices[0].message.content == tree.generation(index, node).response
        assert got.choices[0].finish_reason == tree.generation(index, node).finish_reason
        hops = [tree.generation(index, n) for n in (first, node)]
        assert got.usage.prompt_tokens == sum(hop.tokens_in for hop in hops)
        assert got.usage.completion_tokens == sum(hop.tokens_out for hop in hops)
        cost = float(tree.cost[index, [first, node]].sum())
        assert got.usage.cost == pytest.approx(cost) and float(raw.headers["x-cost"]) == pytest.approx(cost, rel=1e-5)
        assert [hop["model"] for hop in got.usage.route] == HOPS
        assert raw.headers["x-route"] == " > ".join(HOPS)
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


def test_lm_eval_evaluates_it_from_outside(
    server: str, items: list[Item], tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    arguments = {"base_url": f"{server}/v1/chat/completions", "model": "two-hops", "num_concurrent": 4}
    found = lm_eval.simple_evaluate(
        model="local-chat-completions",
        model_args={**arguments, "max_retries": 1},
        tasks=["stories"],
        task_manager=TaskManager(include_path=str(ROOT / "tasks")),
        limit=len(items),
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    expected = [tree.score[tree.items.index(item), tree.node(map(tree.models.index, HOPS))] for item in items]
    (score,) = (value for key, value in found["results"]["stories"].items() if isinstance(value, float))
    assert score == pytest.approx(sum(expected) / len(items))


def test_the_shipped_policy_is_served_with_its_own_horizon_and_a_key_of_a_file(
    tmp_path: Path, items: list[Item]
) -> None:
    (tmp_path / "key").write_text("sk-1\n")
    with serving("--recording", RECORDING, "--api-key-file", tmp_path / "key") as (_, address):
        body, headers = asked(items[0], "hierrouter"), {"Authorization": "bearer sk-1"}
        got = httpx.post(f"{address}/v1/chat/completions", json=body, headers=headers, timeout=60).json()
    assert 1 <= len(got["usage"]["route"]) <= 3 and got["usage"]["cost"] > 0


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"model": "another"}, 404, "there is no model 'another'; there is 'two-hops'"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "role"),
        ({"messages": [{"role": "user", "content": " \n"}]}, 400, "the messages are empty"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "hex escape"),
        ({"messages": [{"role": "user", "content": "x" * 30_000}]}, 413, "more than 20000 bytes"),
        ({"messages": [{"role": "user", "content": "never recorded"}]}, 422, "the recording has no response"),
        ({"max_tokens": 1}, 422, "was recorded with at most"),
        ({"max_tokens": 100_000}, 400, "at most 1024 are allowed"),
        ({"n": 2}, 400, "n:"),
        (
            {"tools": [{"type": "function"}]},
            400,
            "tools: a router answers with one text, without calls of tools; leave it",
        ),
        ({"logprobs": True}, 400, "logprobs"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"logit_bias": {"50256": -100}}, 400, "logit_bias"),
        ({"stop": ["a", "b", "c", "d", "e"]}, 400, "stop: List should have at most 4 items"),
        ({"stop": "x" * 201}, 400, "stop.0: String should have at most 200 characters"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_the_apis_form(
    server: str, items: list[Item], change: dict[str, Any], status: int, said: str
) -> None:
    body = json.dumps({**asked(items[0]), **change})
    got = httpx.post(f"{server}/v1/chat/completions", content=body, headers=HEADERS, timeout=60)
    assert got.status_code == status, got.text
    error = got.json()["error"]
    assert said in error["message"] and error["code"] == status and "\n" not in error["message"]


def test_what_asks_for_nothing_is_accepted(client: Any, items: list[Item]) -> None:
    nothing = {"tools": [], "functions": [], "logit_bias": {}, "response_format": {"type": "text"}}
    assert client.chat.completions.create(**asked(items[0]), extra_body=nothing).usage.cost > 0
    assert client.chat.completions.create(**asked(items[0]), extra_body=dict.fromkeys(nothing)).usage.cost > 0


def test_a_body_of_unknown_length_is_limited_too_and_one_of_another_type_refused(server: str) -> None:
    text = HEADERS | {"content-type": "text/plain;application/json"}
    got = httpx.post(f"{server}/v1/chat/completions", content=b"{}", headers=text)
    assert got.status_code == 415
    assert got.json()["error"]["message"].startswith(
        "Content-Type is text/plain;application/json; expected -H 'Content-T"
    )
    endless = (b"x" * 1000 for _ in range(100))
    got = httpx.post(f"{server}/v1/chat/completions", content=endless, headers=HEADERS, timeout=60)
    assert got.status_code == 413 and got.json()["error"]["message"] == "the request has more than 20000 bytes"


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer", f"Basic {KEY}", KEY, "ü"])
def test_without_the_key_nothing_is_told_but_health(server: str, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given.encode()}
    for path in ("/v1/models", "/v1/models/two-hops", "/metrics"):
        assert httpx.get(server + path, headers=headers).status_code == 401
    got = httpx.post(f"{server}/v1/chat/completions", content=b"x" * 30_000, headers=headers)
    assert got.status_code == 401 and got.json()["error"]["type"] == "authentication_error"
    assert httpx.get(f"{server}/health", headers=headers).json() == {"status": "ok"}


def test_metrics_count_requests_hops_and_cost_of_many_clients_at_once(
    server: str, client: Any, items: list[Item], tree: Tree
) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    def read() -> dict[tuple[str, str], float]:
        text = httpx.get(f"{server}/metrics", headers=HEADERS).text
        return {
            (s.name, ",".join(value for _, value in sorted(s.labels.items()))): s.value
            for family in text_string_to_metric_families(text)
            for s in family.samples
        }

    before = read()
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda item: client.chat.completions.create(**asked(item)), items))
    after = read()

    def grown(name: str, label: str = "") -> float:
        return after[name, label] - before.get((name, label), 0.0)

    node = tree.node(map(tree.models.index, HOPS))
    recorded = [tree.generation(tree.items.index(item), node).response for item in items]
    assert [one.choices[0].message.content for one in made] == recorded  # each its own
    assert grown("harness_requests_total", "200") == len(items)
    assert grown("harness_hops_total", HOPS[0]) == grown("harness_hops_total", HOPS[1]) == len(items)
    hops = [hop for one in made for hop in one.usage.route if hop["model"] == HOPS[0]]
    assert grown("harness_cost_total", HOPS[0]) == pytest.approx(sum(hop["cost"] for hop in hops))
    assert grown("harness_tokens_total", f"written,{HOPS[0]}") == sum(hop["tokens_out"] for hop in hops)
    assert grown("harness_request_seconds_count") == len(items)
    assert after["harness_queries_waiting", ""] == 0


def test_sigterm_answers_what_was_taken(tiny_pool_file: Path) -> None:
    arguments = ("--pool", tiny_pool_file, "--router", "single:tiny-a", "--max-hops", 1, "--name", "m")
    with serving(*arguments) as (process, address), ThreadPoolExecutor(8) as threads:
        body = chat("Go on, 1", max_tokens=200)
        made = [threads.submit(httpx.post, f"{address}/v1/chat/completions", json=body, timeout=60) for _ in range(8)]
        deadline = time.monotonic() + 60
        while "harness_requests_open 8.0" not in httpx.get(f"{address}/metrics").text and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        answers = [future.result() for future in made]
        assert [answer.status_code for answer in answers] == [200] * 8
        assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--router", "nobody"), "unknown router"),
        (("--router", "majority-vote"), "majority-vote asks every model and routes nothing"),
        (("--router", "single:reader", "--checkpoint", "x"), "learns nothing, so it has no checkpoint"),
        (("--router", "single:reader", "--train-on", "x"), "--train-on: no router here learns at the start"),
        (("--router", "knn", "--checkpoint", "x", "--train-on", "x"), "--train-on: no router here learns at the start"),
        (("--router", "knn", "--train-on", "nowhere"), "nowhere is not a recording"),
        (("--port", "-1"), "cannot listen at 127.0.0.1:-1"),
        (("--batch-size", "0"), "--batch-size 0"),
        (("--timeout", "0"), "--timeout 0"),
        (("--cost-weight", "-1"), "--cost-weight -1"),
        (("--host", "256.0.0.1"), "cannot listen at 256.0.0.1"),
        (("--api-key-file", "nowhere"), "--api-key-file nowhere cannot be read"),
        (("--api-key-file", "/dev/null"), "--api-key-file /dev/null is empty"),
        (("--seed", "77"), "no checkpoint of router hierrouter ships for pool lightweight and seed 77"),
        (("--weights", "nowhere"), "no such folder"),
    ],
)
def test_what_makes_no_server_is_said_in_one_line(
    small_recording: Path, harness: Callable[..., int], capsys: Any, arguments: tuple[str, ...], said: str
) -> None:
    defaults = () if "--weights" in arguments else ("--recording", small_recording)
    assert harness("serve", *defaults, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(
    tiny_pool_file: Path, harness: Callable[..., int], capsys: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert harness("serve", "--pool", tiny_pool_file, "--router", "single:tiny-a", "--port", port) == 2
    said = capsys.readouterr()
    assert f"cannot listen at 127.0.0.1:{port}" in said.err and "loading" not in said.out


def test_what_is_loaded_is_said_and_is_what_the_router_can_call(tiny_pool_file: Path) -> None:
    for router, loaded in (("single:tiny-b", ["tiny-b"]), ("random", ["tiny-a", "tiny-b"])):
        said: list[str] = []
        with serving("--pool", tiny_pool_file, "--router", router, said=said) as (_, address):
            assert httpx.get(f"{address}/health").status_code == 200
        lines = [re.sub(r"[\d.]+ s$", "N s", line.strip()) for line in said if not line.endswith("so far\n")]
        assert lines[:-1] == [line for name in loaded for line in (f"loading {name}", f"{name}: loaded in N s")]
        assert lines[-1].startswith(f"serving {router} over pool tiny at ")
