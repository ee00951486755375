"""A recording of models that are not shown every response: what they read alike is asked, stored and counted once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.recorder.record import speed_of, timing_of_answers
from pools.data.recording import Recording, load_recording
from pools.data.store import TransitionStore
from pools.types import Generation

Record = Callable[..., Recording]


@pytest.fixture
def recorded(
    tiny_pool_file: Path, tiny_tasks: Path, tmp_path: Path, harness: Callable[..., int]
) -> Callable[..., Recording]:
    """`recorded(name, template, *more)`: two hops of the tiny pool, the first of which reads by the template."""

    def record(name: str, template: str, *more: object, batch_size: int = 4) -> Recording:
        first = "  - name: tiny-a\n"
        text = tiny_pool_file.read_text().replace(first, f"{first}    template: {template!r}\n")
        pool = tmp_path / "shown.yaml"
        text = text.replace("batch_size: 4", f"batch_size: {batch_size}", 1)
        pool.write_text(text.replace("{path: tiny-", f"{{path: {tiny_pool_file.parent}/tiny-"))
        selection = ("--pool", pool, "--suite", tiny_tasks / "suite.yaml", "--max-hops", 2)
        places = ("--store", tmp_path / f"{name}.sqlite", "--out", tmp_path / name)
        assert harness("record", *selection, *places, *more) == 0
        return load_recording(tmp_path / name)

    return record


def test_what_a_model_is_not_shown_is_asked_once(recorded: Record, tmp_path: Path) -> None:
    found = recorded("blind", "{{ query }}")
    manifest, tree = found.manifest, found.tree
    items = len(tree.items)
    assert items == 16 and tree.complete
    for item in range(items):
        alone = tree.generation(item, tree.node((0,)))
        assert {tree.generation(item, tree.node((model, 0))) for model in range(2)} == {alone}
    # tiny-a reads queries; tiny-b those and what came before.
    contexts = {tree.context(item, node) for item in range(items) for node in range(tree.decision_nodes)}
    speed, counts = manifest["speed"], manifest["counts"]
    assert speed["tiny-a"]["requests"] == items < speed["tiny-b"]["requests"] == len(contexts)
    assert counts["distinct_requests"] == len(TransitionStore(tmp_path / "blind.sqlite")) == items + len(contexts)
    assert counts["transitions"] == items * (tree.nodes - 1)
    made = [tree.generation(item, tree.node((0,))) for item in range(items)]
    assert speed["tiny-a"]["tokens_in"] == sum(one.tokens_in for one in made)
    assert sum(origin["responses"] for origin in manifest["origins"]) == counts["distinct_requests"]


def test_the_manifest_says_which_seconds_are_those_of_single_calls(recorded: Record, tmp_path: Path) -> None:
    """By the responses as they came about: one that was answered in a batch before stays a share of it."""
    shares = recorded("batch", "{{ query }}")
    assert shares.manifest["seconds"] == "share of a batch" and not shares.tree.latency
    alone = recorded("alone", "{{ query }}", batch_size=1)
    assert alone.manifest["seconds"] == {"tiny-a": "single calls", "tiny-b": "share of a batch"}
    assert not alone.tree.latency
    again = recorded("again", "{{ query }}", "--reuse", tmp_path / "batch", batch_size=1)
    assert again.manifest["seconds"] == "share of a batch"
    said: list[Any] = [(9, {"seconds": {"m": "server"}}), (1, {"seconds": {"m": "single calls"}}), (1, None)]
    assert [timing_of_answers("m", said[:n]) for n in (1, 2)] == ["server", "share of a batch"]
    assert timing_of_answers("m", said[::2]) == "share of a batch"


def test_reusing_such_a_recording_takes_each_response_once(
    recorded: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = recorded("first", "{{ query }}")
    requests = first.manifest["counts"]["distinct_requests"]
    capsys.readouterr()
    again = recorded("again", "{{ query }}", "--reuse", tmp_path / "first")
    assert f"{requests} responses taken from" in " ".join(capsys.readouterr().out.split())
    assert again.manifest["counts"] == first.manifest["counts"]
    assert len(TransitionStore(tmp_path / "again.sqlite")) == requests
    assert list(again.tree.rows()) == list(first.tree.rows())
    np.testing.assert_array_equal(again.tree.cost, first.tree.cost)


def test_speed_is_of_the_requests_that_were_made() -> None:
    made = [Generation("a", 30, 10, "stop", 0.5), Generation("b", 40, 20, "length", 1.5)]
    expected = {"requests": 2, "tokens_in": 70, "tokens_out": 30, "seconds": 2.0, "tokens_per_second": 50.0}
    assert speed_of(made) == expected
    assert speed_of([Generation("a", 3, 1, "stop", 0.0)])["tokens_per_second"] == 0.0
