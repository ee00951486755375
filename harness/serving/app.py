"""The chat API that clients of OpenAI speak, over a router.

Paths: `/v1/chat/completions`, `/v1/models`, `/metrics`, `/health`. Decoding is greedy, so `temperature`, `top_p` and
`seed` change nothing; several choices, tools, log-probabilities, `logit_bias` and a `response_format` other than text
are refused. A response is streamed once its last hop has ended.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import Future
from types import FrameType
from typing import Annotated, Any, Literal
from urllib.parse import quote

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from harness.serving.batcher import Answer, Dispatcher, Overloaded
from harness.serving.metrics import ServingMetrics
from harness.serving.middleware import GONE, Gate, Limits, refusal
from pools.errors import QueryError, UserError
from pools.types import GenerationSettings, UpstreamError

Empty = Annotated[list[Any], Field(max_length=0)]


class TextPart(BaseModel):
    """One part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """Its content as one text."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    """Whether the last chunk tells the usage."""

    include_usage: bool = False


class ResponseFormat(BaseModel):
    """What form a response has."""

    type: Literal["text"]


class ChatRequest(BaseModel):
    """What a client asks; other fields of the API are ignored."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    tools: Empty | None = None
    functions: Empty | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    response_format: ResponseFormat | None = None

    def query(self) -> str:
        """The text that is routed.

        Instructions and one question are joined by an empty line; a longer conversation is written out with its roles.
        """
        if [m.role for m in self.messages if m.role not in ("system", "developer")] == ["user"]:
            return "\n\n".join(message.text for message in self.messages)
        return "\n\n".join(f"{message.role.capitalize()}: {message.text}" for message in self.messages)

    def settings(self, limits: Limits) -> GenerationSettings:
        """How responses are decoded. Raises HTTPException for more tokens, or more to stop at, than are allowed."""
        asked = self.max_completion_tokens or self.max_tokens or min(limits.default_tokens, limits.max_tokens)
        if asked > limits.max_tokens:
            raise HTTPException(400, f"{asked} tokens were asked for; at most {limits.max_tokens} are allowed")
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stop) > limits.stops or any(len(text) > limits.stop_length for text in stop):
            raise HTTPException(
                400, f"stop: at most {limits.stops} texts of {limits.stop_length} characters are allowed"
            )
        return GenerationSettings(tuple(text for text in stop if text), asked)


def create_app(dispatcher: Dispatcher, name: str, key: str | None, limits: Limits) -> Gate:
    """The application. name: of the one model that it offers. key: bearer key that is asked for, if any."""
    routed = dispatcher.ready()
    metrics = ServingMetrics(routed.pool.cost_unit, lambda: dispatcher.length)
    dispatcher.bill = metrics.called
    created = int(time.time())
    app = FastAPI(title="HierRouter harness", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(metrics.text(), media_type=metrics.media_type)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name, created)]}

    @app.get("/v1/models/{wanted:path}")
    async def model(wanted: str) -> dict[str, Any]:
        _check_model(wanted, name)
        return _model(name, created)

    @app.post("/v1/chat/completions")
    async def chat(request: ChatRequest, connection: Request) -> Response:
        _check_model(request.model, name)
        query, settings = request.query(), request.settings(limits)
        if not query.strip():
            raise HTTPException(400, "the messages are empty; send a text")
        try:
            "".join((query, *settings.until)).encode()
        except UnicodeEncodeError:
            raise HTTPException(400, "the messages or stop hold half of a surrogate pair; send valid Unicode") from None
        start = time.perf_counter()
        late = HTTPException(504, f"not answered within {limits.seconds:g} seconds; ask for fewer tokens")
        try:
            waited_for = dispatcher.submit((query, settings), limits.seconds)
            answer = await _awaited(waited_for, connection, limits.seconds)
        except Overloaded:
            raise HTTPException(503, "too many requests wait; try again", {"Retry-After": "1"}) from None
        except TimeoutError:
            raise late from None
        except QueryError as error:
            raise HTTPException(422, " ".join(str(error).split())) from None
        except UpstreamError:
            if waited_for.waiting.left:
                raise HTTPException(502, "a model did not answer; try again") from None
            raise late from None
        except UserError:  # of the pool, the store, a router: nothing that a client can change, or should know
            raise HTTPException(500, "the query cannot be answered; the server's log says why") from None
        except Exception as error:  # whatever a model's library raises; its words may hold what others asked
            raise HTTPException(500, f"a model failed: {type(error).__name__}") from error
        if answer is None:
            raise HTTPException(GONE, "the client is gone")
        metrics.answered(time.perf_counter() - start)
        headers = route_headers(answer, routed.pool.cost_unit)
        usage = usage_of(answer, routed.pool.cost_unit)
        made = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
        if request.stream:
            include = request.stream_options is not None and request.stream_options.include_usage
            chunks = _chunks(made, answer, usage if include else None)
            return StreamingResponse(chunks, media_type="text/event-stream", headers=headers)
        message = {"role": "assistant", "content": answer.response}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
        body = {**made, "object": "chat.completion", "choices": [choice], "usage": usage}
        return JSONResponse(body, headers=headers)

    return Gate(app, key, limits, metrics)


async def _awaited(future: Future[Answer], connection: Request, seconds: float) -> Answer | None:
    """The answer; None where the client went away. Raises TimeoutError. What nobody waits for is given up."""
    answering = asyncio.wrap_future(future)
    leaving = asyncio.create_task(_left(connection))
    try:
        await asyncio.wait((answering, leaving), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        if leaving.done():
            return None
        raise TimeoutError
    finally:
        answering.cancel()
        leaving.cancel()


async def _left(connection: Request) -> None:
    """Until the client is gone; the body has been read."""
    while (await connection.receive())["type"] != "http.disconnect":
        pass


def usage_of(answer: Answer, unit: str) -> dict[str, Any]:
    """Tokens and cost of all hops, which are all billed, and the hops in their order."""
    read, written = (sum(getattr(hop, key) for hop in answer.hops) for key in ("tokens_in", "tokens_out"))
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "cost": answer.cost,
        "cost_unit": unit,
        "routing_cost": answer.routing_cost,
        "route": [vars(hop) for hop in answer.hops],
    }


def route_headers(answer: Answer, unit: str) -> dict[str, str]:
    """The models that were called, and what they cost, for logs and proxies."""
    return {
        "X-Route": " > ".join(quote(hop.model, safe=":/ .") for hop in answer.hops),
        "X-Cost": f"{answer.cost:.6g}",
        "X-Cost-Unit": quote(unit, safe="$ -/"),
    }


async def _chunks(made: dict[str, Any], answer: Answer, usage: dict[str, Any] | None) -> AsyncIterator[str]:
    def event(delta: dict[str, Any], finish_reason: str | None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event({**made, "object": "chat.completion.chunk", "choices": [choice]})

    yield event({"role": "assistant", "content": ""}, None)
    yield event({"content": answer.response}, None)
    yield event({}, answer.finish_reason)
    if usage is not None:
        yield _event({**made, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    yield "data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "hierrouter-harness"}


def _check_model(wanted: str, name: str) -> None:
    if wanted != name:
        raise HTTPException(404, f"there is no model {wanted[:100]!r}; there is {name!r}")


async def _on_http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return refusal(error.status_code, str(error.detail), dict(error.headers or {}))


async def _on_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    said = "; ".join(f"{'.'.join(map(str, e['loc'][1:])) or 'body'}: {e['msg']}" for e in error.errors()[:3])
    return refusal(400, said)


SIGNALS = (signal.SIGTERM, signal.SIGINT)


class DrainingServer(uvicorn.Server):
    """Serves `gate` until a signal comes, then answers what is there for at most `seconds`.

    cut_off: how many connections were not done by then and were closed. A second signal ends the process at once.
    """

    def __init__(self, gate: Gate, host: str, port: int, seconds: float) -> None:
        # Of level `error`: bad requests are no news, and anyone can send them. uvicorn cancels what hangs on after its
        # own limit, with a traceback for each; here all connections are closed before that.
        limit = int(seconds) + 5
        super().__init__(uvicorn.Config(gate, host=host, port=port, log_level="error", timeout_graceful_shutdown=limit))
        self.cut_off = 0
        self._gate, self._seconds = gate, seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal; the next one finds the system's own handler, which waits for nothing."""
        leave_signals_to_the_system()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and wait for those that are there."""
        self._gate.end()
        closing = asyncio.create_task(self._close_all())
        await super().shutdown(sockets)
        closing.cancel()

    async def _close_all(self) -> None:
        await asyncio.sleep(self._seconds)
        left = list(self.server_state.connections)
        self.cut_off = len(left)
        for connection in left:
            connection.transport.abort()


def leave_signals_to_the_system() -> None:
    """A signal ends the process, even while other threads keep Python busy."""
    for kind in SIGNALS:
        signal.signal(kind, signal.SIG_DFL)
