"""What `run --track` sends to wandb. That an offline run takes it, test_canary.py shows."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.runs import wandb as tracking
from harness.runs.folder import load_run

wandb = pytest.importorskip("wandb")
RUN = ("--max-hops", 1, "--cost-weight", "0,1", "--track", "--router")


class Logged:
    """What a run of wandb was given."""

    entity, project, id, url = "", "hierrouter-harness", "abc", None

    def __init__(self, **settings: Any) -> None:
        self.settings, self.summary, self.finished = settings, {}, False
        self.log = lambda tables: setattr(self, "tables", tables)
        self.log_artifact = lambda artifact: setattr(self, "artifact", artifact)

    def finish(self) -> None:
        self.finished = True


@pytest.fixture(scope="module")
def tracked(
    tmp_path_factory: pytest.TempPathFactory, small_recording: Path, harness: Callable[..., int]
) -> SimpleNamespace:
    """The folder of a tracked run, and what wandb was given."""
    folder, started = tmp_path_factory.mktemp("tracked") / "out", []
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(wandb, "init", lambda **settings: started.append(Logged(**settings)) or started[0])
        assert harness("run", "--recording", small_recording, *RUN, "random", "single:reader", "--out", folder) == 0
    (logged,) = started
    assert logged.finished
    return SimpleNamespace(folder=folder, logged=logged, summary=load_run(folder).summary)


def test_one_run_with_name_group_and_flat_settings_is_where_the_folder_says(tracked: SimpleNamespace) -> None:
    settings = tracked.logged.settings
    assert (settings["project"], settings["job_type"]) == ("hierrouter-harness", "run")
    assert settings["group"] == "random single:reader on offline"
    assert settings["name"] == "random single:reader on small"
    config = settings["config"]
    assert not any(isinstance(value, dict | list) for value in config.values())
    assert config["arguments.router"] == "random, single:reader"
    assert (config["seed"], config["suite"], config["source.recording"]) == (1, "offline", "small")
    model = load_run(tracked.folder).manifest.pool["models"][0]
    assert config[f"pool.models.{model['name']}.base_rate"] == model["base_rate"]
    kept = json.loads((tracked.folder / tracking.IDENTITY).read_text())
    assert (kept["id"], kept["project"]) == ("abc", "hierrouter-harness")


def test_figures_have_the_same_keys_in_every_run(tracked: SimpleNamespace) -> None:
    found, summary = tracked.logged.summary, tracked.summary
    for name, entry in summary.routers.items():
        for key in ("quality", "cost", "value", "regret", "hops"):
            assert found[f"{name}/{key}"] == getattr(entry.overall, key)
        assert found[f"{name}/macro/quality"] == entry.macro.quality
    metrics = summary.frontier_metrics
    for name in ("best-pipeline", "oracle"):
        assert found[f"{name}/aiq"] == metrics.routers[name].aiq
        assert found[f"{name}/keeps_98"] == metrics.parity[name].keeps_98
    assert not any(isinstance(value, bool) for value in found.values())


def test_tables_hold_every_router_and_task(tracked: SimpleNamespace) -> None:
    overall, tasks = (
        [dict(zip(table.columns, row, strict=True)) for row in table.data] for table in tracked.logged.tables.values()
    )
    assert [row["router"] for row in overall] == list(tracked.summary.routers)
    for row in overall:
        figures = tracked.summary.routers[row["router"]].overall
        assert row["quality"] == figures.quality
        assert (row["cost_low"], row["cost_high"]) == figures.cost_interval
        assert row["calls:reader"] == figures.calls["reader"]
    with (tracked.folder / "tables.csv").open(newline="") as file:
        assert [(r["router"], r["task"]) for r in csv.DictReader(file)] == [(r["router"], r["task"]) for r in tasks]


def test_the_files_of_the_run_are_an_artifact(tracked: SimpleNamespace) -> None:
    artifact = tracked.logged.artifact
    assert (artifact.name, artifact.type) == ("offline-small", "run-result")
    written = {path.name: path.stat().st_size for path in tracked.folder.iterdir() if path.name != tracking.IDENTITY}
    assert written == {name: entry.size for name, entry in artifact.manifest.entries.items()}


def test_nested_settings_become_dotted_keys() -> None:
    nested = {"a": 1, "b": {"c": None, "d": {"e": "x"}}, "f": [1, 2], "g": [], "h": [{"name": "m", "i": 2}, {"i": 3}]}
    assert dict(tracking.flat(nested)) == {
        "a": 1, "b.c": None, "b.d.e": "x", "f": "1, 2", "g": "", "h.m.name": "m", "h.m.i": 2, "h.1.i": 3,
    }  # fmt: skip


def test_a_run_that_wandb_does_not_take_is_said_in_one_line(
    tmp_path: Path,
    small_recording: Path,
    harness: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login`.")

    monkeypatch.setattr(wandb, "init", refuse)
    assert harness("run", "--recording", small_recording, *RUN, "random", "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "No API key" in said and "WANDB_MODE=offline" in said and str(tmp_path) in said and said.count("\n") == 1
    assert load_run(tmp_path / "out")
