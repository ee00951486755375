"""How often a specialist replies to held-out lessons as it was taught, and what it does instead."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.runs.progress import generation_progress
from pools.errors import UserError
from pools.models.progress import Batch, under_way
from pools.weights import RECIPE, check_recipe
from specialists import lessons as data

NEW_TOKENS = 160


def ask(model: Any, tokenizer: Any, questions: Sequence[str], specialist: str = "specialist") -> list[str]:
    """Greedy responses of a specialist, in batches of 100, shortest first; standard error tells how far it is."""
    import torch
    from transformers import LogitsProcessorList

    from pools.models.hf import Counted

    order = sorted(range(len(questions)), key=lambda place: len(questions[place]))
    answers, counted = [""] * len(questions), LogitsProcessorList([Counted()])
    with torch.inference_mode(), generation_progress(Console(stderr=True)) as tell:
        tell(Batch(specialist, 0, len(order), 0, 0))
        for first in range(0, len(order), 100):
            places = order[first : first + 100]
            texts = [questions[place] + data.END_OF_QUERY for place in places]
            inputs = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
            with under_way(specialist, tell):
                made = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, logits_processor=counted)
            new = tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for place, answer in zip(places, new, strict=True):
                answers[place] = answer
            written = int((made[:, inputs["input_ids"].shape[1] :] != tokenizer.pad_token_id).sum())
            tell(Batch(specialist, first + len(places), len(order), inputs["input_ids"].numel(), written))
    return answers


def accuracy(model: Any, tokenizer: Any, specialist: str, number: int) -> dict[str, list[bool]]:
    """For each family of `number` held-out lessons whether the replies are those taught, character for character."""
    asked = list(islice(data.lessons(specialist, held_out=True), number))
    answers = ask(model, tokenizer, [lesson.question for lesson in asked], specialist)
    right: dict[str, list[bool]] = {}
    for lesson, answer in zip(asked, answers, strict=True):
        right.setdefault(lesson.family, []).append(answer == lesson.reply)
    return dict(sorted(right.items()))


def load(folder: Path) -> tuple[Any, Any, str]:
    """Model, in float32, tokenizer and name of a folder.

    Raises UserError if there is none, and for a specialist that the code no longer teaches.
    """
    import transformers

    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no model; train one with `python -m specialists.train`")
    check_recipe(folder, "the specialist")
    name = str(json.loads((folder / RECIPE).read_text())["specialist"])
    if name not in data.SPECIALISTS:
        taught = ", ".join(data.SPECIALISTS)
        raise UserError(f"{folder} is of specialist {name}, which is no longer taught; expected one of {taught}")
    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    return model.eval(), tokenizer, name


def as_text(right: Mapping[str, Sequence[bool]]) -> str:
    """What `accuracy` gives as a Markdown table."""
    lines = ["| lessons | number | reply as taught |", "|---|---:|---:|"]
    rows = (f"| {family} | {len(of):,} | {sum(of) / len(of):.1%} |" for family, of in right.items())
    return "\n".join([*lines, *rows])
