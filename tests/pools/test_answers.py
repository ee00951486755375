"""What a response answers: real forms of answers, and what looks like one and is none."""

import pytest

from pools import UserError
from pools.answers import answer_reader, guess_answers


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("B", "B"),
        ("A\n", "A"),
        ("(d)", "D"),
        ("**C**", "C"),
        ("A) because it is", "A"),
        ("D (", "D"),
        ("The correct answer is (B).", "B"),
        ("A cat sat there, so the answer is option D. Option B is a dog.", "D"),
        (r"So it is \boxed{\text{C}}", "C"),
        ("Neither A nor C, so B", "B"),
        ("I cannot tell.", ""),
        ("Unfortunately I", ""),
        ("A questioning look", ""),
        ("Don't know", ""),
    ],
)
def test_letters(response: str, answer: str) -> None:
    assert answer_reader("letter")(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("20 / 10 = 2, 40 - 20 = <<40-20=20>>20.\n#### 20\n\n", "20"),
        ("#### $20.00", "20"),
        ("the total cost is $35.00 + $15.00 = $50.00.", "50"),
        ("#### -15\n\n(It is negative: by 2 dollars.)", "-15"),
        (r"\boxed{-1,234.50} for 3 days", "-1234.5"),
        ("To answer this, count 5 apples. 12 in all.", "12"),
        ("pages 3-4", "4"),
        ("1, 2, 3", "3"),
        ("12,34", "34"),
        ("-0.0", "0"),
        ("about .50", "0.5"),
        ("007", "7"),
        ("none at all", ""),
    ],
)
def test_numbers(response: str, answer: str) -> None:
    assert answer_reader("number")(response) == answer


TWICE = "def twice(n):\n    return [2 * x for x in n]\n"


@pytest.mark.parametrize(
    ("response", "same"),
    [
        (f"Here it is:\n```python\r\n{TWICE}```\nIt doubles.", True),
        (f"[PYTHON]\n{TWICE}[/PYTHON]\n[TESTS]\nassert twice([1]) == [2]\n[/TESTS]", True),
        ('```\ndef f(a: list) -> list:\n    """Doubled."""\n    return [2 * y for y in a]  # each\n\nf([1])', True),
        (TWICE.replace("2 *", "3 *"), False),
        (TWICE.replace("for x in n", "for x in sorted(n)"), False),
        (TWICE.replace("2 * x", "2 * n"), False),
        ("def twice(n):\n    return [2 * x for x in", False),
        ("(" * 10_000, False),
        ("", False),
    ],
)
def test_programs_are_the_same_but_for_names_comments_and_examples(response: str, same: bool) -> None:
    read = answer_reader("code")
    assert (read(response) == read(TWICE)) is same


@pytest.mark.parametrize(
    ("kind", "response", "answer"),
    [
        ("text", "Paris, France!\n", "paris france"),
        ("word", "It is Paris.", "Paris"),
        (r"\d+ apples", "2 apples, no: 3 apples", "3 apples"),
        (r"x = (\d)?", "x = 1, x = ", ""),
        (r"x = (\d)?", "x = , x = 1", "1"),
        (r"\d", "none", ""),
    ],
)
def test_texts_words_and_expressions(kind: str, response: str, answer: str) -> None:
    assert answer_reader(kind)(response) == answer


def test_an_expression_that_never_ends_is_refused() -> None:
    with pytest.raises(UserError, match=r"takes more than 0.1 seconds for a response of 61 characters"):
        answer_reader("(a|aa)+$")("a" * 60 + "c")


@pytest.mark.parametrize("kind", ["(", "[", "a{2,1}", "(?P<x", "letters(", "(?<=a+b*)(?R"])
def test_what_is_no_kind_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match="expected letter, number, text, code, word, or a regular expression"):
        answer_reader(kind)


@pytest.mark.parametrize(
    ("responses", "kind"),
    [
        (["A", "B)", "I do", "C\n", "(d)"], "letter"),
        (["#### 5", "so 4 + 4 = 8\n#### 8", "I think"], "number"),
        (["5", "-7", "It costs $8."], "number"),
        ([f"```python\n{TWICE}```", TWICE, "no"], "code"),
        (["A cat sat on the mat.", "I think so.", "Paris"], "text"),
        (["", ""], "text"),
        ([], "text"),
    ],
)
def test_the_kind_is_guessed_from_the_responses(responses: list[str], kind: str) -> None:
    assert guess_answers(responses) == kind
