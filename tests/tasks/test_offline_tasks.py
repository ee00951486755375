"""The tasks of suite `offline` hold the items they always held."""

import hashlib
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from tasks import get
from tasks.lm_eval_task import LmEvalTask
from tasks.reasoning_gym.items import SUITE_SEEDS, draw, generator_configs
from tasks.registry import FOLDER

REASONING = ["rg_aiw", "rg_color_cube_rotation", "rg_chain_sum", "rg_leg_counting"]
# Recordings and trained policies depend on these; a new hash needs a new `version` in the task's YAML file.
GOLDEN = {
    "rg_aiw": "252d1919603b33c27dcee6f720c7b0f38f62627f6ce9a1c071c8ebca5ef04719",
    "rg_color_cube_rotation": "40259ceb6b65807191fe866a186a58750603660b2fa30af7c0419fdb1fee5012",
    "rg_chain_sum": "30c7a27f33d72fea6ab56e7d6c027e4a108494b8f05defbb6727a8a79daf619f",
    "rg_leg_counting": "3a192116c4f6d3f8512bd0dbd1af696e9d4a30ff5d8332b8a7c37a062b1686a4",
    "rg_program": "a976623e735d92c6a1c9291251cb449e6a93af8107e93f4ed69f5130deba1ba5",
    "mmlu_dev": "bc2fea7bdb26d8d2e65619bd473484ad03c02a12effef5e838f6d4934e0e5b1a",
}


def items_hash(task: LmEvalTask) -> str:
    """Of everything that a recording relies on, and of the answers."""
    rows = [
        [
            *(item.doc_id, item.query, item.split, list(item.settings.until), item.settings.max_new_tokens),
            task._task.doc_to_target(task._instances[item.doc_id].doc),
        ]
        for item in task.items()
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@pytest.mark.parametrize("name", [*REASONING, "rg_program", "mmlu_dev"])
def test_items_are_what_they_were_and_load_equal_twice(name: str) -> None:
    first, second = get(name), get(name)
    assert isinstance(first, LmEvalTask) and isinstance(second, LmEvalTask)
    assert items_hash(first) == GOLDEN[name]
    assert first.items() == second.items()
    assert first.fingerprint == second.fingerprint


def test_items_say_their_generator_or_their_subject() -> None:
    for name in [*REASONING, "rg_program"]:
        found = [item.kind for item in get(name).items(8)]
        folder = None if name in REASONING else FOLDER / "program_aided"
        generators = [config.dataset for config in generator_configs(name, folder)]
        assert found == (generators * 8)[:8]
    subjects = Counter(item.kind for item in get("mmlu_dev").items())
    assert len(subjects) == 57 and "abstract_algebra" in subjects
    assert {item.kind for item in get("human_eval").items(3)} == {""}


def test_mmlu_dev_holds_lm_evals_281_questions_of_which_one_is_asked_twice() -> None:
    task = get("mmlu_dev")
    assert (len(task.items()), task.duplicates) == (280, 1)


def test_seeds_lie_in_the_suites_own_range_and_far_apart() -> None:
    """Item i is seeded by seed + i, so neighbouring seeds would share items."""
    seeds = sorted(config.seed for name in REASONING for config in generator_configs(name))
    assert seeds[0] >= SUITE_SEEDS
    assert all(b - a >= 1_000_000 for a, b in pairwise(seeds))


def test_other_seeds_give_other_questions_of_the_same_kind() -> None:
    """How training data for a specialist is drawn; what the suite asks can be left out by its text."""
    [config] = generator_configs("rg_leg_counting")
    suite = {item.query.split("\nWork step by step")[0] for item in get("rg_leg_counting").items()}
    more = draw((config._replace(seed=0),))
    drawn = [next(more)["question"] for _ in range(300)]
    assert len(set(drawn)) == 300
    assert len(suite & set(drawn)) < 5
    again = draw((config,))
    assert {next(again)["question"] for _ in range(160)} == suite


def test_every_right_answer_scores_one_and_another_one_zero() -> None:
    for name in [*REASONING, "mmlu_dev"]:
        task = get(name)
        assert isinstance(task, LmEvalTask)
        items = task.items()
        targets = [str(task._instances[item.doc_id].doc["answer"]) for item in items]
        shapes = ["Answer: {}", "So it is.\n**Answer:** {}.", "The answer is {}"]
        for shape in shapes:
            answers = [(item.doc_id, shape.format(target)) for item, target in zip(items, targets, strict=True)]
            assert task.score(answers) == [1.0] * len(items)
        wrong = [(item.doc_id, "Answer: 123456789, turquoise") for item in items]
        assert task.score(wrong) == [0.0] * len(items)


@pytest.mark.parametrize("name", ["lightweight-offline", "lightweight-offline-three-hops"])
def test_the_recordings_that_ship_are_of_the_tasks_as_they_are_now(name: str) -> None:
    manifest = json.loads((Path(__file__).parents[2] / "results/recordings" / name / "manifest.json").read_text())
    assert manifest["tasks"] == {task: get(task).fingerprint for task in manifest["tasks"]}
