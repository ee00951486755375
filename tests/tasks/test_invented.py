"""The invented tasks: their items, what is new in the test items, and how responses are scored."""

import ast
import re
from collections import Counter

import pytest

from tasks import get
from tasks.invented import records, stories, sums
from tasks.invented.arithmetic import largest, natural, steps

TASKS = {"records": records, "sums": sums, "stories": stories}
ITEMS = {"records": 520, "sums": 340, "stories": 440}
KINDS = {
    "records": records.WORDINGS,
    "sums": dict.fromkeys(sums.KINDS, sums.WORDINGS),
    "stories": {kind: groups for kind, (_, *groups) in stories.WORDINGS.items()},
}


@pytest.fixture(scope="module", params=TASKS)
def task(request):
    return request.param


@pytest.fixture(scope="module")
def docs(task):
    return list(TASKS[task].docs())


def new_and_known(docs):
    """The test items that are worded as no train or validation item is, and all items that are none of them."""
    known = {doc["wording"] for doc in docs if doc["split"] != "test"}
    new = [doc for doc in docs if doc["split"] == "test" and doc["wording"] not in known]
    return new, [doc for doc in docs if doc not in new]


def test_the_numbers_of_items_and_the_shares_of_the_splits(task, docs):
    assert len(docs) == ITEMS[task]
    shares = {split: number / len(docs) for split, number in Counter(doc["split"] for doc in docs).items()}
    assert shares == pytest.approx({"test": 0.45, "train": 0.4, "validation": 0.15}, abs=0.01)


def test_no_two_items_ask_the_same(docs):
    questions = [" ".join(doc["question"].lower().split()) for doc in docs]
    assert len(set(questions)) == len(docs)


def test_every_kind_has_four_known_and_two_new_wordings(task, docs):
    assert {doc["kind"] for doc in docs} == set(KINDS[task])
    new, known = new_and_known(docs)
    for kind, (of_known, of_new) in KINDS[task].items():
        assert len(set(of_known)) == len(of_known) >= 4 and len(set(of_new)) == len(of_new) >= 2
        assert not set(of_known) & set(of_new)
        assert {doc["wording"] for doc in known if doc["kind"] == kind} == set(of_known)
        asked_anew = {doc["wording"] for doc in new if doc["kind"] == kind}
        assert asked_anew <= set(of_new) and len(asked_anew) >= 2


def test_a_third_of_the_test_items_is_worded_anew(docs):
    new, _ = new_and_known(docs)
    assert 0.30 <= len(new) / sum(doc["split"] == "test" for doc in docs) <= 0.36


def words(docs):
    return {word for doc in docs for word in re.findall(r"[A-Za-z]+", doc["question"])}


def test_a_question_has_its_wording(docs):
    for doc in docs:
        parts = [re.escape(part) for part in re.split(r"\{\w*\}", doc["wording"])]
        assert re.fullmatch("(.+)".join(parts), doc["question"])


def test_names_of_items_that_are_worded_anew_are_in_no_other_item():
    new, known = new_and_known(list(records.docs()))
    names = [re.search(r"[A-Z][a-z]+ [A-Z][a-z]+", doc["question"][1:]).group().split() for doc in new]
    assert len(names) > 70 and all(first in records.NEW_FIRST and last in records.NEW_LAST for first, last in names)
    assert not {name for both in names for name in both} & words(known)


def test_people_things_and_containers_of_items_that_are_worded_anew_are_in_no_other_item():
    new, known = new_and_known(list(stories.docs()))
    named = (
        (stories.PEOPLE, stories.NEW_PEOPLE),
        (stories.THINGS, stories.NEW_THINGS),
        (stories.BOXES, stories.NEW_BOXES),
    )
    for old, other in named:
        assert not set(old) & set(other)
        assert words(new) & set(other) == set(other) and not words(new) & set(old)
        assert words(known) & set(old) == set(old) and not words(known) & set(other)


@pytest.mark.parametrize("name", ["sums", "stories"])
def test_answers_are_those_of_pythons_arithmetic(name):
    sizes = Counter()
    for doc in TASKS[name].docs():
        expression = doc["expression"]
        assert doc["answer"] == str(eval(expression))
        # Every number that is asked about, and no other, is in the question.
        asked, written = (sorted(set(re.findall(r"\d+", doc[key]))) for key in ("question", "expression"))
        assert asked == written
        values = [
            eval(ast.unparse(node))
            for node in ast.walk(ast.parse(expression, mode="eval"))
            if isinstance(node, ast.BinOp | ast.Constant)
        ]
        assert min(values) >= 0 and natural(expression) and largest(expression) == max(values)
        sizes[max(values) > sums.DISPLAY] += 1
    assert min(sizes.values()) > 0.25 * sum(sizes.values()), "some fit a display of three digits, some do not"


def test_the_expression_of_a_sum_stands_in_its_question():
    assert all(doc["expression"] in doc["question"] for doc in sums.docs())


def test_steps_are_in_the_order_of_computing_and_nothing_else_is_an_expression():
    assert steps("2 + 3 * (7 - 4)") == [(7, "-", 4, 3), (3, "*", 3, 9), (2, "+", 9, 11)]
    assert not natural("3 - 5 + 9") and natural("5 - 3")
    for text in ("2 / 1", "-3 + 5", "x + 1", "1.5 + 1", "True + 1", "2 ** 3", "max(1, 2)"):
        with pytest.raises(ValueError, match="no expression of whole numbers"):
            steps(text)


def test_each_person_is_in_one_registry_or_in_none():
    people = records.people()
    assert len({person.name for person in people}) == len(people) == ITEMS["records"]
    shares = {key: n / len(people) for key, n in Counter(person.registry for person in people).items()}
    assert set(shares) == {"north", "east", "west", None}
    assert 0.06 < shares[None] < 0.14 and all(0.25 < shares[name] < 0.36 for name in records.REGISTRIES)
    surnames = {person.name.split()[1] for person in people}
    assert len(surnames) == len(people) and not surnames & set(records.strangers())


def test_a_record_asks_for_a_fact_of_its_person():
    for person, doc in zip(records.people(), records.docs(), strict=True):
        assert doc["question"] == doc["wording"].format(person.name)
        assert doc["answer"] == person.facts[doc["kind"]]


@pytest.mark.parametrize(
    "seen",
    [
        lambda person, doc: person.name.split()[0],
        lambda person, doc: person.name[:2],
        lambda person, doc: person.name[-3:],
        lambda person, doc: person.name.split()[1][:3],
        lambda person, doc: len(person.name),
        lambda person, doc: doc["kind"],
        lambda person, doc: doc["wording"],
    ],
    ids=["first name", "beginning", "ending", "surname's beginning", "length", "kind", "wording"],
)
def test_nothing_in_a_name_or_a_wording_tells_the_registry(seen):
    """The most frequent registry of what is seen predicts that of other people hardly better than chance, a third."""
    pairs = [(seen(person, doc), person.registry) for person, doc in zip(records.people(), records.docs(), strict=True)]
    right = []
    for fold in range(5):
        counts = {}
        for key, registry in (pair for n, pair in enumerate(pairs) if n % 5 != fold):
            counts.setdefault(key, Counter())[registry] += 1
        right += [
            counts[key].most_common(1)[0][0] == registry
            for n, (key, registry) in enumerate(pairs)
            if n % 5 == fold and key in counts
        ]
    assert len(right) > 400 and sum(right) / len(right) < 0.42


def test_the_items_carry_kind_wording_and_split(task, docs):
    loaded = get(task)
    items = loaded.items()
    assert loaded.duplicates == 0
    assert [item.doc_id for item in items] == list(range(len(docs)))
    for item, doc in zip(items, docs, strict=True):
        assert item.query == doc["question"]
        assert (item.kind, item.wording, item.split) == (doc["kind"], doc["wording"], doc["split"])
        assert (item.settings.until, item.settings.max_new_tokens) == ((), 160)


STATED = [
    ("Answer: {}", 1.0),
    ("12 + 7 = 19\nAnswer: {}", 1.0),
    ("**Answer:** {}.", 1.0),
    ("The **answer**: **{}**", 1.0),
    ("ANSWER: `{}`", 1.0),
    ("Answer: unknown\nAnswer: {}", 1.0),
    ("Answer: {}\nAnswer: unknown", 0.0),
    ("Answer: unknown", 0.0),
    ("Answer: {}7", 0.0),
    ("Answer:\n{}", 1.0),
    ("Answer: ({})", 1.0),
    (r"Answer: $\boxed{{{}}}$", 1.0),
    ("the answer is {}.", 1.0),
    ("It is {}.", 0.0),
    ("{}", 0.0),
    ("The result is {}.", 0.0),
    ("", 0.0),
]


@pytest.mark.parametrize(("response", "score"), STATED)
def test_what_is_stated_is_scored(task, docs, response, score):
    loaded = get(task)
    assert loaded.score([(n, response.format(docs[n]["answer"])) for n in (0, 1, 50)]) == [score] * 3


def test_a_comma_for_thousands_is_read(docs, task):
    if task == "records":
        assert get(task).score([(n, f"Answer: {doc['answer'].upper()}") for n, doc in enumerate(docs)]) == [1.0] * 520
        return
    large = [n for n, doc in enumerate(docs) if len(doc["answer"]) > 3]
    stated = [(n, f"Answer: {int(docs[n]['answer']):,}") for n in large]
    assert len(large) > 50 and all("," in text for _, text in stated)
    assert get(task).score(stated) == [1.0] * len(large)


@pytest.mark.parametrize("name", ["sums", "stories"])
def test_an_expression_is_no_answer(name):
    docs = list(TASKS[name].docs())
    for shape in ("{}", "Expression: {}", "Answer: {}"):
        assert get(name).score([(n, shape.format(docs[n]["expression"])) for n in range(20)]) == [0.0] * 20


def program(body):
    return f"Here it is:\n```python\ndef solve():\n    {body}\n```\n"


def test_a_program_that_returns_the_answer_is_right(task, docs):
    right = [(n, program(f"return {docs[n].get('expression', repr(docs[n]['answer']))}")) for n in (0, 1, 9, 40)]
    assert get(task).score(right) == [1.0] * 4


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("def solve():\n    return {expression}", 1.0),
        (program("return str({answer})"), 1.0),
        (program("return float({answer})"), 1.0),
        (program("return {answer} + 1"), 0.0),
        (program("return"), 0.0),
        (program("return True"), 0.0),
        (program("print({answer})"), 0.0),
        (program("return ({answer}"), 0.0),
        (program("raise ValueError({answer})"), 0.0),
        (program("return {answer} + 1") + "Answer: {answer}", 0.0),
        (program("return {answer}") + "Answer: unknown", 1.0),
        ("```python\ndef other():\n    return {answer}\n```", 0.0),
    ],
)
def test_programs_are_scored_by_what_they_return(response, score):
    doc = next(sums.docs())
    assert get("sums").score([(0, response.format(**doc))]) == [score]
