"""What the two specialists can do on held-out questions: alone, after earlier responses, and one after the other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pools.errors import UserError
from pools.template import render
from pools.types import Context
from pools.weights import check_recipe
from specialists import lessons as data
from specialists import questions

NEW_TOKENS = 160
FAMILIES = ("chain_sum", "products", "expression", "aiw", "color_cube_rotation", "leg_counting")


def ask(
    model: Any,
    tokenizer: Any,
    source: questions.Source,
    asked: Sequence[questions.Question],
    earlier: Sequence[tuple[str, ...]] | None = None,
) -> list[str]:
    """Greedy responses to questions, each after its earlier responses; in batches of 50, shortest first."""
    import torch

    rendered = [
        render(data.TEMPLATE, Context(source.query(question), tuple(responses)))
        for question, responses in zip(asked, earlier or [()] * len(asked), strict=True)
    ]
    order = sorted(range(len(rendered)), key=lambda place: len(rendered[place]))
    answers = [""] * len(rendered)
    with torch.inference_mode():
        for first in range(0, len(order), 50):
            places = order[first : first + 50]
            texts = [rendered[place] for place in places]
            inputs = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
            made = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
            new = tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for place, answer in zip(places, new, strict=True):
                answers[place] = answer
    return answers


def final(response: str) -> str:
    """What stands behind the last "Answer:"; "" if there is none."""
    return response.rpartition("Answer:")[2].strip() if "Answer:" in response else ""


def accuracy(answers: Sequence[str], expected: Sequence[str]) -> float:
    """Share of responses whose final answer is the expected one, character for character."""
    return sum(final(a) == e for a, e in zip(answers, expected, strict=True)) / len(expected)


def obeyed(
    model: Any, tokenizer: Any, source: questions.Source, specialist: data.Specialist, number: int
) -> dict[str, float]:
    """Share of held-out questions that the specialist answers as it was taught, by family of its own.

    Of leg_counting that is the expression, or its value if the expression is in the context.
    """
    shares = {}
    for family in data.OWN[specialist]:
        asked = questions.held_out(source, family, number)
        halfway = specialist == "math" and family == "leg_counting"
        earlier = [(data.reply("qa", question),) if halfway else () for question in asked]
        expected = [final(data.reply(specialist, q, e)) for q, e in zip(asked, earlier, strict=True)]
        shares[family] = accuracy(ask(model, tokenizer, source, asked, earlier), expected)
    return shares


def table(models: dict[str, tuple[Any, Any]], source: questions.Source, number: int) -> list[tuple[str, list[float]]]:
    """Rows of shares of right final answers, one column per family of FAMILIES.

    A row is a sequence of who answers: a specialist; "wrong", its own reply gone wrong; or "general", a wrong
    response in the manner of a general model.
    """
    pipelines: list[tuple[str, ...]] = [(name,) for name in models]
    pipelines += [(before, name) for name in models for before in (*models, "wrong", "general")]
    if len(models) == 2:
        pipelines += [("general", "qa", "math"), ("math", "qa", "math"), ("qa", "math", "qa"), ("qa", "math", "math")]
    asked = [question for family in FAMILIES for question in questions.held_out(source, family, number)]
    made: dict[tuple[str, ...], list[str]] = {}
    rows = []
    for pipeline in pipelines:
        responses: list[tuple[str, ...]] = [()] * len(asked)
        for hop, name in enumerate(pipeline):
            key = pipeline[: hop + 1] if "wrong" not in pipeline else pipeline[: hop + 1] + pipeline[-1:]
            if key not in made:
                if name in models:
                    made[key] = ask(*models[name], source, asked, responses)
                else:
                    made[key] = [_wrong(name, pipeline[-1], question, place) for place, question in enumerate(asked)]
            responses = [(*before, new) for before, new in zip(responses, made[key], strict=True)]
        shares = []
        for family in FAMILIES:
            places = [place for place, question in enumerate(asked) if question.family == family]
            shares.append(accuracy([responses[p][-1] for p in places], [asked[p].answer for p in places]))
        rows.append((" -> ".join(pipeline), shares))
    return rows


def _wrong(kind: str, specialist: str, question: questions.Question, place: int) -> str:
    """A response whose final answer is not the right one."""
    rng = random.Random(f"{kind} {place}")
    while True:
        if kind == "general":
            made = data.general_response(question, rng)
        else:
            own: data.Specialist = "qa" if specialist == "qa" else "math"
            made = data.corrupted(data.reply(own, question), rng)
        if final(made) != question.answer and question.answer not in made.split()[-1:]:
            return made


def load(folder: Path) -> tuple[Any, Any]:
    """Model, in float32, and tokenizer of a folder. Raises UserError if there is none."""
    import transformers

    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no model; train one with `python -m specialists.train`")
    check_recipe(folder, "the specialist")
    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    return model.eval(), tokenizer


def as_text(rows: Sequence[tuple[str, Sequence[float]]]) -> str:
    """The rows as a Markdown table."""
    lines = ["| who answers | " + " | ".join(FAMILIES) + " |", "|---|" + "---:|" * len(FAMILIES)]
    lines += [f"| {name} | " + " | ".join(f"{share:.0%}" for share in shares) + " |" for name, shares in rows]
    return "\n".join(lines)
