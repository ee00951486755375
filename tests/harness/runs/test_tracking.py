"""`run --track` offline: what wandb would sync is read back from the files that it wrote."""

from __future__ import annotations

import csv
import json
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.__main__ import main
from harness.evaluation.summary import Summary
from harness.runs import wandb as tracking
from harness.runs.source import recording_folder
from pools.errors import UserError

RECORDING = recording_folder("lightweight", "offline")
BLOCK = 32768


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: a LevelDB log (7 bytes of head, then fragments in blocks) of protobuf messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = BLOCK - at % BLOCK
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole record, or its last fragment
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a tracked run wrote: its own folder `out`, and wandb's."""
    pytest.importorskip("wandb")
    folder = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("WANDB_MODE", "offline")
        for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            monkeypatch.setenv(name, str(folder))
        arguments = ("--router", "random", "pipeline:qa-specialist>math-specialist", "--cost-weight", "0,1", "--track")
        command = ["harness", "run", "--recording", str(RECORDING), *arguments, "--out", str(folder / "out")]
        monkeypatch.setattr(sys, "argv", command)
        main()
    return folder


@pytest.fixture(scope="module")
def logged(tracked: Path) -> dict[str, list[Any]]:
    """The records of the one wandb run, by type."""
    (file,) = tracked.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60
    while True:
        found: dict[str, list[Any]] = defaultdict(list)
        for record in records(file):
            kind = record.WhichOneof("record_type")
            found[kind].append(getattr(record, kind))
        # wandb's own process writes the file, and on a busy machine some time after the run has ended.
        if "exit" in found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def test_one_run_with_name_group_and_flat_settings(tracked: Path, logged: dict[str, list[Any]]) -> None:
    run = logged["run"][0]
    group = "random pipeline:qa-specialist>math-specialist on offline"
    assert (run.project, run.run_group, run.job_type) == ("hierrouter-harness", group, "run")
    assert run.display_name == "random pipeline:qa-specialist>math-specialist on lightweight-offline"
    config = {entry.key: json.loads(entry.value_json) for entry in run.config.update if entry.key != "_wandb"}
    assert all(not isinstance(value, dict | list) for value in config.values())
    assert config["arguments.router"] == "random, pipeline:qa-specialist>math-specialist"
    assert (config["seed"], config["suite"], config["source.recording"]) == (1, "offline", "lightweight-offline")
    manifest = json.loads((tracked / "out" / "manifest.json").read_text())
    model = manifest["pool"]["models"][0]
    assert config[f"pool.models.{model['name']}.base_rate"] == model["base_rate"]


def test_figures_have_the_same_keys_in_every_run(tracked: Path, logged: dict[str, list[Any]]) -> None:
    found = {item.key: json.loads(item.value_json) for part in logged["summary"] for item in part.update if item.key}
    summary = json.loads((tracked / "out" / "summary.json").read_text())
    for name, entry in summary["routers"].items():
        for key in ("quality", "cost", "value", "regret", "hops"):
            assert found[f"{name}/{key}"] == pytest.approx(entry["overall"][key])
        assert found[f"{name}/macro/quality"] == pytest.approx(entry["macro"]["quality"])
        assert found[f"{name}/aiq"] == pytest.approx(summary["frontier_metrics"]["routers"][name]["aiq"])
    assert not any(isinstance(value, bool) for value in found.values())


def test_tables_hold_every_router_and_task(tracked: Path) -> None:
    def read(name: str) -> list[dict[str, Any]]:
        (file,) = tracked.glob(f"wandb/offline-run-*/files/media/table/{name}_*.table.json")
        table = json.loads(file.read_text())
        return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]

    summary = json.loads((tracked / "out" / "summary.json").read_text())["routers"]
    overall = {row["router"]: row for row in read("overall")}
    assert list(overall) == list(summary)
    for name, row in overall.items():
        figures = summary[name]["overall"]
        assert row["quality"] == pytest.approx(figures["quality"])
        assert [row["cost_low"], row["cost_high"]] == pytest.approx(figures["cost_interval"])
        assert row["calls:qa-specialist"] == pytest.approx(figures["calls"]["qa-specialist"])
    with (tracked / "out" / "tables.csv").open(newline="") as file:
        of_csv = list(csv.DictReader(file))
    of_wandb = read("tasks")
    assert [(row["router"], row["task"]) for row in of_wandb] == [(row["router"], row["task"]) for row in of_csv]
    assert [row["quality"] for row in of_wandb] == pytest.approx([float(row["quality"]) for row in of_csv])


def test_the_files_of_the_run_are_an_artifact(tracked: Path, logged: dict[str, list[Any]]) -> None:
    (artifact,) = (artifact for artifact in logged["artifact"] if artifact.type == "run-result")
    assert artifact.name == "offline-lightweight-offline"
    entries = {entry.path: entry for entry in artifact.manifest.contents}
    out = tracked / "out"
    written = {path.name: path.stat().st_size for path in out.iterdir() if path.name != tracking.IDENTITY}
    assert written == {path: entry.size for path, entry in entries.items()}
    for name, entry in entries.items():
        assert Path(entry.local_path).read_bytes() == (out / name).read_bytes()


def test_the_run_says_where_wandb_keeps_it(tracked: Path, logged: dict[str, list[Any]]) -> None:
    kept = json.loads((tracked / "out" / tracking.IDENTITY).read_text())
    assert (kept["id"], kept["project"]) == (logged["run"][0].run_id, "hierrouter-harness")


def test_nested_settings_become_dotted_keys() -> None:
    nested = {"a": 1, "b": {"c": None, "d": {"e": "x"}}, "f": [1, 2], "g": [], "h": [{"name": "m", "i": 2}, {"i": 3}]}
    assert dict(tracking.flat(nested)) == {
        "a": 1, "b.c": None, "b.d.e": "x", "f": "1, 2", "g": "", "h.m.name": "m", "h.m.i": 2, "h.1.i": 3,
    }  # fmt: skip


def test_a_run_that_wandb_does_not_take_is_said_in_one_line(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login`.")

    monkeypatch.setattr(wandb, "init", refuse)
    manifest = json.loads((tracked / "out" / "manifest.json").read_text())
    summary = Summary.model_validate_json((tracked / "out" / "summary.json").read_bytes())
    with pytest.raises(UserError) as caught:
        tracking.track(tracked / "out", manifest, summary)
    said = str(caught.value)
    assert "No API key" in said and "WANDB_MODE=offline" in said and str(tracked / "out") in said and "\n" not in said
