"""Models behind a server: how they are asked, within their time and again where that may help, and what they say.

lm-eval hands over texts alone. Here its API models are made to hand over texts that remember the rest: the tokens that
are billed, why a response ended, and why there is none.
"""

from __future__ import annotations

import asyncio
import json
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
from typing import Any, Literal

from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, wait_exponential

from pools.errors import UserError
from pools.models.progress import count, say_silent
from pools.secrets import clean
from pools.types import FinishReason


@dataclass(frozen=True)
class Failure:
    """Why there is no response. status: of HTTP; None if there is none. text: one line, what was said.

    stage: whether the request could not be sent, got no whole reply, or got one that holds no response.
    """

    status: int | None
    text: str
    stage: Literal["unsent", "silent", "replied"]


class NoResponse(ValueError):
    """A reply holds no response."""


class ServerText(str):
    """A response of a server. tokens: read and written, as the server counts; finish_reason; each None if unsaid.

    seconds: from sending the request to the whole reply, of the try that was answered; None if that is not known.
    failure: in place of a response, why there is none; so one prompt that fails takes no other of its batch along.
    """

    tokens: tuple[int, int] | None = None
    finish_reason: FinishReason | None = None
    seconds: float | None = None
    failure: Failure | None = None


def attach_usage(lm: Any, name: str) -> None:
    """Make an API model of lm-eval, of the pool's model `name`, give a ServerText for each response.

    Each reply is to one prompt (`batch_size` 1): the counts of several would be one sum. A reply that holds no text is
    then an error, which is asked again for, and no longer an empty response.
    """
    from lm_eval.models.utils import postprocess_generated_text

    def parse(outputs: Any, **_: Any) -> list[str]:
        if isinstance(outputs, ServerText):  # parsed already
            return [outputs]
        content, finish_reason = _response(outputs)
        answer = postprocess_generated_text(content, None, getattr(lm, "think_end_token", None))
        # JSON can hold half of a surrogate pair, as of an emoji that was cut in two, and no file can.
        text = ServerText(answer.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
        text.tokens = _tokens(outputs)
        text.finish_reason = finish_reason
        if text.tokens is None and getattr(lm, "tokenizer", None) is None:
            raise uncounted(name)
        return [text]

    lm.parse_generations = parse


def omit_empty_stop(lm: Any) -> None:
    """Make an API model of lm-eval send no `stop` that holds nothing: `transformers serve` fails at it."""
    make = lm._create_payload

    def payload(*given: Any, **named: Any) -> dict[str, Any]:
        return {key: value for key, value in make(*given, **named).items() if key != "stop" or value}

    lm._create_payload = payload


def uncounted(name: str) -> UserError:
    """The error of a model without token counts."""
    return UserError(
        f"model {name} gives no token counts, so its cost is unknown: its server says none (`usage`); name "
        "`tokenizer` and, for a chat server, `tokenizer_backend: huggingface` in its arguments"
    )


_ENDED: dict[Any, FinishReason] = {
    **{"stop": "stop", "length": "length"},  # OpenAI's
    **{"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"},  # Anthropic's
}


def _response(reply: Any) -> tuple[str, FinishReason | None]:
    """Text and finish reason of a reply in OpenAI's form, which has one choice, or in Anthropic's, which has blocks.

    Raises NoResponse if it has no text, as where a filter withholds it.
    """
    try:
        if reply.get("type") == "message":
            ended = reply["stop_reason"]
            texts = [block["text"] for block in reply["content"] if block["type"] == "text"]
            text = "".join(texts) if texts or ended in _ENDED else None  # without a block: it ended at once, or refused
        else:
            [choice] = reply["choices"]
            text = choice["message"]["content"] if "message" in choice else choice["text"]
            ended = choice.get("finish_reason")
    except (AttributeError, KeyError, TypeError, ValueError):
        text = None
    if not isinstance(text, str):
        raise NoResponse(f"its reply holds no response (one choice, or blocks, with a text): {clean(str(reply))[:100]}")
    return text, _ENDED.get(ended) if isinstance(ended, str) else None


def _tokens(reply: dict[str, Any]) -> tuple[int, int] | None:
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        return None
    names = ["prompt_tokens", "completion_tokens"]
    if reply.get("type") == "message":  # Anthropic's; what its cache held is read, and counted beside the others
        cached = [name for name in ("cache_creation_input_tokens", "cache_read_input_tokens") if usage.get(name)]
        names = ["input_tokens", *cached, "output_tokens"]
    counts: list[int] = []
    for said in map(usage.get, names):
        if not isinstance(said, int) or isinstance(said, bool) or not 0 <= said < 2**31:
            return None
        counts.append(said)
    return sum(counts[:-1]), counts[-1]


TRIES = 8
"""How often a request is sent at least that a server refuses for now, where `max_retries` does not say."""
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


def ask_patiently(lm: Any, at_once: int, patience: float, most: float = math.inf) -> None:
    """Make an API model of lm-eval send a request again, with the pauses that the server asks for, and say so.

    lm-eval's own way of asking again knows no `Retry-After`, and repeats what the server will never accept. A server
    that says nothing is asked for `patience` seconds, one that refuses for now at least TRIES times, too; neither more
    than `most` times. A prompt that is not answered becomes a ServerText that says why. After one that failed at every
    try the next ones are sent once, until the server answers again: it may be down.
    at_once: how many requests are under way at a time where several threads ask.
    """
    lm.max_retries = 1
    send, send_alone, places = lm.amodel_call, lm.model_call, threading.Semaphore(at_once)
    failing = said = False

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
        nonlocal failing, said
        waiting, out_of_patience = _waiting.get(), False

        def enough(state: RetryCallState) -> bool:
            nonlocal out_of_patience
            if waiting is not None:
                return state.attempt_number >= min(most, TRIES_AWAITED) or state.upcoming_sleep >= waiting.left
            out_of_patience = failing or state.attempt_number >= most or _too_long(state, patience)
            return out_of_patience

        def say(state: RetryCallState) -> None:
            nonlocal said
            if not said and state.outcome and (error := state.outcome.exception()):
                said = True
                say_silent(reason(error).text)

        retrying = AsyncRetrying(stop=enough, before_sleep=say, **policy)
        try:
            answers = await _while_awaited(waiting, retrying(ask_once, waiting, request))
            failing = said = False
            count(len(answers), sum((getattr(answer, "tokens", None) or (0, 0))[1] for answer in answers))
            return answers
        except Exception as error:
            if isinstance(error, UserError) or not request.get("generate", True):
                raise
            failing = failing or out_of_patience
            text = ServerText()
            text.failure = reason(error)
            return [text]

    def ask_alone(messages: Any, *, generate: bool = True, gen_kwargs: Any = None, **more: Any) -> Any:
        """As lm-eval asks where `num_concurrent` is 1: the text, or the reply with the likelihoods."""
        if not generate:
            stop = lambda state: state.attempt_number >= most or _too_long(state, patience)  # noqa: E731
            return Retrying(stop=stop, **policy)(send_alone, messages, generate=False, **more)
        [[text]] = asyncio.run(lm.get_batched_requests(messages, [None], gen_kwargs=gen_kwargs))
        return text

    lm.model_call, lm.amodel_call = ask_alone, ask


def _too_long(state: RetryCallState, patience: float) -> bool:
    """Whether the next try would begin later than `patience` seconds after the first, of which a refusal has TRIES."""
    # Where no pause is made, as in tests, no time passes.
    spent = max(state.seconds_since_start or 0.0, state.idle_for) + state.upcoming_sleep
    error = state.outcome.exception() if state.outcome else None
    refused = error is not None and _status(error) is not None
    return spent > patience and not (refused and state.attempt_number < TRIES)


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


class _Session:
    """lm-eval's session. An error has the words of the server, of which aiohttp's own would know the status alone."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def post(self, url: str, **request: Any) -> Any:
        return self._session.post(url, raise_for_status=_refuse, **request)


async def _refuse(response: Any) -> None:
    """Raise a ClientResponseError with what the server said, if it is a refusal."""
    from aiohttp import ClientResponseError

    if not response.ok:
        said = words(await response.text(errors="replace")) or response.reason
        how = {"status": response.status, "message": said, "headers": response.headers}
        raise ClientResponseError(response.request_info, response.history, **how)


def words(body: str) -> str:
    """What the body of a refusal says: a text, or what OpenAI's, FastAPI's or another form of errors holds."""
    try:
        return _words(json.loads(body))
    except ValueError:
        return "" if body.lstrip().startswith("<") else body  # a page of a proxy's


def _words(said: Any) -> str:
    if isinstance(said, list):  # FastAPI's, an entry for each field
        return "; ".join(filter(None, map(_words, said[:3])))
    if not isinstance(said, dict):
        return said if isinstance(said, str) else ""
    found = next(filter(None, (_words(said.get(key)) for key in ("error", "message", "detail", "msg"))), "")
    field = said["loc"][-1] if isinstance(said.get("loc"), list) and said["loc"] else None
    return found if field is None else f"{field}: {found}"


async def _timed(send: Callable[..., Awaitable[list[str]]], request: dict[str, Any]) -> list[str]:
    """Send a request once; the responses know how long that took."""
    turn = _Turn(request["sem"])
    answers = await send(**{**request, "sem": turn, "session": _Session(request.get("session"))})
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
    # With status 200: a page where JSON was expected, as of a server that has no such path.
    for_good = _unsent(error) or (status is not None and 200 <= status < 500 and status not in _PASSES)
    return isinstance(error, Exception) and not isinstance(error, UserError) and not for_good


def _unsent(error: BaseException) -> bool:
    """Whether the request could not be sent: no key, or a URL, header or certificate that is not accepted."""
    of_a_reply = isinstance(error, (NoResponse, json.JSONDecodeError, UnicodeDecodeError))
    return isinstance(error, ValueError) and not of_a_reply


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


def reason(error: BaseException) -> Failure:
    """Why a server did not answer, in one line, without what a library quotes of the request: it holds the key."""
    if (status := _status(error)) is not None:
        told = getattr(error, "message", "") or words(str(getattr(_answer(error), "text", "")))
        said = f"status {status}: {told}" if told else f"status {status}"
    elif type(error) in (ValueError, NoResponse, TimeoutError):  # a timeout of aiohttp says nothing
        said = str(error) or "no whole reply in time"
    else:
        why = getattr(error, "strerror", None)
        said = f"{type(error).__name__} ({why})" if why else type(error).__name__
    said = "".join(c if c.isprintable() else " " for c in clean(said)[:300])
    replied = status is not None or isinstance(error, ValueError)
    return Failure(status, " ".join(said.split()), "unsent" if _unsent(error) else "replied" if replied else "silent")


_TOO_LONG = ("context length", "context size", "context window", "maximum context", "max_model_len", "too long")


def advice(failure: Failure, lm: Any, lm_eval: str, patience: float) -> str:
    """What to do about it: the option of the pool file that helps, by what servers are known to say."""
    status, said = failure.status, failure.text.lower()
    anthropic = lm_eval.startswith("anthropic")
    if failure.stage == "unsent" and "key not found" in said:
        return f"set the variable {_key_variable(lm_eval)}"
    if failure.stage == "unsent" and "authorization" in said:
        return "leave user and password out of `base_url`; name them in `header` (`{Authorization: Basic ...}`)"
    if failure.stage == "unsent":
        return "check `base_url` and the other arguments in the pool file"
    if status is None and "in time" in said:
        return f"check that it runs; one reply may take {lm.timeout:g} s (`timeout` in its arguments)"
    if status is None:
        return f"check that it runs, and `base_url`; it is asked again for {patience:g} s (`patience` in the pool file)"
    if status in (401, 403):
        other = "" if anthropic else ", or `header` in its arguments"  # ignored there
        return f"check the key: the variable {_key_variable(lm_eval)}{other}"
    if status == 429:
        return "lower `num_concurrent` in its arguments, or raise `max_retries`"
    if status in (400, 500) and any(sign in said for sign in _TOO_LONG):
        return "start the server with a longer context, or use a task with shorter texts"
    if "max_completion_tokens" in said:
        return "use `lm_eval: openai-chat-completions`, which says so"
    if getattr(lm, "tokenized_requests", False) and status in (400, 422):
        return "set `tokenized_requests: false` in its arguments: texts are sent in place of numbers"
    path = "/v1/messages" if anthropic else "/v1/chat/completions" if "chat" in lm_eval else "/v1/completions"
    if status in (200, 404):
        return f"check `base_url`, which ends in {path} for `{lm_eval}`, and `model`"
    if status >= 500 or "template" in said:
        return (
            "its log says more; check `model`, and that it has a chat template: without one use "
            "`lm_eval: local-completions` and .../v1/completions"
            if "chat" in lm_eval and not anthropic
            else "its log says more; check `model` in its arguments"
        )
    return "check `model` and the other arguments in the pool file"


def _key_variable(lm_eval: str) -> str:
    """The variable of the environment in which a model type of lm-eval looks for its key."""
    vendor = lm_eval.split("-")[0]
    return {"anthropic": "ANTHROPIC_API_KEY", "azure": "AZURE_OPENAI_API_KEY"}.get(vendor, "OPENAI_API_KEY")
