"""Names and numbers as they are written: what is taken, and what is refused before anybody mistakes it."""

from __future__ import annotations

import pytest

from pools import UserError
from pools.names import check_distinct, check_name
from pools.numbers import read_number


@pytest.mark.parametrize("name", ["a", "gpt-4", "Mixtral 8x7B (v0.1)", "org/model@rev", "naïve", "模型", "=1", "0042"])
def test_a_name(name: str) -> None:
    assert check_name(name, "model") == name


UNSEEN = (
    "\x00\x1b\t\n\r\x7f\x85\xa0\xad\u061c\u2003\u2028\ufeff\ud800\ue000"
    "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069"
    "\u034f\u115f\u2800\u3164\ufe0f\uffa0\U000e0041\U000e0100"
)


@pytest.mark.parametrize("letter", UNSEEN, ids=ascii)
def test_a_name_holds_nothing_that_is_not_seen(letter: str) -> None:
    with pytest.raises(UserError, match=rf"row 3: model .* holds U\+{ord(letter):04X}") as error:
        check_name(f"gpt{letter}4", "row 3: model")
    with pytest.raises(UserError):
        check_name(letter, "model")
    assert str(error.value).encode() and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["", " ", " a", "a ", "a  b"])
def test_a_name_has_no_spaces_to_miss(name: str) -> None:
    with pytest.raises(UserError, match="--name"):
        check_name(name, "--name")


@pytest.mark.parametrize("pair", [("gpt-4", "GPT-4"), ("straße", "STRASSE"), ("caf\u00e9", "cafe\u0301"), ("a", "a")])
def test_two_names_differ_by_more_than_case(pair: tuple[str, str]) -> None:
    check_distinct(["other", pair[0]], "model")
    with pytest.raises(UserError, match=r"by case alone|used twice"):
        check_distinct(["other", *pair], "model")


@pytest.mark.parametrize(("text", "value"), [("1000", 1000.0), ("-0.5", -0.5), ("+1e-3", 0.001), (".5", 0.5)])
def test_a_number(text: str, value: float) -> None:
    assert read_number(text, float) == value


@pytest.mark.parametrize("text", ["1_000", "٣", "１", " 1", "1 ", "1\n", "\xa01", "0x10", "", "one"])
@pytest.mark.parametrize("kind", [int, float])
def test_what_python_alone_takes_for_a_number(text: str, kind: type) -> None:
    with pytest.raises(ValueError):
        read_number(text, kind)
