"""Tables of other people's outcomes: what is read, what is refused, and that routers run on them."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command_line import call
from pools.data.recording import load_recording, seal_recording
from tasks import split_of

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


def test_a_recording_is_replaced_only_by_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, command = tmp_path / "out", ("import", written(table(), tmp_path / "t.csv"), "--out", tmp_path / "out")
    assert call(monkeypatch, *command) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    other = ("import", written(table(6), tmp_path / "six.csv"), "--out", out)
    assert call(monkeypatch, *other) == 2
    said = capsys.readouterr().err
    assert "holds a recording" in said and "--force" in said and said.count("\n") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert call(monkeypatch, *other, "--force") == 0
    assert len(load_recording(out).tree.items) == 6
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    assert call(monkeypatch, *other[:-1], tmp_path / "thesis", "--force") == 2


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_long_table(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table()
    path, out = written(rows, tmp_path / f"mine.{kind}"), tmp_path / "recording"
    assert call(monkeypatch, "import", path, "--format", kind, "--out", out) == 0
    recording = load_recording(out)
    tree = recording.tree
    assert (tree.models, tree.max_hops, len(tree.items), tree.complete) == (("a", "b"), 1, 60, True)
    assert tree.items[3].query == rows[6]["prompt"] and tree.items[3].split == split_of(rows[6]["prompt"])
    expected = np.array([[row["score"], row["cost"]] for row in rows]).reshape(60, 2, 2)
    np.testing.assert_array_equal(tree.score[:, 1:], expected[..., 0])
    np.testing.assert_array_equal(tree.cost[:, 1:], expected[..., 1])
    assert recording.manifest["single_hop"] is True and recording.pool.cost_model("paper").unit == "US$"
    if kind == "parquet":  # the same recording
        return
    # And routers run on it: one that reads the question finds out who knows about what.
    run = ("run", "--recording", out, "--router", "hierrouter", "--cost-weight", 1, "--out", tmp_path / "run")
    assert call(monkeypatch, *run) == 0
    rows_of = json.loads((tmp_path / "run" / "summary.json").read_text())
    overall = {name: entry["overall"] for name, entry in rows_of["routers"].items()}
    assert overall["hierrouter"]["quality"] == overall["oracle"]["quality"] == 1.0
    test = [n for n, item in enumerate(tree.items) if item.split == "test"]
    assert overall["single:b"]["cost"] == pytest.approx(expected[test, 1, 1].mean())
    assert rows_of["cost_unit"] == "US$" and rows_of["title"].endswith("test items, one call each")


def test_a_given_split_is_kept_and_responses_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(6)
    for n, row in enumerate(rows):
        row |= {"split": ("train", "test")[n // 2 % 2], "response": f"text {n}, \u00e9"}
    assert call(monkeypatch, "import", written(rows, tmp_path / "t.csv"), "--out", tmp_path / "out") == 0
    tree = load_recording(tmp_path / "out").tree
    assert [item.split for item in tree.items] == ["train", "test"] * 3
    assert tree.generation(2, 2).response == "text 5, \u00e9"


def test_without_costs_no_figure_of_cost_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{k: v for k, v in row.items() if k != "cost"} for row in table()]
    path = written(rows, tmp_path / "t.csv")
    assert call(monkeypatch, "import", path, "--out", tmp_path / "out") == 2
    assert "--quality-only" in capsys.readouterr().err
    assert call(monkeypatch, "import", path, "--quality-only", "--out", tmp_path / "out") == 0
    run = ("run", "--recording", tmp_path / "out", "--router", "random", "--cost-weight", "0,1")
    assert call(monkeypatch, *run, "--out", tmp_path / "run") == 0
    assert "no costs were recorded" in capsys.readouterr().out
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    for entry in found["routers"].values():
        for figures in (entry["overall"], *entry["tasks"].values()):
            assert figures["cost"] is figures["cost_interval"] is figures["cost_ratio"] is None
        assert entry["overall"]["value"] == entry["overall"]["quality"]
    assert set(pq.read_table(tmp_path / "run" / "items.parquet")["cost"].to_pylist()) == {None}
    assert "cost per item" not in (tmp_path / "run" / "tables.md").read_text()


def test_routerbenchs_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"sample_id": f"s.{n}", "prompt": f"['Question {n}?']", "eval_name": "grade-school-math", "x": n % 2 / 1.0,
         "y/z": 0.5, "x|model_response": f"x {n}", "x|total_cost": 0.25, "y/z|total_cost": 0.5,
         "oracle_model_to_route_to": "x"}
        for n in range(4)
    ]  # fmt: skip
    path = written(rows, tmp_path / "rb.parquet")
    assert call(monkeypatch, "import", path, "--format", "routerbench", "--out", tmp_path / "out") == 0
    tree = load_recording(tmp_path / "out").tree
    assert tree.models == ("x", "y/z")
    assert tree.score[:, 1:].tolist() == [[0, 0.5], [1, 0.5]] * 2
    assert tree.cost[:, 1:].tolist() == [[0.25, 0.5]] * 4
    assert tree.generation(1, 1).response == "x 1"


def test_routellms_table_is_billed_by_prices_and_a_tokenizer(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"Q{n}?", "m/1": n % 2 == 0, "m2": True, "m/1_response": "ab", "m2_response": "abcd"}
            for n in range(4)]  # fmt: skip
    command = ("import", written(rows, tmp_path / "t.csv"), "--format", "routellm", "--out", tmp_path / "out")
    assert call(monkeypatch, *command) == 2
    assert "--prices" in capsys.readouterr().err
    # The tokenizer has one token per character: 3 read, 2 and 4 written.
    prices = ("--prices", "m/1=1,10", "m2=2,20", "--tokenizer", tiny_model_dir)
    assert call(monkeypatch, *command, *prices) == 0
    tree = load_recording(tmp_path / "out").tree
    assert tree.score[:, 1:].tolist() == [[1, 1], [0, 1]] * 2
    np.testing.assert_allclose(tree.cost[:, 1:], [[23e-6, 86e-6]] * 4)


@pytest.mark.skipif(not GSM8K.is_file(), reason="the table of RouteLLM does not lie beside this checkout")
def test_gsm8k_as_routellm_recorded_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("import", GSM8K, "--format", "routellm", "--quality-only", "--out", tmp_path / "out")
    assert call(monkeypatch, *command) == 0
    score = load_recording(tmp_path / "out").tree.score[:, 1:]
    assert len(score) == 1319
    assert (100 * score.mean(axis=0, dtype=float)).round(2).tolist() == [63.84, 85.67]
    assert round(100 * float(score.max(axis=1).mean()), 2) == 92.87


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "nan"}, "row 6: score 'nan', expected a number from 0 to 1"),
        ({"score": 1.5}, "row 6: score"),
        ({"score": "0_1"}, "row 6: score"),
        ({"score": " 1"}, "row 6: score"),
        ({"score": " true"}, "row 6: score"),
        ({"cost": "1_000"}, "row 6: cost '1_000'"),
        ({"cost": "٣"}, "row 6: cost"),
        ({"cost": "1 "}, "row 6: cost"),
        ({"cost": "1e308"}, "row 6: cost '1e308', expected a number >= 0, at most 1e+25"),
        ({"model": "b "}, "row 6: model 'b ' has spaces at an end"),
        ({"model": "b\u200b"}, "row 6: model 'b\\u200b' holds U+200B"),
        ({"model": "A"}, "model A differs from a by case alone"),
        ({"task": "Mixed"}, "task Mixed differs from mixed by case alone"),
        ({"task": "\x1b[31m"}, "row 6: task"),
        ({"item": "q2\u202e"}, "row 6: item"),
        ({"cost": -1}, "row 6: cost"),
        ({"cost": "inf"}, "row 6: cost"),
        ({"cost": ""}, "no outcome of b"),
        ({"score": ""}, "no outcome of b"),
        ({"prompt": ""}, "row 6: prompt is empty"),
        ({"model": "a"}, "two outcomes of a"),
        ({"item": "another"}, "no outcome of b"),
        ({"split": "dev"}, "row 6: split 'dev'"),
        ({"split": "test"}, "several splits"),
        ({"prompt": "something else"}, "several prompts and with one of them no outcome of b"),
    ],
)
def test_a_table_that_is_not_whole_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    rows = [row | {"split": "train"} for row in table(8)]
    rows[5] |= change
    path = written([{k: str(v) for k, v in row.items()} for row in rows], tmp_path / "t.csv")
    assert call(monkeypatch, "import", path, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_names_of_a_table_that_come_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The file's name, options, and the columns of a wide table."""
    good = written(table(8), tmp_path / "t.csv")
    odd = written(table(8), tmp_path / "t\u202e.csv")
    wide = [{"prompt": f"Q{n}?", "m ": 1, "m _response": "ab"} for n in range(2)]
    routellm = written(wide, tmp_path / "w.csv")
    plain = written([{"prompt": "Q?", "m": 1, "m_response": "ab"}], tmp_path / "p.csv")
    bench = [
        {"sample_id": f"s{n}", "prompt": f"q{n}", "eval_name": "t", "x\xad": 0.5, "x\xad|total_cost": 0.1}
        for n in (0, 1)
    ]
    for arguments, message in [
        ((odd,), "the file's name"),
        ((good, "--name", "a\u200b"), "--name"),
        ((good, "--cost-unit", "\x1b[1m"), "--cost-unit"),
        ((routellm, "--format", "routellm", "--quality-only"), "model 'm '"),
        ((written(bench, tmp_path / "b.csv"), "--format", "routerbench"), "U+00AD"),
        ((plain, "--format", "routellm", "--prices", "m=1_0,1"), "--prices m=1_0,1"),
        ((plain, "--format", "routellm", "--prices", "m=1,1e300"), "each from 0 to 1e+15"),
    ]:
        assert call(monkeypatch, "import", *arguments, "--out", tmp_path / "out") == 2, arguments
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists(), error


def test_the_highest_costs_and_cost_weights_stay_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row | {"cost": 1e25 if row["model"] == "b" else 1.0} for row in table()]
    assert call(monkeypatch, "import", written(rows, tmp_path / "t.csv"), "--out", tmp_path / "out") == 0
    learners = ("hierrouter", "cascade", "ridge", "mlp")
    run = ("run", "--recording", tmp_path / "out", "--router", *learners, "--cost-weight", "0,1e15")
    assert call(monkeypatch, *run, "--out", tmp_path / "run") == 0
    assert (
        "inf" not in (tmp_path / "run" / "summary.json").read_text()
    )  # NaN and infinity are refused where it is written


def test_items_that_ask_the_same_are_one_and_text_stays_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    rows = table(8)
    for n, prompt in ((4, "0042"), (5, "0042"), (8, " 0042 "), (9, " 0042 "), (6, "true"), (7, "true")):
        rows[n]["prompt"] = prompt
    rows[8]["cost"] = 9.0
    for row in rows:
        row["item"] = f"00{row['item'][1:]}"
    assert call(monkeypatch, "import", written(rows, tmp_path / "t.csv"), "--out", tmp_path / "out") == 0
    assert "1 repeated items left out" in capsys.readouterr().out
    recording = load_recording(tmp_path / "out")
    assert [item.query for item in recording.tree.items][2:4] == ["0042", "true"]
    assert recording.tree.cost[2, 1] == rows[4]["cost"] != 9.0
    assert recording.manifest["item_names"] == {"mixed": ["000", "001", "002", "003", "005", "006", "007"]}


def test_a_policy_of_an_imported_table_can_be_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "import", written(table(), tmp_path / "t.csv"), "--out", tmp_path / "out") == 0
    policy = tmp_path / "p.safetensors"
    train = ("train", "--recording", tmp_path / "out", "--total-timesteps", 10_000, "--out", policy)
    assert call(monkeypatch, *train) == 0
    routers = ("--router", "hierrouter", "knn", "--checkpoint", policy, "--split", "all")
    assert call(monkeypatch, "run", "--recording", tmp_path / "out", *routers, "--out", tmp_path / "run") == 0
    rows = json.loads((tmp_path / "run" / "summary.json").read_text())["routers"]
    flagged = {name for name, e in rows.items() if "on items it was trained or chosen on" in e["overall"]["notes"]}
    assert flagged == {"hierrouter", "knn", "best-pipeline", "best-pipeline-per-task"}


def test_a_billed_recording_without_its_costs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert call(monkeypatch, "import", written(table(), tmp_path / "t.csv"), "--out", tmp_path / "out") == 0
    transitions = tmp_path / "out" / "transitions.parquet"
    pq.write_table(pq.read_table(transitions).drop_columns(["billed"]), transitions)
    seal_recording(tmp_path / "out")
    assert call(monkeypatch, "run", "--recording", tmp_path / "out", "--router", "random") == 2
    assert 'Field "billed" does not exist' in capsys.readouterr().err
    billed = pa.array([1e26] * 120, pa.float64())
    pq.write_table(pq.read_table(transitions).append_column("billed", billed), transitions)
    seal_recording(tmp_path / "out")
    assert call(monkeypatch, "run", "--recording", tmp_path / "out", "--router", "random") == 2
    assert "from 0 to 1e+25" in capsys.readouterr().err


def test_incomplete_items_are_left_out_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = written(table(8)[:-1], tmp_path / "t.csv")
    assert call(monkeypatch, "import", path, "--drop-incomplete", "--out", tmp_path / "out") == 0
    assert "1 incomplete items left out" in capsys.readouterr().out
    recording = load_recording(tmp_path / "out")
    assert (len(recording.tree.items), recording.manifest["counts"]["incomplete"]) == (7, 1)
    rows = table(8)
    rows[5]["score"], rows[7]["cost"] = "", ""
    path = written(rows, tmp_path / "gaps.csv")
    assert call(monkeypatch, "import", path, "--drop-incomplete", "--out", tmp_path / "gaps") == 0
    assert "6 items, 2 models, one hop; 2 incomplete items left out" in capsys.readouterr().out
    assert call(monkeypatch, "import", path, "--quality-only", "--drop-incomplete", "--out", tmp_path / "quality") == 0
    assert "1 incomplete items left out" in capsys.readouterr().out
    assert call(monkeypatch, "verify", "--recording", tmp_path / "out") == 2
    assert "there are no models to ask again" in capsys.readouterr().err


def test_what_is_no_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "t.pkl").write_bytes(pickle.dumps([1]))
    (tmp_path / "t.parquet").write_bytes(b"PAR1junk")
    (tmp_path / "bytes.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    (tmp_path / "empty.csv").write_text("item,task\n")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "semicolons.csv").write_text("item;task\n1;2\n")
    for name, message in [
        ("none.csv", "no such file"), ("t.pkl", "pickle"), ("t.parquet", "cannot be read"),
        ("bytes.csv", "cannot be read"), ("empty.csv", "no rows"), ("other.csv", "no column 'item'"),
        ("semicolons.csv", "separated by commas; its one column is 'item;task'"),
    ]:  # fmt: skip
        assert call(monkeypatch, "import", tmp_path / name, "--out", tmp_path / "out") == 2, name
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, (name, error)
    for kind in ("routellm", "routerbench"):
        assert call(monkeypatch, "import", tmp_path / "other.csv", "--format", kind, "--out", tmp_path / "out") == 2
        assert "is no table of" in capsys.readouterr().err
