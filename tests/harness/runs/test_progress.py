"""What is said of live models where nothing can be redrawn."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from harness.runs import progress
from pools.models.progress import Batch, Loading, Silence, UnderWay
from routers.progress import listened_to
from routers.router import Training


def test_no_model_is_silent_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two events, too; and a model that waits for its turn is not said to be slow."""
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.5)
    out = io.StringIO()
    with progress.generation_progress(Console(file=out, width=40)) as tell:
        for model in ("first", "second"):
            tell(Batch(model, 0, 4, 0, 0))
        tell(Loading("first"))
        time.sleep(1.2)
        tell(Loading("first", 1.2))
        tell(UnderWay("first", 0, 0))
        tell(Silence("first", "status 503: Loading model"))
        tell(UnderWay("first", 1, 30))
        time.sleep(1.2)
        tell(Batch("first", 4, 4, 9, 80))
    lines = [
        re.sub(r"\d+ tokens/s|\d+ s |\d\.\d s", "N ", line).replace("  ", " ") for line in out.getvalue().split("\n")
    ]
    assert lines == [
        "first: 4 responses to make",
        "second: 4 responses to make",
        "loading first",
        "loading first: N so far",
        "first: loaded in N ",
        "first: its server did not answer (status 503: Loading model) and is asked again",
        "first: 1/4 responses, 30 tokens, N , N left",
        "first: 4/4 responses, 80 tokens, N , N left",
        "",
    ]


def test_no_training_is_silent_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that says nothing, nor one between two of its steps; its time left is that of its steps alone."""
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.5)
    out = io.StringIO()
    told: list[int] = []
    with progress.generation_progress(Console(file=out, width=40)):
        with listened_to(Training(name="mute-1")):
            time.sleep(1.2)
        with listened_to(Training(name="slow-1")) as training:
            assert training.report is not None
            training.report(1000, 5000, "warm")
            time.sleep(0.2)
            training.report(2000, 5000, "hot")
            time.sleep(1.2)
        with listened_to(Training(report=lambda done, *_: told.append(done))) as mine:
            assert mine.report is not None
            mine.report(1, 2, "")
    with listened_to(Training()) as outside:
        assert outside.report is None
    lines = [re.sub(r"\d+ s ", "N ", line) for line in out.getvalue().splitlines()]
    assert set(lines) == {"training mute-1: N so far", "training slow-1: 2,000/5,000 steps, hot, N left"}
    assert told == [1]
