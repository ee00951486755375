"""Small data sets of our own in the form of the suite `paper`'s benchmarks, with right and wrong responses.

Repositories, configurations, splits and columns are those that lm-eval's tasks read on the hub; the questions are ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Benchmark:
    """A data set on the hub, and what models may answer to the items that its task asks, in order.

    column: what is asked, as it stands in the query. right, wrong: responses to each item, to be scored 1 and 0.
    """

    repository: str
    config: str
    column: str
    splits: Mapping[str, Sequence[Mapping[str, Any]]]
    right: Sequence[Sequence[str]]
    wrong: Sequence[Sequence[str]]
    suffix: str = "parquet"

    @property
    def asked(self) -> list[str]:
        """What is asked, of each item that has responses."""
        return [row[self.column] for row in self.splits["test" if "test" in self.splits else "validation"]]

    def write(self, root: Path) -> None:
        """Lay the repository out below `root`, as its card says: a file per split."""
        folder = root / "datasets" / self.repository
        (folder / self.config).mkdir(parents=True)
        card = ["---", "configs:", f"- config_name: {self.config}", "  data_files:"]
        for split, rows in self.splits.items():
            path = f"{self.config}/{split}.{self.suffix}"
            card += [f"  - split: {split}", f"    path: {path}"]
            if self.suffix == "jsonl":
                (folder / path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            else:
                import pyarrow as pa
                import pyarrow.parquet as pq

                pq.write_table(pa.Table.from_pylist(list(rows)), folder / path)
        (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")


def _choice(number: int, question: str, choices: Sequence[str], key: str, labels: str = "ABCD") -> dict[str, Any]:
    texts = {"text": list(choices), "label": list(labels[: len(choices)])}
    return {"id": f"ours-{number}", "question": question, "choices": texts, "answerKey": key}


_CHOICES = [
    _choice(0, "Which of these is a colour?", ["seven", "green", "spoon", "Tuesday"], "B"),
    _choice(1, "Which of these melts first in the sun?", ["an ice cube", "a brick", "a nail", "a coin"], "1", "1234"),
    _choice(2, "Which of these can a magnet lift?", ["a leaf", "a cork", "an iron nail"], "C"),
]


def _trivia(number: int, question: str, *aliases: str) -> dict[str, Any]:
    plain = [alias.lower() for alias in aliases]
    return {
        "question": question,
        "question_id": f"ours_{number}",
        "question_source": "",
        "answer": {
            "aliases": list(aliases),
            "normalized_aliases": plain,
            "matched_wiki_entity_name": "",
            "normalized_matched_wiki_entity_name": "",
            "normalized_value": plain[0],
            "type": "WikipediaEntity",
            "value": aliases[0],
        },
    }


_TRIVIA = [
    _trivia(0, "How many legs does a spider have", "Eight", "8"),
    _trivia(1, "Which metal is liquid at room temperature", "Mercury", "Quicksilver"),
    _trivia(2, "In which direction does the sun set", "West"),
]
_HUMAN_EVAL = [
    {
        "task_id": "Ours/0",
        "prompt": 'def twice(x: int) -> int:\n    """Return two times x."""\n',
        "canonical_solution": "    return 2 * x\n",
        "test": "def check(candidate):\n    assert candidate(3) == 6\n    assert candidate(-1) == -2\n",
        "entry_point": "twice",
    },
    {
        "task_id": "Ours/1",
        "prompt": 'from typing import List\n\n\ndef evens(xs: List[int]) -> List[int]:\n    """Keep what is even."""\n',
        "canonical_solution": "    return [x for x in xs if x % 2 == 0]\n",
        "test": "def check(candidate):\n    assert candidate([1, 2, 4]) == [2, 4]\n    assert candidate([]) == []\n",
        "entry_point": "evens",
    },
]


def _program(number: int, text: str, code: str, *tests: str, setup: str = "") -> dict[str, Any]:
    rest: dict[str, Any] = {"test_setup_code": setup, "challenge_test_list": []}
    return {"task_id": number, "text": text, "code": code, "test_list": list(tests), **rest}


_MBPP = [
    _program(
        *(
            11,
            "Write a function to add up the squares of a list.",
            "def squares(xs):\n    return sum(x * x for x in xs)",
        ),
        *("assert squares([1, 2]) == 5", "assert squares([]) == 0", "assert squares([3]) == 9"),
    ),
    _program(
        *(
            12,
            "Write a python function to reverse a word.",
            "def step():\n    return -1\n\ndef turned(w):\n    return w[:: step()]",
        ),
        *('assert list(turned("ab")) == ["b", "a"]', 'assert turned("") == ""', 'assert word == "cba"'),
        setup='word = turned("abc")',  # as the set-up of some items of MBPP uses what the program defines
    ),
]
_GSM8K = [
    {
        "question": "Ann has 3 boxes of 12 pears and eats 4. How many pears are left?",
        "answer": "She has 3*12=<<3*12=36>>36 pears.\n36-4=<<36-4=32>>32 are left.\n#### 32",
    },
    {
        "question": "A coat costs $1,500 and a hat a third of that. What do two coats and a hat cost?",
        "answer": "The hat costs 1500/3=$<<1500/3=500>>500.\nTogether 2*1500+500=$<<2*1500+500=3500>>3500.\n#### 3,500",
    },
]


def _problem(number: int, problem: str, solution: str, answer: str) -> dict[str, Any]:
    named = {"subject": "Algebra", "level": 1, "unique_id": f"test/algebra/{number}.json"}
    return {"problem": problem, "solution": solution, "answer": answer, **named}


_MATH = [
    _problem(1, "What is $\\frac{1}{2} + \\frac{1}{4}$?", "The sum is $\\boxed{\\frac{3}{4}}$.", "\\frac{3}{4}"),
    _problem(2, "Solve $x + 3 = 10$.", "Subtracting, $x = 10 - 3 = \\boxed{7}$.", "7"),
]
PAPER = {
    "arc_challenge_chat": Benchmark(
        "allenai/ai2_arc",
        "ARC-Challenge",
        "question",
        {"train": _CHOICES[:1], "validation": _CHOICES[:1], "test": _CHOICES},
        [[" B", "b.", "B"], [" A"], [" C"]],
        [[" A", "", "The best answer is B"], [" 1", " B"], [" D"]],
    ),
    "triviaqa": Benchmark(
        "mandarjoshi/trivia_qa",
        "rc.nocontext",
        "question",
        {"train": _TRIVIA[:1], "validation": _TRIVIA},
        [[" Eight", "8"], ["quicksilver"], [" west"]],
        [["six", ""], ["Iron"], ["the west side"]],
    ),
    "humaneval_instruct": Benchmark(
        "openai/openai_humaneval",
        "openai_humaneval",
        "prompt",
        {"test": _HUMAN_EVAL},
        [
            ["    return 2 * x\n```\nIt doubles x.", "    return x + x"],
            ["    return [x for x in xs if not x % 2]\n```"],
        ],
        [["    return 3 * x\n```", "", "```python\ndef twice(x): return 2 * x\n```"], ["    return xs\n```"]],
    ),
    "mbpp_chat": Benchmark(
        "google-research-datasets/mbpp",
        "full",
        "text",
        {"train": _MBPP[:1], "test": _MBPP, "validation": _MBPP[:1], "prompt": _MBPP[:1]},
        [
            ["```python\ndef squares(xs):\n    return sum(x**2 for x in xs)\n```\nIt adds them up.", _MBPP[0]["code"]],
            ["```\nimport math\n\ndef turned(word):\n    return word[::-1]"],
        ],
        [["```python\ndef squares(xs):\n    return sum(xs)\n```", ""], ["def turned(word):\n    return word"]],
    ),
    "gsm8k_cot_zeroshot": Benchmark(
        "openai/gsm8k",
        "main",
        "question",
        {"train": _GSM8K[:1], "test": _GSM8K},
        [["3 boxes hold 36 pears, and 36 - 4 = 32. The answer is 32.", "32"], ["They cost $3,500."]],
        [["The answer is 36.", "none"], ["350"]],
    ),
    "minerva_math500": Benchmark(
        "HuggingFaceH4/MATH-500",
        "default",
        "problem",
        {"test": _MATH},
        [["Final Answer: The final answer is $\\frac{3}{4}$. I hope it is correct."], ["So $x = \\boxed{7}$."]],
        [["Final Answer: The final answer is $\\frac{1}{4}$. I hope it is correct.", ""], ["So $x = \\boxed{13}$."]],
        "jsonl",
    ),
}
"""By the name of the task."""
