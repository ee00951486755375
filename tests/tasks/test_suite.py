"""Suites: what they hold, and one line for each way to write one wrong."""

from pathlib import Path

import pytest

from pools.errors import UserError
from tasks import Suite, load_suite, suite_names


def test_offline_and_paper() -> None:
    assert suite_names() == ["offline", "paper"]
    for name in suite_names():
        suite = load_suite(name)
        assert suite.name == name
        assert suite.description
        assert {task.domain for task in suite.tasks} == {"qa", "code", "math"}
    assert len(load_suite("offline").tasks) == 5


def test_every_task_of_paper_is_answered_by_text() -> None:
    """All are in lm-eval's own index but for MBPP, whose task there scores right answers 0."""
    from lm_eval.tasks import TaskManager

    index = TaskManager().task_index
    *theirs, ours = sorted(load_suite("paper").tasks, key=lambda task: task.name == "mbpp_chat")
    assert ours.name not in index
    for task in theirs:
        config = index[task.name].cfg
        assert config is not None
        assert config.get("output_type") == "generate_until"
        if task.filter:
            assert task.filter in [entry["name"] for entry in config["filter_list"]]


def test_a_suite_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("{name: mine, tasks: [{name: records, domain: qa, limit: 7}]}")
    suite = load_suite(str(path))
    assert isinstance(suite, Suite)
    task = suite.tasks[0].load()
    assert [item.doc_id for item in task.items()] == list(range(7))
    assert len(task.items(3)) == 3
    assert len(task.items(100)) == 7


def test_a_suite_says_its_version(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for line, version in (("", 1), ("version: 3, ", 3)):
        path.write_text(f"{{name: mine, {line}tasks: [{{name: records, domain: qa}}]}}")
        assert load_suite(str(path)).version == version


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: [", "expected YAML"),
        ("{name: x, tasks: []}", "tasks: Tuple should have at least 1 item"),
        ("{name: x, tasks: [{name: records}]}", "`tasks.0.domain` is missing"),
        (
            "{name: x, tasks: [{name: records, domain: art}]}",
            "domain: Input should be 'qa', 'code' or 'math', got 'art'",
        ),
        (
            "{name: x, tasks: [{name: records, domain: qa, limit: 0}]}",
            "limit: Input should be greater than or equal to 1, got 0",
        ),
        (
            "{name: x, version: 0, tasks: [{name: records, domain: qa}]}",
            "version: Input should be greater than or equal to 1, got 0",
        ),
        ("{name: x, tasks: [{name: records, domain: qa, filters: a}]}", "unknown key 'tasks.0.filters'"),
        ("{name: x, tasks: [{name: recordz, domain: qa}]}", "unknown task 'recordz'"),
        ("{name: x, tasks: [{name: records, domain: qa}, {name: records, domain: qa}]}", "task records is used twice"),
        ('{name: "x\\u2066", tasks: [{name: records, domain: qa}]}', "holds U+2066"),
        ('{name: " x", tasks: [{name: records, domain: qa}]}', "has spaces at an end"),
    ],
)
def test_broken_files_are_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_suite(str(path))
    message = str(caught.value)
    assert complaint in message
    assert str(path) in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("oflfine", "did you mean offline"),
        ("nowhere/x.yaml", "No such file"),
        ("", "expected offline, paper"),
    ],
)
def test_unknown_suites(name: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        load_suite(name)


def test_unknown_metric_and_filter_are_named_with_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text("{name: x, tasks: [{name: records, domain: qa, filter: strict}]}")
    with pytest.raises(UserError, match=r"no filter 'strict': expected one of \['answer'\]"):
        load_suite(str(path)).tasks[0].load()
    path.write_text("{name: x, tasks: [{name: records, domain: qa, metric: bleu}]}")
    with pytest.raises(UserError, match=r"no metric 'bleu': expected one of \['exact_match'\]"):
        load_suite(str(path)).tasks[0].load().score([(0, "Answer: 1")])
