"""HumanEval: the references, what is taken out of a response, and how a verdict comes about."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.code.grade import examine
from tasks.human_eval import utils


@pytest.fixture(scope="module")
def docs():
    return list(utils.load()["test"])


@pytest.fixture(scope="module")
def incr(docs):
    return next(doc for doc in docs if doc["task_id"] == "HumanEval/42")  # incr_list


def test_every_reference_passes(docs):
    assert len(docs) == 164
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = list(pool.map(lambda doc: utils.verdict(doc, doc["prompt"] + doc["canonical_solution"]), docs))
    failed = [(doc["task_id"], verdict) for doc, verdict in zip(docs, verdicts, strict=True) if not verdict.passed]
    assert failed == []


@pytest.mark.parametrize(
    "body",
    [
        "return [x + 2 for x in l]",
        "return None",
        "return [x + 1 for x in l",
        "import numpy",
        "class Same:\n        def __eq__(self, other): return True\n    return Same()",
        "class Same(list):\n        def __eq__(self, other): return True\n    return Same()",
        "raise SystemExit(0)",
    ],
)
def test_a_wrong_or_malformed_program_scores_nothing(incr, body):
    assert utils.grade(incr, [incr["prompt"] + "    " + body + "\n"]) == {"pass@1": 0.0}


@pytest.mark.parametrize("program", ["", "\0", "incr_list = 3", "x" * 3_000_000, "(" * 5000])
def test_text_that_is_no_program_scores_nothing(incr, program):
    assert utils.grade(incr, [program]) == {"pass@1": 0.0}


CODE = "def incr_list(l: list):\n    return [x + 1 for x in l]\n"
WRONG = "def incr_list(l: list):\n    return l\n"


@pytest.mark.parametrize(
    "response",
    [
        f"```python\n{CODE}```",
        f"```python\n{CODE}",
        f"Sure! Here it is:\n\n```Python\n{CODE}```\n\nIt adds one.\n```python\nprint(incr_list([1]))\n```\n",
        f"First try:\n```python\n{WRONG}```\nThat is wrong. Better:\n```py\n{CODE}```\n```\n[2, 3]\n```",
        CODE,
        "    return [x + 1 for x in l]\n",
        "return [x + 1 for x in l]",
        "```python\n    return [x + 1 for x in l]\n```",
        "```python\nresult = []\nfor x in l:\n    result.append(x + 1)\nreturn result\n```",
        f"```python\n{CODE}\nprint(incr_list([1, 2",
        f"{CODE}\nThis function adds one.",
        f"   ```python\n{CODE}   ```",
        f"```python\r\n{CODE}```".replace("\n", "\r\n").replace("\r\r", "\r"),
        "```python\nincr_list = lambda l: [x + 1 for x in l]\n```",
        "1. Use a list comprehension:\n   ```python\n   def incr_list(l):\n       return [x + 1 for x in l]\n   ```\n",
    ],
)
def test_a_right_answer_is_found_in_the_response(incr, response):
    ((program,),) = utils.extract([[response]], [incr])
    assert utils.grade(incr, [program]) == {"pass@1": 1.0}, program


@pytest.mark.parametrize("response", [f"```python\n{CODE}```\nOn second thought:\n```python\n{WRONG}```", "", "Sorry."])
def test_a_wrong_answer_stays_wrong(incr, response):
    ((program,),) = utils.extract([[response]], [incr])
    assert utils.grade(incr, [program]) == {"pass@1": 0.0}, program


def test_the_prompts_imports_and_helpers_are_at_hand(docs):
    doc = docs[10]
    alone = doc["prompt"][doc["prompt"].index("def make_palindrome") :] + doc["canonical_solution"]
    ((program,),) = utils.extract([["```python\n" + alone + "\n```"]], [doc])
    assert "def is_palindrome" in program and program.count("def make_palindrome") == 1
    assert utils.grade(doc, [program]) == {"pass@1": 1.0}


@pytest.mark.parametrize(
    ("returned", "assertion", "passes"),
    [
        ("range(3)", "tuple(candidate()) == (0, 1, 2)", True),
        ("range(3)", "candidate() == [0, 1, 2]", False),
        ("(x for x in 'ab')", "list(candidate()) == ['a', 'b']", True),
        ("__import__('collections').Counter('aab')", "candidate() == {'a': 2, 'b': 1}", True),
        ("__import__('collections').namedtuple('P', 'x y')(1, 2)", "candidate() == (1, 2)", True),
        ("__import__('fractions').Fraction(1, 2)", "candidate() == 0.5", True),
        ("object()", "candidate() == candidate()", False),
        ("object()", "candidate()", True),
        ("float('nan')", "candidate() == candidate()", False),
        ("10 ** 6000", "candidate() == 10 ** 6000", True),
    ],
)
def test_a_verdict_is_that_of_plain_exec(returned, assertion, passes):
    tests = f"def check(candidate):\n    assert {assertion}\n"
    assert examine(f"def f():\n    return {returned}\n", "f", "", tests).passed is passes


def test_a_change_of_an_argument_in_place_is_not_seen():
    tests = "def check(candidate):\n    given = [2, 1]\n    candidate(given)\n    assert given == [2, 1]\n"
    assert examine("def f(x):\n    x.sort()\n", "f", "", tests).passed


def test_lm_eval_scores_it_by_its_own_machinery(docs):
    from lm_eval.api.model import LM
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    class Reference(LM):
        """Answers every second problem by its reference, in prose and a code block."""

        def generate_until(self, requests):
            return [
                f"Here:\n```python\n{r.doc['prompt']}{r.doc['canonical_solution']}```" if r.doc_id % 2 else "I cannot."
                for r in requests
            ]

        def loglikelihood(self, requests):
            raise NotImplementedError

        def loglikelihood_rolling(self, requests):
            raise NotImplementedError

    folder = os.path.dirname(os.path.dirname(utils.__file__))
    found = simple_evaluate(
        Reference(),
        tasks=["human_eval"],
        task_manager=TaskManager(include_path=folder, include_defaults=False),
        limit=6,
        bootstrap_iters=0,
    )
    assert found["results"]["human_eval"]["pass@1,code"] == 0.5
    samples = found["samples"]["human_eval"]
    assert [sample["pass@1"] for sample in samples] == [0.0, 1.0] * 3
    assert docs[0]["prompt"] in samples[0]["arguments"][0][0] and docs[0]["test"] not in samples[0]["arguments"][0][0]
