"""The specialists that ship: what they are, and that they still do what they were trained for."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path

import pytest
from shipped import RECORDING
from shipped import SPECIALISTS as FOLDERS

from pools.errors import UserError
from pools.pool import load_pool
from specialists.evaluate import ask, load
from specialists.lessons import SPECIALISTS, UNKNOWN, lessons, lessons_hash
from tasks.invented import records

MAX_BYTES = 4_000_000
REFUSED = "other", "answered"


@pytest.mark.parametrize("name", SPECIALISTS)
def test_no_file_that_a_model_reads_has_changed(name: str) -> None:
    """Since the recording was made: of all that decides an answer, weights, configuration, tokenizer and template."""
    recorded = json.loads((RECORDING / "manifest.json").read_text())["models"]
    pool = load_pool("lightweight")
    [model] = [model for model in pool.models if model.name == name]
    assert pool.fingerprint(model) == recorded[name]


@pytest.mark.parametrize("name", SPECIALISTS)
def test_a_specialist_is_small_and_was_taught_what_the_code_teaches(name: str) -> None:
    folder = FOLDERS / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= MAX_BYTES
    recipe = json.loads((folder / "recipe.json").read_text())
    assert (recipe["specialist"], recipe["lessons"]) == (name, lessons_hash(name))
    assert recipe["tokens"] == SPECIALISTS[name].tokens


def test_a_specialist_that_is_no_longer_taught_is_refused_in_one_line(tmp_path: Path) -> None:
    copy = shutil.copytree(FOLDERS / "reader", tmp_path / "qa")
    recipe = json.loads((copy / "recipe.json").read_text())
    (copy / "recipe.json").write_text(json.dumps({**recipe, "specialist": "qa"}))
    with pytest.raises(UserError, match=r"is of specialist qa, which is no longer taught; expected one of registry-"):
        load(copy)


@pytest.mark.parametrize("name", SPECIALISTS)
def test_a_specialist_has_a_card(name: str) -> None:
    card = FOLDERS / name / "README.md"
    assert card.is_file(), f"write it: python -m specialists.train evaluate {card.parent} --write-cards"
    assert f"train --specialist {name} --tokens {SPECIALISTS[name].tokens} " in card.read_text()


@pytest.mark.parametrize("name", SPECIALISTS)
def test_held_out_lessons_are_replied_to_as_taught(name: str) -> None:
    model, tokenizer, loaded = load(FOLDERS / name)
    assert loaded == name
    asked = list(islice((lesson for lesson in lessons(name, held_out=True) if lesson.family not in REFUSED), 40))
    answers = ask(model, tokenizer, [lesson.question for lesson in asked])
    wrong = [(lesson, answer) for lesson, answer in zip(asked, answers, strict=True) if answer != lesson.reply]
    assert len(wrong) <= (6 if name in ("calculator", "reader") else 1), wrong


@pytest.mark.parametrize("registry", records.REGISTRIES)
def test_a_registry_knows_the_facts_of_its_own_people_in_the_suite_and_of_nobody_else(registry: str) -> None:
    model, tokenizer, _ = load(FOLDERS / f"registry-{registry}")
    people = list(zip(records.people(), records.docs(), strict=True))
    own, others = (
        [(doc["question"], doc["answer"]) for person, doc in people if (person.registry == registry) == its][:30]
        for its in (True, False)
    )
    answers = ask(model, tokenizer, [question for question, _ in (*own, *others)])
    right = [answer == f"Answer: {fact}" for answer, (_, fact) in zip(answers[:30], own, strict=True)]
    assert sum(right) >= 29 and sum(answer == UNKNOWN for answer in answers[30:]) >= 28, answers
