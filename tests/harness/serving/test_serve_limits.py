"""What one client of `serve` cannot do to the others, and how the server ends: over plain sockets, with slow models."""

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

import pytest

import harness
from pools.cost import paper_cost
from pools.pool import load_pool
from pools.types import Context, Generation, GenerationSettings
from routers import RouterRequest, load

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from harness.__main__ import main
from harness.serving import server as serve
from harness.serving.app import create_app
from harness.serving.batcher import Dispatcher
from harness.serving.middleware import Limits
from harness.serving.routed import Routed

ROOT = Path(harness.__file__).parent.parent
SETTINGS = GenerationSettings((), 8)
Requests = list[tuple[Context, GenerationSettings]]


class Model:
    """Answers as `answers` says; `asked` are the queries of all calls."""

    def __init__(self, answers: Callable[[str], str]) -> None:
        self.answers, self.asked = answers, []

    def generate(self, model: int, requests: Requests) -> list[Generation]:
        self.asked += [context.query for context, _ in requests]
        return [Generation(self.answers(context.query), 10, 2, "stop", 0.0) for context, _ in requests]


def routed(model: Model, max_hops: int = 1) -> Routed:
    router = load("pipeline:" + ">".join(["a"] * max_hops), RouterRequest(models=("a", "b"), max_hops=max_hops))
    return Routed("p", router, load_pool("lightweight"), model, paper_cost((1.0, 1.0, 1.0), "u"), max_hops)


def slow(query: str) -> str:
    """After the seconds, so many characters: what the server below answers to "5 100"."""
    seconds, characters = map(float, query.split())
    time.sleep(seconds)
    return "x" * int(characters)


@contextmanager
def serving(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command with `slow` as its models, in a process of its own, and its port."""
    process = subprocess.Popen(
        [sys.executable, "-u", __file__, "serve", "--port", "0", "--name", "m", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        said = process.stdout.readline()
        found = re.search(r"at http://[^:]+:(\d+)/v1", said)
        assert found, said + process.stderr.read()
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


def send(port: int, query: str = "0 1", without: int = 0, length: int | None = None) -> socket.socket:
    """A connection over which a query was sent, `without` the last bytes of its body."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": query}]}).encode()
    head = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {length or len(body)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}".encode() + body[: len(body) - without])
    return connection


def status(connection: socket.socket) -> int:
    return int(connection.recv(12).decode().split()[1])


def get(port: int, path: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def until(port: int, line: str) -> None:
    """Wait for a line of /metrics."""
    deadline = time.monotonic() + 30
    while f"\n{line}\n" not in get(port, "/metrics"):
        assert time.monotonic() < deadline, line
        time.sleep(0.02)


def ended(process: subprocess.Popen[str], within: float) -> tuple[int, str, str]:
    """Exit code, standard output and standard error, after a SIGTERM."""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=within)
    return process.returncode, out, err


def test_an_unfinished_body_does_not_hold_up_the_end_and_bad_requests_are_no_news() -> None:
    with serving() as (process, port):
        with send(port, without=5) as unfinished, socket.create_connection(("127.0.0.1", port)) as garbage:
            garbage.sendall(b"\0\1\2\r\n\r\n")
            assert status(garbage) == 400
            until(port, "harness_requests_open 1.0")
            code, out, err = ended(process, within=15)
            assert status(unfinished) == 408
        assert (code, err) == (0, "") and "every request that was taken is answered" in out


def test_a_body_has_a_time_and_a_length_and_few_are_read_at_once() -> None:
    with serving("--timeout", 2, "--waiting", 1, "--batch-size", 1) as (_, port):
        with send(port, length=1_000_001) as long:
            assert status(long) == 413
        unfinished = [send(port, without=5) for _ in range(3)]
        until(port, "harness_requests_open 3.0")
        with send(port) as refused:
            assert status(refused) == 503
        assert '{"status":"ok"}' in get(port, "/health")
        assert [status(connection) for connection in unfinished] == [408] * 3
        with send(port) as taken:
            assert status(taken) == 200


def test_the_end_does_not_wait_for_a_model_that_hangs() -> None:
    with serving("--timeout", 1) as (process, port), send(port, "60 1") as hanging:
        assert status(hanging) == 504
        code, out, err = ended(process, within=serve.ENDING + 15)
        assert (code, err.count("\n")) == (1, 1) and "answered" not in out
        assert "a model was still at work" in err


def test_the_end_does_not_wait_for_a_client_that_does_not_read() -> None:
    with serving("--timeout", 1) as (process, port), send(port, "0 50000000") as connection:
        until(port, "harness_request_seconds_count 1.0")
        code, out, err = ended(process, within=20)
        assert (code, err) == (1, "harness: stopped; connections that were cut off: 1\n") and "answered" not in out
        connection.close()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(second: signal.Signals) -> None:
    with serving() as (process, port), send(port, "60 1"):
        until(port, "harness_requests_open 1.0")
        process.send_signal(signal.SIGTERM)
        while True:  # until the first has been taken: then nobody is let in
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                break
        process.send_signal(second)
        assert process.wait(5) == -second


def test_clients_that_are_gone_give_up_their_place() -> None:
    with serving("--waiting", 2, "--batch-size", 1) as (_, port), send(port, "5 1") as first:
        until(port, "harness_requests_open 1.0")
        gone = [send(port, "0 1") for _ in range(2)]
        until(port, "harness_queries_waiting 2.0")
        for connection in gone:
            connection.close()
        until(port, "harness_queries_waiting 0.0")
        assert "harness_requests_open 1.0" in get(port, "/metrics")  # the first is with the model still
        with send(port, "0 2") as taken:
            assert status(first) == status(taken) == 200
        text = get(port, "/metrics")
        assert 'harness_hops_total{model="math-specialist"} 2.0' in text
        assert 'harness_requests_total{status="499"} 2.0' in text


def test_one_query_that_fails_fails_alone() -> None:
    together = threading.Event()

    def answers(query: str) -> str:
        together.wait(30)
        if query == "fail":
            raise RuntimeError
        return query

    dispatcher = Dispatcher(lambda: routed(Model(answers)))
    futures = {query: dispatcher.submit((query, SETTINGS)) for query in ("first", "a", "fail", "b")}
    together.set()
    assert [futures[query].result(30).response for query in ("first", "a", "b")] == ["first", "a", "b"]
    assert isinstance(futures["fail"].exception(30), RuntimeError)
    assert dispatcher.close()


def test_of_a_batch_that_failed_only_what_is_awaited_is_tried_again() -> None:
    queries = ("left", "fail", "late", "stays")
    gates = {"first": threading.Event(), "left": threading.Event()}

    def answers(query: str) -> str:
        assert query not in gates or gates[query].wait(30)
        return query if query != "fail" else str(1 / 0)

    def begun(query: str) -> None:
        deadline = time.monotonic() + 30
        while query not in model.asked:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    model = Model(answers)
    dispatcher = Dispatcher(lambda: routed(model))
    dispatcher.submit(("first", SETTINGS))
    begun("first")
    left, fails, _, stays = (dispatcher.submit((q, SETTINGS), 0.1 if q == "late" else 30) for q in queries)
    gates["first"].set()
    begun("left")
    left.cancel()
    time.sleep(0.15)
    gates["left"].set()
    assert isinstance(fails.exception(30), ZeroDivisionError) and stays.result(30).response == "stays"
    assert [model.asked.count(query) for query in queries] == [1, 2, 1, 2]
    assert dispatcher.close()


def test_what_still_waits_at_the_end_is_cancelled() -> None:
    go = threading.Event()
    dispatcher = Dispatcher(lambda: routed(Model(lambda _: str(go.wait(60)))), batch_size=1, waiting=1)
    running = dispatcher.submit(("a", SETTINGS))
    while dispatcher.length:
        time.sleep(0.01)
    waiting = dispatcher.submit(("b", SETTINGS))
    assert not dispatcher.close(0.1) and waiting.cancelled() and not running.done()
    go.set()
    assert running.result(30).response == "True" and dispatcher.close()


def test_calls_are_billed_once_each_whoever_still_waits() -> None:
    go, model = threading.Event(), Model(lambda query: query if go.wait(60) and query != "fail" else 1 / 0)
    dispatcher = Dispatcher(lambda: routed(model), batch_size=8)
    client = TestClient(create_app(dispatcher, "m", None, Limits(seconds=1.0)))

    def ask(query: str) -> int:
        body = {"model": "m", "messages": [{"role": "user", "content": query}]}
        return client.post("/v1/chat/completions", json=body).status_code

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(ask, ["late"] * 3)) == [504] * 3
    go.set()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, ["same"] * 4))
    assert dispatcher.close()
    text = client.get("/metrics").text
    assert f'harness_hops_total{{model="math-specialist"}} {len(model.asked)}.0' in text, text
    assert f'harness_cost_total{{model="math-specialist"}} {len(model.asked) * 12}.0' in text
    assert f'harness_tokens_total{{direction="read",model="math-specialist"}} {len(model.asked) * 10}.0' in text


def test_the_first_hop_is_billed_where_the_second_fails() -> None:
    def answers(query: str) -> str:
        if len(model.asked) == 2:
            raise RuntimeError
        return query

    model, billed = Model(answers), []
    dispatcher = Dispatcher(lambda: routed(model, max_hops=2))
    dispatcher.bill = lambda calls, _: billed.extend(calls)
    assert isinstance(dispatcher.submit(("q", SETTINGS)).exception(30), RuntimeError)
    assert [(call.tokens_in, call.tokens_out, call.cost) for call in billed] == [(10, 2, 12.0)]
    assert dispatcher.close()


if __name__ == "__main__":
    serve._open = lambda _: routed(Model(slow))
    main()
