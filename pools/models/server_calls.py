"""How a server is asked: within its timeout, and again where that may help."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from pools.errors import UserError
from pools.models.server_text import the_choice

TRIES = 8
"""How often a request is sent at most where `max_retries` does not say; the pauses between are 36 seconds at least."""
_PASSES = {408, 409, 425, 429}  # the refusals that may be none a little later


def ask_patiently(lm: Any) -> None:
    """Make an API model of lm-eval send a request up to `max_retries` times, with the pauses that the server asks for.

    lm-eval's own way of asking again knows no `Retry-After`, and repeats what the server will never accept.
    """
    tries, lm.max_retries = lm.max_retries, 1
    one, several = lm.model_call, lm.amodel_call

    def ask_one(*arguments: Any, **named: Any) -> Any:
        for tried in itertools.count(1):
            try:
                reply = _in_time(lambda: one(*arguments, **named), lm.timeout)
                if named.get("generate", True):
                    the_choice(reply)
                return reply
            except Exception as error:
                seconds = _pause(error, tried, tries, lm.timeout)
            time.sleep(seconds)

    async def ask_several(*arguments: Any, **named: Any) -> Any:
        for tried in itertools.count(1):
            try:
                return await several(*arguments, **named)
            except Exception as error:
                seconds = _pause(error, tried, tries, lm.timeout)
            await asyncio.sleep(seconds)

    lm.model_call, lm.amodel_call = ask_one, ask_several


def _in_time(call: Callable[[], Any], timeout: float) -> Any:
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
        reply, error = replies.get(timeout=timeout + 1)  # what the client itself notices says more
    except queue.Empty:
        raise TimeoutError(f"no whole reply within {timeout} seconds") from None
    if error is not None:
        raise error
    return reply


def _pause(error: Exception, tried: int, tries: int, longest: float) -> float:
    """Seconds until asking again may help. Raises the error where it does not, or was tried often enough."""
    answer = getattr(error, "response", error)  # requests keeps it apart, aiohttp's error has it itself
    status = getattr(answer, "status_code", getattr(answer, "status", None))
    for_good = isinstance(status, int) and 400 <= status < 500 and status not in _PASSES
    if for_good or tried >= tries or isinstance(error, UserError):
        raise error
    named = _retry_after((getattr(answer, "headers", None) or {}).get("Retry-After", ""))
    return max(min(named, longest), 1.0, min(2.0 ** (tried - 2), 10.0))


def _retry_after(said: str) -> float:
    """Seconds, which HTTP gives as such or as a date (RFC 9110, 10.2.3); 0 where it says nothing of the kind."""
    try:
        if said.strip().isdecimal():
            return float(said)
        return (parsedate_to_datetime(said).astimezone(UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return 0.0
