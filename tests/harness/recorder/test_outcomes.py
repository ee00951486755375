"""Tables of other people's outcomes: what is read, what is refused, and that routers run on them."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import harness as harness_package
from pools.data.recording import load_recording, seal_recording
from pools.types import GenerationSettings, Item
from tasks import split_of

Run = Callable[..., int]

GSM8K = Path(__file__).parents[4] / "shared" / "data" / "routellm_gsm8k_responses.csv"


def table(items: int = 60) -> list[dict[str, Any]]:
    """Model `a` is right on questions of weather, `b` on those of food; `b` costs three times as much."""
    rows = []
    for n in range(items):
        food = bool(n % 2)
        prompt = f'Number {n}: what is a good {"soup with leeks" if food else "coat for rain"}, "please"?\nThanks'
        for model, right, cost in (("a", not food, 0.001), ("b", food, 0.003)):
            rows.append({"item": f"q{n}", "task": "mixed", "prompt": prompt, "model": model})
            rows[-1] |= {"score": float(right), "cost": cost + n * 1e-6}
    return rows


def written(rows: list[dict[str, Any]], path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_recording_is_replaced_only_by_force(tmp_path: Path, harness: Run, capsys: Any) -> None:
    out = tmp_path / "out"
    assert harness("import", written(table(), tmp_path / "t.csv"), "--out", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    other = ("import", written(table(6), tmp_path / "six.csv"), "--out", out)
    assert harness(*other) == 2
    said = capsys.readouterr().err
    assert "holds a recording" in said and "--force" in said and said.count("\n") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert harness(*other, "--force") == 0
    assert len(load_recording(out).tree.items) == 6
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    assert harness(*other[:-1], tmp_path / "thesis", "--force") == 2


def test_from_python_a_table_is_imported_as_by_the_command_and_nothing_is_printed(
    tmp_path: Path, harness: Run, capsys: Any
) -> None:
    path = written(table(), tmp_path / "t.csv")
    assert harness("import", path, "--out", tmp_path / "there", "--hops", 2) == 0
    capsys.readouterr()
    for _ in range(2):  # of the same files it is the same again
        out = harness_package.import_table(path, tmp_path / "here", hops=2)
    assert capsys.readouterr().out == "" and out == tmp_path / "here"
    for name in ("items.parquet", "transitions.parquet"):
        assert (out / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    found = harness_package.load_recording(out).tree
    assert found.max_hops == 2 and found.independent
    with pytest.raises(harness_package.UserError, match="holds a recording"):
        harness_package.import_table(path, out, hops=1)
    written(table(6), path)
    with pytest.raises(harness_package.UserError, match="holds a recording"):
        harness_package.import_table(path, out, hops=2)
    assert len(harness_package.load_recording().tree.items) == 1744, "without a folder the one that ships"


@pytest.mark.parametrize(
    ("latency", "said"),
    [
        (
            lambda n: "fast" if n == 3 else 1,
            "data row 4: latency: 'fast' is no number: expected digits and a point, in s",
        ),
        (lambda n: -1, "data row 1: latency: -1 is no number of seconds from 0 to 1e+09"),
        (lambda n: "" if n == 3 else 1, "has no outcome of b (1 of 60 items are incomplete)"),
        (lambda n: "", "no row has a score and a latency; remove the column latency, or complete the table"),
    ],
)
def test_a_latency_that_is_no_number_of_seconds_is_refused(
    latency: Callable[[int], Any], said: str, tmp_path: Path, harness: Run, capsys: Any
) -> None:
    rows = [row | {"latency": latency(n)} for n, row in enumerate(table())]
    assert harness("import", written(rows, tmp_path / "t.csv"), "--out", tmp_path / "out") == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_latency_is_in_all_files_or_in_none(tmp_path: Path, harness: Run, capsys: Any) -> None:
    train = written([row | {"latency": 0.5} for row in table()], tmp_path / "t_train.csv")
    test = written([row | {"prompt": row["prompt"] + "!"} for row in table()], tmp_path / "t_test.csv")
    assert harness("import", train, test, "--out", tmp_path / "out") == 2
    assert "give each file the column latency, or none of them" in " ".join(capsys.readouterr().err.split())
    assert harness("import", train, "--out", tmp_path / "out") == 0
    tree = load_recording(tmp_path / "out").tree
    assert tree.latency and (tree.seconds([0, 59], [2, 1]) == 0.5).all()


def test_a_long_table_and_routers_on_it(tmp_path: Path, harness: Run, capsys: Any) -> None:
    rows, out = table(), tmp_path / "recording"
    assert harness("import", written(rows, tmp_path / "mine.csv"), "--out", out) == 0
    recording = load_recording(out)
    tree = recording.tree
    assert (tree.models, tree.max_hops, len(tree.items), tree.complete) == (("a", "b"), 1, 60, True)
    assert tree.items[3].query == rows[6]["prompt"] and tree.items[3].split == split_of(rows[6]["prompt"])
    expected = np.array([[row["score"], row["cost"]] for row in rows]).reshape(60, 2, 2)
    np.testing.assert_array_equal(tree.score[:, 1:], expected[..., 0])
    np.testing.assert_array_equal(tree.cost[:, 1:], expected[..., 1])
    assert recording.manifest["single_hop"] is True and recording.pool.cost_model("paper").unit == "US$"
    # One that reads the question finds out who knows about what; trained once, it is loaded again.
    policy = tmp_path / "p.safetensors"
    assert harness("train", "--recording", out, "--cost-weight", 1, "--out", policy) == 0
    run = ("run", "--recording", out, "--router", "hierrouter", "--cost-weight", 1, "--checkpoint", policy)
    assert harness(*run, "--out", tmp_path / "run") == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    overall = {name: entry["overall"] for name, entry in summary["routers"].items()}
    assert overall["hierrouter"]["quality"] == overall["oracle"]["quality"] == 1.0
    test = [n for n, item in enumerate(tree.items) if item.split == "test"]
    assert overall["single:b"]["cost"] == pytest.approx(expected[test, 1, 1].mean())
    assert summary["cost_unit"] == "US$" and summary["title"].endswith("test items, one call each")
    assert harness("run", "--recording", out, "--router", "random", "--max-hops", 2, "--out", tmp_path / "two") == 2
    assert "ask for fewer, or import the table again, as cascades" in capsys.readouterr().err


def test_a_table_is_cascades_if_no_model_reads_earlier_answers(tmp_path: Path, harness: Run, capsys: Any) -> None:
    rows, out = table(), tmp_path / "cascades"
    for row in rows:  # a wrong answer shows: the models answer differently
        row["response"] = f"The answer is {7 if row['score'] else 8 + (row['model'] == 'b')}."
    path = written(rows, tmp_path / "mine.csv")
    assert harness("import", path, "--hops", 2, "--out", out) == 0
    said = capsys.readouterr().out
    assert "60 items, 2 models, cascades of 2 hops (no model reads earlier answers); " in said
    assert "the tree has 420 nodes and takes less than 1 MB of memory; a run takes a few times that" in said
    assert "answers compared as number (guessed); 100% of the responses give one" in said
    recording = load_recording(out)
    told = ("independent_answers", "single_hop", "max_hops", "answers", "answers_guessed")
    assert [recording.manifest[key] for key in told] == [True, False, 2, "number", True]
    tree = recording.tree
    b_then_a = tree.node((1, 0))
    np.testing.assert_array_equal(tree.score[:, b_then_a], tree.score[:, 1])
    assert tree.context(1, b_then_a).responses == ("The answer is 7.", "The answer is 8.")

    for hops, how in ((1, "one call each"), (3, "cascades of 3 hops (no model reads earlier answers)")):
        router = ("single:a",) if hops == 1 else ("pipeline:a>b",)
        run = ("run", "--recording", out, "--router", *router, "--cost-weight", 1, "--max-hops", hops)
        assert harness(*run, "--out", tmp_path / f"run-{hops}") == 0
        for name in ("summary.json", "tables.md", "tables.tex"):
            assert how in (tmp_path / f"run-{hops}" / name).read_text()
    overall = json.loads((tmp_path / "run-3" / "summary.json").read_text())["routers"]["pipeline:a>b"]["overall"]
    test = [n for n, item in enumerate(tree.items) if item.split == "test"]
    assert overall["cost"] == pytest.approx(tree.cost[test, 1:3].sum(axis=1).mean())
    assert overall["quality"] == pytest.approx(tree.score[test, 2].mean())
    assert harness("report", tmp_path / "run-3", "--out", tmp_path / "report.html") == 0
    page = (tmp_path / "report.html").read_text()
    assert "no model reads earlier answers, the score of a pipeline is that of its last" in page
    assert "The answer is 8." in page, "the recording of two hops shows the answers of a run of three"
    capsys.readouterr()
    assert harness("verify", "--recording", out) == 2
    assert "there are no models to ask again" in capsys.readouterr().err
    assert harness(*run[:-1], 99) == 2
    assert "at most 20 hops fit" in capsys.readouterr().err


def test_the_example_of_the_guide(tmp_path: Path, harness: Run, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "guides" / "outcomes.md").read_text(encoding="utf-8")
    _, example, _, said, *_ = page.split("```")
    monkeypatch.chdir(tmp_path)
    Path("outcomes.csv").write_text(example.removeprefix("csv\n"), encoding="utf-8")
    commands = [line.split() for line in re.findall(r"^ {4}python -m harness (.*/sums.*)$", page, re.MULTILINE)]
    assert [command[0] for command in commands] == ["import", "run"]
    assert harness(*commands[0]) == 0 and capsys.readouterr().out == said.lstrip()
    assert harness(*commands[1], "--out", "run") == 0
    printed = json.loads(Path("run/summary.json").read_text())["routers"]
    rows = re.findall(r"^\| ([\w:]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    assert len(rows) == 3
    for name, *figures in rows:
        overall = printed[name]["overall"]
        assert [overall[key] for key in ("quality", "cost", "hops")] == pytest.approx(list(map(float, figures)))


def test_types_splits_and_responses_of_a_parquet_table(tmp_path: Path, harness: Run) -> None:
    rows = table(6)
    for n, row in enumerate(rows):
        row |= {"split": ("train", "test")[n // 2 % 2], "response": n, "item": n // 2, "score": n % 2 == 0}
    path = written(rows, tmp_path / "t.parquet")
    assert harness("import", path, "--format", "parquet", "--out", tmp_path / "out") == 0
    recording = load_recording(tmp_path / "out")
    assert [item.split for item in recording.tree.items] == ["train", "test"] * 3
    assert [recording.tree.generation(n, 1).response for n in range(3)] == ["0", "2", "4"]
    assert recording.manifest["item_names"] == {"mixed": [str(n) for n in range(6)]}
    assert recording.tree.score[:, 1:].tolist() == [[1, 0]] * 6


def test_without_costs_no_figure_of_cost_is_shown(tmp_path: Path, harness: Run, capsys: Any) -> None:
    rows = [{k: v for k, v in row.items() if k != "cost"} for row in table()]
    path = written(rows, tmp_path / "t.csv")
    assert harness("import", path, "--out", tmp_path / "out") == 2
    assert "--quality-only" in capsys.readouterr().err
    assert harness("import", path, "--quality-only", "--out", tmp_path / "out") == 0
    run = ("run", "--recording", tmp_path / "out", "--router", "random", "--cost-weight", "0", "1")
    assert harness(*run, "--out", tmp_path / "run") == 0
    assert "no costs were recorded" in capsys.readouterr().out
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    for entry in found["routers"].values():
        for figures in (entry["overall"], *entry["tasks"].values()):
            assert figures["cost"] is figures["cost_interval"] is figures["cost_ratio"] is None
    assert set(pq.read_table(tmp_path / "run" / "items.parquet")["cost"].to_pylist()) == {None}
    assert "cost per item" not in (tmp_path / "run" / "tables.md").read_text()


def test_routerbenchs_table(tmp_path: Path, harness: Run) -> None:
    rows = [
        {"sample_id": f"s.{n}", "prompt": f"['Question {n}?']", "eval_name": "grade-school-math", "x": n % 2 / 1.0,
         "y/z": 0.5, "x|model_response": f"x {n}", "x|total_cost": 0.25, "y/z|total_cost": 0.5,
         "oracle_model_to_route_to": "x"}
        for n in range(4)
    ]  # fmt: skip
    path = written(rows, tmp_path / "rb.parquet")
    assert harness("import", path, "--format", "routerbench", "--out", tmp_path / "out") == 0
    tree = load_recording(tmp_path / "out").tree
    assert tree.models == ("x", "y/z")
    assert tree.score[:, 1:].tolist() == [[0, 0.5], [1, 0.5]] * 2
    assert tree.cost[:, 1:].tolist() == [[0.25, 0.5]] * 4
    assert tree.generation(1, 1).response == "x 1"
    assert tree.items[1].query == "Question 1?", "a list of one text is that text"


def test_of_several_files_each_is_a_split_and_the_held_out_copy_of_a_prompt_stays(
    tmp_path: Path, harness: Run, capsys: Any
) -> None:
    rows = table(10)
    files = written(rows[:14], tmp_path / "mine_train.csv"), written(rows[10:], tmp_path / "mine_test.csv")
    assert harness("import", *files, "--out", tmp_path / "out") == 0
    assert (
        "10 items, 2 models, one hop; 5 train, 0 validation, 5 test; 2 repeated train items" in capsys.readouterr().out
    )
    recording = load_recording(tmp_path / "out")
    assert recording.pool.name == "mine" and recording.manifest["counts"]["repeated_train"] == 2
    assert [item.split for item in recording.tree.items] == ["train"] * 5 + ["test"] * 5
    assert [source["split"] for source in recording.manifest["source"]] == ["train", "test"]
    other = written(rows, tmp_path / "others.csv")
    for arguments, message in (
        ((*files, other, "--name", "n"), "others.csv does not say in its name whether it is train, validation or test"),
        ((), "no file to import"),
        ((*files, "--splits", "train"), "expected one for each of the 2 files"),
        ((files[0], other, "--splits", "train", "test"), "begin with no word alike"),
    ):
        assert harness("import", *arguments, "--out", tmp_path / "other") == 2
        assert message in capsys.readouterr().err
    again = (files[1], other, "--splits", "test", "train", "--name", "again", "--out", tmp_path / "again")
    assert harness("import", *again) == 0 and "5 train, 0 validation, 5 test" in capsys.readouterr().out


FORMATS = {"csv": "csv", "parquet": "parquet", "json": "json", "routellm": "csv", "routerbench": "parquet"}


def in_format(form: str, rows: list[dict[str, Any]], path: Path) -> Path:
    """A table of `a` and `b` in one of the formats; the others than our own say no task if it is the file's name."""
    path = path.with_suffix(f".{FORMATS[form]}")
    if form in ("csv", "parquet"):
        return written(rows, path)
    items = []
    for a, b in zip(rows[::2], rows[1::2], strict=True):
        item = {column: a[column] for column in ("task", "split", "kind") if a.get(column, path.stem) != path.stem}
        if form == "json":
            item |= {"question": a["prompt"], "scores": {"a": a["score"], "b": b["score"]}}
        else:
            item |= {"prompt": a["prompt"], "a": a["score"], "b": b["score"]}
        if form == "routellm":
            item |= {"item": a["item"], "a_response": "", "b_response": ""}
        if form == "routerbench":
            item |= {"prompt": str([a["prompt"]]), "sample_id": a["item"], "eval_name": a["task"], "task": "another"}
            item |= {"a|total_cost": 0.1, "b|total_cost": 0.1}
        items.append(item)
    if form == "json":
        path.write_text(json.dumps(items), encoding="utf-8")
        return path
    return written(items, path)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("columns", [(), ("split",), ("task", "split", "kind")])
def test_a_table_is_the_same_in_every_format(form: str, columns: tuple[str, ...], tmp_path: Path, harness: Run) -> None:
    rows = table(20)
    for n, row in enumerate(rows):
        row["task"] = "mine"
        if "split" in columns:  # of some; of the others the hash of the prompt says it
            row["split"] = ("test", "train", "test", "validation", "")[n // 2 % 5]
        if "kind" in columns:
            row |= {"task": f"task-{n // 2 % 3}", "kind": ("", "weather", "food")[n // 2 % 3]}
    path = in_format(form, rows, tmp_path / "mine")
    assert harness("import", path, "--quality-only", "--out", tmp_path / "out") == 0
    recording = load_recording(tmp_path / "out")
    assert recording.manifest["source"][0]["format"] == ("csv" if form == "parquet" else form)
    settings, seen = GenerationSettings((), 0), Counter[str]()
    expected = []
    for row in rows[::2]:
        split = row.get("split") or split_of(row["prompt"])
        expected.append(Item(row["task"], seen[row["task"]], row["prompt"], settings, split, row.get("kind", "")))
        seen[row["task"]] += 1
    assert list(recording.tree.items) == expected
    assert recording.tree.score[:, 1:].ravel().tolist() == [row["score"] for row in rows]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "dev"}, "split: Input should be 'train', 'validation' or 'test', got 'dev'"),
        ({"kind": "a\u200b"}, "kind 'a\\u200b' holds U+200B"),
        ({"split": "test"}, "split is test, but the file is train, by its name or --splits"),
    ],
)
def test_columns_of_an_item_are_checked_alike_in_every_format(
    form: str, change: dict[str, Any], message: str, tmp_path: Path, harness: Run, capsys: Any
) -> None:
    rows = [row | {"split": "train", "kind": "any"} for row in table(8)]
    for row in rows[4:6]:
        row |= change
    files = in_format(form, rows, tmp_path / "mine_train"), in_format(form, table(12)[16:], tmp_path / "mine_test")
    assert harness("import", *files, "--quality-only", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    number = {"json": "entry 3", "routellm": "data row 3", "routerbench": "data row 3"}.get(form, "data row 5")
    assert f"{files[0].name}: {number}: {message}" in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_list_of_questions_and_scores(tmp_path: Path, harness: Run, capsys: Any) -> None:
    path = tmp_path / "q.json"
    path.write_text(
        '[{"question": "What?", "scores": {"a": 1, "b": 0.5}}, {"question": "Who?", "scores": {"a": 0, "b": null}}]'
    )
    command = ("import", path, "--out", tmp_path / "out")
    assert harness(*command) == 2 and "give --quality-only" in capsys.readouterr().err
    assert harness(*command, "--quality-only", "--drop-incomplete") == 0
    assert load_recording(tmp_path / "out").tree.score[:, 1:].tolist() == [[1, 0.5]]
    for content, message in (
        ("[", "expected a JSON file"),
        ('{"question": "What?"}', "is no list of objects"),
        ('[{"question": "What?", "scores": 1}]', "expected {MODEL: SCORE}"),
        ('[{"question": "What?", "scores": {"a": 2}}]', "q.json: entry 1: score"),
    ):
        path.write_text(content)
        assert harness(*command, "--quality-only", "--force") == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_routellms_table_is_billed_by_prices_and_a_tokenizer(
    tiny_model_dir: Path, tmp_path: Path, harness: Run, capsys: Any
) -> None:
    rows = [{"prompt": f"Q{n}?", "m/1": n % 2 == 0, "m2": True, "m/1_response": "ab", "m2_response": "abcd"}
            for n in range(4)]  # fmt: skip
    command = ("import", written(rows, tmp_path / "t.csv"), "--format", "routellm", "--out", tmp_path / "out")
    assert harness(*command) == 2
    assert "--prices" in capsys.readouterr().err
    # The tokenizer has one token per character: 3 read, 2 and 4 written.
    prices = ("--prices", "m/1=1,10", "m2=2,20", "--tokenizer", tiny_model_dir)
    assert harness(*command, *prices) == 0
    tree = load_recording(tmp_path / "out").tree
    assert tree.score[:, 1:].tolist() == [[1, 1], [0, 1]] * 2
    np.testing.assert_allclose(tree.cost[:, 1:], [[23e-6, 86e-6]] * 4)


@pytest.mark.skipif(not GSM8K.is_file(), reason="the table of RouteLLM does not lie beside this checkout")
def test_gsm8k_as_routellm_recorded_it(tmp_path: Path, harness: Run) -> None:
    command = ("import", GSM8K, "--format", "routellm", "--quality-only", "--out", tmp_path / "out")
    assert harness(*command) == 0
    score = load_recording(tmp_path / "out").tree.score[:, 1:]
    assert len(score) == 1319
    assert (100 * score.mean(axis=0, dtype=float)).round(2).tolist() == [63.84, 85.67]
    assert round(100 * float(score.max(axis=1).mean()), 2) == 92.87


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "nan"}, "has no outcome of b"),
        ({"score": 1.5}, "t.csv: data row 6: score: 1.5 is no number from 0 to 1"),
        ({"score": "0_1"}, "row 6: score: '0_1' is no number"),
        ({"score": "right"}, "row 6: score: "),
        ({"cost": "1e308"}, "row 6: cost: 1e+308 is no number from 0 to 1e+25"),
        ({"cost": -1}, "row 6: cost: "),
        ({"cost": ""}, "no outcome of b"),
        ({"model": "b\u200b"}, "row 6: model 'b\\u200b' holds U+200B"),
        ({"model": "A"}, "data row 6: model A differs from a"),
        ({"model": "a"}, "data row 6: a second outcome of a for item q2 of mixed, after"),
        ({"prompt": ""}, "row 6: `prompt` is missing"),
        ({"prompt": "something else"}, "has no outcome of b"),
        ({"split": "dev"}, "row 6: split: Input should be 'train', 'validation' or 'test', got 'dev'"),
        ({"split": "test"}, "several splits"),
        ({"kind": "food"}, "item q2 of mixed has the kinds 'any' and 'food'"),
        ({"kind": "a\u200b"}, "row 6: kind 'a\\u200b' holds U+200B"),
    ],
)
def test_a_table_that_is_not_whole_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path, harness: Run, capsys: Any
) -> None:
    rows = [row | {"split": "train", "kind": "any"} for row in table(8)]
    rows[5] |= change
    assert harness("import", written(rows, tmp_path / "t.csv"), "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


CSV = {
    "t\u202e": "item\n1\n",
    "bytes": b"a,b\n\xff\xfe,1\n",
    "empty": "item,task\n",
    "semicolons": "item;task\n1;2\n",
    "twice": "item,task,item\n1,2,3\n",
    "prompts": "item,task,prompt,model,score,cost\n1,t,p,m,1,1\n1,t,q,m,1,1\n",
    "gap": "item,task,prompt,model,score,cost\n1,t,p,m,1,1\n2,t,q,n,1,1\n",
    "wide": "prompt,m ,m _response\nq,1,r\n",
    "priced": "prompt,m,m_response\nq,1,r\n",
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("none", "no such file"),
        ("t\u202e", "the file's name"),
        ("bytes", "cannot be read"),
        ("bytes --format parquet", "cannot be read"),
        ("empty", "no rows"),
        ("semicolons", "separated by commas, got 'item;task'"),
        ("twice", "column 'item' twice"),
        ("prompts", "data row 2: item 1 of t has another prompt"),
        ("gap --drop-incomplete", "no item has an outcome of every model"),
        ("gap --format routellm", "has no column MODEL_response"),
        ("priced --format routerbench", "has no column sample_id"),
        ("wide --format routellm --quality-only", "model 'm '"),
        ("prompts --prices m=1,1", "--prices is for --format routellm"),
        ("priced --format routellm --prices m=1_0,1", "--prices m=1_0,1"),
        ("priced --format routellm --prices m=1,1e300", "each from 0 to 1e+15"),
        ("priced --format routellm --prices m=1,1 --tokenizer no/where", "--tokenizer no/where cannot be loaded"),
        ("prompts --cost-unit \x1b", "--cost-unit"),
    ],
)
def test_what_is_no_table_is_refused(arguments: str, message: str, tmp_path: Path, harness: Run, capsys: Any) -> None:
    name, *options = arguments.split(" ")
    path = tmp_path / f"{name}.csv"
    content = CSV.get(name, "")
    if content:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert harness("import", path, *options, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_highest_costs_and_cost_weights_stay_finite(tmp_path: Path, harness: Run) -> None:
    rows = [row | {"cost": 1e25 if row["model"] == "b" else 1.0} for row in table()]
    assert harness("import", written(rows, tmp_path / "t.csv"), "--out", tmp_path / "out") == 0
    learners = ("hierrouter", "cascade", "ridge", "mlp")
    run = ("run", "--recording", tmp_path / "out", "--router", *learners, "--cost-weight", "0", "1e15")
    assert harness(*run, "--out", tmp_path / "run") == 0  # NaN and infinity are refused where it is written
    assert "inf" not in (tmp_path / "run" / "summary.json").read_text()


def test_texts_of_your_own_stay_as_they_are(tmp_path: Path, harness: Run) -> None:
    rows = table(2)
    rows[0]["prompt"] = rows[1]["prompt"] = "['Which of these?']"
    for row, response in zip(rows, ("nan", "['A']", "NaN", "B"), strict=True):
        row["response"] = response
    assert harness("import", written(rows, tmp_path / "t.csv"), "--out", tmp_path / "out") == 0
    tree = load_recording(tmp_path / "out").tree
    assert tree.items[0].query == "['Which of these?']"
    assert [[tree.generation(n, node).response for node in (1, 2)] for n in (0, 1)] == [["nan", "['A']"], ["NaN", "B"]]
    wide = [{"prompt": "['Which?']", "m": 1, "m_response": "['A']"}]
    assert harness("import", written(wide, tmp_path / "r.csv"), "--quality-only", "--out", tmp_path / "wide") == 0
    tree = load_recording(tmp_path / "wide").tree
    assert (tree.items[0].query, tree.generation(0, 1).response) == ("['Which?']", "['A']")


def test_items_that_ask_the_same_are_one_and_text_stays_text(tmp_path: Path, harness: Run, capsys: Any) -> None:
    rows = table(8)
    for n, prompt in ((4, "0042"), (5, "0042"), (8, " 0042 "), (9, " 0042 "), (6, "true"), (7, "true")):
        rows[n]["prompt"] = prompt
    rows[8]["cost"] = 9.0
    for row in rows:
        row["item"] = f"00{row['item'][1:]}"
    assert harness("import", written(rows, tmp_path / "t.csv"), "--out", tmp_path / "out") == 0
    assert "1 repeated train items left out" in capsys.readouterr().out
    recording = load_recording(tmp_path / "out")
    assert [item.query for item in recording.tree.items][2:4] == ["0042", "true"]
    assert recording.tree.cost[2, 1] == rows[4]["cost"] != 9.0
    assert recording.manifest["item_names"] == {"mixed": ["000", "001", "002", "003", "005", "006", "007"]}


def test_a_billed_recording_without_its_costs_is_refused(tmp_path: Path, harness: Run, capsys: Any) -> None:
    assert harness("import", written(table(), tmp_path / "t.csv"), "--out", tmp_path / "out") == 0
    transitions = tmp_path / "out" / "transitions.parquet"
    without = pq.read_table(transitions).drop_columns(["billed"])
    for changed, message in (
        (without, 'Field "billed" does not exist'),
        (without.append_column("billed", pa.array([1e26] * 120, pa.float64())), "from 0 to 1e+25"),
    ):
        pq.write_table(changed, transitions)
        seal_recording(tmp_path / "out")
        assert harness("run", "--recording", tmp_path / "out", "--router", "random") == 2
        assert message in capsys.readouterr().err


def test_incomplete_items_are_left_out_if_that_is_asked_for(tmp_path: Path, harness: Run, capsys: Any) -> None:
    rows, out = table(8), tmp_path / "out"
    rows[5]["score"], rows[7]["cost"] = "", ""
    command = ("import", written(rows, tmp_path / "gaps.csv"), "--drop-incomplete", "--out")
    assert harness(*command, out) == 0
    assert (
        "6 items, 2 models, one hop; 2 train, 2 validation, 2 test; 2 incomplete items left out"
        in capsys.readouterr().out
    )
    assert load_recording(out).manifest["counts"]["incomplete"] == 2
    assert harness(*command, tmp_path / "quality", "--quality-only") == 0
    assert "1 incomplete items left out" in capsys.readouterr().out
    assert harness("verify", "--recording", out) == 2
    assert "there are no models to ask again" in capsys.readouterr().err
