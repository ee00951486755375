"""What a program sends instead of a reply costs the caller little, and is no pass, whatever it is."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from tasks.code.sandbox import _wire as wire
from tasks.program_aided import utils

pytestmark = pytest.mark.usefixtures("nothing_stays_behind")

GRADING = 0.3
"""CPU seconds of this process, which reads no value."""

SENDS = """
import os, random, time

def value(text):
    return '{"value": ' + text + '}'

def many(text, number):
    return '[' + ','.join([text] * number) + ']'

def set_of(items):
    return '{"frozenset": [' + ','.join(items) + ']}'

def alike(count, first=1):
    return (str(n * (2**61 - 1)) for n in range(first, first + count))

def fraction(digits):
    above, below = (random.Random(seed).randbytes(digits // 2).hex() for seed in (1, 2))
    return '{"fraction": [{"int": "' + above + '"}, {"int": "' + below + '"}]}'

def solve():
    sent = (SENT).encode()
    with open(3, 'wb', closefd=False) as replies:
        replies.write(sent)
    for _ in range(BYTES):
        time.sleep(0.0004)
        os.write(3, b' ')
    os.write(3, b'\\n')
    os._exit(0)
"""
HOSTILE = {
    "a fraction of two numbers of 8 million bits": "value(fraction(2_000_000))",
    "as many fractions as there may be": f"value(many(fraction({wire.MAX_NUMBER}), 205))",
    "a fraction of a billion digits": 'value(\'{"fraction": [{"decimal": "1e999999999"}, 3]}\')',
    "a number of 16 million bits": "value('{\"int\": \"' + 'f' * 4_000_000 + '\"}')",
    "a number of 4 million digits": "value('9' * 4_000_000)",
    "a decimal of a billion digits": 'value(\'{"decimal": "1e999999999"}\')',
    "a text of 4 million characters": "value('\"' + 'x' * 4_000_000 + '\"')",
    "a deep list": "value('[' * 2_000_000 + ']' * 2_000_000)",
    "a set whose items hash alike": "value(set_of(alike(150_000)))",
    "an error of a million lists": '\'{"error": \' + many("[]", 1_000_000) + "}"',
}


def sends(sent: str, then: int = 0) -> str:
    """A program whose `solve` sends this, and slowly so many bytes more."""
    return SENDS.replace("SENT", sent).replace("BYTES", str(then))


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_reply_costs_the_caller_little(sent: str) -> None:
    program = sends(sent)
    assert utils.grade({"answer": "3"}, ["def solve(): return 3"]) == {"exact_match": 1.0}  # what is started once
    before = time.process_time()
    for text in program, f"{program}solve()":  # as the reply to a call, and to the program itself
        assert utils.grade({"answer": "3"}, [text]) == {"exact_match": 0.0}
    assert time.process_time() - before < GRADING


def test_a_reply_byte_by_byte_costs_the_caller_little() -> None:
    """At each byte all that had come before was searched and copied."""
    before = time.process_time()
    assert utils.grade({"answer": "4"}, [sends("value('4' + ' ' * 4_000_000)", then=2500)]) == {"exact_match": 1.0}
    assert time.process_time() - before < GRADING


FULL = 16 ** (wire.MAX_NUMBER - 2) - 1
"""The largest number that is sent whole: `0x` and its digits."""


@pytest.mark.parametrize(
    "value, larger",
    [
        (FULL, FULL + 1),
        (-(FULL >> 4), -FULL),
        (Fraction(FULL, 2), Fraction(FULL + 2, 2)),
        (Decimal(f"1e{wire.MAX_NUMBER}"), Decimal(f"1e{wire.MAX_NUMBER + 1}")),
        (Decimal("9" * wire.MAX_NUMBER), Decimal("9" * (wire.MAX_NUMBER + 1))),
        ("ä" * wire.MAX_TEXT, "ä" * (wire.MAX_TEXT + 1)),
        (b"\xff" * (wire.MAX_TEXT // 2), b"\xff" * (wire.MAX_TEXT // 2 + 1)),
        ([0] * (wire.MAX_VALUES - 1), [0] * wire.MAX_VALUES),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_comes_back_up_to_the_cap(value: Any, larger: Any) -> None:
    def sent(value: Any) -> Any:
        return json.loads(wire.dump({"value": wire.encode(value)}))["value"]

    assert wire.decode(sent(value)) == value
    with pytest.raises(wire.TooLarge):
        wire.decode(sent(larger))
