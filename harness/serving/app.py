"""The chat API that clients of OpenAI speak, over a router.

Paths: `/v1/chat/completions`, `/v1/models`, `/metrics`, `/health`. Decoding is greedy, so `temperature`, `top_p` and
`seed` change nothing; several choices, tools, log-probabilities, `logit_bias` and a `response_format` other than text
are refused. A response is streamed once its last hop has ended.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
import uuid
from concurrent.futures import Future
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from harness.serving.batcher import Answer, Dispatcher, Overloaded
from harness.serving.traffic_log import ServedCall, TrafficLog
from pools.data.traffic import conversation_text
from pools.errors import QueryError, UserError
from pools.types import GenerationSettings, UpstreamError

DEFAULT_TOKENS = 512
NOT_ROUTED = {
    "n": "other choices",
    "logprobs": "log-probabilities",
    "tools": "calls of tools",
    "functions": "calls of functions",
    "logit_bias": "a bias on tokens",
    "response_format": "another format than text",
}
"""The fields of a request that a router cannot follow, and what they ask for."""
MAX_BODY_SECONDS = 30.0  # until a body is there
SOON = {"Retry-After": "1"}
GONE = 499  # the status that proxies log for a client that did not wait; nobody receives it

Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
Empty = Annotated[list[Any], Field(max_length=0)]
Stops = Annotated[
    Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=4)] | None,
    BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
]


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
    stop: Stops = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    tools: Empty | None = None
    functions: Empty | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None

    def query(self) -> str:
        """The text that is routed. Raises HTTPException if there is none."""
        if not any(message.text.strip() for message in self.messages):
            raise HTTPException(400, "the messages are empty; send a text")
        return conversation_text([(message.role, message.text) for message in self.messages])

    def settings(self, max_tokens: int) -> GenerationSettings:
        """How responses are decoded. Raises HTTPException for more tokens than are allowed."""
        asked = self.max_completion_tokens or self.max_tokens or min(DEFAULT_TOKENS, max_tokens)
        if asked > max_tokens:
            raise HTTPException(400, f"{asked} tokens were asked for; at most {max_tokens} are allowed")
        return GenerationSettings(tuple(text for text in self.stop or [] if text), asked)


def create_app(
    dispatcher: Dispatcher,
    name: str,
    *,
    key: str | None = None,
    max_open: int = 1024,
    max_body_bytes: int = 1_000_000,
    max_tokens: int = 1024,
    seconds: float = 300.0,
    log: TrafficLog | None = None,
) -> FastAPI:
    """The application.

    name: of the one model that it offers. key: bearer key that is asked for. max_open: how many queries may be open at
    a time, those whose body is still arriving included. max_tokens: of a response. seconds: until it is there.
    log: is told of each query that was answered, once its reply is sent.
    """
    metrics, unit = dispatcher.metrics, dispatcher.routed.cost_model.unit
    created = int(time.time())
    app = FastAPI(title="HierRouter harness", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> JSONResponse:
        metrics.requests.labels(str(error.status_code)).inc()
        return refusal(error)

    @app.exception_handler(ValidationError)
    async def refuse_invalid(request: Request, error: ValidationError) -> JSONResponse:
        said = "; ".join(_said(e["loc"], e["msg"]) for e in error.errors()[:3])
        return await refuse(request, HTTPException(400, said))

    async def check_key(given: Credentials) -> None:
        if key is not None and (given is None or not hmac.compare_digest(given.credentials.encode(), _as_read(key))):
            raise HTTPException(401, "missing or wrong key; send it as a bearer token")

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    closed = APIRouter(dependencies=[Depends(check_key)])

    @closed.get("/metrics")
    async def show_metrics() -> Response:
        return Response(metrics.text(), media_type=metrics.media_type)

    @closed.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name, created)]}

    @closed.get("/v1/models/{wanted:path}")
    async def model(wanted: str) -> dict[str, Any]:
        _check_model(wanted, name)
        return _model(name, created)

    @closed.post("/v1/chat/completions")
    async def chat(connection: Request) -> Response:
        # The body is no parameter: FastAPI would read it before it asks for the key, and without limits.
        if metrics.open >= max_open:
            raise HTTPException(503, "too many requests are open; try again", SOON)
        metrics.open += 1
        try:
            body = await _body(connection, max_body_bytes, min(MAX_BODY_SECONDS, seconds))
            request = ChatRequest.model_validate_json(body)
            _check_model(request.model, name)
            query, start = request.query(), time.monotonic()
            answer = await answered(query, request.settings(max_tokens), connection)
            took = time.monotonic() - start
            metrics.seconds.observe(took)
        finally:
            metrics.open -= 1
        metrics.requests.labels("200").inc()
        headers, usage = route_headers(answer, unit), usage_of(answer, unit)
        made = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
        message = {"role": "assistant", "content": answer.response}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
        completion = {**made, "object": "chat.completion", "choices": [choice], "usage": usage}
        after = None
        if log is not None:
            call = ServedCall(request.model_dump(exclude_unset=True), completion, query, answer, took)
            after = BackgroundTask(log.add, call)
        if request.stream:
            include = request.stream_options is not None and request.stream_options.include_usage
            events = _events(made, answer, usage if include else None)
            return Response(events, media_type="text/event-stream", headers=headers, background=after)
        return JSONResponse(completion, headers=headers, background=after)

    async def answered(query: str, settings: GenerationSettings, connection: Request) -> Answer:
        late = HTTPException(504, f"not answered within {seconds:g} seconds; ask for fewer tokens")
        until = time.monotonic() + seconds
        try:
            answer = await _awaited(dispatcher.submit((query, settings), seconds), connection, seconds)
        except Overloaded:
            raise HTTPException(503, "too many requests wait; try again", SOON) from None
        except TimeoutError:
            raise late from None
        except QueryError as error:
            raise HTTPException(422, " ".join(str(error).split())) from None
        except UpstreamError:
            if time.monotonic() >= until:  # so it was asked no longer
                raise late from None
            raise HTTPException(502, "a model did not answer; try again") from None
        except UserError:  # of the pool, the store, a router: nothing that a client can change, or should know
            raise HTTPException(500, "the query cannot be answered; the server's log says why") from None
        except Exception as error:  # whatever a model's library raises; its words may hold what others asked
            raise HTTPException(500, f"a model failed: {type(error).__name__}") from error
        if answer is None:
            raise HTTPException(GONE, "the client is gone")
        return answer

    app.include_router(closed)
    return app


def _said(place: tuple[str | int, ...], message: str) -> str:
    """What is wrong with a field of a request, and where."""
    if place and place[0] in NOT_ROUTED:
        return f"{place[0]}: a router answers with one text, without {NOT_ROUTED[str(place[0])]}; leave it out"
    return f"{'.'.join(map(str, place)) or 'body'}: {message}"


def _as_read(key: str) -> bytes:
    """What HTTPBearer makes of the key in a header."""
    return key.encode().decode("latin-1").strip().encode()


async def _body(connection: Request, max_bytes: int, seconds: float) -> bytes:
    """The body. Raises HTTPException for one that is no JSON, too long, too slow, or breaks off."""
    # Some other types a page in a browser may send to any server on its machine.
    kind = connection.headers.get("content-type", "none")
    if not kind.lower().startswith("application/json"):
        said = f"Content-Type is {kind[:100]}; expected -H 'Content-Type: application/json' and a body in JSON"
        raise HTTPException(415, said)
    too_long = HTTPException(413, f"the request has more than {max_bytes} bytes")
    if int(connection.headers.get("content-length", 0)) > max_bytes:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in connection.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise too_long
    except TimeoutError:
        text = "the body did not arrive in time; send it again"
        raise HTTPException(408, text, {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(GONE, "the client is gone") from None
    return bytes(body)


async def _awaited(future: Future[Answer], connection: Request, seconds: float) -> Answer | None:
    """The answer; None if the client went away. Raises TimeoutError. What nobody waits for is given up."""
    answering = asyncio.wrap_future(future)
    leaving = asyncio.create_task(connection.receive())  # the body has been read: what comes next is that it is gone
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


def _events(made: dict[str, Any], answer: Answer, usage: dict[str, Any] | None) -> str:
    """The answer as server-sent events, all known at once."""

    def choice(delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]}

    chunks = [
        choice({"role": "assistant", "content": answer.response}, None),
        choice({}, answer.finish_reason),
        *([] if usage is None else [{"choices": [], "usage": usage}]),
    ]
    data = [json.dumps({**made, "object": "chat.completion.chunk", **chunk}) for chunk in chunks]
    return "".join(f"data: {text}\n\n" for text in (*data, "[DONE]"))


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "hierrouter-harness"}


def _check_model(wanted: str, name: str) -> None:
    if wanted != name:
        raise HTTPException(404, f"there is no model {wanted[:100]!r}; there is {name!r}")


def refusal(error: HTTPException) -> JSONResponse:
    """An error in the API's form."""
    kinds = {401: "authentication_error", 404: "not_found_error", 503: "overloaded_error"}
    status = error.status_code
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    body = {"error": {"message": str(error.detail), "type": kind, "code": status}}
    return JSONResponse(body, status, error.headers)
