"""ASGI middleware: authentication, limits of requests and of their bodies, and how each request ended."""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING

from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from harness.serving.metrics import ServingMetrics

_bearer = HTTPBearer(auto_error=False)


class Gate:
    """The application behind its limits; `/health` is open to everyone, and the metrics count what begins with `/v1/`.

    FastAPI would check the key once it has read the body, and uvicorn's limit counts connections without a request.
    key: bearer key that is asked for, if any. max_open: how many requests are open at a time. max_body_bytes: of a
    body, body_seconds: until it is there.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: ServingMetrics,
        key: str | None,
        max_open: int,
        max_body_bytes: int,
        body_seconds: float,
    ) -> None:
        self._app, self._metrics, self._max_open = app, metrics, max_open
        # As HTTPBearer reads it from a header.
        self._key = None if key is None else key.encode().decode("latin-1").strip().encode()
        self._max_body_bytes, self._body_seconds = max_body_bytes, body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        status, counted = 500, scope["path"].startswith("/v1/")

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        self._metrics.open += counted
        try:
            await self._check(HTTPConnection(scope))
            await self._app(scope, self._limited(receive), noted)
        except HTTPException as error:
            await refusal(error)(scope, receive, noted)
        finally:
            self._metrics.open -= counted
            if counted:
                self._metrics.requests.labels(str(status)).inc()

    async def _check(self, connection: HTTPConnection) -> None:
        """Raise HTTPException for a request without the key, for one too many, and for one that says it is too long."""
        if self._key is not None:
            found = await _bearer(connection)
            if found is None or not hmac.compare_digest(found.credentials.encode(), self._key):
                raise HTTPException(401, "missing or wrong key; send it as a bearer token")
        if self._metrics.open > self._max_open:
            raise HTTPException(503, "too many requests are open; try again", {"Retry-After": "1"})
        length = connection.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_body_bytes:
            raise self._too_long()

    def _limited(self, receive: Receive) -> Receive:
        """What receives the body. It raises HTTPException for one that is too long or comes too slowly."""
        length = 0
        until: float | None = asyncio.get_running_loop().time() + self._body_seconds

        async def in_time() -> Message:
            nonlocal length, until
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                text = "the body did not arrive in time; send it again"
                raise HTTPException(408, text, {"Connection": "close"}) from None
            length += len(message.get("body", b""))
            if length > self._max_body_bytes:
                raise self._too_long()
            if not message.get("more_body"):
                until = None
            return message

        return in_time

    def _too_long(self) -> HTTPException:
        return HTTPException(413, f"the request has more than {self._max_body_bytes} bytes")


def refusal(error: HTTPException) -> JSONResponse:
    """An error in the API's form."""
    kinds = {401: "authentication_error", 404: "not_found_error", 503: "overloaded_error"}
    status = error.status_code
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    body = {"error": {"message": str(error.detail), "type": kind, "code": status}}
    return JSONResponse(body, status, error.headers)
