"""Models behind a server: how they are asked, within their time and again where that may help, and what they say.

lm-eval hands over texts alone. Here its API models are made to hand over texts that remember the rest: the tokens that
are billed, why a response ended, and why there is none.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from pools.errors import UserError
from pools.secrets import clean
from pools.types import FinishReason


class ServerText(str):
    """A response of a server. tokens: read and written, as the server counts; finish_reason; each None if unsaid.

    seconds: from sending the request to the whole reply, of the try that was answered; None if that is not known.
    failure: in place of a response, why there is none; so one prompt that fails takes no other of its batch along.
    """

    tokens: tuple[int, int] | None = None
    finish_reason: FinishReason | None = None
    seconds: float | None = None
    failure: str | None = None


def attach_usage(lm: Any, name: str) -> None:
    """Make an API model of lm-eval, of the pool's model `name`, give a ServerText for each response.

    Each reply is to one prompt (`batch_size` 1): the counts of several would be one sum. A reply that holds no text is
    then an error, which is asked again for, and no longer an empty response.
    """
    from lm_eval.models.utils import postprocess_generated_text

    def parse(outputs: Any, **_: Any) -> list[str]:
        if isinstance(outputs, ServerText):  # parsed already
            return [outputs]
        content, ended = _response(outputs)
        answer = postprocess_generated_text(content, None, getattr(lm, "think_end_token", None))
        # JSON can hold half of a surrogate pair, as of an emoji that was cut in two, and no file can.
        text = ServerText(answer.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
        text.tokens = _tokens(outputs)
        text.finish_reason = ended if ended in ("stop", "length") else None
        if text.tokens is None and getattr(lm, "tokenizer", None) is None:
            raise uncounted(name)
        return [text]

    lm.parse_generations = parse


def uncounted(name: str) -> UserError:
    """The error of a model without token counts."""
    return UserError(
        f"model {name} gives no token counts, so its cost is unknown: its server says none (`usage`); name "
        "`tokenizer` and, for a chat server, `tokenizer_backend: huggingface` in its arguments"
    )


def _response(reply: Any) -> tuple[str, Any]:
    """Text and finish reason of a reply in OpenAI's form. Raises ValueError if it has not one choice with a text."""
    try:
        [choice] = reply["choices"]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
    except (KeyError, TypeError, ValueError):
        text = None
    if not isinstance(text, str):
        raise ValueError(f"its reply holds no response (one choice with a text): {clean(str(reply))[:100]}")
    return text, choice.get("finish_reason")


def _tokens(reply: dict[str, Any]) -> tuple[int, int] | None:
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        return None
    found = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not all(isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**31 for count in found):
        return None
    return found  # type: ignore[return-value]


TRIES = 8
"""How often a request is sent at most where `max_retries` does not say; the pauses between are 36 seconds at least."""
TRIES_AWAITED = 2
"""The same while a client waits."""
BACKOFF = wait_exponential(multiplier=0.5, min=1, max=10)
_PASSES = {408, 409, 425, 429}  # the refusals that may be none a little later


@dataclass(frozen=True)
class Waiting:
    """Somebody who waits for an answer.

    until: as `time.monotonic` counts. gone: done once nobody waits any more. alone: whether no other thread asks
    meanwhile.
    """

    until: float = math.inf
    gone: Future[None] = field(default_factory=Future)
    alone: bool = False

    @property
    def left(self) -> float:
        """Seconds, 0 if nobody waits any more."""
        return 0.0 if self.gone.done() else max(0.0, self.until - time.monotonic())

    @property
    def left_early(self) -> bool:
        """Whether nobody waits any more, and there is time still."""
        return self.gone.done() and time.monotonic() < self.until


_waiting: ContextVar[Waiting | None] = ContextVar("waiting", default=None)


@contextmanager
def asked_by(waiting: Waiting) -> Iterator[None]:
    """Ask servers only for as long as somebody waits."""
    token = _waiting.set(waiting)
    try:
        yield
    finally:
        _waiting.reset(token)


def ask_patiently(lm: Any, at_once: int) -> None:
    """Make an API model of lm-eval send a request up to `max_retries` times, with the pauses that the server asks for.

    lm-eval's own way of asking again knows no `Retry-After`, and repeats what the server will never accept. A prompt
    that is not answered becomes a ServerText that says why. After one that failed at every try the next ones are sent
    once, until the server answers again: it may be down.
    at_once: how many requests are under way at a time where several threads ask.
    """
    tries, lm.max_retries = lm.max_retries, 1
    send, send_alone, places, failing = lm.amodel_call, lm.model_call, threading.Semaphore(at_once), False

    def pause(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(BACKOFF(state), min(_retry_after(error), lm.timeout))

    policy: dict[str, Any] = {"retry": retry_if_exception(_may_pass), "wait": pause, "reraise": True}

    async def ask_once(waiting: Waiting | None, request: dict[str, Any]) -> list[str]:
        if waiting is None or waiting.alone:  # lm-eval counts the requests of its own thread
            return await _timed(send, request)
        while not places.acquire(timeout=0.1):
            await asyncio.sleep(0)
        try:
            return await _timed(send, request)
        finally:
            places.release()

    async def ask(**request: Any) -> list[str]:
        nonlocal failing
        waiting = _waiting.get()

        def enough(state: RetryCallState) -> bool:
            if waiting is None:
                return state.attempt_number >= (1 if failing else tries)
            return state.attempt_number >= min(tries, TRIES_AWAITED) or state.upcoming_sleep >= waiting.left

        retrying = AsyncRetrying(stop=enough, **policy)
        try:
            answers = await _while_awaited(waiting, retrying(ask_once, waiting, request))
            failing = False
            return answers
        except Exception as error:
            if isinstance(error, UserError) or not request.get("generate", True):
                raise
            failing = failing or retrying.statistics.get("attempt_number", 0) >= tries
            text = ServerText()
            text.failure = reason(error)
            return [text]

    def ask_alone(messages: Any, *, generate: bool = True, gen_kwargs: Any = None, **more: Any) -> Any:
        """As lm-eval asks where `num_concurrent` is 1: the text, or the reply with the likelihoods."""
        if not generate:
            return Retrying(stop=stop_after_attempt(tries), **policy)(send_alone, messages, generate=False, **more)
        [[text]] = asyncio.run(lm.get_batched_requests(messages, [None], gen_kwargs=gen_kwargs))
        return text

    lm.model_call, lm.amodel_call = ask_alone, ask


class _Turn:
    """lm-eval's semaphore for one request, which knows since when it has its place: to wait for one is no latency."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places, self.since = places, 0.0

    async def acquire(self) -> bool:
        await self._places.acquire()
        self.since = time.perf_counter()
        return True

    def release(self) -> None:
        self._places.release()


async def _timed(send: Callable[..., Awaitable[list[str]]], request: dict[str, Any]) -> list[str]:
    """Send a request once; the responses know how long that took."""
    turn = _Turn(request["sem"])
    answers = await send(**{**request, "sem": turn})
    for answer in answers:
        if isinstance(answer, ServerText):
            answer.seconds = time.perf_counter() - turn.since
    return answers


async def _while_awaited(waiting: Waiting | None, answer: Awaitable[list[str]]) -> list[str]:
    """The answer. Raises TimeoutError once nobody waits any more, and breaks it off."""
    if waiting is None:
        return await answer
    task = asyncio.ensure_future(answer)
    while not task.done():
        if not waiting.left:
            task.cancel()
            raise TimeoutError("no reply for as long as somebody waited")
        await asyncio.wait({task}, timeout=min(0.1, waiting.left))
    return task.result()


def _may_pass(error: BaseException) -> bool:
    """Whether asking again may help."""
    status = _status(error)
    for_good = status is not None and 400 <= status < 500 and status not in _PASSES
    return isinstance(error, Exception) and not isinstance(error, UserError) and not for_good


def _status(error: BaseException) -> int | None:
    """Of HTTP."""
    answer = _answer(error)
    status = getattr(answer, "status_code", getattr(answer, "status", None))
    return status if isinstance(status, int) else None


def _answer(error: BaseException | None) -> Any:
    """What has status and headers: aiohttp's errors have them, those of requests and LiteLLM their response."""
    return getattr(error, "response", error)


def _retry_after(error: BaseException | None) -> float:
    """Seconds, which HTTP gives as such or as a date (RFC 9110, 10.2.3); 0 if the server says nothing of it."""
    said = (getattr(_answer(error), "headers", None) or {}).get("Retry-After", "")
    try:
        if said.strip().isdecimal():
            return float(said)
        return (parsedate_to_datetime(said).astimezone(UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return 0.0


def reason(error: BaseException) -> str:
    """Why a server did not answer, in one line, without what a library quotes of the request: it holds the key."""
    if (status := _status(error)) is not None:
        said = f"status {status} {getattr(error, 'message', '')}"
    elif type(error) in (ValueError, TimeoutError):  # ours, but for a timeout of aiohttp, which says nothing
        said = str(error) or "no whole reply in time"
    else:
        why = getattr(error, "strerror", None)
        said = f"{type(error).__name__} ({why})" if why else type(error).__name__
    return " ".join("".join(c if c.isprintable() else " " for c in clean(said)[:200]).split())
