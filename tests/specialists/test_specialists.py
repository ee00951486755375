"""The specialists that ship: what they are, and that they still do what they were trained for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pools.pool import load_pool
from pools.weights import folder_hash
from specialists.evaluate import ask, final, load
from specialists.lessons import MIXTURE, SPECIALISTS, TEMPLATE, lessons_hash
from specialists.questions import Source, held_out, read_suite

ROOT = Path(__file__).parents[2]
FOLDERS = {name: ROOT / "results" / "specialists" / name for name in SPECIALISTS}
# Of all that decides an answer: weights, configuration, tokenizer. A change of any of them is another model.
HASHES = {
    "math": "de69905b39befb2acf27658795b3fb1e9dcbd974fc92ed8bd225158daf4ebcb3",
    "qa": "79b7a468afb03ab4ccbd5c0da472859a1eab8098c3f86d0f9361eaccdaa7fb98",
}


@pytest.fixture(scope="module")
def source() -> Source:
    return read_suite(ROOT / "tasks" / "reasoning_gym")


@pytest.mark.parametrize("name", SPECIALISTS)
def test_no_file_that_a_model_reads_has_changed(name: str) -> None:
    assert folder_hash(FOLDERS[name]) == HASHES[name]
    size = sum(path.stat().st_size for path in FOLDERS[name].iterdir())
    assert size < 8e6


@pytest.mark.parametrize("name", SPECIALISTS)
def test_the_pool_reads_a_context_as_it_was_taught(name: str) -> None:
    (model,) = (model for model in load_pool("lightweight").models if model.name == f"{name}-specialist")
    assert model.template == TEMPLATE and not model.chat_template


@pytest.mark.parametrize(
    ("pipeline", "family"),
    [
        (("qa",), "aiw"),
        (("qa",), "color_cube_rotation"),
        (("math",), "chain_sum"),
        (("math",), "products"),
        (("qa", "math"), "leg_counting"),
    ],
)
def test_held_out_questions_are_answered(source: Source, pipeline: tuple[str, ...], family: str) -> None:
    asked = held_out(source, family, 20)
    earlier: list[tuple[str, ...]] = [() for _ in asked]
    for name in pipeline:
        answers = ask(*load(FOLDERS[name]), source, asked, earlier)
        earlier = [(*before, answer) for before, answer in zip(earlier, answers, strict=True)]
    right = sum(final(answer) == question.answer for answer, question in zip(answers, asked, strict=True))
    assert right >= 16, [(q.text, q.answer, a) for q, a in zip(asked, answers, strict=True)]


@pytest.mark.parametrize("name", SPECIALISTS)
def test_the_recipe_says_which_lessons_were_taught(source: Source, name: str) -> None:
    recipe = json.loads((FOLDERS[name] / "recipe.json").read_text())
    card = (FOLDERS[name] / "README.md").read_text()
    same = recipe["lessons"] == lessons_hash(source, name)
    assert same or f"At commit {recipe['commit']}: later code teaches something else." in card
    assert set(recipe["mixture"]) == set(MIXTURE[name])
