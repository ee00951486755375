"""Logged traffic as a recording: which calls are one item, what is left out, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pools.data.recording import load_recording

Run = Callable[..., int]


def call(query: str, model: str, score: float | bool | None = 1.0, **more: Any) -> dict[str, Any]:
    """A logged call; `settings` go into its request."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": query}]
    request = {"model": model, "messages": messages, "stream": False, **more.pop("settings", {})}
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    answer = {"role": "assistant", "content": f"{model} on {query}"}
    response = {"id": "x", "choices": [{"index": 0, "message": answer}], "usage": usage}
    return {"request": request, "response": response, "cost": 0.001, "score": score, "seconds": 0.8, **more}


def written(rows: list[dict[str, Any]], path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_shadow_sample_is_a_recording_and_other_calls_are_counted(tmp_path: Path, harness: Run, capsys: Any) -> None:
    queries = [f"Question {n}?" for n in range(12)]
    rows = [call(query, model, model == "b") for query in queries for model in ("a", "b")]
    rows[0] |= {"cost": None, "score": None}  # so question 0 lacks an answer of a
    rows += [call("Question 3?", "a", 0.25, settings={"stream": True, "user": "u"})]  # asked again
    rows += [call("Lonely?", "a"), call("Unscored?", "a", None)]
    rows += [call("Lonely?", "b", settings={"temperature": 1.0})]  # other settings: another item
    log = written(rows, tmp_path / "log.jsonl")
    assert harness("import", log, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "11 items, 2 models, one hop" in said and "4 incomplete items left out" in said
    assert "repeated calls of a model for the same request, left out: 1\n" in said
    recording = load_recording(tmp_path / "out")
    tree = recording.tree
    assert [item.query for item in tree.items] == [f"Be brief.\n\n{query}" for query in queries[1:]]
    assert tree.models == ("a", "b")
    np.testing.assert_array_equal(tree.score[:, 1:], np.tile([0.0, 1.0], (11, 1)))
    assert tree.generation(0, 2).response == "b on Question 1?" and tree.cost_model.unit == "US$"
    assert recording.manifest["repeated_calls"] == 1 and recording.manifest["counts"]["incomplete"] == 4
    assert harness("run", "--recording", tmp_path / "out", "--router", "knn", "--out", tmp_path / "run") == 0


def test_a_conversation_is_written_out_with_its_roles_and_parts(tmp_path: Path, harness: Run) -> None:
    parts = [{"type": "text", "text": "and"}, {"type": "text", "text": "now?"}]
    turns = [("developer", "Rhyme."), ("user", "Hi"), ("assistant", "Hello"), ("user", parts)]
    rows = [call("", model) for model in ("a", "b")]
    for row in rows:
        row["request"]["messages"] = [{"role": role, "content": content} for role, content in turns]
    log = written(rows, tmp_path / "log.jsonl")
    assert harness("import", log, "--out", tmp_path / "out") == 0
    (item,) = load_recording(tmp_path / "out").tree.items
    assert item.query == "Developer: Rhyme.\n\nUser: Hi\n\nAssistant: Hello\n\nUser: and\nnow?"


def test_calls_without_a_cost_cost_what_their_tokens_do(tmp_path: Path, harness: Run) -> None:
    rows = [call(f"Question {n}?", model) for n in range(4) for model in ("a", "b")]
    for row in rows[2:]:
        del row["cost"]
    log = written(rows, tmp_path / "log.jsonl")
    assert harness("import", log, "--out", tmp_path / "out", "--prices", "a=1,2", "b=10,20") == 0
    euros = ("--cost-unit", "EUR", "--out", tmp_path / "other")
    assert harness("import", log, *euros, "--prices", "a=1,2", "b=10,20") == 2 and not (tmp_path / "other").exists()
    cost = load_recording(tmp_path / "out").tree.cost[:, 1:]
    np.testing.assert_allclose(cost, [[0.001, 0.001], *[[0.0012, 0.012]] * 3])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([call("Q?", "a"), call("R?", "a")], "every call is of a, so it cannot rank routers as a table; it takes a sh"),
        ([call("Q?", "a"), call("R?", "b")], "no request has a scored answer of each of the 2 models"),
        ([call("Q?", "a", None)], "no row has a score"),
        ([call("Q?", "a"), call("Q?", "b", 2)], "entry 2: score: "),
        ([call("Q?", "a", cost=-1.0)], "entry 1: cost: "),
        ([{**call("Q?", "a"), "response": {"choices": []}}], "entry 1: response.choices: "),
        ([{**call("Q?", "a"), "request": {"messages": []}}], "entry 1: request.messages: "),
        ([{**call("Q?", ""), "model": ""}], "entry 1: no model is named"),
        ([call("Q?", "a", cost=1.0, cost_unit="EUR"), call("Q?", "b", cost_unit="US$")], "others in EUR"),
        (
            [{**call("Q?", "a"), "request": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}}],
            "request.messages.0.content: {'type': 'image_url'} is no text, and only texts can be routed",
        ),
    ],
)
def test_what_is_no_shadow_sample_is_refused_in_one_line(
    tmp_path: Path, harness: Run, capsys: Any, rows: list[dict[str, Any]], said: str
) -> None:
    log = written(rows, tmp_path / "log.jsonl")
    assert harness("import", log, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()
