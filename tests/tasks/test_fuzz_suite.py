"""Suite files and the task files they name: a suite, a task, or one line; no tag of YAML runs anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import command, damaged, fuzz, mutated, texts, told
from pools import UserError
from tasks import registry
from tasks.suite import Suite, load_suite

GOOD = {
    "name": "mine",
    "description": "two tasks",
    "tasks": [
        {"name": "records", "domain": "qa", "limit": 7},
        {"name": "human_eval", "domain": "code", "metric": "pass@1", "filter": "none"},
    ],
}
TASK: dict[str, Any] = {
    "task": "mine",
    "dataset_path": "nobody/nothing",
    "output_type": "generate_until",
    "test_split": "test",
    "doc_to_text": "{{text}}",
    "doc_to_target": "",
    "repeats": 1,
    "generation_kwargs": {"do_sample": False, "max_gen_toks": 12, "until": ["zz"], "temperature": 0.0},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
PIECES = (
    *("!!python/object/apply:os.system [touch {mark}]", "!!python/object/new:os.system [touch {mark}]", "2020-99-99"),
    *("!function mark.leave", "!!binary x", "!!timestamp x", "&a [*a]", "*x", "[" * 90, "9" * 5000, '"\\ud800"', "~"),
    *("name: a\nname: b", "include: task.yaml", "include: nowhere.yaml", "include: [1]", "group: x", "- ", "{", "\t"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "mark.py").write_text(f"import pathlib\npathlib.Path({str(folder / 'mark')!r}).touch()\n")
    return folder


@st.composite
def odd(draw: Any, text: str, mark: Path) -> bytes:
    """A file with odd pieces of YAML where values were, or with other bytes."""
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged(text.encode()))
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 2))):
        number = draw(st.integers(0, len(lines) - 1))
        key, colon, _ = lines[number].partition(": ")
        piece = draw(st.sampled_from(PIECES) | texts()).replace("{mark}", str(mark))
        lines[number] = key + colon + piece if draw(st.booleans()) else piece
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def usable(suite: Suite | None) -> None:
    if suite is not None:
        assert suite.tasks and len({task.name for task in suite.tasks}) == len(suite.tasks)
        for task in suite.tasks:
            assert registry.check(task.name) and (task.limit is None or task.limit >= 1)


@fuzz("suite files: data", 150)
@given(mutated(GOOD, surrogates=True))
def test_suite_data(folder: Path, data: Any) -> None:
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    usable(told(lambda: load_suite(str(path)), path))


@fuzz("suite files: text", 250)
@given(st.data())
def test_suite_text(folder: Path, data: st.DataObject) -> None:
    path = folder / "suite.yaml"
    path.write_bytes(data.draw(odd(yaml.safe_dump(GOOD, sort_keys=False), folder / "mark")))
    usable(told(lambda: load_suite(str(path)), path))
    assert not (folder / "mark").exists()


@fuzz("task files", 200)
@given(st.data())
def test_task_files(folder: Path, data: st.DataObject) -> None:
    """A task file may name functions of a module beside it; they run once all else of it is in order, not before."""
    path = folder / "task.yaml"
    if data.draw(st.booleans()):
        path.write_text(yaml.safe_dump(data.draw(mutated(TASK, surrogates=True)), sort_keys=False), encoding="utf-8")
    else:
        path.write_bytes(data.draw(odd(yaml.safe_dump(TASK, sort_keys=False), folder / "never")))
    # Its data are nowhere, so no case is a task.
    assert told(lambda: registry.get(str(path)), path) is None
    assert not (folder / "never").exists()


@fuzz("task and suite names", 100)
@given(texts(surrogates=True) | st.sampled_from(["a" * 5000, "\x00.yaml", "/", "records\x00"]))
def test_names(name: str) -> None:
    assert told(lambda: load_suite(name), "suite") is None
    assert told(lambda: registry.check(name), "task") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"generation_kwargs": [1]}, "generation_kwargs"),
        ({"generation_kwargs": {"max_gen_toks": "many"}}, "generation_kwargs"),
        ({"generation_kwargs": {"until": 5}}, "generation_kwargs"),
        ({"repeats": "x"}, "repeats"),
        ({"output_type": ["x"]}, "output_type"),
        ({"task": "mine\u200f"}, r"holds U\+200F"),
        ({"include": "nowhere.yaml"}, "nowhere.yaml"),
        ({"include": "task.yaml"}, "cycle"),
    ],
)
def test_found_and_mended(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path, suite = tmp_path / "task.yaml", tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(TASK | change))
    suite.write_text(f"name: s\ntasks:\n  - {{name: {path}, domain: qa}}\n")
    with pytest.raises(UserError, match=said) as error:
        load_suite(str(suite)).load()
    assert str(path) in str(error.value)
    path.write_text("task: [unclosed")
    assert command("record", "--suite", suite, "--store", tmp_path / "s.sqlite", "--out", tmp_path / "r").refused
