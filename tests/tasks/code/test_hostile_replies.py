"""What a program sends instead of a reply is no pass, whatever it costs to read; values have a largest size."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from tasks.code.sandbox import _wire as wire
from tasks.invented.answers import grade

pytestmark = pytest.mark.usefixtures("nothing_stays_behind")

SENDS = """
import os, time

def solve():
    with open(3, 'wb', closefd=False) as replies:
        replies.write((SENT).encode())
    for _ in range(500):
        time.sleep(0.0004)
        os.write(3, b' ')
    os.write(3, b'\\n')
    os._exit(0)
"""
HOSTILE = {
    "a fraction of a billion digits": '\'{"value": {"fraction": [{"decimal": "1e999999999"}, 3]}}\'',
    "a number of 16 million bits": "'{\"value\": {\"int\": \"' + 'f' * 4_000_000 + '\"}}'",
    "a deep list": "'{\"value\": ' + '[' * 2_000_000 + ']' * 2_000_000 + '}'",
    "a set whose items hash alike": "'{\"value\": {\"set\": ' + str([n * (2**61 - 1) for n in range(99_999)]) + '}}'",
    "an error of a million lists": "'{\"error\": [' + ','.join(['[]'] * 1_000_000) + ']}'",
}


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_reply_is_a_wrong_answer(sent: str) -> None:
    program = SENDS.replace("SENT", sent)
    for text in program, f"{program}solve()":  # as the reply to a call, and to the program itself
        assert grade({"answer": "3"}, [text]) == {"exact_match": 0.0}


def test_a_reply_may_come_byte_by_byte() -> None:
    program = SENDS.replace("SENT", "'{\"value\": 4' + ' ' * 4_000_000 + '}'")
    assert grade({"answer": "4"}, [program]) == {"exact_match": 1.0}


FULL = 16 ** (wire.MAX_NUMBER - 2) - 1
"""The largest number that is sent whole: `0x` and its digits."""


@pytest.mark.parametrize(
    "value, larger",
    [
        (FULL, FULL + 1),
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
