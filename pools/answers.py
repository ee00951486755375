"""What a response answers, so that answers can be compared: a letter, a number, a text, a program."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pools.errors import UserError, shown

WORD = "word"
"""The kind that is used if nothing else is known: the last word or number."""
_LAST_WORD = re.compile(r"-?\w+")
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?|-?\$?\.\d+")
_MARKED_NUMBER = re.compile(r"(?:####|\\boxed\{|answer(?: is)?:?)\D{0,20}?(" + _NUMBER.pattern + ")", re.IGNORECASE)
_LETTER_ALONE = re.compile(r"\s*\(?([A-Z])\b(?!')")
_MARKED_LETTER = re.compile(r"(?:answer|option|choice)(?: is)?:?\s*\W?([A-Z])\b", re.IGNORECASE)
_BLOCK = re.compile(r"```[\w+-]*\n(.*?)(?:```|\Z)|\[PYTHON\](.*?)(?:\[/PYTHON\]|\Z)", re.DOTALL)


def _word(response: str) -> str:
    return next(iter(_LAST_WORD.findall(response)[-1:]), "")


def _letter(response: str) -> str:
    """The letter that a response begins with, or says to be its answer; else the last that stands alone."""
    if found := _LETTER_ALONE.match(response) or _MARKED_LETTER.search(response):
        return found[1].upper()
    return next(iter(re.findall(r"\b([A-Z])\b(?!')", response)[-1:]), "")


def _number(response: str) -> str:
    """The number that a response marks as its answer, else its last one; `1,000.0` and `$1000` are `1000`."""
    found = _MARKED_NUMBER.findall(response)[-1:] or _NUMBER.findall(response)[-1:]
    digits = "".join(found).replace(",", "").replace("$", "")
    return (digits.rstrip("0").rstrip(".") if "." in digits else digits).removesuffix("-0") or ("0" if digits else "")


def _text(response: str) -> str:
    """Its words in small letters, without punctuation."""
    return " ".join(re.findall(r"\w+", response.casefold()))


def _code(response: str) -> str:
    """The first program in it, or else all of it, without comments and with spaces and line breaks as one space."""
    found = _BLOCK.search(response)
    program = (found[1] or found[2] or "") if found else response
    return " ".join(re.sub(r"#.*", "", program).split())


_KINDS: dict[str, Callable[[str], str]] = {
    "letter": _letter,
    "number": _number,
    "text": _text,
    "code": _code,
    WORD: _word,
}
KINDS = tuple(_KINDS)


def answer_reader(kind: str) -> Callable[[str], str]:
    """The answer that a response gives, as a text; empty if it gives none.

    kind: `letter`, `number`, `text`, `code`, `word`, or a regular expression: its last match, or the first group of
    that. Raises UserError for what is none.
    """
    if kind in _KINDS:
        return _KINDS[kind]
    try:
        pattern = re.compile(kind)
    except (re.error, RecursionError, OverflowError) as error:
        known = ", ".join(KINDS)
        raise UserError(f"answers {shown(kind)}: expected {known}, or a regular expression ({error})") from None

    def read(response: str) -> str:
        found = list(pattern.finditer(response))[-1:]
        return "".join((each[1] or "") if pattern.groups else each[0] for each in found)

    return read


def guess_answers(responses: Iterable[str]) -> str:
    """The kind that most of the responses are of: a letter or a number each, a program; else a text."""
    some = list(responses)
    signs = {
        "letter": lambda text: re.fullmatch(r"\s*\(?[A-Z]\)?[.:)]?\s*(?:[^\n]{0,80})?\s*", text) and _letter(text),
        "code": lambda text: re.search(r"```|\bdef \w+\(|\[PYTHON\]", text),
        "number": lambda text: _MARKED_NUMBER.search(text) or re.fullmatch(r"\s*" + _NUMBER.pattern + r"\s*", text),
    }
    for kind, sign in signs.items():
        if sum(bool(sign(response)) for response in some) > len(some) / 2:
            return kind
    return "text"
