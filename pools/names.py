"""Names of pools, models, suites, tasks, items and routers: what may be one, which are too alike, which is meant."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

from pools.errors import UserError, shown

# Letters and marks that are printable by their category and still leave nothing to see.
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


def check_name(name: str, what: str) -> str:
    """The name itself. what: it is of, for the message: "row 3: model".

    Raises UserError if it is empty, or holds what a reader does not see: white space at an end or in runs, control
    characters, marks that turn the direction of writing, characters without width.
    """
    if not name.strip():
        raise UserError(f"{what} is {shown(name)}: expected a name")
    for letter in name:
        if not letter.isprintable() or _BLANK.match(letter):
            told = f"U+{ord(letter):04X} {unicodedata.name(letter, '')}".strip()
            raise UserError(f"{what} {shown(name)} holds {told}, which no reader sees; write the name without it")
    if name != " ".join(name.split()):
        raise UserError(f"{what} {shown(name)} has spaces at an end, or several in a row; write it without them")
    return name


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error on a name that is not known: the nearest that is; empty if none comes close."""
    close = get_close_matches(name, [*known], 1)
    return f"; did you mean {close[0]}?" if close else ""


def check_distinct(names: Iterable[str], what: str) -> None:
    """Raise UserError if two names are equal, or differ by nothing but case.

    A reader takes `gpt-4` and `GPT-4` for one model, and so would whoever wrote both by a slip; every table here would
    show them as two.
    """
    seen: dict[str, str] = {}
    for name in names:
        alike = unicodedata.normalize("NFC", name.casefold())
        if seen.get(alike) == name:
            raise UserError(f"{what} {name} is used twice; names must differ")
        if alike in seen:
            raise UserError(f"{what} {name} differs from {seen[alike]} by case alone; write both alike, or rename one")
        seen[alike] = name
