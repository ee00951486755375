"""`serve` over model servers that fail, hang or are busy: what it costs those who ask something else."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from chat_server import Handler, Server, answer_to, chat_server
from served import chat

pytest.importorskip("fastapi")

from harness.serving.app import create_app
from harness.serving.batcher import Dispatcher
from harness.serving.routed import routed

Start = Callable[..., tuple[Server, str]]


def fault(handler: Handler, question: str, before: int) -> bool:
    """What the model server does, by the first word of the question."""
    kind = question.split()[0]
    if kind == "slow":  # until whoever asked closes the connection, or for good
        handler.connection.settimeout(60)
        handler.server.gone[question] = handler.connection.recv(1) == b""
    elif kind == "poison":
        handler.reply(500, {"error": {"message": f"cannot read {question}"}})
    elif kind in ("busy", "closed"):
        if before == 0:
            handler.reply(429, {}, Retry_After="2" if kind == "busy" else "60")
        return before == 0
    return kind in ("poison", "slow")


@contextmanager
def running(pool: Path, seconds: float, store: Path | None = None) -> Iterator[str]:
    """A server of the first model of the pool, in this process; its address."""
    dispatcher = Dispatcher(routed("single:a", str(pool), max_hops=1, store=store))
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(dispatcher, "m", seconds=seconds)))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive() and dispatcher.close(60)


# What lm-eval asks with, by the pool's `num_concurrent`.
CLIENTS: dict[str, dict[str, int]] = {"requests": {}, "aiohttp": {"num_concurrent": 16}}
both_clients = pytest.mark.parametrize("start", CLIENTS.values(), ids=CLIENTS, indirect=True)


@pytest.fixture
def start(request: Any, tmp_path: Path) -> Iterator[Start]:
    """`start(seconds)`: a model server and the address of what serves it, with that --timeout."""
    pools = getattr(request, "param", CLIENTS["aiohttp"])
    with ExitStack() as everything:

        def begin(
            seconds: float = 20.0, store: Path | None = None, beside: Any = (), **arguments: Any
        ) -> tuple[Server, str]:
            upstream = everything.enter_context(chat_server(fault))
            given = {"model": "any", "base_url": upstream.url, **pools, **arguments}
            declared = {"name": "a", "lm_eval": "local-chat-completions", "base_rate": 1.0, "chat_template": True}
            models = [{**declared, "arguments": given}, *beside]
            pool = {"name": "p", "cost_unit": "u", "rates": "made up", "models": models}
            (tmp_path / "pool.yaml").write_text(json.dumps(pool), encoding="utf-8")
            return upstream, everything.enter_context(running(tmp_path / "pool.yaml", seconds, store))

        yield begin


def ask(url: str, question: str, timeout: float = 60) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=chat(question), timeout=timeout)


def until(asked: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not asked():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@both_clients
def test_who_asks_beside_poison_and_slow_prompts_waits_for_neither(start: Start, tmp_path: Path, caplog: Any) -> None:
    """And what is served is what the models did: each call is billed once, and stored once."""
    upstream, url = start(seconds=8.0, store=tmp_path / "store.sqlite")
    with ThreadPoolExecutor(16) as threads, caplog.at_level(logging.WARNING, "harness"):
        slow = threads.submit(ask, url, "slow 1")
        until(lambda: "slow 1" in upstream.asked)
        poison = [threads.submit(ask, url, f"poison {number}") for number in (1, 2)]
        for got in threads.map(lambda number: ask(url, f"good {number}"), range(12)):
            assert got.status_code == 200, got.text
        assert not slow.done()
        failed = [future.result() for future in poison]
        assert [got.status_code for got in (*failed, slow.result())] == [502, 502, 504]
    said = {"message": "a model did not answer; try again", "type": "server_error", "code": 502}
    assert failed[0].json()["error"] == said
    assert upstream.asked["poison 1"] == upstream.asked["poison 2"] == 2 and upstream.asked["slow 1"] == 1
    told = [record.getMessage() for record in caplog.records if record.name.startswith("harness")]
    assert sum(f"{upstream.url} did not answer: status 500" in line for line in told) == 2
    assert 2 <= len(told) <= 3 and not any("\n" in line for line in told)
    assert 'harness_hops_total{model="a"} 12.0' in httpx.get(f"{url}/metrics").text
    assert [ask(url, "good 3").status_code, upstream.asked["good 3"]] == [200, 1]


@both_clients
def test_a_model_server_is_asked_no_longer_than_the_client_is_there(start: Start, request: Any) -> None:
    upstream, url = start(seconds=4.0)
    for question in ("busy 1", "slow 1"):
        with pytest.raises(httpx.ReadTimeout):
            ask(url, question, timeout=0.7)
    if "aiohttp" in request.node.name:  # what is under way is broken off
        until(lambda: "slow 1" in upstream.gone)
        assert upstream.gone["slow 1"]
    time.sleep(1.5)  # until the busy one would be asked again
    assert upstream.asked == {"busy 1": 1, "slow 1": 1}


def test_a_busy_model_server_gets_the_time_it_asks_for_if_the_client_has_it(start: Start) -> None:
    upstream, url = start(seconds=20.0)
    with ThreadPoolExecutor(2) as threads:
        closed, busy = (threads.submit(ask, url, f"{kind} 1") for kind in ("closed", "busy"))
        assert (closed.result().status_code, busy.result().status_code) == (502, 200)
    assert upstream.asked == {"closed 1": 1, "busy 1": 2}


def test_what_the_pool_says_of_retries_holds_if_it_says_fewer(start: Start) -> None:
    upstream, url = start(num_concurrent=1, max_retries=1)
    with ThreadPoolExecutor(3) as threads:
        made = list(threads.map(lambda question: ask(url, question), ("poison 1", "good 1", "good 2")))
    assert [got.status_code for got in made] == [502, 200, 200]
    assert upstream.asked["poison 1"] == 1 and upstream.max_in_flight == 1


def test_beside_a_local_model_a_batch_goes_on_without_what_failed(start: Start, tiny_model_dir: Path) -> None:
    """Local models want batches; one may have more prompts than the server is asked at once. All calls are billed."""
    local = {"name": "b", "lm_eval": "hf", "base_rate": 1.0, "weights": {"path": str(tiny_model_dir)}}
    upstream, url = start(num_concurrent=2, beside=[local])
    with ThreadPoolExecutor(6) as threads:
        first = threads.submit(ask, url, "busy 0")  # while it is answered the others become a batch
        until(lambda: "busy 0" in upstream.asked)
        questions = ("poison 1", *(f"good {number}" for number in range(1, 5)))
        failed, *good = threads.map(lambda question: ask(url, question), questions)
        assert {got.status_code for got in (*good, first.result())} == {200}
    assert failed.status_code == 502 and upstream.asked["poison 1"] == 2
    calls = sum(asked for question, asked in upstream.asked.items() if question.startswith("good")) + 1
    assert f'harness_hops_total{{model="a"}} {calls}.0' in httpx.get(f"{url}/metrics").text


def test_what_is_wrong_with_the_pool_is_for_the_log(start: Start, monkeypatch: Any, caplog: Any) -> None:
    """And for no client: here the server's replies say no tokens, and there is no tokenizer."""
    monkeypatch.setattr("chat_server.answer_to", lambda question: {**answer_to(question), "usage": None})
    _, url = start()
    got = ask(url, "good 1")
    assert (got.status_code, got.json()["error"]["message"]) == (
        500,
        "the query cannot be answered; the server's log says why",
    )
    assert "gives no token counts" in caplog.text
