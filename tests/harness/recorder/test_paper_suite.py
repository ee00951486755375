"""The suite `paper` on a hub of this machine: tiny models under the pool's names, and small data sets of our own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import harness
from hub import Hub, hub
from paper_benchmarks import PAPER
from pools.data.recording import load_recording
from pools.pool import load_pool
from tasks.suite import load_suite

ROOT = Path(harness.__file__).parent.parent
GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "gpu.md"
POOL = load_pool("lightweight-hub")
RIGHT = POOL.model_names[0]
GOLD = '''
import json
from pathlib import Path
from pools.models.engine import register_engine
from pools.types import Generation

ANSWERS = json.loads(Path(__file__).with_suffix(".json").read_text())

@register_engine("gold")
class Gold:
    """The first model gives right answers, the others wrong ones."""

    def __init__(self, local):
        self.local = local

    @classmethod
    def build(cls, argument, local):
        return cls(local)

    def run(self, batches):
        for model, of_model in batches.items():
            for number, batch in enumerate(of_model):
                yield model, number, [self.answer(model, context) for context, _ in batch]

    def answer(self, model, context):
        [text] = [given[model > 0] for asked, *given in ANSWERS if asked in context.query]
        return Generation(text, 1, 1, "stop", 0.0)
'''

SCORES = """
import json, sys
import tasks
answers = json.load(sys.stdin)
loaded = [*tasks.load_suite("paper").load(), tasks.get("mbpp_instruct")]
scores = {task.name: [task.score([tuple(one) for one in some]) for some in answers[task.name]] for task in loaded}
print(json.dumps(scores))
"""
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def local_hub(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    commits = {}
    for seed, model in enumerate(POOL.models):
        assert model.weights is not None and model.weights.repository is not None
        tiny_model(root / "models" / model.weights.repository, seed, CHAT_TEMPLATE)
        commits[model.weights.repository] = model.weights.revision
    for benchmark in PAPER.values():
        benchmark.write(root)
    with hub(root, commits) as server:
        yield server


@pytest.fixture(scope="module")
def python(local_hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """`python(*arguments, input=None)`: what Python prints, with this hub, no cache and no HF_ALLOW_CODE_EVAL."""
    folder = tmp_path_factory.mktemp("user")
    given = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    paths = {
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(folder / "huggingface"),
        "HF_ENDPOINT": local_hub.url,
    }

    def run(*arguments: object, input: str | None = None) -> str:
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, input=input, env=given | paths, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


def test_models_and_data_from_the_hub_make_a_recording(
    python: Callable[..., str], local_hub: Hub, tmp_path: Path
) -> None:
    out, options = tmp_path / "recorded", ("--limit", 2, "--max-hops", 1)
    python("-m", "harness", "record", "--pool", POOL.name, "--suite", "paper", *options, "--out", out)
    recording = load_recording(out)
    tree = recording.tree
    assert tree.complete
    assert Counter(item.task for item in tree.items) == dict.fromkeys(PAPER, 2)
    assert {item.task for item in tree.items if item.prefill} == {"arc_challenge_chat", "humaneval_instruct"}
    [example] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, dict[str, tuple[int, int]]] = {}
    exec(example, names)
    longest = {task: tokens for task, (_, tokens) in names["tasks"].items()}
    assert {item.task: item.settings.max_new_tokens for item in tree.items} == longest
    for model in POOL.models:
        assert model.weights is not None
        whole = f"GET /{model.weights.repository}/resolve/{model.weights.revision}/model.safetensors"
        assert local_hub.asked.count(whole) == 1
    assert not [asked for asked in local_hub.asked if "/spaces/" in asked], "no metric is downloaded"


def test_right_answers_score_1_all_the_way_to_the_recording(python: Callable[..., str], tmp_path: Path) -> None:
    engine, out = tmp_path / "gold.py", tmp_path / "recorded"
    engine.write_text(GOLD)
    given = [
        (asked, right[0], wrong[0])
        for of in PAPER.values()
        for asked, right, wrong in zip(of.asked, of.right, of.wrong, strict=True)
    ]
    engine.with_suffix(".json").write_text(json.dumps(given))
    options = ("--pool", POOL.name, "--suite", "paper", "--max-hops", 2, "--engine", engine, "--out", out)
    python("-m", "harness", "record", *options, "--store", tmp_path / "store.sqlite")
    rows = pq.read_table(out / "transitions.parquet").to_pylist()
    assert len(rows) == len(given) * (3 + 9)
    assert [row for row in rows if row["score"] != float(row["pipeline"][-1] == RIGHT)] == []


def test_each_tasks_filter_and_metric(python: Callable[..., str]) -> None:
    answers = {
        task: [[(item, text) for item, texts in enumerate(some) for text in texts] for some in (of.right, of.wrong)]
        for task, of in PAPER.items()
    }
    right_there = (0, PAPER["mbpp_chat"].right[0][1] + "\n```")  # goes on from "```python\n"
    given = {**answers, "mbpp_instruct": [[right_there]]}
    scores = json.loads(python("-c", SCORES, input=json.dumps(given)))
    assert scores["mbpp_instruct"] == [[0.0]], "lm-eval scores right programs 1 again, so the suite can take its task"
    for task, (right, wrong) in answers.items():
        assert min(len(right), len(wrong)) >= 2
        assert scores[task] == [[1.0] * len(right), [0.0] * len(wrong)], task


def test_the_suite_is_of_these_benchmarks() -> None:
    assert [entry.name for entry in load_suite("paper").tasks] == list(PAPER)
