"""What one client of `serve` cannot do to the others, and how the server ends: over plain sockets, with slow models."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from harness.serving.app import create_app
from harness.serving.batcher import Dispatcher, Overloaded
from harness.serving.server import ENDING
from pools.types import GenerationSettings
from served import SLOW, Model, chat, routed, serving

SETTINGS = GenerationSettings((), 8)


def send(address: str, query: str = "0 1", without: int = 0, length: int | None = None) -> socket.socket:
    """A connection over which a query was sent, `without` the last bytes of its body."""
    body = json.dumps(chat(query)).encode()
    head = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {length or len(body)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=30)
    connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}".encode() + body[: len(body) - without])
    return connection


def status(connection: socket.socket) -> int:
    return int(connection.recv(12).decode().split()[1])


def until(address: str, line: str) -> None:
    """Wait for a line of /metrics."""
    deadline = time.monotonic() + 30
    while f"\n{line}\n" not in httpx.get(f"{address}/metrics").text:
        assert time.monotonic() < deadline, line
        time.sleep(0.02)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error, after a SIGTERM."""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=ENDING + 30)
    return process.returncode, out, err


def test_a_body_has_a_time_and_a_length_few_are_read_at_once_and_bad_requests_are_no_news() -> None:
    with serving("--timeout", 2, "--waiting", 1, "--batch-size", 1, "--name", "m", command=SLOW) as (process, address):
        with send(address, length=1_000_001) as long:
            assert status(long) == 413
        with send(address, length=1) as garbage:
            assert status(garbage) == 400
        unfinished = [send(address, without=5) for _ in range(3)]
        until(address, "harness_requests_open 3.0")
        with send(address) as refused:
            assert status(refused) == 503
        assert httpx.get(f"{address}/health").json() == {"status": "ok"}
        code, out, err = ended(process)
        assert [status(connection) for connection in unfinished] == [408] * 3
        assert (code, err) == (0, "") and "every request that was taken is answered" in out


def test_the_end_waits_for_no_model_that_hangs() -> None:
    with serving("--timeout", 1, "--name", "m", command=SLOW) as (process, address), send(address, "60 1") as hanging:
        assert status(hanging) == 504
        code, out, err = ended(process)
        assert (code, err.count("\n")) == (1, 1) and "answered" not in out
        assert "a model was still at work" in err


def test_the_end_waits_for_no_client_that_does_not_read() -> None:
    with serving("--timeout", 1, "--name", "m", command=SLOW) as (process, address), send(address, "0 50000000"):
        until(address, "harness_request_seconds_count 1.0")
        code, out, err = ended(process)
        assert (code, err) == (1, "harness: stopped; connections that were cut off: 1\n") and "answered" not in out


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(second: signal.Signals) -> None:
    with serving("--name", "m", command=SLOW) as (process, address), send(address, "60 1"):
        until(address, "harness_requests_open 1.0")
        process.send_signal(signal.SIGTERM)
        while True:  # until the first has been taken: then nobody is let in
            try:
                httpx.get(f"{address}/health")
            except httpx.ConnectError:
                break
        process.send_signal(second)
        assert process.wait(5) == -second


def test_clients_that_are_gone_give_up_their_place() -> None:
    arguments = ("--waiting", 2, "--batch-size", 1, "--name", "m")
    with serving(*arguments, command=SLOW) as (_, address), send(address, "5 1") as first:
        until(address, "harness_requests_open 1.0")
        gone = [send(address, "0 1") for _ in range(2)]
        until(address, "harness_queries_waiting 2.0")
        with send(address) as refused:
            assert b"503 Service Unavailable\r\n" in (head := refused.recv(1000)) and b"retry-after: 1" in head
        for connection in gone:
            connection.close()
        until(address, "harness_queries_waiting 0.0")
        until(address, "harness_requests_open 1.0")  # the first is with the model still
        with send(address, "0 2") as taken:
            assert status(first) == status(taken) == 200
        text = httpx.get(f"{address}/metrics").text
        assert 'harness_hops_total{model="registry-north"} 2.0' in text
        assert 'harness_requests_total{status="499"} 2.0' in text


def test_of_a_batch_that_failed_only_what_is_awaited_is_tried_again() -> None:
    queries = ("left", "fail", "stays")
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
    dispatcher = Dispatcher(routed(model))
    dispatcher.submit(("first", SETTINGS))
    begun("first")
    left, fails, stays = (dispatcher.submit((query, SETTINGS)) for query in queries)
    gates["first"].set()
    begun("left")
    left.cancel()
    gates["left"].set()
    assert isinstance(fails.exception(30), ZeroDivisionError) and stays.result(30).response == "stays"
    assert [model.asked.count(query) for query in queries] == [1, 2, 2]
    assert dispatcher.close()


def test_after_the_end_a_query_is_refused_and_does_not_wait() -> None:
    dispatcher = Dispatcher(routed(Model(lambda query: query)), waiting=1)
    assert dispatcher.close()
    for _ in range(2):
        with pytest.raises(Overloaded):
            dispatcher.submit(("late", SETTINGS))
    assert b"harness_queries_waiting 0.0" in dispatcher.metrics.text()


def test_calls_are_billed_once_each_whoever_still_waits_and_whatever_fails() -> None:
    go = threading.Event()

    def answers(query: str) -> str:
        assert go.wait(60)
        return query if model.asked.count("fail") < 2 else str(1 / 0)  # its second hop fails

    model = Model(answers)
    dispatcher = Dispatcher(routed(model, max_hops=2), waiting=3)
    client = TestClient(create_app(dispatcher, "m", seconds=1.0))

    def ask(query: str) -> Any:
        return client.post("/v1/chat/completions", json=chat(query))

    with ThreadPoolExecutor(5) as threads:
        statuses = [got.status_code for got in threads.map(ask, ["late"] * 5)]
    assert set(statuses) <= {503, 504} and 504 in statuses
    go.set()
    with ThreadPoolExecutor(3) as threads:
        assert {got.status_code for got in threads.map(ask, ["same"] * 3)} == {200}
    assert ask("fail").json()["error"] == {
        "message": "a model failed: ZeroDivisionError",
        "type": "server_error",
        "code": 500,
    }
    assert dispatcher.close()
    text = client.get("/metrics").text
    answered = len(model.asked) - 1
    assert f'harness_hops_total{{model="registry-north"}} {answered}.0' in text, text
    assert f'harness_cost_total{{model="registry-north"}} {answered * 12}.0' in text
    assert f'harness_tokens_total{{direction="read",model="registry-north"}} {answered * 10}.0' in text
    assert 'harness_requests_total{status="500"} 1.0' in text
