"""Logged traffic: chat requests in OpenAI's form with their responses, and what is known of each call besides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pools.cost import MAX_COST
from pools.errors import UserError, shown
from pools.json_file import read_objects
from pools.schema import Schema, one_line
from pools.types import Split, utf8

EXAMPLE = '{"request": {"model": ..., "messages": [...]}, "response": {"choices": [...]}, ...} in each line'
INSTRUCTIONS = ("system", "developer")
NO_SETTINGS = frozenset(
    ("stream", "stream_options", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
)
"""Fields of a request that change nothing in what is answered."""

Tokens = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, le=MAX_COST)]
Share = Annotated[float, Field(ge=0, le=1)]


def conversation_text(turns: Sequence[tuple[str, str]]) -> str:
    """The text that is routed, of pairs of role and text.

    Instructions and one question are joined by an empty line; a longer conversation is written out with its roles.
    """
    if [role for role, _ in turns if role not in INSTRUCTIONS] == ["user"]:
        return "\n\n".join(text for _, text in turns)
    return "\n\n".join(f"{role.capitalize()}: {text}" for role, text in turns)


def _joined(content: Any) -> Any:
    """A message's content as one text: its parts are joined by line breaks, and nothing at all is an empty text."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return content
    for part in content:
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise ValueError(f"{shown(part)} is no text, and only texts can be routed; leave such calls out")
    return "\n".join(part["text"] for part in content)


class Message(Schema):
    """A message of a conversation, its content as one text."""

    role: str
    content: Annotated[str, BeforeValidator(_joined)] = ""


class LoggedRequest(Schema):
    """What was asked. Other fields than these are settings, but for `NO_SETTINGS`."""

    model_config = ConfigDict(extra="allow")

    messages: Annotated[list[Message], Field(min_length=1)]
    model: str = ""


class Choice(Schema):
    """An answer."""

    message: Message


class Usage(Schema):
    """Tokens that were read and written."""

    prompt_tokens: Tokens
    completion_tokens: Tokens


class LoggedResponse(Schema):
    """What was answered; the first choice counts."""

    choices: Annotated[list[Choice], Field(min_length=1)]
    model: str = ""
    usage: Usage | None = None


class ShadowDecision(Schema):
    """The first decision that another router would have made: its probability of each model that it may call.

    max_hops: how many models it may call one after another; after an answer it was not asked.
    """

    router: str
    max_hops: Annotated[int, Field(ge=1)] = 1
    choices: dict[str, Share]


def _number(score: Any) -> Any:
    """True and false are 1 and 0."""
    return float(score) if isinstance(score, bool) else score


class LoggedCall(Schema):
    """A request, its response, and what is known of the call besides; fields of other names are ignored.

    model: who answered, if response and request name another or none. propensity: the probability with which that model
    was chosen for this request, when it was. score: what the answer was worth, in [0, 1].
    """

    request: LoggedRequest
    response: LoggedResponse
    model: str | None = None
    cost: Amount | None = None
    cost_unit: str | None = None
    seconds: Amount | None = None
    score: Annotated[Share | None, BeforeValidator(_number)] = None
    propensity: Annotated[float, Field(gt=0, le=1)] | None = None
    task: str | None = None
    kind: str | None = None
    split: Split | None = None
    shadow: ShadowDecision | None = None

    @model_validator(mode="after")
    def whole(self) -> LoggedCall:
        """Raise ValueError for a call of nobody, or one that asks nothing."""
        if not self.answered_by:
            raise ValueError("no model is named: expected one in response, in request, or as model of the call")
        if not self.query.strip():
            raise ValueError("the messages of the request are empty; leave such calls out")
        return self

    @property
    def answered_by(self) -> str:
        """The model that answered."""
        return self.model or self.response.model or self.request.model

    @property
    def text(self) -> str:
        """The answer."""
        return self.response.choices[0].message.content

    def cost_at(self, prices: Mapping[str, tuple[float, float]]) -> float | None:
        """What it cost: as logged, else by the model's prices in US$ per million tokens; None if neither is known."""
        usage = self.response.usage
        if self.cost is not None or usage is None or self.answered_by not in prices:
            return self.cost
        read, written = prices[self.answered_by]
        return (read * usage.prompt_tokens + written * usage.completion_tokens) / 1e6

    @cached_property
    def query(self) -> str:
        """The text that is routed, as `serve` makes it of the messages."""
        return conversation_text([(message.role, message.content) for message in self.request.messages])

    @cached_property
    def item(self) -> str:
        """A name of the request: calls with the same messages and settings are of one item."""
        settings = {key: given for key, given in (self.request.model_extra or {}).items() if key not in NO_SETTINGS}
        messages = [(message.role, message.content) for message in self.request.messages]
        asked = json.dumps([messages, settings], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(utf8(asked)).hexdigest()[:16]


def logged_calls(rows: Iterable[Mapping[str, Any]], path: Path) -> list[LoggedCall]:
    """The calls of a log's entries. Raises UserError for an entry that is none."""
    calls = []
    for number, row in enumerate(rows, 1):
        try:
            calls.append(LoggedCall.model_validate(row))
        except ValidationError as error:
            raise UserError(f"{path}: entry {number}: {one_line(error)}") from None
    return calls


def read_log(path: Path) -> list[LoggedCall]:
    """The calls of a log. Raises UserError for a file that is none."""
    if not path.is_file():
        raise UserError(f"no such file: {path}; name a log of traffic, {EXAMPLE}")
    return logged_calls(read_objects(path, EXAMPLE), path)
