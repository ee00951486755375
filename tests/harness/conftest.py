from __future__ import annotations

from pathlib import Path

import pytest

TASKS = """
def dataset(**_):
    import datasets

    words = ["river", "stone", "cloud", "tiger", "lamp", "violin", "harbour", "clock"]
    rows = [{"text": f"Say something about a {w} and {n} others.", "n": n} for n, w in enumerate(words * 2)]
    return {"test": datasets.Dataset.from_list(rows)}


def odd_number_of_letters(doc, results):
    return {"odd": float(len(set(results[0])) % 2)}
"""

TEXT_TASK = """
task: tiny_text
custom_dataset: !function data.dataset
output_type: generate_until
test_split: test
doc_to_text: "{{text}}"
doc_to_target: ""
generation_kwargs: {do_sample: false, max_gen_toks: 12, until: ["zz"]}
process_results: !function data.odd_number_of_letters
metric_list:
  - {metric: odd, aggregation: mean, higher_is_better: true}
"""

CHOICE_TASK = """
task: tiny_choice
custom_dataset: !function data.dataset
output_type: multiple_choice
test_split: test
doc_to_text: "{{text}} Is that so?"
doc_to_choice: ["yes", "no", "perhaps"]
doc_to_target: "{{n % 3}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture(scope="session")
def tiny_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two lm-eval tasks on which a random model scores neither nothing nor everything, and their suite."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "data.py").write_text(TASKS)
    (folder / "tiny_text.yaml").write_text(TEXT_TASK)
    (folder / "tiny_choice.yaml").write_text(CHOICE_TASK)
    task = folder / "tiny_text.yaml"
    (folder / "suite.yaml").write_text(
        f"name: tiny\ndescription: Sixteen made-up questions.\ntasks:\n  - {{name: {task}, domain: qa}}\n"
    )
    return folder
