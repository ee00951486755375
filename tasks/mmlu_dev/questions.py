"""MMLU's development questions out of lm-eval's package, and the letter that a response ends up with.

The questions (MMLU, Hendrycks et al., arXiv 2009.03300, MIT licence) are those that lm-eval shows as worked examples
in its `mmlu_flan_cot_fewshot` tasks; the worked answers are left out here. Knows nothing of the rest of the project,
so that lm-eval can load this file by its path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SOURCE = "tasks/mmlu/flan_cot_fewshot/_cot_prompts.json"
LETTERS = "ABCD"

_EXAMPLE = re.compile(
    r"(?P<question>.+?)\n\(A\)(?P<A>.+?)\(B\)(?P<B>.+?)\(C\)(?P<C>.+?)\(D\)(?P<D>.+?)\nA: Let's think step by step\."
    r".*?The answer is \((?P<answer>[ABCD])\)",
    re.DOTALL,
)
# What follows "Answer:" or "answer is", then markdown, LaTeX or a bracket, then the letter standing alone. A small
# letter counts only where no word follows: "the answer is a mixture" states nothing.
_STATED = re.compile(
    r"(?i:\banswer[\s*_]{0,4}(?::|is\b:?))[\s*_$(\[\"'{]{0,6}(?:\\\w{1,8}\s?\{)?\(?"
    r"([A-D](?![ \t][a-z])|[a-d](?=\s*(?:[).:;,\]*_}]|$)))(?!\w)"
)
_FIRST = re.compile(r"[\s*_(\[\"']{0,6}([A-D])(?=[).:\]*_\s]|$)(?!\s[a-z])")
_BRACKETED = re.compile(r"\(([A-D])\)")


def dataset(mmlu_dev: dict[str, Any], **_: Any) -> dict[str, Any]:
    """lm-eval's `custom_dataset`: all questions as the split `test`. Called with the metadata.

    Raises ValueError where the installed lm-eval holds another number of them than declared.
    """
    import datasets

    rows = list(questions())
    if len(rows) != mmlu_dev["items"]:
        raise ValueError(
            f"mmlu_dev: {len(rows)} questions in the installed lm-eval's {SOURCE}, expected {mmlu_dev['items']}: "
            "install the lm-eval version that constraints.txt names"
        )
    return {"test": datasets.Dataset.from_list(rows)}


def questions() -> Iterator[dict[str, str]]:
    """`subject`, `question`, `A` to `D` and `answer` of each example that has four options and one of them right."""
    spec = find_spec("lm_eval")
    assert spec and spec.submodule_search_locations, "lm-eval is a requirement of this project"
    text = (Path(spec.submodule_search_locations[0]) / SOURCE).read_text(encoding="utf-8")
    for subject, prompt in json.loads(text).items():
        for example in re.split(r"(?:^|\n)Q: ", prompt)[1:]:
            if found := _EXAMPLE.match(example):
                yield {"subject": subject, **{key: value.strip() for key, value in found.groupdict().items()}}


def letter_answer(response: str) -> str:
    """The last stated letter; else the one that the response begins with; else the last one in brackets; else ""."""
    text = response[-50_000:]
    if stated := _STATED.findall(text):
        return str(stated[-1]).upper()
    if first := _FIRST.match(text):
        return first.group(1)
    bracketed = _BRACKETED.findall(text)
    return bracketed[-1] if bracketed else ""


def letters(resps: Sequence[Sequence[str]], docs: Sequence[dict[str, Any]]) -> list[str]:
    """lm-eval filter: the letter of each document's first response."""
    return [letter_answer(responses[0]) for responses in resps]
