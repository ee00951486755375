"""What models write and what programs send: any text is a program in bounded time, any reply a value or an error."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fuzzing import deadline, fuzz, junk, mutated, texts
from tasks.code.extract import program
from tasks.code.sandbox import _wire as wire
from tasks.code.sandbox.session import Limits, Reply, Session, call

MEGABYTE = 1_000_000
PROMPT = 'import math\n\ndef helper(x):\n    return x\n\ndef solve(x):\n    """Solve it."""\n'
PIECES = (
    *(
        "```",
        "```python\n",
        "\n```\n",
        "def solve(x):\n    return x\n",
        "def solve",
        "solve = 1\n",
        "async def solve(x):\n",
    ),
    *(
        "    ",
        "\t",
        "\n",
        "return 1",
        "class A:\n",
        '"""',
        "'",
        "(" * 300,
        "lambda: ",
        "~~~",
        "\\\n",
        "\x00",
        "# ",
        "  - ",
    ),
)
# What took long once, or may: each has about a million characters.
LONG = (
    *("", "x" * MEGABYTE, " " * MEGABYTE, "\n" * MEGABYTE, "```\n" + "\n" * MEGABYTE, "```\n" * (MEGABYTE // 4)),
    *("x = 1\n" * (MEGABYTE // 6), "x = 1\n" * (MEGABYTE // 6) + ")\n" * 60, "(" * MEGABYTE, "-" * MEGABYTE + "1"),
    *("```\nx = 1\n" * (MEGABYTE // 10), "    ```\n\t" * (MEGABYTE // 9), "def solve(x):\n" * (MEGABYTE // 14)),
    *("[" * 90 + "\n" * MEGABYTE, '"' * MEGABYTE, "if x:\n" * (MEGABYTE // 6), "\U0001f600" * (MEGABYTE // 4)),
)


@fuzz("programs in responses", 500)
@given(st.lists(st.sampled_from(PIECES) | texts(surrogates=True), max_size=9).map("".join))
def test_a_program_is_made_of_the_prompt_and_the_response(response: str) -> None:
    found = program(response, "solve", PROMPT)
    whole = (response, PROMPT, ast.unparse(ast.parse(f"{PROMPT}    pass")))
    assert all(any(word in text for text in whole) for word in found.split())


@pytest.mark.parametrize("response", LONG, ids=range(len(LONG)))
def test_a_megabyte_is_a_program_within_seconds(response: str) -> None:
    with deadline():
        assert isinstance(program(response, "solve", PROMPT), str)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts(surrogates=True)
    | st.binary(max_size=9) | st.complex_numbers() | st.decimals(allow_nan=False) | st.fractions(),
    lambda v: st.lists(v, max_size=3) | st.lists(v, max_size=3).map(tuple)
    | st.dictionaries(st.text(max_size=3) | st.integers(), v, max_size=3) | st.frozensets(st.integers(), max_size=3),
    max_leaves=8,
)  # fmt: skip


@fuzz("wire: values", 400)
@example([float("nan")])
@given(VALUES)
def test_a_value_comes_back(value: Any) -> None:
    sent = wire.dump({"value": wire.encode(value)})
    assert sent.count(b"\n") == 1
    back = wire.decode(json.loads(sent)["value"])
    assert type(back) is type(value) and (repr(back) == repr(value) or back == value)


TAGS = (
    "int",
    "tuple",
    "dict",
    "set",
    "frozenset",
    "bytes",
    "complex",
    "decimal",
    "fraction",
    "opaque",
    "value",
    "error",
)
HOSTILE = st.recursive(
    junk(surrogates=True),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(TAGS), v, max_size=2),
    max_leaves=6,
)


class Sends(Session):
    """A session whose program sends this line."""

    def __init__(self, line: bytes) -> None:
        self.line, self.ended = line, None

    def send(self, line: bytes) -> None:
        pass

    def receive(self) -> bytes | None:
        return self.line


@fuzz("wire: hostile replies", 600)
@given(
    HOSTILE | mutated({"value": {"tuple": [{"complex": [1.0, 2.0]}, {"fraction": [1, 2]}, {"opaque": [True, [1]]}]}})
)
def test_a_hostile_reply_is_a_value_or_an_error(message: Any) -> None:
    reply = Sends(json.dumps(message).encode()).ask({"source": ""})
    assert isinstance(reply, Reply)
    assert Sends(json.dumps({"value": message}).encode()).ask({}) is not None


@fuzz("wire: bytes", 300)
@given(
    st.binary(max_size=60) | st.sampled_from([b"[" * 100_000, b'{"value": ' + b"9" * 5000 + b"}", b'{"value": NaN}'])
)
def test_bytes_that_are_no_reply(line: bytes) -> None:
    assert isinstance(Sends(line).ask({}), Reply)


@pytest.mark.parametrize(
    "body", [{"complex": []}, {"complex": [1]}, {"opaque": []}, {"fraction": [1]}, {"decimal": []}]
)
def test_a_tag_that_lacks_its_parts_is_malformed(body: Any) -> None:
    """These ended the command with an IndexError."""
    assert Sends(json.dumps({"value": body}).encode()).ask({}).error == "the reply is malformed"


@pytest.mark.parametrize("body", [["1e999999999", None], [{"decimal": "1e999999999"}, None], ["1e999999999", 1]])
def test_a_fraction_of_a_billion_digits_is_none(body: Any) -> None:
    """The first two kept the process that reads the reply busy for hours: Fraction takes one text or Decimal."""
    with deadline():
        assert Sends(json.dumps({"value": {"fraction": body}}).encode()).ask({}).error


@pytest.mark.parametrize("tag", ["set", "frozenset", "dict"])
def test_a_set_of_numbers_that_all_hash_alike_is_too_large(tag: str) -> None:
    """Each was compared with all before it: within the length that a reply may have, for a quarter of an hour."""
    alike = [n * (2**61 - 1) for n in range(1, 100_000)]
    with deadline():
        body = [[n, 0] for n in alike] if tag == "dict" else alike
        assert Sends(json.dumps({"value": {tag: body}}).encode()).ask({}).error
        assert Sends(json.dumps({"value": wire.encode(set(range(50_000)))}).encode()).ask({}).ok


ECHO = "def echo(x):\n    return x\n"


@fuzz("sandbox: texts", 25)
@example("\ud800\udfff")
@given(texts(surrogates=True))
def test_a_text_goes_into_the_sandbox_and_comes_back(text: str) -> None:
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")  # two halves are one in JSON
    assert call(ECHO, "echo", [text]).value == joined
    reply = call(f"{ECHO}\n# {text}", "echo", [1])
    assert isinstance(reply, Reply)


@pytest.mark.parametrize("size", [0, MEGABYTE, 8 * MEGABYTE])
def test_a_long_text_goes_into_the_sandbox_and_comes_back_or_is_too_long(size: int) -> None:
    reply = call(ECHO, "echo", ["x" * size], limits=Limits(wall_seconds=60))
    too_long = f"TooLarge: a number or text of more than {MEGABYTE} characters"
    assert reply == (Reply("x" * size) if size <= MEGABYTE else Reply(error=too_long))
