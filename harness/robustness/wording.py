"""Queries in other words: changes after which a reader still knows what is asked, each by name and seeded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from pools.types import content_hash

_CODE = re.compile(r"^(?:\s{4}|\t|def |class |import |from \w+ import |```|>>> )", re.MULTILINE)
_OPENING = re.compile(r"(?:^|(?<=[.?!] )|(?<=\n))[A-Z][a-z]+\b")
_PLAIN_WORD = re.compile(r"\b[a-z]{5,}\b")


def is_prose(query: str) -> bool:
    """Whether a query holds no code, which case, spaces and typos would change."""
    return _CODE.search(query) is None


def lower_case(query: str, rng: np.random.Generator) -> str:
    """The words that open sentences in small letters; names and symbols elsewhere stay."""
    return _OPENING.sub(lambda word: word[0].lower(), query)


def spacing(query: str, rng: np.random.Generator) -> str:
    """Each space doubled with a chance of a half, and an empty line at the end."""
    return re.sub(" ", lambda _: "  " if rng.random() < 0.5 else " ", query) + "\n\n"


def typos(share: float) -> Callable[[str, np.random.Generator], str]:
    """Two letters inside of a word swapped, in that share of the words of five small letters or more."""

    def change(query: str, rng: np.random.Generator) -> str:
        def swapped(word: re.Match[str]) -> str:
            text = word[0]
            places = [at for at in range(1, len(text) - 2) if text[at] != text[at + 1]]
            if rng.random() >= share or not places:
                return text
            at = places[rng.integers(len(places))]
            return text[:at] + text[at + 1] + text[at] + text[at + 2 :]

        return _PLAIN_WORD.sub(swapped, query)

    return change


def polite(query: str, rng: np.random.Generator) -> str:
    """With a greeting before it."""
    openings = (
        "Hello! Could you please help me with this? ",
        "Good morning, I would be glad of your help. ",
        "Please, if you have a moment: ",
    )
    return openings[rng.integers(len(openings))] + query


def french_punctuation(query: str, rng: np.random.Generator) -> str:
    """With the quotes and the spaces of French typography."""
    text = re.sub(r'"([^"\n]*)"', "«\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}»", query)
    return re.sub(r"(?<=\w)([?!;:])(?=\s|$)", "\N{NO-BREAK SPACE}\\1", text)


CHANGES: Mapping[str, Callable[[str, np.random.Generator], str]] = {
    "lower case": lower_case,
    "spacing": spacing,
    "typos 5%": typos(0.05),
    "typos 25%": typos(0.25),
    "polite": polite,
    "French punctuation": french_punctuation,
}


def reworded(query: str, change: str, seed: int) -> str:
    """The query after a change of `CHANGES`; what is drawn depends on the query and the seed alone. Code stays."""
    if not is_prose(query):
        return query
    return CHANGES[change](query, np.random.default_rng(int(content_hash(query, change, seed)[:16], 16)))
