"""`serve` over model servers that fail, hang or are busy: what it costs those who ask something else. With a clock."""

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
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from chat_server import Handler, Server, answer_to, chat_server

pytest.importorskip("fastapi")

from harness.serving.app import DrainingServer, create_app
from harness.serving.batcher import Dispatcher
from harness.serving.middleware import Limits
from harness.serving.routed import routed
from pools.errors import UserError

SECONDS = 0.3  # that the model server takes
Start = Callable[..., tuple[Server, str]]


def fault(handler: Handler, question: str, before: int) -> bool:
    """What the model server does, by the first word of the question."""
    kind = question.split()[0]
    if kind == "slow":
        handler.server.gone[question] = _gone_within(handler, 3)
    else:
        time.sleep(SECONDS)
    if kind == "poison":
        handler.reply(500, {"error": {"message": f"cannot read {question}"}})
    elif kind in ("busy", "closed"):
        if before == 0:
            handler.reply(429, {}, Retry_After="2" if kind == "busy" else "60")
        return before == 0
    return kind in ("poison", "slow")


def _gone_within(handler: Handler, seconds: float) -> float | None:
    """After how many seconds whoever asked closed the connection."""
    start = time.monotonic()
    handler.connection.settimeout(seconds)
    try:
        return time.monotonic() - start if handler.connection.recv(1) == b"" else None
    except TimeoutError:
        return None


@contextmanager
def running(pool: Path, seconds: float, store: Path | None = None) -> Iterator[str]:
    """A server of the first model of the pool, in this process; its address."""
    dispatcher = Dispatcher(lambda: routed("single:a", str(pool), max_hops=1, store=store))
    listening = socket.create_server(("127.0.0.1", 0))
    server = DrainingServer(create_app(dispatcher, "m", None, Limits(seconds=seconds)), "", 0, seconds)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive() and dispatcher.close(5)


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


def ask(url: str, question: str) -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": question}]}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)


def together(url: str, good: list[str], others: list[str]) -> tuple[float, list[httpx.Response]]:
    """Seconds until the good ones, asked after the others, are answered; what became of the others."""
    with ThreadPoolExecutor(len(good) + len(others)) as threads:
        asked = [threads.submit(ask, url, question) for question in others]
        time.sleep(0.05)
        begun = time.monotonic()
        for question, got in zip(good, threads.map(lambda question: ask(url, question), good), strict=True):
            assert got.json()["choices"][0]["message"]["content"] == f"answer to {question}", got.text
        seconds = time.monotonic() - begun
        return seconds, [future.result() for future in asked]


def test_more_threads_than_there_may_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, begun = threading.Thread.start, 0

    def start(thread: threading.Thread) -> None:
        nonlocal begun
        begun += 1
        if begun > 4:
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    opened: Any = SimpleNamespace(behind_servers=lambda: True)
    dispatcher = Dispatcher(lambda: opened, batch_size=9)
    with pytest.raises(UserError, match="--batch-size 9: no room"):
        dispatcher.ready()


@both_clients
def test_who_asks_beside_poison_and_slow_prompts_waits_for_neither(start: Start, tmp_path: Path, caplog: Any) -> None:
    """And what is served is what the models did: each call is billed once, and stored once."""
    upstream, url = start(seconds=2.5, store=tmp_path / "store.sqlite")
    ask(url, "good 0")
    alone, _ = together(url, [f"good {number}" for number in range(1, 7)], [])
    with caplog.at_level(logging.WARNING, "harness"):
        beside, failed = together(
            url, [f"good {number}" for number in range(11, 17)], ["poison 1", "poison 2", "slow 1"]
        )
    assert beside < 2 * alone, (beside, alone)
    assert [got.status_code for got in failed] == [502, 502, 504]
    assert failed[0].json()["error"] == {
        "message": "a model did not answer; try again",
        "type": "server_error",
        "code": 502,
    }
    assert upstream.asked["poison 1"] == upstream.asked["poison 2"] == 2 and upstream.asked["slow 1"] == 1
    told = [record.getMessage() for record in caplog.records if record.name.startswith("harness")]
    assert sum(f"{upstream.url} did not answer: status 500" in line for line in told) == 2
    assert 2 <= len(told) <= 3 and not any("\n" in line for line in told)
    metrics = httpx.get(f"{url}/metrics").text
    answered = sum(number for question, number in upstream.asked.items() if question.startswith("good"))
    assert answered == 13 and 'harness_hops_total{model="a"} 13.0' in metrics
    assert [ask(url, "good 3").status_code, upstream.asked["good 3"]] == [200, 1]


def test_a_model_server_is_asked_no_longer_than_the_client_waits(start: Start) -> None:
    upstream, url = start(seconds=1.5)
    begun = time.monotonic()
    assert ask(url, "slow 1").status_code == 504
    assert 1.4 < time.monotonic() - begun < 3 and upstream.asked == {"slow 1": 1}


@both_clients
def test_a_model_server_is_asked_no_longer_than_the_client_is_there(start: Start, request: Any) -> None:
    upstream, url = start()
    for question in ("busy 1", "slow 1"):
        with pytest.raises(httpx.ReadTimeout):
            body = {"model": "m", "messages": [{"role": "user", "content": question}]}
            httpx.post(f"{url}/v1/chat/completions", json=body, timeout=0.7)
    if "aiohttp" in request.node.name:  # what is under way is broken off
        deadline = time.monotonic() + 5
        while "slow 1" not in upstream.gone:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert 0.3 < upstream.gone["slow 1"] < 2
    time.sleep(1.5)  # until the busy one would be asked again
    assert upstream.asked == {"busy 1": 1, "slow 1": 1}


def test_a_busy_model_server_gets_the_time_it_asks_for_where_the_client_has_it(start: Start) -> None:
    upstream, url = start(seconds=6.0)
    with ThreadPoolExecutor(2) as threads:
        begun = time.monotonic()
        closed = threads.submit(ask, url, "closed 1")
        busy = threads.submit(ask, url, "busy 1")
        assert closed.result().status_code == 502 and time.monotonic() - begun < 2
        assert busy.result().status_code == 200 and 2 <= time.monotonic() - begun < 6
    assert upstream.asked == {"closed 1": 1, "busy 1": 2}


def test_of_a_model_that_takes_one_at_a_time_a_poison_prompt_takes_no_more(start: Start) -> None:
    """Not while it pauses. And what the pool says of retries holds where it says fewer."""
    upstream, url = start(num_concurrent=1, max_retries=1)
    seconds, [failed] = together(url, ["good 1", "good 2"], ["poison 1"])
    assert failed.status_code == 502 and upstream.asked["poison 1"] == 1 and upstream.most_in_flight == 1
    assert seconds < 6 * SECONDS


def test_beside_a_local_model_a_batch_goes_on_without_what_failed(start: Start, tiny_model_dir: Path) -> None:
    """Local models want batches; one may have more prompts than the server is asked at once. All calls are billed."""
    local = {"name": "b", "lm_eval": "hf", "base_rate": 1.0, "weights": {"path": str(tiny_model_dir)}}
    upstream, url = start(num_concurrent=2, beside=[local])
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(ask, url, "good 0")  # while it is answered the others become a batch
        time.sleep(SECONDS / 2)
        seconds, [failed] = together(url, [f"good {number}" for number in range(1, 5)], ["poison 1"])
        assert first.result().status_code == 200
    assert failed.status_code == 502 and upstream.asked["poison 1"] == 2 and seconds < 10
    calls = sum(upstream.asked.values()) - 2
    assert calls > 5  # one at least was in the batch
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
