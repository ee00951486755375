"""The values that cross a seam, on one screen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

from pools.errors import UserError, shown

Split = Literal["train", "validation", "test"]
FinishReason = Literal["stop", "length"]
Timing = Literal["share of a batch", "single calls", "server", "table"]
"""How the seconds of a model's responses were obtained; all but the first are latency: what one call takes."""
SHARE: Timing = "share of a batch"


@dataclass(frozen=True)
class Context:
    """What a candidate model is given to answer: the query, and every response so far in order.

    prefill: what each response begins with (lm-eval's `gen_prefix`); the model goes on from there, and it is no part of
    the response.
    """

    query: str
    responses: tuple[str, ...] = ()
    prefill: str = ""

    def extended(self, response: str) -> Context:
        """The context of the next hop."""
        return replace(self, responses=(*self.responses, response))

    def plain(self) -> dict[str, Any]:
        """As the transition store keeps it: without an empty prefill, as it was before there were any."""
        return {name: value for name, value in asdict(self).items() if value or name != "prefill"}


@dataclass(frozen=True)
class GenerationSettings:
    """How a response is decoded; decoding is always greedy.

    until: texts that end the response; they are not part of it.
    max_new_tokens: the response is cut off after this many tokens.
    """

    until: tuple[str, ...]
    max_new_tokens: int


@dataclass(frozen=True)
class Item:
    """One question of a task. `(task, doc_id)` is unique within a suite.

    kind: which kind of question of its task it is (its subject, say). wording: which of its task's wordings asks it.
    Both are empty if the task says none. prefill: what each response begins with, as in `Context`.
    """

    task: str
    doc_id: int
    query: str
    settings: GenerationSettings
    split: Split
    kind: str = ""
    wording: str = ""
    prefill: str = ""


@dataclass(frozen=True)
class Generation:
    """One response of one model to one context, with what it used.

    tokens_in: tokens of the rendered context. tokens_out: tokens of the response.
    seconds: what the call took, from the request to the whole response; of a batch of several, its share of the time.
    cost: what it cost, if that was recorded itself, as in tables of outcomes that give no tokens.
    """

    response: str
    tokens_in: int
    tokens_out: int
    finish_reason: FinishReason
    seconds: float
    cost: float | None = None


class UpstreamError(UserError):
    """The server behind a model did not answer.

    queries: of the requests that failed. answers: what was answered all the same, by model and in the order of the
    requests; None for what was not.
    """

    def __init__(
        self,
        text: str,
        queries: Iterable[tuple[str, GenerationSettings]] = (),
        answers: Mapping[int, Sequence[Generation | None]] | None = None,
    ) -> None:
        super().__init__(text)
        self.queries, self.answers = frozenset(queries), answers or {}


class Generator(Protocol):
    """`Gen` of the MDP: greedy decoding, so a function of (model, context, settings)."""

    def generate(self, model: int, requests: Sequence[tuple[Context, GenerationSettings]]) -> list[Generation]:
        """Answers of the pool's model number `model`, one per request, in the order of the requests."""
        ...


@runtime_checkable
class ParallelGenerator(Generator, Protocol):
    """A generator that may ask several models at the same time."""

    def generate_all(
        self, asked: Mapping[int, Sequence[tuple[Context, GenerationSettings]]]
    ) -> dict[int, list[Generation]]:
        """Answers of the models of these numbers, each in the order of its requests."""
        ...


class Scorer(Protocol):
    """The score in [0, 1] that an item's task gives a response."""

    def __call__(self, answers: Sequence[tuple[Item, str]]) -> list[float]:
        """One score per (item, response)."""
        ...


def content_hash(*parts: object) -> str:
    """sha256, in hex, of the parts' canonical JSON; the parts are made of str, int, float, None, lists and dicts.

    Raises UserError if a text holds half of a surrogate pair, which no file of ours could keep.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(utf8(text)).hexdigest()


def utf8(text: str) -> bytes:
    """The text as a file holds it. Raises UserError if it holds half of a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - 20) : error.end]
        raise UserError(f"the text {shown(around)} holds half of a surrogate pair; expected valid Unicode") from None
