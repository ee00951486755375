"""Pool members behind a server: its own token counts, and a server that hangs, drops, answers garbage or is busy."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from chat_server import Handler, Server, answer_to, chat_server
from pools.data.store import TransitionStore
from pools.errors import UserError
from pools.models import api
from pools.models.api import _pause
from pools.models.generator import LiveGenerator
from pools.pool import Pool, load_pool
from pools.types import Context, GenerationSettings, UpstreamError

SETTINGS = GenerationSettings((), 12)
REQUESTS = [(Context(f"Question {n}"), SETTINGS) for n in range(6)]


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with ExitStack() as running:
        yield lambda *fault: running.enter_context(chat_server(*fault))


@pytest.fixture
def pool(tiny_pool_file: Path) -> Callable[..., Pool]:
    def of(server: Server, declaration: Any = MappingProxyType({}), **arguments: Any) -> Pool:
        given = {"model": "any", "base_url": server.url, "max_retries": 4, "timeout": 2, **arguments}
        server.timeout_of_clients = given["timeout"]
        declared = load_pool(str(tiny_pool_file))
        chat = {"lm_eval": "local-chat-completions", "chat_template": True, "weights": None}
        first = replace(declared.models[0], **{**chat, **declaration}, arguments=given)
        return replace(declared, models=(first, declared.models[1]))

    return of


COMPLETIONS = {"lm_eval": "local-completions", "chat_template": False}
KINDS: list[tuple[dict[str, Any], dict[str, Any]]] = [({}, {}), (COMPLETIONS, {"tokenizer_backend": None})]


@pytest.mark.parametrize(("declaration", "arguments"), KINDS, ids=["chat", "completions"])
@pytest.mark.parametrize("concurrent", [1, 4, 6])
def test_the_servers_own_counts_are_billed(
    pool: Any, serve: Any, concurrent: int, declaration: Any, arguments: Any
) -> None:
    """And as many requests are under way at once as `num_concurrent` says, more than `batch_size`, too."""

    def slow(handler: Handler, question: str, before: int) -> bool:
        time.sleep(0.3)
        return False

    server = serve(slow)
    declared = pool(server, declaration, num_concurrent=concurrent, **arguments)
    assert declared.models[0].batch_size == 4
    made = LiveGenerator(declared).generate(0, REQUESTS)
    assert server.most_in_flight == concurrent
    assert [g.response for g in made] == [f"answer to Question {n}" for n in range(6)]
    assert [(g.tokens_in, g.tokens_out) for g in made] == [(100 + n, 10 + n) for n in range(6)]
    assert {g.finish_reason for g in made} == {"length"}
    assert all(type(g.response) is str for g in made)


def hangs(handler: Handler, question: str, before: int) -> bool:
    if before == 0:
        time.sleep(1.5 * handler.server.timeout_of_clients)  # whoever asked is gone
    return before == 0


def drops(handler: Handler, question: str, before: int) -> bool:
    if before == 0:
        handler.connection.close()
    return before == 0


def is_busy(handler: Handler, question: str, before: int) -> bool:
    if before < 2:
        handler.reply((429, 503)[before], {"error": {"message": "slow down"}}, Retry_After="1")
    return before < 2


def cuts_off(handler: Handler, question: str, before: int) -> bool:
    if before == 0:
        body = json.dumps(answer_to(question)).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        handler.close_connection = True
    return before == 0


def answers_html(handler: Handler, question: str, before: int) -> bool:
    if before == 0:
        handler.reply(200, b"<html>gateway</html>")
    return before == 0


def answers_without_a_text(handler: Handler, question: str, before: int) -> bool:
    if before == 0:
        handler.reply(200, {"choices": [{"index": 0, "message": {"content": None}}]})
    return before == 0


@pytest.mark.parametrize("concurrent", [1, 4])
@pytest.mark.parametrize("fault", [hangs, drops, is_busy, cuts_off, answers_html, answers_without_a_text])
def test_what_passes_is_asked_again(pool: Any, serve: Any, tmp_path: Path, fault: Any, concurrent: int) -> None:
    first_only = lambda handler, question, before: question == "Question 2" and fault(handler, question, before)  # noqa: E731
    server = serve(first_only)
    store = TransitionStore(tmp_path / "s")
    made = LiveGenerator(pool(server, num_concurrent=concurrent), store=store).generate(0, REQUESTS)
    assert [g.response for g in made] == [f"answer to Question {n}" for n in range(6)]
    assert server.asked["Question 2"] > 1 and len(store) == 6


def trickles(handler: Handler, question: str, before: int) -> bool:
    """A byte every half second, so that no single read takes longer than the timeout."""
    body = json.dumps(answer_to(question)).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    with suppress(OSError):  # whoever asked is gone
        for byte in body[:40]:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.5)
    return True


def never(fault: Callable[[Handler, str, int], bool]) -> Callable[[Handler, str, int], bool]:
    return lambda handler, question, before: fault(handler, question, 0)


@pytest.mark.parametrize("concurrent", [1, 4])
@pytest.mark.parametrize("fault", [hangs, drops, is_busy, cuts_off, trickles])
def test_what_does_not_pass_ends_in_a_line(
    pool: Any, serve: Any, tmp_path: Path, fault: Any, concurrent: int, counted: Any
) -> None:
    server, store, start = serve(never(fault)), TransitionStore(tmp_path / "s"), time.monotonic()
    generator = LiveGenerator(pool(server, num_concurrent=concurrent, max_retries=1, timeout=1), store=store)
    with pytest.raises(UserError, match=r"did not answer.*check that it runs") as error:
        generator.generate(0, REQUESTS[:2])
    assert "\n" not in str(error.value) and time.monotonic() - start < 15
    counted(fault.__name__.replace("_", " ") + ", for good", "server", 1, 1, wrong=len(store))


@pytest.mark.parametrize("concurrent", [1, 4])
def test_a_server_with_every_fault_at_random(
    pool: Any, serve: Any, tmp_path: Path, concurrent: int, counted: Any, faults: int
) -> None:
    rng, injected, lock = random.Random(concurrent), Counter[str](), threading.Lock()
    kinds = [hangs, drops, is_busy, cuts_off, answers_html, nonsense]

    def one_of_them(handler: Handler, question: str, before: int) -> bool:
        with lock:
            fault = rng.choice(kinds) if before < 2 and rng.random() < 0.4 else None
            injected[fault.__name__ if fault else ""] += 1
        return fault is not None and fault(handler, question, 0)

    store, asked = TransitionStore(tmp_path / "s"), [(Context(f"Question {n}"), SETTINGS) for n in range(12 * faults)]
    declared = pool(serve(one_of_them), num_concurrent=concurrent, timeout=1)
    made = LiveGenerator(declared, store=store).generate(0, asked)
    wrong = sum(g.response != f"answer to Question {n}" or g.tokens_out != 10 + n for n, g in enumerate(made))
    for kind in kinds:
        number = injected[kind.__name__]
        if number:
            lost = len(asked) - len(store)
            counted(kind.__name__.replace("_", " "), "server", number, lost=lost, wrong=wrong)
    assert sum(injected.values()) - injected[""] > 0


def nonsense(handler: Handler, question: str, before: int) -> bool:
    handler.reply(200, GARBAGE[len(question) % len(GARBAGE)])
    return True


GARBAGE: list[Any] = [
    b"no json",
    [],
    {},
    None,
    {"choices": []},
    {"choices": None},
    {"choices": [{"index": 0}]},
    {"choices": [{"index": 0, "message": {}}]},
    {"choices": [{"index": 0, "message": {"content": None}}]},
    {"choices": [{"index": 0, "message": {"content": 5}}]},
    {"choices": [{"index": 0, "text": None}]},
    {"error": {"message": "no such model"}},
    [answer_to("Question 1")],
    *(answer_to("Question 1", index=index) for index in (5, 1, -1, False, True, None, "0", 0.0, [0])),
    {"choices": [*answer_to("Question 1")["choices"], *answer_to("Question 2", index=1)["choices"]]},
    {"choices": {"0": answer_to("Question 1")["choices"][0]}},
]


@pytest.mark.parametrize("concurrent", [1, 4])
@pytest.mark.parametrize("garbage", GARBAGE, ids=str)
def test_garbage_is_never_stored(pool: Any, serve: Any, tmp_path: Path, garbage: Any, concurrent: int) -> None:
    never_stored(pool, serve, tmp_path, garbage, num_concurrent=concurrent)


@pytest.mark.parametrize("garbage", [GARBAGE[4], *GARBAGE[-4:]], ids=str)
def test_garbage_of_completions_is_never_stored(pool: Any, serve: Any, tmp_path: Path, garbage: Any) -> None:
    as_text = json.loads(json.dumps(garbage).replace('"message": {"role": "assistant", "content": ', '"text": {"x": '))
    for reply in (garbage, as_text):
        never_stored(pool, serve, tmp_path, reply, COMPLETIONS, tokenizer_backend=None)
    swapped = answer_to("Question 1", as_text=True, index=1)
    never_stored(pool, serve, tmp_path, swapped, COMPLETIONS, tokenizer_backend=None)


def test_the_only_choice_needs_no_index(pool: Any, serve: Any) -> None:
    def without(handler: Handler, question: str, before: int) -> bool:
        reply = answer_to(question)
        del reply["choices"][0]["index"]
        handler.reply(200, reply)
        return True

    for concurrent in (1, 4):
        made = LiveGenerator(pool(serve(without), num_concurrent=concurrent)).generate(0, REQUESTS)
        assert [g.response for g in made] == [f"answer to Question {n}" for n in range(6)]


def test_several_choices_are_said_to_be_so(pool: Any, serve: Any) -> None:
    def several(handler: Handler, question: str, before: int) -> bool:
        handler.reply(200, {"choices": answer_to(question)["choices"] * 2})
        return True

    with pytest.raises(UserError, match="2 choices to one prompt"):
        LiveGenerator(pool(serve(several), max_retries=1)).generate(0, REQUESTS)


def never_stored(pool: Any, serve: Any, tmp_path: Path, garbage: Any, *declaration: Any, **arguments: Any) -> None:
    def nonsense(handler: Handler, question: str, before: int) -> bool:
        handler.reply(200, garbage)
        return True

    store = TransitionStore(tmp_path / "s")
    declared = pool(serve(nonsense), *declaration, max_retries=1, **arguments)
    with pytest.raises(UserError, match="did not answer") as error:
        LiveGenerator(declared, store=store).generate(0, REQUESTS)
    assert len(store) == 0 and "\n" not in str(error.value)


@pytest.mark.parametrize("concurrent", [1, 4])
@pytest.mark.parametrize(("status", "times"), [(400, 1), (401, 1), (404, 1), (429, 2), (500, 2)])
def test_a_refusal_is_said(pool: Any, serve: Any, status: int, times: int, concurrent: int) -> None:
    """And a request that the server will never take is sent once."""

    def refuse(handler: Handler, question: str, before: int) -> bool:
        handler.reply(status, {"error": {"message": "never"}})
        return True

    server = serve(refuse)
    with pytest.raises(UserError, match=rf"did not answer.*{status}"):
        LiveGenerator(pool(server, max_retries=2, num_concurrent=concurrent)).generate(0, REQUESTS[:1])
    assert server.asked == {"Question 0": times}


@pytest.mark.parametrize("concurrent", [1, 4])
def test_a_server_is_given_the_time_that_it_asks_for(pool: Any, serve: Any, concurrent: int) -> None:
    asked: list[float] = []

    def busy(handler: Handler, question: str, before: int) -> bool:
        asked.append(time.monotonic())
        if before == 0:
            handler.reply(429, {"error": {"message": "slow down"}}, Retry_After="3")
        return before == 0

    LiveGenerator(pool(serve(busy), timeout=10, num_concurrent=concurrent)).generate(0, REQUESTS[:1])
    assert 3 <= asked[1] - asked[0] < 6


def test_how_long_a_server_is_waited_for() -> None:
    def pause(said: str) -> float:
        error: Any = ConnectionError()
        error.response = SimpleNamespace(status_code=429, headers={"Retry-After": said})
        return _pause(error, 1, 9, 300.0)

    assert [pause(said) for said in ("20", "900", "0", "-1", "soon", "", "9" * 400)] == [20, 300, 1, 1, 1, 1, 300]
    in_a_minute = (datetime.now(UTC) + timedelta(seconds=60)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert 55 < pause(in_a_minute) <= 60
    assert [_pause(ValueError(), tried, 9, 300.0) for tried in range(1, 10)] == [1, 1, 2, 4, 8, 10, 10, 10, None]


def test_how_often_a_server_is_asked_where_nothing_is_said_of_it(pool: Any, serve: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(api, "time", SimpleNamespace(sleep=lambda seconds: None))
    server = serve(never(drops))
    declared = pool(server)
    del declared.models[0].arguments["max_retries"]
    with pytest.raises(UserError, match="did not answer"):
        LiveGenerator(declared).generate(0, REQUESTS[:1])
    assert server.asked == {"Question 0": api.TRIES}


@pytest.mark.parametrize("concurrent", [1, 4])
def test_a_prompt_that_fails_takes_no_other_along(pool: Any, serve: Any, tmp_path: Path, concurrent: int) -> None:
    """What the others got is stored, those of later batches, too; and the next time only the rest is asked for."""
    ill = {"Question 1", "Question 4"}

    def fails(handler: Handler, question: str, before: int) -> bool:
        if question in ill:
            handler.reply(500, {"error": {"message": "no"}})
        return question in ill

    server, store = serve(fails), TransitionStore(tmp_path / "s")
    generator = LiveGenerator(pool(server, num_concurrent=concurrent, max_retries=2), store=store)
    with pytest.raises(UpstreamError, match=r"did not answer: status 500.*; 2 of 6 requests failed; what was") as error:
        generator.generate(0, REQUESTS)
    assert len(store) == 4 and "\n" not in str(error.value)
    assert [made is not None for made in error.value.answers[0]] == [n not in (1, 4) for n in range(6)]
    ill.clear(), server.asked.clear()
    made = generator.generate(0, REQUESTS)
    assert [g.response for g in made] == [f"answer to Question {n}" for n in range(6)]
    assert server.asked == {"Question 1": 1, "Question 4": 1}


def test_a_server_that_is_down_is_not_asked_patiently_for_each_prompt(pool: Any, serve: Any, tmp_path: Path) -> None:
    server, asked = serve(never(drops)), [(Context(f"Question {n}"), SETTINGS) for n in range(12)]
    with pytest.raises(UpstreamError, match=r"did not answer: ConnectionError.*; 8 of 12 requests failed"):
        LiveGenerator(pool(server, max_retries=3), store=TransitionStore(tmp_path / "s")).generate(0, asked)
    assert sorted(server.asked.values()) == [1] * 7 + [3]


def test_a_prompt_that_fails_alone_in_its_batch_does_not_end_the_others(pool: Any, serve: Any, tmp_path: Path) -> None:
    def fails(handler: Handler, question: str, before: int) -> bool:
        if question == "Question 0":
            handler.reply(500, {"error": {"message": "no"}})
        return question == "Question 0"

    declared = pool(serve(fails), {"batch_size": 1}, max_retries=1)
    store = TransitionStore(tmp_path / "s")
    with pytest.raises(UpstreamError, match=r"; 1 of 6 requests failed; what was answered is stored"):
        LiveGenerator(declared, store=store).generate(0, REQUESTS)
    assert len(store) == 5


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": "7"}])
def test_a_server_that_does_not_count_needs_a_tokenizer(
    pool: Any, serve: Any, tiny_pool_file: Path, usage: Any
) -> None:
    def uncounted(handler: Handler, question: str, before: int) -> bool:
        handler.reply(200, {**answer_to(question), "usage": usage})
        return True

    server = serve(uncounted)
    with pytest.raises(UserError, match="gives no token counts"):
        LiveGenerator(pool(server)).generate(0, REQUESTS)
    assert sum(server.asked.values()) == 1
    tokenizer = str(tiny_pool_file.parent / "tiny-b")
    counted = LiveGenerator(pool(server, tokenizer=tokenizer, tokenizer_backend="huggingface")).generate(0, REQUESTS)
    assert [g.tokens_out for g in counted] == [len(g.response) for g in counted]
