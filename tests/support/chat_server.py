"""A chat server on this machine that fails as a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """A chat server; `faults` maps how often a question was asked before to what is done instead of answering."""

    def __init__(self, fault: Callable[[Handler, str, int], bool]) -> None:
        self.fault = fault
        self.asked: dict[str, int] = {}
        self.in_flight = self.max_in_flight = 0
        self.timeout_of_clients = 2.0
        self.gone: dict[str, float | None] = {}
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/chat/completions"

    def handle_error(self, *_: object) -> None:
        """Quiet: of several requests at once the first that fails ends the others."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = str(asked["messages"][-1]["content"] if "messages" in asked else asked["prompt"])
        with self.server.lock:
            before = self.server.asked.get(question, 0)
            self.server.asked[question] = before + 1
            self.server.in_flight += 1
            self.server.max_in_flight = max(self.server.max_in_flight, self.server.in_flight)
        self.under_way = True
        try:
            if not self.server.fault(self, question, before):
                self.reply(200, answer_to(question, **({} if "messages" in asked else AS_TEXT)))
        finally:
            self.leave()

    def leave(self) -> None:
        """No longer in flight: before the reply is sent, or the next request might be here first."""
        with self.server.lock:
            self.server.in_flight -= self.under_way
            self.under_way = False

    def reply(self, status: int, content: Any, kind: str = "application/json", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.leave()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


AS_TEXT = {"as_text": True}
"""The reply of a server of completions and not of chats."""


def answer_to(question: str, as_text: bool = False, **choice: Any) -> dict[str, Any]:
    number, text = int(question.split()[1]), f"answer to {question}"
    said: Any = {"text": text} if as_text else {"message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 100 + number, "completion_tokens": 10 + number}
    return {"choices": [{"index": 0, **said, "finish_reason": "length", **choice}], "usage": usage}


@contextmanager
def chat_server(fault: Callable[[Handler, str, int], bool] = lambda *_: False) -> Iterator[Server]:
    """A running one."""
    server = Server(fault)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()  # so soon it ends
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
