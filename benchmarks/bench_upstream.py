"""What a failing or a slow model server costs the others: `serve` over a chat server that fails on some questions.

    python benchmarks/bench_upstream.py

Clients ask good questions at the same time, first alone, then beside questions that the chat server answers with status
500 each time, then beside one that it takes long over. The chat server runs in this process, `serve` in its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests
import tyro


@dataclass(frozen=True)
class Args:
    """What is measured."""

    good: int = 6
    """good questions at the same time"""
    poison: int = 2
    """questions that are answered with status 500"""
    answer: float = 0.1
    """seconds that the chat server takes"""
    slow: float = 10.0
    """seconds that it takes over the slow question"""
    batch_size: int = 8
    """of the pool's model"""
    concurrent: int | None = None
    """num_concurrent of the pool's model; by default the pool does not say"""
    rounds: int = 5
    """how often each is measured; the medians are shown"""
    longest: float = 300.0
    """--timeout of serve"""


class ChatServer(BaseHTTPRequestHandler):
    """Answers what does not begin with `poison`, and slowly what begins with `slow`."""

    args: Args

    def do_POST(self) -> None:
        """One chat completion."""
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        time.sleep(self.args.slow if question.startswith("slow") else self.args.answer)
        choice = {"index": 0, "message": {"role": "assistant", "content": "done"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 1}
        body = json.dumps({"choices": [choice], "usage": usage}).encode()
        self.send_response(500 if question.startswith("poison") else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def measure(url: str, good: int, others: list[str]) -> tuple[float, float, list[int]]:
    """Seconds until the last good question was answered, and the last of the others, and the others' statuses."""

    def ask(question: str) -> tuple[int, float]:
        body = {"model": "m", "messages": [{"role": "user", "content": question}]}
        status = requests.post(f"{url}/v1/chat/completions", json=body, timeout=600).status_code
        return status, time.perf_counter() - start

    with ThreadPoolExecutor(good + len(others)) as threads:
        start = time.perf_counter()
        bad = [threads.submit(ask, question) for question in others]
        time.sleep(0.02 if others else 0.0)  # the others are there first
        asked = [threads.submit(ask, f"good {number}") for number in range(good)]
        answered = [future.result() for future in asked]
        assert {status for status, _ in answered} == {200}, answered
        ended = [future.result() for future in bad]
    last = max((seconds for _, seconds in ended), default=0.0)
    return max(seconds for _, seconds in answered), last, [status for status, _ in ended]


def main() -> None:
    """Start both servers, measure, stop them."""
    args = ChatServer.args = tyro.cli(Args, description=__doc__)
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), ChatServer)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    arguments: dict[str, Any] = {
        "model": "any",
        "base_url": f"http://127.0.0.1:{upstream.server_port}/v1/chat/completions",
    }
    if args.concurrent is not None:
        arguments |= {"num_concurrent": args.concurrent}
    model = {"name": "a", "lm_eval": "local-chat-completions", "base_rate": 1.0, "chat_template": True}
    pool: dict[str, Any] = {"name": "p", "cost_unit": "u", "rates": "made up"}
    pool |= {"models": [{**model, "batch_size": args.batch_size, "arguments": arguments}]}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pool.yaml"
        file.write_text(json.dumps(pool), encoding="utf-8")
        command = [sys.executable, "-m", "harness", "serve", "--pool", str(file), "--router", "single:a"]
        command += ["--max-hops", "1", "--port", "0", "--name", "m", "--timeout", str(args.longest)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            line = next(line for line in server.stdout if "http://" in line)
            url = "http://" + line.split("http://")[1].split("/")[0].split()[0]
            measure(url, 1, [])
            poison = [f"poison {number}" for number in range(args.poison)]
            alone = 0.0
            kinds = {"alone": [], f"beside {args.poison} poison": poison, "beside a slow one": ["slow"]}
            for name, others in kinds.items():
                made = sorted(measure(url, args.good, others) for _ in range(args.rounds))
                seconds, last, statuses = made[len(made) // 2]
                alone = alone or seconds
                shown = f"; the others {last:.2f} s, {statuses}" if others else ""
                print(f"{args.good} good {name}: {seconds:.2f} s, {seconds / alone:.2f} times{shown}", flush=True)
            server.terminate()
    upstream.shutdown()


if __name__ == "__main__":
    main()
