"""Program-aided answers: which function a response means, and what counts as the answer that it returns."""

import math

import pytest

from tasks import get
from tasks.code.extract import program
from tasks.program_aided import utils


@pytest.fixture(scope="module")
def task():
    return get("rg_program")


def solution(doc):
    """The right program, written from the question alone."""
    import re

    question, numbers = doc["question"], [int(n) for n in re.findall(r"\d+", doc["question"])]
    if "prime numbers" in question:
        low, high = numbers
        body = f"return sum(all(n % d for d in range(2, int(n**.5) + 1)) for n in range(max(2, {low}), {high} + 1))"
    elif "letter" in question:
        letter, text = re.findall(r'"(.*?)"', question)
        body = f"return {text!r}.lower().count({letter!r})"
    else:
        function = "gcd" if "Divisor" in question else "lcm"
        body = f"import math\n    return math.{function}(*{numbers})"
    return f"Here it is:\n```python\ndef solve():\n    {body}\n```\n"


def test_every_item_has_a_program_that_solves_it(task):
    items = task.items()
    docs = {item.doc_id: task._instances[item.doc_id].doc for item in items}
    assert len(items) == 160
    assert task.score([(number, solution(doc)) for number, doc in docs.items()]) == [1.0] * 160
    assert task.score([(number, f"Answer: {doc['answer']}") for number, doc in docs.items()]) == [0.0] * 160


@pytest.mark.parametrize(
    ("value", "right"),
    [(12, True), (12.0, True), ("12", True), (" 12\n", True), (12.5, False), ("12.0", False), (True, False),
     (math.nan, False), (math.inf, False), (None, False), ([12], False), ((12,), False), (b"12", False), ("", False)],
)  # fmt: skip
def test_what_counts_as_the_answer(value, right):
    assert utils.says(value, "12") is right


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("```python\ndef solve():\n    return 3\n```", 1.0),
        ("```python\ndef other():\n    return 3\n```", 0.0),
        ("```python\ndef solve():\n    print(3)\n```", 0.0),
        ("Answer: unknown", 0.0),
    ],
)
def test_which_program_a_response_means(response, score):
    [[text]] = utils.extract([[response]], [{}])
    assert utils.grade({"answer": "3"}, [text]) == {"exact_match": score}


def test_a_helper_of_the_prompt_stays_and_a_bare_head_is_no_preamble():
    whole = "```python\ndef f():\n    return helper()\n```"
    assert "def helper" in program(whole, "f", "def helper():\n    return 1\n\ndef f():\n    pass\n")
    assert program(whole, "f", "def f():\n") == "def f():\n    return helper()\n"
