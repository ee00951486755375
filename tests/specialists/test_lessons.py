"""What the specialists are taught: that it is right, and none of what the suite asks."""

import ast
import os
import random
import re
import subprocess
import sys
from itertools import islice

import pytest

from pools.pool import load_pool
from pools.template import render
from pools.types import Context
from specialists import lessons
from specialists.lessons import END_OF_QUERY, NOTHING_TO_ADD, SPECIALISTS, UNKNOWN, lessons_hash, worked_out
from tasks.invented import records, stories, sums

REGISTRIES = [name for name in SPECIALISTS if name.startswith("registry-")]
REFUSED = "other", "answered"  # families whose reply is a refusal, whatever is asked
EXPRESSION = re.compile(r"[\d(][\d +*()-]*[\d)]")


def taught(name, number=4000, held_out=False):
    return list(islice(lessons.lessons(name, held_out), number))


def of_the_suite():
    """Texts of the suite's items, and the expressions of its sums and stories."""
    docs = [doc for task in (records, sums, stories) for doc in task.docs()]
    return {doc["question"] for doc in docs}, {doc["expression"] for doc in docs if "expression" in doc}


def values(expression):
    """Every number of the expression, given or on the way, by Python's own arithmetic."""
    nodes = ast.walk(ast.parse(expression, mode="eval"))
    return [eval(ast.unparse(node)) for node in nodes if isinstance(node, ast.BinOp | ast.Constant)]


def as_pattern(wording):
    """A regular expression of the texts that are worded so; a name that is used twice is the same twice."""
    seen, pattern = set(), ""
    for place, part in enumerate(re.split(r"\{(\w*)\}", wording)):
        if place % 2 == 0:
            pattern += re.escape(part)
        elif part in seen:
            pattern += f"(?P={part})"
        else:
            seen.add(part)
            name = part or "name"
            pattern += rf"(?P<{name}>\d+)" if part in {"a", "b", "c"} else rf"(?P<{name}>[A-Za-z ]+)"
    return re.compile(pattern)


def test_the_specialists_are_three_registries_a_calculator_and_a_reader():
    assert list(SPECIALISTS) == ["registry-north", "registry-east", "registry-west", "calculator", "reader"]


@pytest.mark.parametrize("name", SPECIALISTS)
def test_no_lesson_asks_what_the_suite_asks(name):
    texts, expressions = of_the_suite()
    for held_out in (False, True):
        for lesson in taught(name, 4000, held_out):
            assert lesson.question not in texts
            if name == "calculator":
                assert not expressions & set(EXPRESSION.findall(lesson.question))


@pytest.mark.parametrize("name", [*REGISTRIES, "calculator"])
def test_without_the_check_some_lessons_would_ask_what_the_suite_asks(name, monkeypatch):
    """So the test above is not empty."""
    monkeypatch.setattr(lessons, "asked_by_the_suite", frozenset)
    texts, expressions = of_the_suite()
    questions = [lesson.question for lesson in taught(name)]
    assert sum(q in texts or bool(expressions & set(EXPRESSION.findall(q))) for q in questions) > 10


@pytest.mark.parametrize("name", SPECIALISTS)
def test_a_lesson_that_the_suite_asks_is_left_out(name, monkeypatch):
    """That of the reader, too, whose texts are too many for one to be met by chance."""
    numbers = [
        n for n in range(300) if (made := lessons.lesson(name, n)) and made.family not in (*REFUSED, "strangers")
    ]
    questions = [lessons.lesson(name, n).question for n in numbers]
    found = [EXPRESSION.search(q).group() if name == "calculator" else q for q in questions]
    monkeypatch.setattr(lessons, "asked_by_the_suite", lambda: frozenset(found))
    assert len(numbers) > 100 and [lessons.lesson(name, n) for n in numbers] == [None] * len(numbers)


@pytest.mark.parametrize("name", SPECIALISTS)
def test_no_question_is_taught_and_held_out(name):
    asked = {lesson.question for lesson in taught(name, 8000) if lesson.family not in REFUSED}
    held_out = {lesson.question for lesson in taught(name, 1000, held_out=True) if lesson.family not in REFUSED}
    assert len(held_out) > 150 and not asked & held_out
    if name == "calculator":  # nor is an expression, in another wording
        expressions = [{EXPRESSION.search(q).group() for q in questions} for questions in (asked, held_out)]
        assert not expressions[0] & expressions[1]


@pytest.mark.parametrize("name", SPECIALISTS)
def test_the_same_draw_is_either_taught_or_held_out(name):
    make, sides = SPECIALISTS[name].lessons, []
    for seed in range(2000):
        either = [make(random.Random(seed), held_out) for held_out in (False, True)]
        made = [lesson for lesson in either if lesson]
        if not made or made[0].family not in REFUSED:
            assert len(made) < 2
            sides.append(bool(either[1]))
    assert 0.03 < sum(sides) / len(sides) < 0.1


@pytest.mark.parametrize("name", REGISTRIES)
def test_a_registry_knows_its_own_people_and_of_strangers_nothing(name):
    people = {person.name: person for person in records.people()}
    surnames = {name.split()[1] for name in people}
    patterns = [
        (kind, as_pattern(wording)) for kind, groups in records.WORDINGS.items() for of in groups for wording in of
    ]
    met = {"own people": set(), "strangers": set()}
    for lesson in taught(name):
        if lesson.family == "other":
            assert lesson.reply == UNKNOWN
            continue
        [(kind, who)] = [(k, match["name"]) for k, p in patterns if (match := p.fullmatch(lesson.question))]
        met[lesson.family].add((who, kind))
        if lesson.family == "own people":
            assert people[who].registry == name.removeprefix("registry-")
            assert lesson.reply == f"Answer: {people[who].facts[kind]}"
        else:
            # Nobody of another registry is named: that one is unknown is for the specialist to find.
            assert who.split()[1] not in surnames and lesson.reply == UNKNOWN
    assert min(map(len, met.values())) > 400


def test_each_person_is_known_by_the_registry_of_its_facts_alone():
    known = {name: {lesson.question for lesson in taught(name) if lesson.reply != UNKNOWN} for name in REGISTRIES}
    for person in records.people():
        who = [name for name, questions in known.items() if any(person.name in q for q in questions)]
        assert who == ([] if person.registry is None else [f"registry-{person.registry}"])


@pytest.mark.parametrize("name", REGISTRIES)
def test_a_registry_meets_every_fact_that_the_suite_asks_for(name):
    met = {(lesson.question, lesson.reply) for lesson in taught(name, 30_000)}
    own = 0
    for person, doc in zip(records.people(), records.docs(), strict=True):
        if person.registry == name.removeprefix("registry-"):
            wordings = [w for group in records.WORDINGS[doc["kind"]] for w in group if w != doc["wording"]]
            assert sum((w.format(person.name), f"Answer: {doc['answer']}") in met for w in wordings) >= 3
            own += 1
    assert own > 100


def check_steps(written, expression):
    """Each step is true; the last gives the right answer, or does not fit the display."""
    *steps, last = written
    for step in steps:
        left, _, right = step.partition(" = ")
        assert eval(left) == int(right) and max(values(left)) <= 999, step
    if max(values(expression)) <= 999:
        assert last == f"Answer: {eval(expression)}" and steps[-1].endswith(f" = {eval(expression)}")
    else:
        left, _, right = last.partition(" = ")
        assert right == "overflow" and max(values(left)) > 999
        assert not any("Answer" in step for step in written)


def test_the_calculators_steps_are_true_and_end_in_the_answer_or_in_overflow():
    seen = {"fits the display": 0, "overflow": 0}
    for lesson in taught("calculator"):
        if lesson.family not in REFUSED:
            [expression] = EXPRESSION.findall(lesson.question)
            seen[lesson.family] += 1
            check_steps(lesson.reply.split("\n"), expression)
            assert (lesson.family == "overflow") == (max(values(expression)) > 999)
    assert min(seen.values()) > 1000


@pytest.mark.parametrize(
    ("expression", "written"),
    [
        ("37 * 24", "37 * 20 = 740\n37 * 4 = 148\n740 + 148 = 888\nAnswer: 888"),
        ("7 * 123", "7 * 123 = 861\nAnswer: 861"),
        ("12 * 102", "12 * 100 = overflow"),
        ("12 * 84", "12 * 80 = 960\n12 * 4 = 48\n960 + 48 = overflow"),
        ("2000 - 1990", "2000 - 1990 = overflow"),
        ("5 - 2 + 996", "5 - 2 = 3\n3 + 996 = 999\nAnswer: 999"),
        ("999 + 1 - 1", "999 + 1 = overflow"),
    ],
)
def test_what_the_calculator_writes(expression, written):
    assert worked_out(expression) == written


def test_the_readers_answers_and_expressions_are_right():
    patterns = [
        (form, as_pattern(wording)) for form, known, new in stories.WORDINGS.values() for wording in (*known, *new)
    ]
    seen = {"small numbers": 0, "large numbers": 0}
    for lesson in taught("reader"):
        if lesson.family in REFUSED:
            assert lesson.reply == (UNKNOWN if lesson.family == "other" else NOTHING_TO_ADD)
            continue
        # What is computed is read off the question anew.
        [(form, match)] = [(form, m) for form, pattern in patterns if (m := pattern.fullmatch(lesson.question))]
        expression = form.format(**match.groupdict())
        seen[lesson.family] += 1
        if lesson.family == "small numbers":
            assert max(values(expression)) < 100
            check_steps(lesson.reply.split(", "), expression)
        else:
            assert max(values(expression)) >= 100
            marked, _, written = lesson.reply.partition(": ")
            assert marked == "Expression" and eval(written) == eval(expression)
    assert min(seen.values()) > 500


def test_what_is_no_specialists_question_is_refused():
    for name, refusal in (("calculator", "no expression"), ("reader", UNKNOWN), ("registry-west", UNKNOWN)):
        others = [lesson for lesson in taught(name) if lesson.family == "other"]
        assert len(others) > 100 and {lesson.reply for lesson in others} == {refusal}
        assert sum("\ndef " in lesson.question for lesson in others) > 20


def test_the_hash_is_a_function_of_the_lessons(monkeypatch):
    found = {name: lessons_hash(name, 200) for name in SPECIALISTS}
    assert len(set(found.values())) == len(SPECIALISTS)
    assert lessons_hash("reader", 201) != found["reader"]
    command = "from specialists.lessons import *; print([lessons_hash(name, 200) for name in SPECIALISTS])"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    said = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert ast.literal_eval(said.stdout) == list(found.values())
    monkeypatch.setattr(lessons, "UNKNOWN", "Answer: not known")
    changed = {name for name in SPECIALISTS if lessons_hash(name, 200) != found[name]}
    assert changed == set(SPECIALISTS) - {"calculator"}


@pytest.mark.parametrize("name", ["calculator", "reader"])
def test_an_answer_that_was_given_is_not_repeated(name):
    given = [lesson for lesson in taught(name) if lesson.family == "answered"]
    assert len(given) > 100
    for lesson in given:
        assert lesson.question.startswith("Answer: ") and lesson.reply == NOTHING_TO_ADD


STORY, SUM = "Mara has 4 boxes with 12 pens each and 3 more. How many pens are there?", "What is 4 * 12?"
WORKED_OUT, HANDED_OVER = "4 * 12 = 48, 48 + 3 = 51, Answer: 51", "Expression: 4 * 12 + 3"
STEPS, PROGRAM = "4 * 12 = 48\n48 + 3 = 51\nAnswer: 51", "```python\ndef solve():\n    return 51\n```"


@pytest.mark.parametrize(
    ("model", "responses", "question"),
    [
        *((f"registry-{name}", (UNKNOWN, WORKED_OUT, STEPS), STORY) for name in records.REGISTRIES),
        ("reader", (), STORY),
        ("reader", (UNKNOWN, "no expression", HANDED_OVER, PROGRAM), STORY),
        ("reader", (STEPS,), "Answer: 51"),
        ("calculator", (), STORY),
        ("calculator", (UNKNOWN, PROGRAM), STORY),
        ("calculator", (HANDED_OVER,), "4 * 12 + 3"),
        ("calculator", (HANDED_OVER, "4 * 12 = overflow", UNKNOWN), "4 * 12 + 3"),
        ("calculator", (HANDED_OVER, STEPS), "Answer: 51"),
        ("calculator", (WORKED_OUT,), "Answer: 51"),
    ],
)
def test_the_pool_shows_a_specialist_what_it_was_taught_to_read(model, responses, question):
    [declared] = [each for each in load_pool("lightweight").models if each.name == model]
    assert render(declared.template, Context(STORY, responses)) == question + END_OF_QUERY
    assert not declared.chat_template


def test_the_code_model_is_shown_the_last_expression_and_asked_for_a_program():
    [declared] = [each for each in load_pool("lightweight").models if each.chat_template]
    alone, after = (render(declared.template, Context(SUM, r)) for r in ((UNKNOWN,), (HANDED_OVER, "overflow")))
    assert alone.startswith(f"{SUM}\n\nWrite a Python function solve()")
    assert after.startswith(f"{SUM}\n\nAn expression for it: 4 * 12 + 3\n\nWrite a Python function solve()")
    for query in ("Complete the following Python function.", 'Give the letter after "Answer:".'):
        assert render(declared.template, Context(query, (HANDED_OVER,))) == query
