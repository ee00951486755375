"""How often a specialist replies to held-out lessons as it was taught, and what it does instead."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pools.errors import UserError
from pools.weights import RECIPE, check_recipe
from specialists import lessons as data

NEW_TOKENS = 160


def ask(model: Any, tokenizer: Any, questions: Sequence[str]) -> list[str]:
    """Greedy responses, in batches of 100, shortest first."""
    import torch

    order = sorted(range(len(questions)), key=lambda place: len(questions[place]))
    answers = [""] * len(questions)
    with torch.inference_mode():
        for first in range(0, len(order), 100):
            places = order[first : first + 100]
            texts = [questions[place] + data.END_OF_QUERY for place in places]
            inputs = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
            made = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
            new = tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for place, answer in zip(places, new, strict=True):
                answers[place] = answer
    return answers


def accuracy(model: Any, tokenizer: Any, specialist: str, number: int) -> dict[str, float]:
    """Share of held-out lessons of each family whose reply is the taught one, character for character."""
    asked = list(islice(data.lessons(specialist, held_out=True), number))
    answers = ask(model, tokenizer, [lesson.question for lesson in asked])
    right: dict[str, list[bool]] = {}
    for lesson, answer in zip(asked, answers, strict=True):
        right.setdefault(lesson.family, []).append(answer == lesson.reply)
    return {family: sum(of) / len(of) for family, of in sorted(right.items())}


def load(folder: Path) -> tuple[Any, Any, str]:
    """Model, in float32, tokenizer and name of a folder. Raises UserError if there is none."""
    import transformers

    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no model; train one with `python -m specialists.train`")
    check_recipe(folder, "the specialist")
    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    return model.eval(), tokenizer, str(json.loads((folder / RECIPE).read_text())["specialist"])


def as_text(shares: Mapping[str, float]) -> str:
    """The shares as a Markdown table."""
    lines = ["| held-out lessons | reply as taught |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {family} | {share:.1%} |" for family, share in shares.items())])
