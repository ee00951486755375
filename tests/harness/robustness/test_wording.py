"""Changes of wording keep what is asked."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from harness.robustness.wording import CHANGES, reworded
from tasks import load_suite

QUERIES = [item.query for task in load_suite("offline").load() for item in task.items(limit=40)]


@pytest.mark.parametrize("change", CHANGES)
def test_numbers_names_letters_and_code_stay(change: str) -> None:
    moved = 0
    for query in QUERIES:
        new = reworded(query, change, 1)
        assert new == reworded(query, change, 1)  # of the query and the seed alone
        assert re.findall(r"\d+", new) == re.findall(r"\d+", query)
        if "def " in query:
            assert new == query
        if change.startswith("typos"):
            assert re.findall(r"\b[A-Z]\w*", new) == re.findall(r"\b[A-Z]\w*", query)
        if change == "polite":
            assert new.endswith(query)
        else:
            assert Counter(re.sub(r"[\s\"«»]", "", new.casefold())) == Counter(
                re.sub(r"[\s\"«»]", "", query.casefold())
            )
        moved += new != query
    assert moved > (10 if change == "French punctuation" else 25)


def test_more_typos_are_more_and_another_seed_makes_others() -> None:
    def swapped(change: str, seed: int) -> int:
        pairs = [
            (old, new) for q in QUERIES for old, new in zip(q.split(), reworded(q, change, seed).split(), strict=True)
        ]
        return sum(old != new for old, new in pairs)

    few, many = swapped("typos 5%", 1), swapped("typos 25%", 1)
    assert 3 < many / few < 8
    assert any(reworded(q, "typos 25%", 1) != reworded(q, "typos 25%", 2) for q in QUERIES)
