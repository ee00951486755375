from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from forked import NAMESPACES, Commands

from command_line import call
from pools.data.recording import save_recording
from pools.mdp.tree import Tree
from pools.pool import CandidateModel, Pool
from pools.types import Context, Generation, GenerationSettings, Item

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


@pytest.fixture(scope="session")
def harness() -> Callable[..., int]:
    """`harness("run", "--out", folder)`: the command line in this process; its exit code."""

    def run(*arguments: object) -> int:
        with pytest.MonkeyPatch.context() as monkeypatch:
            return call(monkeypatch, *arguments)

    return run


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory, small_recording: Path, harness: Callable[..., int]) -> Path:
    """A run of two routers that learn at once, at two cost weights, on a part of the recording that ships."""
    out = tmp_path_factory.mktemp("plain") / "plain"
    recording = ("--recording", small_recording, "--max-hops", 2)
    assert harness("run", *recording, "--router", "knn", "cascade", "--cost-weight", "0.1", "1", "--out", out) == 0
    return out


HOSTILE = (
    '</pre></svg><script>alert("owned")</script><img src=x onerror=alert(1)>\x00\x1b[31m {{ 7 * 7 }} & $x^2$ \u202e'
)
HOSTILE_MODELS = (
    '<script>alert("model")</script>',
    'a&b $x^{2 "quoted"',
    "a-model-with-a-name-that-does-not-come-to-an-end",
)
HOSTILE_TASKS = ("<b>bold</b>", "an_ordinary_task_with_a_name_that_is_long")


class _Hostile:
    def generate(self, model: int, requests: Sequence[tuple[Context, GenerationSettings]]) -> list[Generation]:
        return [
            Generation(f"{model} of {len(c.responses)}: {HOSTILE}{c.query[-2:]}", 9 + model, 5 + model, "length", 0.1)
            for c, _ in requests
        ]


def _score(answers: Sequence[tuple[Item, str]]) -> list[float]:
    """Of each item one model is right, whose number the item tells, and not at the first hop."""
    return [
        float(response.startswith((f"{item.doc_id % 3} of 1", f"{item.doc_id % 3} of 2"))) for item, response in answers
    ]


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory, harness: Callable[..., int]) -> Path:
    """A run on a recording of three hops whose every text, of models and of data, tries to break out of a page."""
    folder = tmp_path_factory.mktemp("hostile")
    settings = GenerationSettings(("zz",), 8)
    items = [
        Item(HOSTILE_TASKS[n // 3 % 2], n, f"{HOSTILE} {n:02d}", settings, ("train", "validation", "test")[n // 6 % 3])
        for n in range(36)
    ]
    models = tuple(CandidateModel(name, "hf", 0.01 * 3**n) for n, name in enumerate(HOSTILE_MODELS))
    pool = Pool("hostile", models, "<i>units</i>", "made up")
    tree = Tree(items, HOSTILE_MODELS, 3, pool.cost_model("paper"), _Hostile(), _score)
    tree.require([[n] for n in range(len(items))], [range(tree.nodes)])
    save_recording(tree, pool, {"suite": "<u>suite</u>"}, folder / "r")
    arguments = ("--recording", folder / "r", "--router", "knn", "random", "--out", folder / "hostile")
    assert harness("run", *arguments) == 0
    return folder / "hostile"


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Runs commands in processes of their own, where it may in a namespace in which it can mount file systems."""
    inside: list[str] = []
    for namespace in NAMESPACES:
        probe = [*namespace, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path_factory.mktemp("probe"))]
        if not inside and shutil.which("unshare") and subprocess.run(probe, capture_output=True).returncode == 0:
            inside = namespace
    started = Commands(tmp_path_factory.mktemp("commands"), inside)
    yield started
    started.close()


@pytest.fixture
def disks(commands: Commands, tmp_path: Path) -> Path:
    """A folder in which commands can mount small file systems."""
    if not commands.can_mount:
        pytest.skip("a full disk takes a file system of its own, and mounting one in a namespace is not allowed here")
    return tmp_path
