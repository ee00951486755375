"""The letter that a response to a question of MMLU ends up with, whatever the response looks like."""

import pytest

from fuzzing import deadline
from tasks.mmlu_dev.questions import letter_answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Answer: C", "C"),
        ("**Answer:** (C) True, False", "C"),
        ("Answer: $\\boxed{C}$", "C"),
        ("The answer is (B). No: the answer is (C).", "C"),
        ("C. True, False", "C"),
        ("(C) True, False", "C"),
        ("I choose (C) over (B)... no, (D)", "D"),
        ("The answer is a mixture of both, so I choose (C).", "C"),  # an article is no letter
        ("The answer is A mixture of both, so I choose (C).", "C"),
        ("The answer is c", "C"),
        ("A group is cyclic where it has a generator", ""),
        ("Answer: Carbon", ""),
        ("Answer: E", ""),
    ],
)
def test_letter(response: str, answer: str) -> None:
    assert letter_answer(response) == answer


@pytest.mark.parametrize(
    "text",
    [
        "Answer:" * 200_000,
        "\\boxed{" * 200_000,
        "(A" * 500_000,
        "answer is ((((" * 100_000,
        " " * 1_000_000,
    ],
    ids=lambda text: text[:8].strip() or "whitespace",
)
def test_hostile_text_costs_no_time(text: str) -> None:
    with deadline():
        letter_answer(text)
