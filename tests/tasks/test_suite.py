"""Suites: what they hold, and one line for each way to write one wrong."""

from pathlib import Path

import pytest

from pools.errors import UserError
from tasks import Suite, chosen_suite, load_suite, suite_names


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
    (task,) = suite.load()
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
        ("{name: x, tasks: [{domain: qa}]}", "`tasks.0.name` is missing"),
        ("{name: x, tasks: [{name: records, domain: 3}]}", "domain: Input should be a valid string, got 3"),
        ("{name: x, tasks: [{name: nowhere.yaml}]}", "nowhere.yaml: No such file or directory"),
        ("{name: x, tasks: [{name: records}], include_path: nowhere}", "nowhere: no such folder"),
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
        load_suite(str(path)).load()
    path.write_text("{name: x, tasks: [{name: records, domain: qa, metric: bleu}]}")
    with pytest.raises(UserError, match=r"no metric 'bleu': expected one of \['exact_match'\]"):
        load_suite(str(path)).load()[0].score([(0, "Answer: 1")])


TASK = "task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n" + (
    'output_type: generate_until\ndoc_to_text: "{{{{question}}}}"\ndoc_to_target: "{{{{answer}}}}"\n'
    "metric_list: [{{metric: exact_match}}]\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two task files, `own` and one of the name of a task of ours, in which each has one question."""
    for name in ("own", "records"):
        data = tmp_path / f"{name}.jsonl"
        data.write_text(f'{{"question": "Who is {name}?", "answer": "{name}"}}\n', encoding="utf-8")
        (tmp_path / f"{name}-task.yaml").write_text(TASK.format(name=name, data=data), encoding="utf-8")
    return tmp_path


def test_tasks_without_a_suite_are_one_of_their_own(folder: Path) -> None:
    file = str(folder / "own-task.yaml")
    for asked, include in ((["own"], folder), ([file], None)):
        suite = chosen_suite(None, asked, include)
        (task,) = suite.load()
        assert (suite.name, task.name, [item.query for item in task.items()]) == ("own", "own", ["Who is own?"])
        assert task.score([(0, "own"), (0, "other")]) == [1, 0]
    assert chosen_suite(None, [file, "records", "gsm8k"]).name == "own+records+gsm8k"
    # The name of a folder: it does not grow with the tasks.
    assert chosen_suite(None, [file, *(f"bbh_zeroshot_{task}" for task in BBH)]).name == f"own+{len(BBH)}"


BBH = ("boolean_expressions", "causal_judgement", "date_understanding", "formal_fallacies", "hyperbaton", "navigate")


def test_tasks_of_a_suite_are_part_of_it(folder: Path) -> None:
    assert chosen_suite(None) == load_suite("offline")
    part = chosen_suite(None, ["stories", "records"])
    assert (part.name, [task.name for task in part.tasks]) == ("offline", ["records", "stories"])
    # One of the same name that is included, or in a file, is another: the first goes before ours, as in lm-eval.
    for task, include in (("records", folder), (str(folder / "records-task.yaml"), None)):
        other = chosen_suite(None, [task], include)
        assert (other.name, [item.query for item in other.load()[0].items()]) == ("records", ["Who is records?"])


def test_a_suite_names_task_files_and_folders_from_where_it_is(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    for text in ("{name: x, tasks: [{name: own-task.yaml}]}", "{name: x, tasks: [{name: own}], include_path: .}"):
        (folder / "suite.yaml").write_text(text, encoding="utf-8")
        suite = chosen_suite(str(folder / "suite.yaml"), ["own"])
        assert [task.name for task in suite.load()] == ["own"] and suite.tasks[0].domain is None


def test_a_group_and_a_missing_file_are_told(folder: Path) -> None:
    (folder / "group.yaml").write_text("group: all\ntask: [own, records]\n", encoding="utf-8")
    for task, said in (("group.yaml", "declares a group; name its tasks"), ("none.yaml", "No such file")):
        with pytest.raises(UserError, match=said):
            chosen_suite(None, [str(folder / task)])
