"""The final answer of a response: what counts as one, whatever the response looks like."""

import pytest

from fuzzing import deadline
from tasks.mmlu_dev.questions import letter_answer
from tasks.reasoning_gym.compare import COLORS, number_answer, word_answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("48 - 56 = -8; -8 + 47 = 39. Answer: 39", "39"),
        ("Answer: 39", "39"),
        ("**Answer:** 39", "39"),
        ("Final Answer: 39 legs", "39"),
        ("Answer: $\\boxed{39}$", "39"),
        ("We get \\boxed{39}, so we are done with step 2.", "39"),
        ("The final answer is \\(39\\). I checked it 2 times.", "39"),
        ("The answer is **39**.", "39"),
        ("39", "39"),
        ("Answer: 13*14 + 8*0 = 182", "182"),
        ("Answer: \N{MINUS SIGN}8", "-8"),
        ("Answer: 1,234", "1234"),
        ("Answer: -0.0", "0"),
        ("Answer: +007.50", "7.5"),
        ("Answer: 1,234,567.0", "1234567"),
        ("Answer: 12 because 3 dogs have 4 legs each", "12"),
        ("Answer: three sisters", "3"),
        # A later statement corrects an earlier one, whoever made it.
        ("Answer: 40\nThat was wrong.\nAnswer: 39", "39"),
        # The question's own wording is no answer.
        ('48 - 9 = 39. I give the final answer after "Answer:".', "39"),
        ("7 + 2 = 9\nAnswer:", "9"),
        # 9-4 holds the numbers 9 and 4, not -4.
        ("it is 9-4", "4"),
        ("no idea", ""),
        ("Answer: ٣", ""),
        ("Answer: __import__('os').system('echo 1')", "1"),
        ("\x00\ud800 Answer: 5\x00", "5"),
    ],
)
def test_number(response: str, answer: str) -> None:
    assert number_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Answer: gold", "gold"),
        ("Answer: **Gold**.", "gold"),
        ("answer: grey", "gray"),
        ("Answer: silver, which was at the bottom next to the red side", "silver"),
        ("The bottom side was red.\nThe answer is silver", "silver"),
        ("\\boxed{\\text{pink}}", "pink"),
        ("Answer: turquoise", ""),
        ("red. Answer: none of them", ""),
    ],
)
def test_word(response: str, answer: str) -> None:
    assert word_answer(response, COLORS) == answer


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
        "9" * 1_000_000,
        "Answer:" * 200_000,
        "\\boxed{" * 200_000,
        "1,234" * 200_000,
        "answer is ((((" * 100_000,
        " " * 1_000_000,
    ],
    ids=lambda text: text[:8].strip() or "whitespace",
)
def test_hostile_text_costs_no_time(text: str) -> None:
    with deadline():
        number_answer(text), word_answer(text, COLORS), letter_answer(text)
