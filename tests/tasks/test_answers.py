"""What a response to an invented task states, which program it means, and what counts as the answer."""

import math

import pytest

from fuzzing import deadline
from tasks.code.extract import program
from tasks.invented.answers import extract, grade, number, says, stated


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("48 - 56 = -8; -8 + 47 = 39. Answer: 39", "39"),
        ("Final Answer: 39 legs", "39"),
        ("Answer: $\\boxed{39}$", "39"),
        ("We get \\boxed{39}, so we are done with step 2.", "39"),
        ("The final answer is \\(39\\). I checked it 2 times.", "39"),
        ("The answer is **39**.", "39"),
        ("Answer: 13*14 + 8*0 = 182", "182"),
        ("Answer: -8", "-8"),
        ("Answer: 1,234", "1234"),
        ("Answer: 1,234,567.0", "1234567.0"),
        ("Answer: 12 because 3 dogs have 4 legs each", "12"),
        # A later statement corrects an earlier one, whoever made it.
        ("Answer: 40\nThat was wrong.\nAnswer: 39", "39"),
        # The question's own wording is no answer.
        ('48 - 9 = 39. I give the final answer after "Answer:".', ""),
        ("7 + 2 = 9\nAnswer:", ""),
        ("39", ""),
        # 9-4 holds the numbers 9 and 4, not -4.
        ("Answer: 9-4", "9"),
        ("no idea", ""),
        ("Answer: ٣", ""),
        ("Answer: __import__('os').system('echo 1')", "1"),
        ("\x00\ud800 Answer: 5\x00", "5"),
    ],
)
def test_number(response: str, answer: str) -> None:
    assert number(stated(response)) == answer


@pytest.mark.parametrize(
    ("value", "right"),
    [(12, True), (12.0, True), ("12", True), (" 12\n", True), (12.5, False), ("12.0", False), (True, False),
     (math.nan, False), (math.inf, False), (None, False), ([12], False), ((12,), False), (b"12", False), ("", False)],
)  # fmt: skip
def test_what_a_program_may_return_for_a_number(value: object, right: bool) -> None:
    assert says(value, "12") is right


@pytest.mark.parametrize(
    ("value", "right"),
    [("Carver Mill", True), (" carver mill\n", True), ("Carver", False), ("Carver Mill.", False), (12, False)],
)
def test_what_a_program_may_return_for_a_name(value: object, right: bool) -> None:
    assert says(value, "Carver Mill") is right


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("```python\ndef solve():\n    return 3\n```", 1.0),
        ("```python\ndef other():\n    return 3\n```", 0.0),
        ("```python\ndef solve():\n    print(3)\n```", 0.0),
        ("Answer: unknown", 0.0),
    ],
)
def test_which_program_a_response_means(response: str, score: float) -> None:
    [[text]] = extract([[response]], [{}])
    assert grade({"answer": "3"}, [text]) == {"exact_match": score}


def test_a_helper_of_the_prompt_stays_and_a_bare_head_is_no_preamble() -> None:
    whole = "```python\ndef f():\n    return helper()\n```"
    assert "def helper" in program(whole, "f", "def helper():\n    return 1\n\ndef f():\n    pass\n")
    assert program(whole, "f", "def f():\n") == "def f():\n    return helper()\n"


@pytest.mark.parametrize(
    "text",
    [
        "9" * 1_000_000,
        "Answer:" * 200_000,
        "Answer: " + "9" * 40_000,
        "\\boxed{" * 200_000,
        "Answer: " + "1,234" * 10_000,
        "answer is ((((" * 100_000,
        "Answer:" + " " * 49_000 + "7",
        "Answer:" + "\n" * 49_000 + "7",
        " " * 1_000_000,
    ],
    ids=lambda text: f"{text[:9].strip()!r} of {len(text)}",
)
def test_hostile_text_costs_no_time_and_is_no_error(text: str) -> None:
    with deadline(2):
        [[said]] = extract([[text]], [{}])
        assert grade({"answer": "77"}, [said]) == {"exact_match": 0.0}
