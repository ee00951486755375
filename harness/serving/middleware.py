"""What a request passes before it is read: its key, a place, its body's length and time. How it ends is counted."""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from harness.serving.metrics import ServingMetrics

OPEN_PATHS = ("/health",)
GONE = 499  # the status that proxies log for a client that did not wait; nobody receives it
_LAST_SECONDS = 1.0  # for bodies that are on their way when the server ends


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    body_bytes: of its body, body_seconds: until that is there. max_tokens: of a response. seconds: until it is
    answered. stops: how many texts end a response, stop_length: characters of one. open: how many are open at a time.
    """

    body_bytes: int = 1_000_000
    max_tokens: int = 1024
    default_tokens: int = 512
    seconds: float = 300.0
    body_seconds: float = 30.0
    stops: int = 4
    stop_length: int = 200
    open: int = 1024


class Gate:
    """The application behind its limits. key: bearer key that is asked for, if any."""

    def __init__(self, app: ASGIApp, key: str | None, limits: Limits, metrics: ServingMetrics) -> None:
        self._app, self._key, self._limits, self._metrics = app, key, limits, metrics
        self._open = 0
        self._reading: set[asyncio.Timeout] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, counted = 500, scope["path"].startswith("/v1/")

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            if not self._allowed(scope):
                counted = True
                raise HTTPException(401, "missing or wrong key; send it as a bearer token")
            if scope["path"].startswith("/v1/"):
                await self._pass(scope, receive, noted)
            else:
                await self._app(scope, receive, noted)
        except HTTPException as error:
            await refusal(error.status_code, str(error.detail), dict(error.headers or {}))(scope, receive, noted)
        finally:
            if counted:
                self._metrics.ended(status)

    def end(self) -> None:
        """Wait no longer for bodies that are on their way."""
        for reading in self._reading:
            until = asyncio.get_running_loop().time() + _LAST_SECONDS
            reading.reschedule(min(until, reading.when() or until))

    def _allowed(self, scope: Scope) -> bool:
        if self._key is None or scope["path"] in OPEN_PATHS:
            return True
        # The scheme is written as one likes (RFC 9110, 11.1).
        scheme, _, key = _header(scope, b"authorization").partition(b" ")
        return hmac.compare_digest(key.lstrip(b" "), self._key.encode()) and scheme.lower() == b"bearer"

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._open >= self._limits.open:
            raise HTTPException(503, "too many requests are open; try again", {"Retry-After": "1"})
        self._open += 1
        try:
            with self._metrics.open.track_inprogress():
                body: bytes | None = await self._read(scope, receive)

                async def read() -> Message:
                    nonlocal body
                    if body is None:
                        return await receive()
                    message = {"type": "http.request", "body": body, "more_body": False}
                    body = None
                    return message

                await self._app(scope, read, send)
        finally:
            self._open -= 1

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The body. Raises HTTPException for one that is too long, comes too slowly, or breaks off."""
        most = self._limits.body_bytes
        too_long = HTTPException(413, f"the request has more than {most} bytes")
        said = _header(scope, b"content-length")
        if said.isdigit() and int(said) > most:
            raise too_long
        chunks, length = [], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds) as reading:
                self._reading.add(reading)
                try:
                    more = True
                    while more:
                        message = await receive()
                        if message["type"] == "http.disconnect":
                            raise HTTPException(GONE, "the client is gone")
                        chunks.append(message.get("body", b""))
                        length, more = length + len(chunks[-1]), message.get("more_body", False)
                        if length > most:
                            raise too_long
                finally:
                    self._reading.discard(reading)
        except TimeoutError:
            raise HTTPException(
                408, "the body did not arrive in time; send it again", {"Connection": "close"}
            ) from None
        return b"".join(chunks)


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in the API's form."""
    kinds = {401: "authentication_error", 404: "not_found_error", 503: "overloaded_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return JSONResponse({"error": {"message": message, "type": kind, "code": status}}, status, headers)
