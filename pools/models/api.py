"""Models behind a server: how they are asked, within their time and again where that may help, and what they say.

lm-eval hands over texts alone. Here its API models are made to hand over texts that remember the rest: the tokens that
are billed, why a response ended, and why there is none.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import math
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from pools.errors import UserError, shown
from pools.secrets import clean
from pools.types import FinishReason


class ServerText(str):
    """A response of a server. tokens: read and written, as the server counts; finish_reason; each None if unsaid.

    failure: in place of a response, why there is none; so one prompt that fails takes no other of its batch along.
    """

    tokens: tuple[int, int] | None = None
    finish_reason: FinishReason | None = None
    failure: str | None = None


def keep_what_the_server_says(lm: Any, name: str) -> None:
    """Make an API model of lm-eval, of the pool's model `name`, give a ServerText for each response.

    Each reply is to one prompt (`batch_size` 1): the counts of several would be one sum. A reply that holds no text is
    then an error, which is asked again for, and no longer an empty response.
    """
    parse = lm.parse_generations

    def parse_and_keep(outputs: Any, **options: Any) -> list[str]:
        if isinstance(outputs, ServerText):  # parsed already, or a failure
            return [outputs]
        choice = the_choice(outputs)
        said = parse(outputs=outputs, **options)
        if len(said) != 1 or not _is_of(said[0], choice, getattr(lm, "think_end_token", None)):
            raise ValueError(f"its reply holds no response (lm-eval reads another): {clean(str(outputs))[:100]}")
        # JSON can hold half of a surrogate pair, as of an emoji that was cut in two, and no file can.
        text = ServerText(said[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
        text.tokens = _tokens(outputs)
        ended = choice.get("finish_reason")
        text.finish_reason = ended if ended in ("stop", "length") else None
        if text.tokens is None and getattr(lm, "tokenizer", None) is None:
            raise UserError(
                f"model {name} gives no token counts, so its cost is unknown: its server says none (`usage`); name "
                "`tokenizer` and, for a chat server, `tokenizer_backend: huggingface` in its arguments"
            )
        return [text]

    lm.parse_generations = parse_and_keep


def the_choice(reply: Any) -> dict[str, Any]:
    """The one choice of a reply to one prompt. Raises ValueError where it is not of OpenAI's form, or has no text.

    lm-eval places texts by their `index`, and a wrong one would make an empty response without a word. A choice that
    names none gets the only one there is.
    """
    try:
        choices = reply["choices"]
        if len(choices) != 1:
            raise IndexError(f"{len(choices)} choices to one prompt")
        choice = choices[0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        if not isinstance(text, str):
            raise TypeError("no text")
        index = choice.setdefault("index", 0)
        if type(index) is not int or index != 0:
            raise IndexError(f"index {shown(index)} of the only choice")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(
            f"its reply holds no response ({error or type(error).__name__}): {clean(str(reply))[:100]}"
        ) from None
    return choice


def _is_of(text: Any, choice: dict[str, Any], think_end: str | None) -> bool:
    """Whether what lm-eval reads is what the choice says; it leaves reasoning away, up to `think_end_token`."""
    content = choice["message"]["content"] if "message" in choice else choice["text"]
    return text == content or (bool(think_end) and isinstance(text, str) and content.endswith(text))


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
_PASSES = {408, 409, 425, 429}  # the refusals that may be none a little later


@dataclass(frozen=True)
class Waiting:
    """Somebody who waits for an answer.

    until: as `time.monotonic` counts. gone: done once nobody waits any more. tries: how often a server is asked.
    alone: whether no other thread asks meanwhile.
    """

    until: float = math.inf
    gone: Future[None] = field(default_factory=Future)
    tries: int = 2
    alone: bool = False

    @property
    def left(self) -> float:
        """Seconds, 0 where nobody waits any more."""
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
    one, several = lm.model_call, lm.amodel_call
    places, failing = threading.Semaphore(at_once), False

    def pause(error: Exception, tried: int, waiting: Waiting | None, generate: bool) -> float | None:
        """Seconds until the next try; None where there is none. Raises an error that is not of this prompt alone."""
        nonlocal failing
        most = 1 if failing and waiting is None else tries
        seconds = _pause(error, tried, most if waiting is None else min(most, waiting.tries), lm.timeout)
        if seconds is not None and (waiting is None or seconds < waiting.left):
            return seconds
        if isinstance(error, UserError) or not generate:
            raise error
        failing = failing or tried >= tries
        return None

    def ask_one(*arguments: Any, **named: Any) -> Any:
        nonlocal failing
        waiting, generate = _waiting.get(), named.get("generate", True)
        for tried in itertools.count(1):
            try:
                with _place(places, waiting):
                    longest = math.inf if waiting is None else waiting.left
                    reply = _in_time(lambda: one(*arguments, **named), lm.timeout, longest)
                if generate:
                    [reply] = lm.parse_generations(outputs=reply)
                failing = False
                return reply
            except Exception as error:
                seconds = pause(error, tried, waiting, generate)
                if seconds is None:
                    return _failed(error)
            if waiting is None:
                time.sleep(seconds)
            else:
                concurrent.futures.wait([waiting.gone], seconds)

    async def ask_several(*arguments: Any, **named: Any) -> Any:
        nonlocal failing
        waiting, generate = _waiting.get(), named.get("generate", True)
        try:
            async with _while_awaited(waiting):
                for tried in itertools.count(1):
                    try:
                        with _place(places, waiting):
                            made = await several(*arguments, **named)
                        failing = False
                        return made
                    except Exception as error:
                        seconds = pause(error, tried, waiting, generate)
                        if seconds is None:
                            return [_failed(error)]
                    await asyncio.sleep(seconds)
        except TimeoutError as error:
            if waiting is None or not generate:
                raise
            return [_failed(error)]

    lm.model_call, lm.amodel_call = ask_one, ask_several


@contextmanager
def _place(places: threading.Semaphore, waiting: Waiting | None) -> Iterator[None]:
    """One of the requests that may be under way at a time. Where one thread asks, lm-eval counts them."""
    if waiting is None or waiting.alone:
        yield
        return
    left = waiting.left
    if not places.acquire(timeout=None if left == math.inf else left):
        raise TimeoutError("others were asked until nobody waited any more")
    try:
        if not waiting.left:
            raise TimeoutError("nobody waits any more")
        yield
    finally:
        places.release()


@asynccontextmanager
async def _while_awaited(waiting: Waiting | None) -> AsyncIterator[None]:
    """Break off what is in it once nobody waits any more. Raises TimeoutError then."""
    if waiting is None:
        yield
        return
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None if waiting.left == math.inf else waiting.left) as limit:

            def end() -> None:
                with suppress(RuntimeError):  # it has ended
                    limit.reschedule(0)

            def notice(_: Future[None]) -> None:
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(end)

            waiting.gone.add_done_callback(notice)
            yield
    except TimeoutError:
        raise TimeoutError("no reply for as long as somebody waited") from None


def _in_time(call: Callable[[], Any], timeout: float, longest: float) -> Any:
    """What the call returns. Raises TimeoutError where that takes longer.

    The client's own timeout holds for each read: a server that sends a byte now and then would be waited for for good.
    """
    replies: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            replies.put((call(), None))
        except BaseException as error:
            replies.put((None, error))

    threading.Thread(target=ask, daemon=True).start()
    try:
        reply, error = replies.get(timeout=min(timeout + 1, longest))  # what the client itself notices says more
    except queue.Empty:
        raise TimeoutError(f"no whole reply within {min(timeout, longest):.3g} seconds") from None
    if error is not None:
        raise error
    return reply


def _pause(error: Exception, tried: int, tries: int, longest: float) -> float | None:
    """Seconds until asking again may help; None where it does not, or was tried often enough."""
    answer = getattr(error, "response", error)  # requests keeps it apart, aiohttp's error has it itself
    status = getattr(answer, "status_code", getattr(answer, "status", None))
    for_good = isinstance(status, int) and 400 <= status < 500 and status not in _PASSES
    if for_good or tried >= tries or isinstance(error, UserError):
        return None
    named = _retry_after((getattr(answer, "headers", None) or {}).get("Retry-After", ""))
    return max(min(named, longest), 1.0, min(2.0 ** (tried - 2), 10.0))


def _failed(error: Exception) -> ServerText:
    text = ServerText()
    text.failure = reason(error)
    return text


def reason(error: BaseException) -> str:
    """Why a server did not answer, in one line, without what a library quotes of the request: it holds the key."""
    answer = getattr(error, "response", error)
    status = getattr(answer, "status_code", getattr(answer, "status", None))
    if isinstance(status, int):
        said = f"status {status} {getattr(answer, 'reason', getattr(answer, 'message', '')) or ''}"
    elif type(error) in (ValueError, TimeoutError):  # ours, but for a timeout of aiohttp, which says nothing
        said = str(error) or type(error).__name__
    else:
        first = error
        while (before := first.__cause__ or first.__context__) is not None:
            first = before
        why = first.strerror if isinstance(first, OSError) else None
        said = f"{type(error).__name__} ({why})" if why else type(error).__name__
    return " ".join("".join(c if c.isprintable() else " " for c in clean(said)[:200]).split())


def _retry_after(said: str) -> float:
    """Seconds, which HTTP gives as such or as a date (RFC 9110, 10.2.3); 0 where it says nothing of the kind."""
    try:
        if said.strip().isdecimal():
            return float(said)
        return (parsedate_to_datetime(said).astimezone(UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return 0.0
