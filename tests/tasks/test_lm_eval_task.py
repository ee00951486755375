"""The adapter agrees with lm-eval, query by query and score by score."""

from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from pools.errors import UserError
from pools.models.generator import LiveGenerator
from pools.pool import load_pool
from pools.types import Context, GenerationSettings
from tasks import get, split_of
from tasks.lm_eval_task import LmEvalTask, generation_settings

TASKS = Path(__file__).parents[2] / "tasks"

FEWSHOT = """
task: fewshot_sums
custom_dataset: !function sums.load
output_type: generate_until
training_split: train
test_split: test
fewshot_split: train
num_fewshot: 3
description: "Add.\\n"
doc_to_text: "{{a}} + {{b}} ="
doc_to_target: "{{a + b}}"
generation_kwargs: {until: ["\\n", ""], do_sample: false}
filter_list:
  - name: last
    filter:
      - {function: regex, regex_pattern: "([0-9]+)", group_select: -1}
      - {function: take_first}
  - name: whole
    filter:
      - {function: take_first}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
SUMS = """
import datasets
def load(**_):
    rows = [{"a": n, "b": n * n % 7} for n in range(100)]
    return {"train": datasets.Dataset.from_list(rows), "test": datasets.Dataset.from_list(rows[:30] + rows[:5])}
def length(doc, results):
    return {"length": float(len(results[0])), "yes": True}
"""


class TableLM(LM):
    """Answers by a rule that is right on some items; notes what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, str] = {}

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        for request in requests:
            self.asked[request.args[0]] = answer(request.doc, len(self.asked))
        return [self.asked[request.args[0]] for request in requests]

    def loglikelihood(self, requests: list[Any]) -> Any:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: list[Any]) -> Any:
        raise NotImplementedError


def answer(doc: dict[str, Any], number: int) -> str:
    """Right in three of the six shapes."""
    right = str(doc.get("answer", doc.get("a", 0) + doc.get("b", 0)))
    shapes = [f"Answer: {right}", f"The answer is **{right}**.", "Answer: 77 turquoise", "", f"{right}", f"x{right}x"]
    return shapes[number % len(shapes)]


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """A few-shot task, in a file of its own, whose last five questions repeat the first five."""
    (tmp_path / "sums.py").write_text(SUMS)
    path = tmp_path / "fewshot_sums.yaml"
    path.write_text(FEWSHOT)
    return path


def lm_evals_samples(name: str, folder: Path, limit: int | None) -> list[dict[str, Any]]:
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results = simple_evaluate(TableLM(), tasks=[name], task_manager=manager, limit=limit, bootstrap_iters=0)
    assert results is not None
    return results["samples"][name]


@pytest.mark.parametrize("name", ["records", "sums", "stories", "mmlu_dev"])
def test_queries_and_scores_are_lm_evals(name: str) -> None:
    task = get(name)
    samples = {sample["doc_id"]: sample for sample in lm_evals_samples(name, TASKS, 48)}
    items = task.items(48)
    assert [item.query for item in items] == [samples[item.doc_id]["arguments"][0][0] for item in items]
    scores = task.score([(item.doc_id, samples[item.doc_id]["resps"][0][0]) for item in items])
    assert scores == [samples[item.doc_id]["exact_match"] for item in items]
    assert 0.2 < sum(scores) / len(scores) < 0.8


@pytest.mark.parametrize("filter_name", ["last", "whole"])
def test_fewshot_queries_and_every_filters_scores_are_lm_evals(sums: Path, filter_name: str) -> None:
    task = get(str(sums), filter_name=filter_name)
    samples = {
        s["doc_id"]: s for s in lm_evals_samples("fewshot_sums", sums.parent, None) if s["filter"] == filter_name
    }
    task.items(4)  # what was asked for before must not change the examples drawn later
    items = task.items()
    assert [item.query for item in items] == [samples[item.doc_id]["arguments"][0][0] for item in items]
    assert items[0].query.count(" =") == 4
    scores = task.score([(item.doc_id, samples[item.doc_id]["resps"][0][0]) for item in items])
    assert scores == [samples[item.doc_id]["exact_match"] for item in items]
    assert 0 < sum(scores) < len(scores)


def test_what_an_answer_begins_with_is_lm_evals(sums: Path, tiny_pool_file: Path) -> None:
    """As plain text, and in the chat template, where it begins the assistant's message."""
    sums.write_text(f'{FEWSHOT}gen_prefix: "From {{{{a}}}} one comes to"\n')
    items = get(str(sums)).items(4)
    assert [(item.query[-9:], item.prefill) for item in items[2:]] == [
        ("\n\n2 + 4 =", " From 2 one comes to"),
        ("\n\n3 + 2 =", " From 3 one comes to"),
    ]
    generator = LiveGenerator(load_pool(str(tiny_pool_file)))
    [theirs] = TaskManager(include_defaults=False).load(str(sums))["tasks"].values()
    for model, chat in enumerate(({}, {"apply_chat_template": True})):
        theirs.set_fewshot_seed(seed=1234)
        apply = generator.language_model(model).apply_chat_template
        theirs.build_all_requests(limit=4, chat_template=apply if chat else None, **chat)
        asked = [instance.args[0] for instance in theirs.instances]
        # With chat templates lm-eval makes the description a system message; here all is the user's.
        asked = [text.replace("[system] Add.\n\n[user] ", "[user] Add.\n") for text in asked]
        assert [generator.text(model, Context(item.query, prefill=item.prefill)) for item in items] == asked


def test_the_same_question_is_asked_once_whatever_its_examples(sums: Path) -> None:
    task = get(str(sums))
    items = task.items()
    assert task.duplicates == 5
    assert [item.doc_id for item in items] == list(range(30))
    assert [item.split for item in items] == [split_of(item.query.rsplit("\n\n", 1)[1]) for item in items]
    assert {item.settings for item in items} == {GenerationSettings(("\n",), 256)}


def test_fingerprint_knows_items_metric_and_settings_but_not_the_place(sums: Path, tmp_path: Path) -> None:
    first = get(str(sums)).fingerprint
    assert get(str(sums)).fingerprint == first
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "sums.py").write_text(SUMS)
    moved = elsewhere / "fewshot_sums.yaml"
    moved.write_text(FEWSHOT)
    assert get(str(moved)).fingerprint == first
    changed = [get(str(sums), filter_name="whole").fingerprint, get(str(sums), limit=10).fingerprint]
    for old, new in [("Add.", "Sum."), ("{{a + b}}", "{{a - b}}"), ("do_sample: false", "max_gen_toks: 9")]:
        moved.write_text(FEWSHOT.replace(old, new))
        changed.append(get(str(moved)).fingerprint)
    assert len({first, *changed}) == 6


def test_a_field_of_the_documents_is_their_kind_and_no_part_of_the_fingerprint(sums: Path) -> None:
    plain = get(str(sums)).fingerprint
    sums.write_text(f"{FEWSHOT}metadata: {{kind: b}}\n")
    task = get(str(sums))
    assert [item.kind for item in task.items(5)] == ["0", "1", "4", "2", "2"]
    assert task.fingerprint == plain
    sums.write_text(f"{FEWSHOT}metadata: {{kind: topic}}\n")
    with pytest.raises(UserError, match="'topic' in its metadata, which is no field of its documents: expected one of"):
        get(str(sums)).items()


def test_wordings_are_no_part_of_the_fingerprint_and_splits_are(sums: Path) -> None:
    plain = get(str(sums))
    rows = SUMS.replace(
        '"b": n * n % 7}', '"b": n * n % 7, "part": ("test", "train", "validation")[n % 3], "w": "{} ?"}'
    )
    (sums.parent / "told.py").write_text(rows)
    found = {}
    for metadata in ("", "metadata: {wording: w}\n", "metadata: {wording: w, split: part}\n"):
        sums.write_text(FEWSHOT.replace("sums.load", "told.load") + metadata)
        found[metadata] = get(str(sums))
    without, worded, split = found.values()
    assert {item.wording for item in plain.items()} == {""} and {item.wording for item in worded.items()} == {"{} ?"}
    assert [item.split for item in split.items(4)] == ["test", "train", "validation", "test"]
    assert [item.split for item in worded.items()] == [item.split for item in plain.items()]
    assert without.fingerprint == worded.fingerprint != split.fingerprint


@pytest.mark.parametrize(
    ("key", "field", "said"),
    [
        ("split", "part", "the split 'part' in its metadata, which is no field of its documents: expected one of a, b"),
        (
            "wording",
            "form",
            "the wording 'form' in its metadata, which is no field of its documents: expected one of a",
        ),
        ("split", "b", "the split of a document is '0', expected train, validation, test"),
    ],
)
def test_a_split_or_wording_that_no_document_has_is_refused_in_one_line(
    sums: Path, key: str, field: str, said: str
) -> None:
    sums.write_text(f"{FEWSHOT}metadata: {{{key}: {field}}}\n")
    with pytest.raises(UserError, match=f"task 'fewshot_sums'.*{said}") as error:
        get(str(sums))
    assert "\n" not in str(error.value)


def test_scores_keep_the_order_of_the_answers(sums: Path) -> None:
    task = get(str(sums))
    [first, second] = task.items(2)
    assert task.score([]) == []
    right = {item.doc_id: str(eval_sum(item.query)) for item in (first, second)}
    answers = [(1, right[1]), (0, "no"), (0, right[0]), (1, right[1]), (0, "no")]
    assert task.score(answers) == [1.0, 0.0, 1.0, 1.0, 0.0]
    assert task.score([(29, "no")]) == [0.0]  # not asked for so far
    threaded = LmEvalTask(task._task, threads=4)  # type: ignore[attr-defined]
    threaded.items()
    assert threaded.score(answers * 20) == task.score(answers * 20)


def eval_sum(query: str) -> int:
    """The sum that the query ends with."""
    left, _, right, _ = query.rsplit("\n\n", 1)[1].split()
    return int(left) + int(right)


@pytest.mark.parametrize(("metric", "outcome"), [("length", "gave 2.0"), ("yes", 1.0)])
def test_a_score_is_a_number_from_0_to_1(sums: Path, metric: str | None, outcome: Any) -> None:
    names = "\n".join(f"  - {{metric: {m}, aggregation: mean, higher_is_better: true}}" for m in ("length", "yes"))
    text = FEWSHOT[: FEWSHOT.index("metric_list")]
    sums.write_text(f"{text}process_results: !function sums.length\nmetric_list:\n{names}\n")
    task = get(str(sums), metric)
    task.items()
    if isinstance(outcome, float):
        assert task.score([(0, "12")]) == [outcome]
    else:
        with pytest.raises(UserError, match=f"{outcome}, expected a number in .0, 1."):
            task.score([(0, "12")])


def test_a_metric_where_less_is_better_is_refused(sums: Path) -> None:
    sums.write_text(FEWSHOT.replace("higher_is_better: true", "higher_is_better: false"))
    with pytest.raises(UserError, match="lower is better"):
        get(str(sums)).score([(0, "1")])


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("do_sample: false", "do_sample: true", "samples its responses"),
        ("do_sample: false", "num_beams: 4", "sets num_beams"),
        ("num_fewshot: 3", "repeats: 2", "asks every item 2 times"),
        ("output_type: generate_until", "output_type: loglikelihood", "multiple-choice tasks run through"),
    ],
)
def test_what_is_not_greedy_text_is_refused(sums: Path, old: str, new: str, complaint: str) -> None:
    sums.write_text(FEWSHOT.replace(old, new))
    with pytest.raises(UserError, match=complaint):
        get(str(sums))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("metric: exact_match", "metric: exact_mtch", "metric 'exact_mtch': .*; did you mean exact_match"),
        ("function: take_first", "function: take_frst", "filter function 'take_frst': .*; did you mean take_first"),
        ("function: take_first", 'function: regex, regex_pattern: "("', "fail at the first target"),
        ("metric: exact_match", "metric: bleu", "metric 'bleu' gave .*, expected a number in"),
    ],
)
def test_a_metric_or_filter_that_cannot_be_used_is_refused_at_once(
    sums: Path, old: str, new: str, complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    sums.write_text(FEWSHOT.replace(old, new))
    with pytest.raises(UserError, match=complaint):
        get(str(sums))
    assert not caplog.records


def test_metrics_and_filters_may_be_functions_of_ones_own(sums: Path) -> None:
    """By their functions, and filters by the name that the task's own module registers them by."""
    with (sums.parent / "sums.py").open("a") as file:
        file.write("from lm_eval.api.registry import register_filter\n")
        file.write("from lm_eval.filters.selection import TakeFirstFilter\n")
        file.write("@register_filter('mine')\nclass Mine(TakeFirstFilter): pass\ndef close(items): return 0.5\n")
    for own in ("!function sums.TakeFirstFilter", "mine"):
        sums.write_text(FEWSHOT.replace("exact_match", "!function sums.close").replace("take_first", own))
        assert get(str(sums)).score([(0, "1")]) == [0.5]


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ({}, GenerationSettings((), 256)),
        ({"until": "Q:", "max_gen_toks": 7}, GenerationSettings(("Q:",), 7)),
        ({"until": ["a", "b"], "max_new_tokens": 8}, GenerationSettings(("a", "b"), 8)),
        ({"max_tokens": 5, "max_gen_toks": 6, "temperature": 0.0, "num_beams": 1}, GenerationSettings((), 6)),
    ],
)
def test_generation_settings(arguments: dict[str, Any], settings: GenerationSettings) -> None:
    assert generation_settings("x", arguments) == settings
