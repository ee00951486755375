"""The tasks of suite `offline` hold the items they always held."""

import hashlib
import json
from collections import Counter

import pytest
from shipped import RECORDING

from tasks import get, load_suite
from tasks.lm_eval_task import LmEvalTask

INVENTED = ["records", "sums", "stories"]
# Recordings, trained policies and specialists depend on these; a new hash needs a new `version` of the suite.
GOLDEN = {
    "records": "f7b3926b29ac28bb6775c12ea3caef7c78634feb27fb9017697a30a54f80a722",
    "sums": "a4afb92f5024beb5c0428c503f211770a1aa804c1642ea90d29fc861b58a30ca",
    "stories": "3309e66d730f1e4e8cd04a129e046085f64367d06b24911c9f024971a08ae79d",
    "mmlu_dev": "22f11a5b1aa411b6c22d93f1c912c65542d95e412d7a2b2964a4914469385a8a",
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


@pytest.mark.parametrize("name", GOLDEN)
def test_items_are_what_they_were_and_load_equal_twice(name: str) -> None:
    first, second = get(name), get(name)
    assert isinstance(first, LmEvalTask) and isinstance(second, LmEvalTask)
    assert items_hash(first) == GOLDEN[name]
    assert first.items() == second.items()
    assert first.fingerprint == second.fingerprint


def test_items_of_mmlu_say_their_subject_and_those_of_human_eval_nothing() -> None:
    subjects = Counter(item.kind for item in get("mmlu_dev").items())
    assert len(subjects) == 57 and "abstract_algebra" in subjects
    assert {item.kind for item in get("human_eval").items(3)} == {""}


def test_mmlu_dev_holds_lm_evals_281_questions_of_which_one_is_asked_twice() -> None:
    task = get("mmlu_dev")
    assert (len(task.items()), task.duplicates) == (280, 1)


def test_every_right_answer_scores_one_and_another_one_zero() -> None:
    for name in [*INVENTED, "mmlu_dev"]:
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


def test_the_recording_that_ships_is_of_the_suite_and_of_its_tasks_as_they_are_now() -> None:
    manifest = json.loads((RECORDING / "manifest.json").read_text())
    suite = load_suite("offline")
    assert (manifest["suite"], manifest["suite_version"]) == (suite.name, suite.version)
    assert manifest["tasks"] == {task.name: task.fingerprint for task in suite.load()}
