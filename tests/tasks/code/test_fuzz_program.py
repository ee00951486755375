"""What models write and what programs send: any text is a program in bounded time, any reply a value or an error."""

from __future__ import annotations

import ast
import io
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fuzzing import deadline, fuzz, junk, mutated, texts
from tasks.code.extract import program
from tasks.code.sandbox import _wire as wire
from tasks.code.sandbox.session import Session

MEGABYTE = 1_000_000
PROMPT = 'import math\n\ndef helper(x):\n    return x\n\ndef solve(x):\n    """Solve it."""\n'
PIECES = [
    "```",
    "```python\n",
    "\n```\n",
    "def solve(x):\n    return x\n",
    "def solve",
    "solve = 1\n",
    "    ",
    "\t",
    "\n",
]
PIECES += ["async def solve(x):\n", "return 1", "class A:\n", '"""', "'", "(" * 300, "lambda: ", "\\\n", "\x00"]
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
@example([float("nan"), -0.0, 2**200, float("-inf"), "\ud800\n", (), {"tuple": [1]}, {(1, 2): {3}}, frozenset({(1,)})])
@given(VALUES)
def test_a_value_comes_back(value: Any) -> None:
    sent = wire.dump({"value": wire.encode(value)})
    assert sent.count(b"\n") == 1
    back = wire.decode(json.loads(sent)["value"])
    assert type(back) is type(value) and (repr(back) == repr(value) or back == value)


TAGS = [
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
]
HOSTILE = st.recursive(
    junk(surrogates=True),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(TAGS), v, max_size=2),
    max_leaves=6,
)


def said(line: bytes, test: str = "candidate()") -> dict[str, Any]:
    """What the examiner says last, if that is what the program sends instead of a value."""
    exam = {"definitions": "", "tests": f"def check(candidate): {test}", "entry_point": "f"}
    replies = io.BytesIO()
    wire.examine(io.BytesIO(wire.dump(exam) + line + b"\n"), replies)
    return json.loads(replies.getvalue().splitlines()[-1])


@fuzz("wire: hostile replies", 600)
@given(
    HOSTILE | mutated({"value": {"tuple": [{"complex": [1.0, 2.0]}, {"fraction": [1, 2]}, {"opaque": [True, [1]]}]}})
)
def test_a_hostile_reply_is_a_failed_test(message: Any) -> None:
    for line in (json.dumps(message), json.dumps({"value": message})):
        assert said(line.encode(), "assert candidate() == 'the right answer'")["verdict"] is False


def test_a_right_reply_is_a_passed_test() -> None:
    line = wire.dump({"value": wire.encode("the right answer")}).strip()
    assert said(line, "assert candidate() == 'the right answer'")["verdict"] is True


MALFORMED = ["[" * 100_000, '{"value": ' + "9" * 5000 + "}", "{}", "null", "[]", "\xff", '{"error": [1]}', ""]
VALUE_MALFORMED = ['{"complex": []}', '{"complex": [1]}', '{"opaque": []}', '{"fraction": [1]}', '{"fraction": [1, 0]}']
VALUE_MALFORMED += ['{"fraction": ["1e999999999", null]}', '{"fraction": [{"decimal": "1e999999999"}, 1]}']
VALUE_MALFORMED += ['{"decimal": []}', '{"set": [[]]}', '{"int": 3}', '{"no": []}']


@pytest.mark.parametrize("line", [*MALFORMED, *(f'{{"value": {value}}}' for value in VALUE_MALFORMED)])
def test_a_malformed_reply_is_a_failed_test(line: str) -> None:
    with deadline():
        assert said(line.encode("latin-1"))["verdict"] is False


@pytest.mark.parametrize("line", ["[" * 5000, "{", "null", "\xff", "9" * 5000, '{"error": [1]}', "x" * 20_000])
def test_a_malformed_reply_to_a_definition_is_an_error(line: str) -> None:
    program = f"import os\nos.write(3, {line!r}.encode('latin-1') + b'\\n')\nos._exit(0)"
    with Session() as session:
        assert session.define(program)
