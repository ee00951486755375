"""Tables as users have them: each that is wrong is refused in one line that says where and what to do."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pools.data.recording import load_recording

HEAD = "item,task,prompt,model,score,cost"
ROWS = (
    "q1,t,How many?,a,1,0.001",
    "q1,t,How many?,b,0,0.01",
    "q2,t,How old?,a,0,0.001",
    "q2,t,How old?,b,1,0.01",
)
TABLE = "\n".join((HEAD, *ROWS, ""))
TRAIN = "\n".join((HEAD, "q0,t,Ready?,a,1,0.001", "q0,t,Ready?,b,1,0.01", ""))
ASKED = [{"question": "How many?", "scores": {"a": 1, "b": 0}}, {"question": "How old?", "scores": {"a": 0, "b": 1}}]
BENCH = "sample_id,prompt,eval_name,a,b,a|model_response,b|model_response,a|total_cost,b|total_cost"


@dataclass(frozen=True)
class Table:
    """Files by name, what is said of them, in parts, the command's options, and whether they become a recording."""

    files: dict[str, Any]
    said: tuple[str, ...]
    options: str = ""
    imported: bool = False


def changed(old: str, new: str, *said: str, options: str = "", imported: bool = False) -> Table:
    """The table with something else in one place."""
    assert old in TABLE
    return Table({"mine.csv": TABLE.replace(old, new, 1)}, said, options, imported)


def columns(names: str, cells: list[str], *said: str, options: str = "", imported: bool = False) -> Table:
    """The table with columns more."""
    rows = [f"{row},{cell}" for row, cell in zip((HEAD, *ROWS), (names, *cells), strict=True)]
    return Table({"mine.csv": "\n".join(rows)}, said, options, imported)


def scored(scores: Any, *said: str, imported: bool = False) -> Table:
    rows = [{"question": "How many?", "scores": scores}, *ASKED[1:]]
    return Table({"mine.json": json.dumps(rows)}, said, "--quality-only", imported)


def two(test: str, *said: str, imported: bool = False) -> Table:
    return Table({"mine-train.csv": TRAIN, "mine-test.csv": test}, said, "", imported)


TABLES = {
    # no table
    "no file": Table({"mine.csv": None}, ("no such file", "name a CSV, Parquet or JSON file")),
    "empty file": Table({"mine.csv": b""}, ("is empty",)),
    "header alone": Table({"mine.csv": HEAD + "\n"}, ("has no rows",)),
    "no header": Table({"mine.csv": "\n".join(ROWS)}, ("has no columns of outcomes", "expected item, task, prompt")),
    "semicolons": Table({"mine.csv": TABLE.replace(",", ";")}, ("separated by commas", "got 'item;task;prompt")),
    "tabs": Table({"mine.tsv": TABLE.replace(",", "\t")}, ("separated by commas", "got 'item\\ttask")),
    "workbook": Table({"mine.xlsx": b"PK\x03\x04\x14\x00"}, ("is a workbook or a ZIP file", "as CSV")),
    "pickle": Table({"mine.pkl": pickle.dumps(ASKED)}, ("is a pickle", "convert it to CSV or Parquet")),
    "packed": Table({"mine.csv.gz": gzip.compress(TABLE.encode())}, ("is packed; unpack it",)),
    "Latin-1": Table({"mine.csv": TABLE.replace("old", "öld").encode("latin-1")}, ("cannot be read", "in UTF-8")),
    "UTF-16": Table({"mine.csv": TABLE.encode("utf-16")}, ("is in UTF-16; save it as CSV in UTF-8",)),
    "mark of UTF-8": Table({"mine.csv": TABLE.encode("utf-8-sig")}, ("2 items, 2 models",), imported=True),
    "line breaks of Windows": Table({"mine.csv": TABLE.replace("\n", "\r\n")}, ("2 items, 2 models",), imported=True),
    "ragged rows": changed(
        "How old?", "How old, really?", "data row 3: Expected 6 columns, got 7", "commas in double quotes"
    ),
    "JSON that ends early": Table({"mine.json": json.dumps(ASKED)[:-9]}, ("cannot be read", "expected a JSON file")),
    "JSON, one object": Table({"mine.json": json.dumps({"rows": ASKED})}, ("is no list of objects", '"question"')),
    "JSON lines": Table({"mine.jsonl": "\n".join(map(json.dumps, ASKED))}, ("2 items",), "--quality-only", True),
    # columns
    "column twice": changed("score,cost", "score,score", "column 'score' twice"),
    "column missing": changed("prompt", "question", "has no column prompt", "got 'item, task, question"),
    "header in capitals": changed("score", "Score", "has no column score", "model, Score"),
    "no column of costs": changed("cost", "price", "has no column cost (without costs give --quality-only)"),
    "unknown columns": columns("year", ["2024"] * 4, "2 items, 2 models", imported=True),
    # scores
    "score in words": changed(
        "a,1,", "a,yes,", "data row 1: score: 'yes' is no number", "from 0 to 1, or true or false"
    ),
    "score N/A": changed("b,0,", "b,N/A,", "data row 2: score: 'N/A' is no number", "or an empty cell"),
    "percentages": changed("b,0,", "b,87.5,", "data row 2: score: 87.5 is no number from 0 to 1; divide percentages"),
    "negative score": changed("a,0,", "a,-1,", "data row 3: score: -1 is no number from 0 to 1"),
    "decimal comma": changed("a,1,", 'a,"0,5",', "data row 1: score: '0,5' is no number"),
    "true and false": changed("a,1,", "a,TRUE,", "2 items, 2 models", imported=True),
    "some scores NaN": changed("b,1,", "b,NaN,", "data row 3: item q2 of t", "no outcome of b", "--drop-incomplete"),
    "all scores NaN": Table(
        {"mine.csv": TABLE.replace(",1,0", ",nan,0").replace(",0,0", ",NaN,0")},
        ("no row has a score; complete the table",),
    ),
    "all scores of a model NaN": Table(
        {"mine.csv": TABLE.replace("b,1", "b,NaN").replace("b,0", "b,")},
        ("no row of b has a score;", "or remove the model"),
        "--drop-incomplete",
    ),
    "nested scores": scored(
        {"a": {"exact": 1}, "b": 0}, "entry 1: the score of a is {'exact': 1}, expected one number"
    ),
    "no scores": Table(
        {"mine.json": json.dumps([*ASKED, {"question": "Who?"}])}, ("entry 3: scores is None",), "--quality-only"
    ),
    "a score twice": Table(
        {"mine.json": '[{"question": "Who?", "scores": {"a": 1, "b": 0, "a": 0}}]'}, ("the key 'a' is there twice",)
    ),
    "a list of scores": scored([1, 0], "entry 1: scores is [1, 0], expected {MODEL: SCORE}"),
    "scores as texts": scored({"a": "1", "b": "0.5"}, "2 items, 2 models", imported=True),
    "a list with costs": Table({"mine.json": json.dumps(ASKED)}, ("holds no costs", "--quality-only")),
    # costs
    "negative cost": changed("0,0.01", "0,-0.01", "data row 2: cost: -0.01 is no number from 0"),
    "unit in a cell": changed("0,0.01", "0,$0.01", "data row 2: cost: '$0.01' is no number", "--cost-unit"),
    "mixed units in cells": Table(
        {"mine.csv": TABLE.replace("0.01", "1 cent")}, ("data row 2: cost: '1 cent' is no number",)
    ),
    "several units": columns(
        "cost_unit", ["US$"] * 3 + ["cents"], "data row 4: the cost is in cents, and others in US$"
    ),
    "another unit": columns("cost_unit", ["cents"] * 4, "--cost-unit EUR", "are in cents", options="--cost-unit EUR"),
    "one unit": columns("cost_unit", ["cents"] * 4, "2 items, 2 models", imported=True),
    "no number in all costs": Table(
        {"mine.csv": TABLE.replace(",0.001", ",").replace(",0.01", ",")},
        ("no row has a score and a cost", "--quality-only"),
    ),
    # models and items
    "case of a model": changed("old?,a", "old?,A", "data row 3: model A differs from a (", "row 1) by case or spaces"),
    "spaces between models": Table(
        {"mine.csv": TABLE.replace(",a,", ",g 4,").replace(",b,", ",g4,")}, ("data row 2: model g4 differs from g 4 (",)
    ),
    "space in a model": changed("old?,a", "old?,a ", "data row 3: model 'a ' has spaces at an end"),
    "duplicate row": Table({"mine.csv": TABLE + ROWS[2]}, ("data row 5: a second outcome of a for item q2", "row 3")),
    "duplicate model": Table(
        {"mine.csv": f"{BENCH},A,A|total_cost\ns1,Why?,t,1,0,x,y,1,1,1,1\n"}, ("model A differs from a",)
    ),
    "an item without any outcome": Table(
        {"mine.csv": TABLE + "q3,t,Who?,a,,\nq3,t,Who?,b,,\n"},
        ("2 items, 2 models", "1 incomplete items left out"),
        "--drop-incomplete",
        True,
    ),
    "empty rows": Table({"mine.csv": TABLE + ",,,,,\n"}, ("2 items, 2 models",), imported=True),
    "a model lacks an item": Table({"mine.csv": "\n".join((HEAD, *ROWS[:3]))}, ("item q2 of t", "no outcome of b")),
    "an item with two prompts": changed(
        "q2,t,How old?,b,1,0.01\n",
        "q2,t,How old?,b,1,0.01\nq2,t,Who?,a,1,0\nq2,t,Who?,b,1,0\n",
        "data row 5: item q2 of t has another prompt before",
    ),
    "unknown split": columns("split", ["dev"] * 4, "data row 1: split: ", "'train', 'validation' or 'test', got 'dev'"),
    "unknown split in a list": Table(
        {"mine.json": json.dumps([*ASKED, {"question": "Who?", "scores": {"a": 1, "b": 0}, "split": "dev"}])},
        ("entry 3: split: ", "'train', 'validation' or 'test', got 'dev'"),
        "--quality-only",
    ),
    "a model called kind": Table(
        {"mine.csv": "prompt,kind,b,kind_response,b_response\nWhy?,1,0,x,y\n"},
        ("has a column kind_response, as if kind were a model",),
        "--quality-only",
    ),
    # several files
    "names without splits": Table(
        {"mine-1.csv": TRAIN, "mine-2.csv": TABLE}, ("mine-1.csv does not say in its name", "--splits")
    ),
    "files of other models": two(TABLE.replace(",b,", ",c,"), "has outcomes of b", "mine-test.csv has none"),
    "a split unlike its file's": two(
        "\n".join(f"{row},{cell}" for row, cell in zip((HEAD, *ROWS), ("split", *["train"] * 4), strict=True)),
        "mine-test.csv: data row 1: split is train, but the file is test",
    ),
    "item in both files": two(
        TABLE.replace("q2", "q0"), "mine-test.csv: data row 3: item q0 of t has another prompt before"
    ),
    "files of other units": two(
        "\n".join(f"{row},{cell}" for row, cell in zip((HEAD, *ROWS), ("cost_unit", *["cents"] * 4), strict=True)),
        "mine-test.csv are in cents, those of the files before in US$",
    ),
    "a file without costs": two(TABLE.replace("cost", "price", 1), "mine-test.csv has no column cost"),
    "prices beside costs": Table(
        {"mine-train.csv": TRAIN, "mine-test.csv": "prompt,a,b,a_response,b_response\nq,1,0,x,y\n"},
        ("--prices is for --format routellm or traffic with costs",),
        "--prices a=1,1 b=1,2 --tokenizer none",
    ),
    "prompt in both files": two(TABLE.replace("How many?", "Ready?"), "1 repeated train items left out", imported=True),
    # the options
    "no hop": changed("q1", "q1", "--hops 0: expected at least 1", options="--hops 0"),
    "too many hops": changed(
        "q1", "q1", "cascades of 99 hops over 2 models and 2 items", "at most 25 hops fit", options="--hops 99"
    ),
    "an expression without a match": changed("q1", "q1", "2 items", options=r"--answers #+\d", imported=True),
    "an expression for other texts": columns(
        "response", ["A", "B", "A", "B"], "no response gives such an answer", options=r"--answers \d"
    ),
    "no expression": changed("q1", "q1", "answers '(': expected letter, number", options="--answers ("),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_wrong_table_is_refused_in_one_line(
    what: str, tmp_path: Path, harness: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = TABLES[what], tmp_path / "out"
    for name, content in table.files.items():
        if content is not None:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    code = harness("import", *(tmp_path / name for name in table.files), *table.options.split(), "--out", out)
    captured = capsys.readouterr()
    said = captured.out if table.imported else captured.err
    print(what, "|", said.replace(str(tmp_path) + "/", ""))
    assert all(part in said for part in table.said), said
    if table.imported:
        assert code == 0 and load_recording(out).tree.complete
    else:
        assert code == 2 and said.count("\n") == 1 and not out.exists()
