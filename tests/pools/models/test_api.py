"""Pool members behind a server: its own token counts, and a server that hangs, drops, answers garbage or is busy."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import re
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
from pools.models.api import TRIES, Failure, advice, ask_patiently
from pools.models.generator import LiveGenerator
from pools.models.progress import Batch, Loading, Silence, UnderWay
from pools.pool import Pool, load_pool
from pools.types import Context, GenerationSettings, UpstreamError

SETTINGS = GenerationSettings((), 12)
REQUESTS = [(Context(f"Question {n}"), SETTINGS) for n in range(6)]
ANSWERS = [f"answer to Question {n}" for n in range(6)]
Fault = Callable[[Handler, str, int], bool]
concurrently = pytest.mark.parametrize("concurrent", [1, 4])


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
@pytest.mark.parametrize("concurrent", [1, 6])
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
    assert server.max_in_flight == concurrent
    assert [g.response for g in made] == ANSWERS
    assert [(g.tokens_in, g.tokens_out) for g in made] == [(100 + n, 10 + n) for n in range(6)]
    assert {g.finish_reason for g in made} == {"length"}
    assert all(type(g.response) is str for g in made)


def test_replies_in_anthropic_s_form(pool: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its documentation has them: blocks of content, `stop_reason`, `input_tokens` and `output_tokens`."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key-of-this-test")
    text, thought = {"type": "text", "text": "Paris"}, {"type": "thinking", "thinking": "?", "signature": "s"}
    replies = iter(
        [
            ([text], "end_turn"),
            ([text, {"type": "text", "text": " is"}], "max_tokens"),
            ([thought, text], "stop_sequence"),
            ([], "end_turn"),
            ([], "refusal"),
        ]
    )

    def says(handler: Handler, question: str, before: int) -> bool:
        assert "'type': 'text'" in question and handler.headers["x-api-key"] == "key-of-this-test"
        content, why = next(replies)
        # What its cache held is not among the tokens of its input.
        cached = {"cache_creation_input_tokens": 3, "cache_read_input_tokens": 4}
        usage = {"input_tokens": 5, "output_tokens": 3, **cached}
        message = {"type": "message", "role": "assistant", "content": content, "stop_reason": why, "usage": usage}
        handler.reply(200, {"id": "msg_1", "model": "any", "stop_sequence": None, **message})
        return True

    declared = pool(serve(says), {"lm_eval": "anthropic-chat-completions"}, max_retries=1)
    generator = LiveGenerator(declared)
    made = generator.generate(0, REQUESTS[:4])
    assert [g.response for g in made] == ["Paris", "Paris is", "Paris", ""]
    assert [g.finish_reason for g in made] == ["stop", "length", "stop", "stop"]
    assert {(g.tokens_in, g.tokens_out) for g in made} == {(12, 3)}
    with pytest.raises(UpstreamError, match="its reply holds no response"):
        generator.generate(0, REQUESTS[:1])


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": "7"}])
def test_a_server_that_does_not_count_needs_a_tokenizer(
    pool: Any, serve: Any, tiny_pool_file: Path, usage: Any, capfd: Any
) -> None:
    """It counts tokens (bytes here) of the chat template around the message, not characters of lm-eval's JSON."""

    def uncounted(handler: Handler, question: str, before: int) -> bool:
        handler.reply(200, {**answer_to(question), "usage": usage})
        return True

    server = serve(uncounted)
    with pytest.raises(UserError, match="model tiny-a gives no token counts"):
        LiveGenerator(pool(server)).generate(0, REQUESTS)
    assert sum(server.asked.values()) == 1  # told before more is paid for
    tokenizer = str(tiny_pool_file.parent / "tiny-b")
    counted = LiveGenerator(pool(server, tokenizer=tokenizer, tokenizer_backend="huggingface"))
    [made] = counted.generate(0, [(Context("Question 1 là ?"), SETTINGS)])
    assert made.tokens_in == len("[user] Question 1 là ?\n[assistant] ".encode())
    assert made.tokens_out == len(made.response.encode())
    [begun] = counted.generate(0, [(Context("Question 1 là ?", prefill=" Answer 7"), SETTINGS)])
    assert begun.tokens_in == len("[user] Question 1 là ?\n[assistant] Answer 7".encode())
    assert begun.response == "answer to Answer 7", "its last message is what the answer begins with"
    assert capfd.readouterr() == ("", "")


# --- faults ----------------------------------------------------------------------------------------------------------


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


GARBAGE: list[Any] = [
    b"no json",
    None,
    [answer_to("Question 1")],
    {"choices": []},
    {"choices": [{"index": 0}]},
    {"choices": [{"index": 0, "message": {"content": None}}]},
    {"choices": [{"index": 0, "text": 5}]},
    {"choices": [*answer_to("Question 1")["choices"], *answer_to("Question 2", index=1)["choices"]]},
    {"choices": {"0": answer_to("Question 1")["choices"][0]}},
]


def nonsense(handler: Handler, question: str, before: int) -> bool:
    handler.reply(200, GARBAGE[len(question) % len(GARBAGE)])
    return True


def never(fault: Fault) -> Fault:
    return lambda handler, question, before: fault(handler, question, 0)


def refuses(*questions: str, status: int = 500) -> Fault:
    def refuse(handler: Handler, question: str, before: int) -> bool:
        if question in questions:
            handler.reply(status, {"error": {"message": "no"}})
        return question in questions

    return refuse


@concurrently
def test_a_server_with_every_fault_at_random(
    pool: Any, serve: Any, tmp_path: Path, concurrent: int, counted: Any, faults: int
) -> None:
    """What passes is asked again."""
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


@pytest.mark.parametrize("fault", [hangs, drops, is_busy, cuts_off, trickles])
def test_what_does_not_pass_ends_in_a_line(pool: Any, serve: Any, tmp_path: Path, fault: Any, counted: Any) -> None:
    server, store = serve(never(fault)), TransitionStore(tmp_path / "s")
    generator = LiveGenerator(pool(server, max_retries=1, timeout=1), store=store)
    what_to_do = "lower `num_concurrent`" if fault is is_busy else "check that it runs"
    with pytest.raises(UserError, match=rf"did not answer.*{what_to_do}") as error:
        generator.generate(0, REQUESTS[:2])
    assert "\n" not in str(error.value)
    counted(fault.__name__.replace("_", " ") + ", for good", "server", 1, 1, wrong=len(store))


@pytest.mark.parametrize("garbage", GARBAGE, ids=str)
@pytest.mark.parametrize(("declaration", "arguments"), KINDS, ids=["chat", "completions"])
def test_garbage_is_never_stored(
    pool: Any, serve: Any, tmp_path: Path, garbage: Any, declaration: Any, arguments: Any
) -> None:
    def answers_garbage(handler: Handler, question: str, before: int) -> bool:
        handler.reply(200, garbage)
        return True

    store = TransitionStore(tmp_path / "s")
    declared = pool(serve(answers_garbage), declaration, max_retries=1, **arguments)
    with pytest.raises(UserError, match="did not answer") as error:
        LiveGenerator(declared, store=store).generate(0, REQUESTS)
    assert len(store) == 0 and "\n" not in str(error.value)


@concurrently
def test_a_server_that_is_not_there(pool: Any, serve: Any, concurrent: int, capfd: Any, caplog: Any) -> None:
    url = "http://127.0.0.1:9/v1/chat/completions"
    declared = pool(serve(), base_url=url, max_retries=1, num_concurrent=concurrent)
    with pytest.raises(UserError, match=rf"model tiny-a: the server {url} did not answer") as error:
        LiveGenerator(declared).generate(0, REQUESTS[:3])
    assert "\n" not in str(error.value)
    del error
    gc.collect()
    # lm-eval's own words on it may pass; asyncio's tracebacks of the requests that failed beside the first may not.
    assert "asyncio" not in {record.name for record in caplog.records}
    assert capfd.readouterr() == ("", "")


@concurrently
def test_seconds_are_those_of_each_request_alone(pool: Any, serve: Any, concurrent: int) -> None:
    """Not a share of the batch's, not the wait for a place among others, and not a try that failed."""

    def slow_at_first(handler: Handler, question: str, before: int) -> bool:
        if question == "Question 0":
            time.sleep(0.4)
        if question == "Question 1" and not before:
            time.sleep(0.4)
            handler.reply(500, {})
            return True
        return False

    declared = pool(serve(slow_at_first), num_concurrent=concurrent)
    made = LiveGenerator(declared).generate(0, REQUESTS)
    assert 0.4 <= made[0].seconds < 0.7
    assert all(0 < one.seconds < 0.3 for one in made[1:]), [one.seconds for one in made]


# --- asked again -----------------------------------------------------------------------------------------------------


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between two tries, of which none is made."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return pauses


@pytest.mark.parametrize(("status", "times"), [(400, 1), (401, 1), (429, 2), (500, 2)])
def test_a_refusal_is_said(pool: Any, serve: Any, slept: list[float], status: int, times: int) -> None:
    """And a request that the server will never take is sent once."""
    server = serve(refuses("Question 0", status=status))
    with pytest.raises(UserError, match=rf"did not answer.*{status}"):
        LiveGenerator(pool(server, max_retries=2)).generate(0, REQUESTS[:1])
    assert server.asked == {"Question 0": times}


PAUSES = [1, 1, 2, 4, 8, 10, 10, 10, 10]


@pytest.mark.parametrize(
    ("fault", "patience", "pauses"),
    [
        (never(drops), 60.0, PAUSES),
        (never(drops), 5.0, PAUSES[:3]),
        (never(drops), 0.0, []),
        (refuses("Question 0"), 5.0, PAUSES[: TRIES - 1]),  # who refuses is there
        (refuses("Question 0"), 60.0, PAUSES),
    ],
)
def test_a_server_is_asked_for_as_long_as_the_pool_has_patience(
    pool: Any, serve: Any, slept: list[float], fault: Fault, patience: float, pauses: list[float]
) -> None:
    """If nothing is said of retries; and that it is silent is told once."""
    declared, told = pool(serve(fault), {"patience": patience}), list[Any]()
    del declared.models[0].arguments["max_retries"]
    with pytest.raises(UserError, match="did not answer"):
        LiveGenerator(declared, progress=told.append).generate(0, REQUESTS[:1])
    assert slept == pauses
    assert len([event for event in told if isinstance(event, Silence)]) == bool(pauses)


def test_a_server_that_hangs_is_asked_no_longer_than_patience_and_one_reply_take(pool: Any, serve: Any) -> None:
    server = serve(never(hangs))
    declared = pool(server, {"patience": 0.5}, timeout=1)
    del declared.models[0].arguments["max_retries"]
    with pytest.raises(UserError, match=r"no whole reply in time; .*one reply may take 1 s \(`timeout`"):
        LiveGenerator(declared).generate(0, REQUESTS[:1])
    assert server.asked == {"Question 0": 1}


SAID: list[tuple[int, Any, str]] = [
    (400, {"detail": "prompt must be a string."}, "400: prompt must be a string.; set `tokenized_requests: false`"),
    (422, {"detail": [{"loc": ["body", "prompt"], "msg": "wrong", "input": "SECRET"}]}, "422: prompt: wrong; set `tok"),
    (400, {"error": {"message": "exceeds the context size"}}, "exceeds the context size; start the server with a long"),
    (400, {"error": "maximum context length is 5", "object": 1}, "maximum context length is 5; start the server"),
    (
        401,
        {"error": {"message": "Invalid API Key"}},
        "401: Invalid API Key; check the key: the variable OPENAI_API_KEY",
    ),
    (404, {"detail": "Not Found"}, "404: Not Found; check `base_url`, which ends in /v1/completions"),
    (404, b"<html>nginx</html>", "404: Not Found; check `base_url`"),
    (413, b"limit exceeded", "413: limit exceeded; check `model`"),
    (500, b"Internal Server Error", "500: Internal Server Error; its log says more; check `model`"),
    (504, b"upstream request timeout exceeded", "timeout exceeded; its log says more"),
    (503, {"error": "maximum context in use"}, "maximum context in use; its log says more"),
    (502, b"<html>nginx</html>", "502: Bad Gateway; its log says more"),
]


@concurrently
@pytest.mark.parametrize(("status", "body", "line"), SAID, ids=[said[2][:20] for said in SAID])
def test_what_a_server_said_is_in_the_error_with_the_option_that_fixes_it(
    pool: Any, serve: Any, tiny_pool_file: Path, concurrent: int, status: int, body: Any, line: str
) -> None:
    def says(handler: Handler, question: str, before: int) -> bool:
        handler.reply(status, body)
        return True

    of_tokens = {"tokenizer": str(tiny_pool_file.parent / "tiny-b"), "tokenizer_backend": "huggingface"}
    declared = pool(serve(says), COMPLETIONS, max_retries=1, num_concurrent=concurrent, **of_tokens)
    with pytest.raises(UserError, match=re.escape(line)) as error:
        LiveGenerator(declared).generate(0, REQUESTS[:1])
    assert "SECRET" not in str(error.value) and "\n" not in str(error.value)


@concurrently
def test_responses_are_counted_as_they_come_and_stored_one_by_one_if_asked_one_by_one(
    pool: Any, serve: Any, tmp_path: Path, concurrent: int
) -> None:
    store, told, stored = TransitionStore(tmp_path / "s"), list[Any](), list[int]()

    def tell(event: Any) -> None:
        told.append(event)
        stored.append(len(store))

    LiveGenerator(pool(serve(), num_concurrent=concurrent), store=store, progress=tell).generate(0, REQUESTS[:4])
    assert [type(event) for event in told[:3]] == [Batch, Loading, Loading] and told[0].total == 4
    underway = [event for event in told if isinstance(event, UnderWay)]
    tokens = sum(10 + n for n in range(4))
    if concurrent == 1:
        assert [event.responses for event in underway] == [0, 1] * 4 and sum(e.tokens_out for e in underway) == tokens
        assert stored[3:] == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    else:
        assert [event.responses for event in underway] == [0, 1, 2, 3, 4] and underway[-1].tokens_out == tokens
        assert stored[3:] == [0, 0, 0, 0, 0, 4]
    assert told[-1].done == 4


def test_a_server_is_given_the_time_that_it_asks_for(slept: list[float]) -> None:
    in_a_minute = (datetime.now(UTC) + timedelta(seconds=60)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    said = iter(["20", "900", "0", "-1", "soon", "", in_a_minute])

    async def is_busy(**_: Any) -> list[str]:
        error: Any = ConnectionError()
        error.status, error.headers = 429, {"Retry-After": next(said)}
        raise error

    lm: Any = SimpleNamespace(amodel_call=is_busy, model_call=None, max_retries=8, timeout=300)
    ask_patiently(lm, 1, 60, 8)
    asyncio.run(lm.amodel_call(sem=None))
    assert slept[:6] == [20, 300, 2, 4, 8, 10] and 55 < slept[6] <= 60


@concurrently
def test_a_prompt_that_fails_takes_no_other_along(pool: Any, serve: Any, tmp_path: Path, concurrent: int) -> None:
    """What the others got is stored, those of later batches, too; and the next time only the rest is asked for."""
    server, store = serve(refuses("Question 1", "Question 4")), TransitionStore(tmp_path / "s")
    generator = LiveGenerator(pool(server, num_concurrent=concurrent, max_retries=2), store=store)
    with pytest.raises(UpstreamError, match=r"did not answer: status 500.*; 2 of 6 requests failed; what was") as error:
        generator.generate(0, REQUESTS)
    assert len(store) == 4 and "\n" not in str(error.value)
    assert [made is not None for made in error.value.answers[0]] == [n not in (1, 4) for n in range(6)]
    server.fault = refuses()
    server.asked.clear()
    made = generator.generate(0, REQUESTS)
    assert [g.response for g in made] == ANSWERS
    assert server.asked == {"Question 1": 1, "Question 4": 1}


def test_a_server_that_is_down_is_not_asked_patiently_for_each_prompt(pool: Any, serve: Any, tmp_path: Path) -> None:
    server, asked = serve(never(drops)), [(Context(f"Question {n}"), SETTINGS) for n in range(12)]
    with pytest.raises(UpstreamError, match=r"did not answer: .*; 2 of 12 requests failed"):
        LiveGenerator(pool(server, max_retries=3), store=TransitionStore(tmp_path / "s")).generate(0, asked)
    assert sorted(server.asked.values()) == [1, 3]


@pytest.mark.parametrize(("concurrent", "sent"), [(1, 2), (4, 8)])
def test_a_server_that_hangs_takes_two_timeouts_and_not_two_for_each_place_in_a_batch(
    pool: Any, serve: Any, concurrent: int, sent: int
) -> None:
    server, asked = serve(never(hangs)), [(Context(f"Question {n}"), SETTINGS) for n in range(12)]
    declared = pool(server, {"patience": 0.1}, timeout=1, num_concurrent=concurrent)
    del declared.models[0].arguments["max_retries"]
    begun = time.monotonic()
    with pytest.raises(UpstreamError, match=rf"in time; .*; {sent} of 12 requests failed"):
        LiveGenerator(declared).generate(0, asked)
    assert sum(server.asked.values()) == sent and time.monotonic() - begun < 3.5


def test_replies_without_a_response_are_no_silence(pool: Any, serve: Any) -> None:
    """As where a filter withholds answers: the questions behind those are asked."""

    def withholds(handler: Handler, question: str, before: int) -> bool:
        if question in ("Question 0", "Question 1", "Question 2"):
            handler.reply(200, answer_to(question, message={"content": None}))
            return True
        return False

    with pytest.raises(UpstreamError, match="3 of 6 requests failed"):
        LiveGenerator(pool(serve(withholds), max_retries=1)).generate(0, REQUESTS)


def is_a_page(handler: Handler, question: str, before: int) -> bool:
    handler.reply(200, b"<html>welcome</html>", "text/html")
    return True


def test_a_page_in_place_of_a_reply_is_asked_for_once(pool: Any, serve: Any, slept: list[float]) -> None:
    server = serve(is_a_page)
    with pytest.raises(UserError, match=r"text/html; check `base_url`, which ends in /v1/chat/completions") as error:
        LiveGenerator(pool(server)).generate(0, REQUESTS[:1])
    assert server.asked == {"Question 0": 1} and not slept and "status 200" in str(error.value)


def test_a_request_that_cannot_be_sent_is_not_tried_again(
    pool: Any, serve: Any, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server, openai = serve(), {"lm_eval": "openai-chat-completions"}
    with_user = server.url.replace("//", "//user:s3cretly@")
    wrong: list[tuple[Any, Any, str]] = [
        (openai, {}, "was not asked: API key not found.*; set the variable OPENAI_API_KEY; 2 of 6 requests failed"),
        ({}, {"base_url": with_user}, "was not asked: Cannot combine AUTHORIZATION .*; leave user and password out of"),
        ({}, {"base_url": "http://"}, "was not asked: .*; check `base_url` and the other arguments"),
    ]
    for declaration, arguments, line in wrong:
        with pytest.raises(UserError, match=line):
            LiveGenerator(pool(server, declaration, **arguments)).generate(0, REQUESTS)
    assert not slept and not server.asked


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("anthropic-chat-completions", "ANTHROPIC_API_KEY"),
        ("azure-openai-chat-completions", "AZURE_OPENAI_API_KEY, or `header` in its arguments"),
        ("local-completions", "OPENAI_API_KEY, or `header` in its arguments"),
    ],
)
def test_a_key_is_looked_for_where_its_model_type_does(kind: str, said: str) -> None:
    refused = Failure(401, "status 401: invalid key", "replied")
    assert advice(refused, None, kind, 60) == f"check the key: the variable {said}"


def test_advice_on_anthropic_s_is_of_its_own_api() -> None:
    of_anthropic = (None, "anthropic-chat-completions", 60)
    assert "/v1/messages" in advice(Failure(404, "status 404: not_found_error", "replied"), *of_anthropic)
    assert "template" not in advice(Failure(529, "status 529: Overloaded", "replied"), *of_anthropic)


@pytest.mark.parametrize("kind", ["local-chat-completions", "anthropic-chat-completions"])
def test_a_chat_server_without_a_chat_template_is_refused_when_it_is_loaded(pool: Any, serve: Any, kind: str) -> None:
    server = serve()
    with pytest.raises(UserError, match=f"model tiny-a: `{kind}` sends messages; set `chat_template: true`"):
        LiveGenerator(pool(server, {"lm_eval": kind, "chat_template": False})).generate(0, REQUESTS[:1])
    assert not server.asked


def test_a_prompt_that_fails_alone_in_its_batch_does_not_end_the_others(pool: Any, serve: Any, tmp_path: Path) -> None:
    declared = pool(serve(refuses("Question 0")), {"batch_size": 1}, max_retries=1)
    store = TransitionStore(tmp_path / "s")
    with pytest.raises(UpstreamError, match=r"; 1 of 6 requests failed; what was answered is stored"):
        LiveGenerator(declared, store=store).generate(0, REQUESTS)
    assert len(store) == 5


def test_the_pool_in_dollars_decodes_greedily_and_bills_what_the_server_counts(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none is needed")
    declared, server = load_pool("openai"), serve()
    here = [replace(model, arguments={**model.arguments, "base_url": server.url}) for model in declared.models]
    pool = replace(declared, models=tuple(here))
    generator, cost = LiveGenerator(pool), pool.cost_model("dollars")
    assert (cost.unit, "2026-06-21" in cost.source) == ("US$", True)
    for number, (read, written) in enumerate([(0.15, 0.60), (0.40, 1.60), (2.00, 8.00)]):
        [made] = generator.generate(number, [(Context("Question 3"), SETTINGS)])
        assert cost.hop_cost(number, made) == pytest.approx((103 * read + 13 * written) / 1e6)
        assert here[number].base_rate == pytest.approx((read + written) / 2 / 1e6)
        payload = generator.language_model(number)._create_payload([], gen_kwargs={"until": ["Q:"], "do_sample": False})
        assert payload["temperature"] == 0 and payload["stop"][0] == "Q:", "lm-eval samples from models with a 5"
