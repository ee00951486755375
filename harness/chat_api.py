"""The chat API that clients of OpenAI speak, over a router.

Paths: `/v1/chat/completions`, `/v1/models`, `/metrics`, `/health`. Decoding is greedy, so `temperature`, `top_p` and
`seed` change nothing; what cannot be honoured (several choices, tools, log-probabilities) is refused. A response is
streamed once its last hop has ended.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from harness.dispatcher import Answer, Dispatcher, Overloaded
from harness.serving_metrics import ServingMetrics
from pools.errors import UserError
from pools.types import GenerationSettings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = ("/health",)


@dataclass(frozen=True)
class Limits:
    """What a request may ask for: bytes of its body, tokens of a response, seconds until it is answered."""

    body_bytes: int = 1_000_000
    max_tokens: int = 1024
    default_tokens: int = 512
    seconds: float = 300.0


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
    tools: None = None
    functions: None = None

    def query(self) -> str:
        """The text that is routed.

        Instructions and one question are joined by an empty line; a longer conversation is written out with its roles.
        """
        if [m.role for m in self.messages if m.role not in ("system", "developer")] == ["user"]:
            return "\n\n".join(message.text for message in self.messages)
        return "\n\n".join(f"{message.role.capitalize()}: {message.text}" for message in self.messages)

    def settings(self, limits: Limits) -> GenerationSettings:
        """How responses are decoded. Raises HTTPException for more tokens than are allowed."""
        asked = self.max_completion_tokens or self.max_tokens or min(limits.default_tokens, limits.max_tokens)
        if asked > limits.max_tokens:
            raise HTTPException(400, f"{asked} tokens were asked for; at most {limits.max_tokens} are allowed")
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return GenerationSettings(tuple(text for text in stop if text), asked)


def create_app(dispatcher: Dispatcher, name: str, key: str | None, limits: Limits) -> FastAPI:
    """The application. name: of the one model that it offers. key: bearer key that is asked for, if any."""
    routed = dispatcher.ready()
    metrics = ServingMetrics(routed.pool.cost_unit, lambda: dispatcher.length)
    created = int(time.time())
    app = FastAPI(title="HierRouter harness", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_BodyLimit, limit=limits.body_bytes)  # the one added last is the outermost
    app.middleware("http")(_checked(key, metrics))
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
    async def chat(request: ChatRequest) -> Response:
        _check_model(request.model, name)
        query = request.query()
        try:
            "".join((query, *request.settings(limits).until)).encode()
        except UnicodeEncodeError:
            raise HTTPException(400, "the messages or stop hold half of a surrogate pair; send valid Unicode") from None
        start = time.perf_counter()
        try:
            future = dispatcher.submit((query, request.settings(limits)))
        except Overloaded:
            raise HTTPException(503, "too many requests wait; try again", {"Retry-After": "1"}) from None
        try:
            answer = await asyncio.wait_for(asyncio.wrap_future(future), limits.seconds)
        except TimeoutError:
            raise HTTPException(504, f"not answered within {limits.seconds:g} seconds; ask for fewer tokens") from None
        except UserError as error:
            raise HTTPException(422, " ".join(str(error).split())) from None
        except Exception as error:  # whatever a model's library raises; its words may hold what others asked
            raise HTTPException(500, f"a model failed: {type(error).__name__}") from error
        metrics.answered(answer, time.perf_counter() - start)
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

    return app


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


def _checked(key: str | None, metrics: ServingMetrics) -> Callable[..., Awaitable[Response]]:
    """Ask for the key, and count how requests end."""

    async def check(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("authorization", "").encode("latin-1")
        allowed = key is None or request.url.path in OPEN_PATHS
        if not allowed and not hmac.compare_digest(given, f"Bearer {key}".encode()):
            response: Response = _error(401, "missing or wrong key; send it as a bearer token")
        elif not request.url.path.startswith("/v1/"):
            return await call_next(request)
        else:
            with metrics.open.track_inprogress():
                response = await call_next(request)
        metrics.ended(response.status_code)
        return response

    return check


class _BodyLimit:
    """Refuses bodies of more bytes, whether or not their length is said beforehand."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.limit:
                raise HTTPException(413, f"the request has more than {self.limit} bytes")
            return message

        await self.app(scope, counted, send)


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    kinds = {401: "authentication_error", 404: "not_found_error", 503: "overloaded_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return JSONResponse({"error": {"message": message, "type": kind, "code": status}}, status, headers)


async def _on_http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail), dict(error.headers or {}))


async def _on_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    said = "; ".join(f"{'.'.join(map(str, e['loc'][1:])) or 'body'}: {e['msg']}" for e in error.errors()[:3])
    return _error(400, said)
