"""What `run --track` and `train --track` log, read back from the files that wandb writes offline."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import harness as package
import routers.ppo_hierrouter as trainer
from harness.report.wandb_report import IDENTITY
from harness.runs.folder import load_run
from routers.checkpoint import read_checkpoint
from routers.tracking import Tracking, flat, tracking_asked, way_to_wandb
from wandb_file import read_offline

wandb = pytest.importorskip("wandb")
RUN = ("--max-hops", 1, "--cost-weight", "0", "1", "--track", "--router")


@pytest.fixture(scope="module")
def offline() -> Iterator[Callable[[Path], None]]:
    """`offline(folder)`: what is tracked is written there; trainings are short."""
    real = trainer.train
    with pytest.MonkeyPatch.context() as patch:

        def to(folder: Path) -> None:
            wandb.teardown()  # it reads its variables once
            patch.setenv("WANDB_MODE", "offline")
            for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
                patch.setenv(name, str(folder))

        def short(options: Any, *more: Any) -> Any:
            return real(replace(options, total_trees=20 * options.num_trees, eval_every=5), *more)

        patch.setattr(trainer, "train", short)
        yield to
        wandb.teardown()


@pytest.fixture(scope="module")
def tracked(
    tmp_path_factory: pytest.TempPathFactory, small_recording: Path, offline: Any, harness: Callable[..., int]
) -> SimpleNamespace:
    """The folder of a tracked run that trained a policy, and what wandb wrote."""
    place = tmp_path_factory.mktemp("tracked")
    offline(place)
    asked = ("hierrouter", "single:reader", "--retrain", "--out", place / "out", "--wandb-tags", "quick", "nightly")
    where = ("--wandb-project", "ours", "--wandb-entity", "lab", "--wandb-group", "weekly", "--wandb-name", "first")
    assert harness("run", "--recording", small_recording, *RUN, *asked, *where) == 0
    return SimpleNamespace(folder=place / "out", logged=read_offline(place), summary=load_run(place / "out").summary)


def test_one_run_is_where_it_was_asked_for_with_flat_settings(tracked: SimpleNamespace) -> None:
    settings, config = tracked.logged.settings, tracked.logged.config
    told = {name: settings[name] for name in ("project", "entity", "group", "name", "tags", "job_type")}
    assert told == {
        **{"project": "ours", "entity": "lab", "group": "weekly", "name": "first"},
        **{"tags": ["quick", "nightly"], "job_type": "run"},
    }
    assert tracked.logged.exit_code == 0
    del config["_wandb"]
    assert not any(isinstance(value, dict | list) for value in config.values())
    assert config["arguments.router"] == "hierrouter, single:reader"
    assert (config["seed"], config["suite"], config["source.recording"]) == (1, "offline", "small")
    model = load_run(tracked.folder).manifest.pool["models"][0]
    assert config[f"pool.models.{model['name']}.base_rate"] == model["base_rate"]
    kept = json.loads((tracked.folder / IDENTITY).read_text())
    assert (kept["id"], kept["project"]) == (settings["id"], "ours")


def test_the_curve_of_a_training_and_what_was_kept_of_it_are_there(tracked: SimpleNamespace) -> None:
    at = "training/hierrouter-1/"
    rows = [row for row in tracked.logged.history if f"{at}step" in row]
    steps = [row[f"{at}step"] for row in rows if f"{at}losses/policy_loss" in row]
    assert len(steps) == 20 and steps == sorted(set(steps))
    values = {row[f"{at}step"]: row.get(f"{at}exact/validation_greedy_value") for row in rows[:-1]}
    looked = {step: value for step, value in values.items() if value is not None}
    assert list(looked) == [steps[n] for n in (4, 9, 14, 19)]
    kept = {key.removeprefix(f"{at}kept/"): v for key, v in tracked.logged.summary.items() if f"{at}kept/" in key}
    assert kept["greedy_value"] == pytest.approx(max(looked.values()))
    assert looked[kept["step"]] == kept["greedy_value"]
    assert {"quality", "cost", "regret"} <= set(kept)
    assert tracked.logged.summary["hierrouter/notes"].startswith("trained by this run")


def test_the_checkpoint_is_an_artifact_with_what_it_says_of_itself(tracked: SimpleNamespace) -> None:
    artifact = tracked.logged.artifacts["hierrouter-offline-small"]
    path = tracked.folder / "hierrouter.safetensors"
    assert (artifact["type"], artifact["files"]) == ("model", {path.name: path.stat().st_size})
    header = json.loads(read_checkpoint(path).header.model_dump_json())
    assert artifact["metadata"] == header and header["problem"]["max_hops"] == 1


def test_the_figures_of_the_report_are_images(tracked: SimpleNamespace) -> None:
    page = package.write_report([tracked.folder], tracked.folder.parent / "page.html")
    drawn = {path.stem: path for path in (page.parent / "page-figures").glob("*.png")}
    images = {k.removeprefix("figures/"): v for k, v in tracked.logged.summary.items() if k.startswith("figures/")}
    assert set(images) == set(drawn) and {"plane-1", "tasks-1"} <= set(drawn)
    for name, path in drawn.items():
        assert (tracked.logged.files / images[name]["path"]).read_bytes() == path.read_bytes()


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


def test_tables_hold_every_router_task_and_cost_weight(tracked: SimpleNamespace) -> None:
    overall, tasks, frontier = map(tracked.logged.table, ("overall", "tasks", "frontier"))
    assert [row["router"] for row in overall] == list(tracked.summary.routers)
    for row in overall:
        figures = tracked.summary.routers[row["router"]].overall
        assert row["quality"] == figures.quality
        assert (row["cost_low"], row["cost_high"]) == figures.cost_interval
        assert row["calls:reader"] == figures.calls["reader"]
    with (tracked.folder / "tables.csv").open(newline="") as file:
        assert [(r["router"], r["task"]) for r in csv.DictReader(file)] == [(r["router"], r["task"]) for r in tasks]
    points = {(row["cost_weight"], row["router"]): row for row in frontier}
    assert len(points) == len(frontier) == 2 * len(overall)
    for point in tracked.summary.frontier:
        for name, figures in point.routers.items():
            row = points[point.cost_weight, name]
            assert (row["quality"], row["cost"], row["value"]) == (figures.quality, figures.cost, figures.value)
            assert (row["quality_low"], row["quality_high"]) == figures.quality_interval


def test_the_files_of_the_run_are_an_artifact(tracked: SimpleNamespace) -> None:
    artifact = tracked.logged.artifacts["offline-small"]
    mine = [path for path in tracked.folder.iterdir() if path.name != IDENTITY and path.suffix != ".safetensors"]
    assert artifact["type"] == "run-result"
    assert artifact["files"] == {path.name: path.stat().st_size for path in mine}


def test_any_router_that_learns_is_tracked_by_train(
    tmp_path: Path, small_recording: Path, offline: Any, harness: Callable[..., int]
) -> None:
    for router in ("knn", "hierrouter"):
        (tmp_path / router).mkdir()
        offline(tmp_path / router)
        out = tmp_path / f"{router}.safetensors"
        assert harness("train", "--router", router, "--recording", small_recording, "--track", "--out", out) == 0
        logged = read_offline(tmp_path / router)
        assert (logged.settings["project"], logged.settings["job_type"]) == ("hierrouter-harness", "train")
        assert logged.settings["name"] == f"{router} on small, seed 1" and logged.exit_code == 0
        assert logged.artifacts[f"{router}-lightweight-offline"]["files"] == {out.name: out.stat().st_size}
        assert 0 < logged.summary["validation/quality"] < 1 and logged.config["router"] == router
    assert logged.summary["kept/greedy_value"] == max(
        row["exact/validation_greedy_value"] for row in logged.history if "exact/validation_greedy_value" in row
    )


def test_where_without_track_is_refused(small_recording: Path, harness: Callable[..., int], capsys: Any) -> None:
    for command in ("run", "train"):
        assert harness(command, "--recording", small_recording, "--wandb-name", "mine") == 2
        assert "--wandb-name says where --track logs to; add --track" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--wandb-tags", "nightly", "t" * 65), "--wandb-tags: 'ttt"),
        (("--wandb-project", "lab/routers"), "--wandb-project 'lab/routers'"),
        (("--wandb-project", "p" * 129), "--wandb-project 'ppp"),
    ],
)
def test_what_wandb_would_refuse_is_refused_before_the_run(
    asked: tuple[str, ...],
    message: str,
    tmp_path: Path,
    small_recording: Path,
    harness: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("a run was begun"))
    out = tmp_path / "out"
    assert harness("run", "--recording", small_recording, *RUN, "random", "--out", out, *asked) == 2
    assert message in capsys.readouterr().err and not out.exists()
    tracking = Tracking(project="p" * 128, tags=("t" * 64,))
    options = {f"wandb_{field.name}": getattr(tracking, field.name) for field in fields(tracking)}
    assert tracking_asked(SimpleNamespace(track=True, **options)) == tracking


def test_without_a_login_nothing_is_run(
    tmp_path: Path,
    small_recording: Path,
    harness: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wandb.teardown()  # it reads its variables once
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    for command in ("run", "train"):
        out = tmp_path / command
        assert harness(command, "--recording", small_recording, "--track", "--out", out) == 2
        assert "--track: wandb has no login here; wandb login, or WANDB_MODE=offline" in capsys.readouterr().err
        assert not out.exists()
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1:9 login user password {40 * '0'}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert way_to_wandb() == "a login"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert way_to_wandb() == "WANDB_MODE=disabled"
    wandb.teardown()


def test_nested_settings_become_dotted_keys() -> None:
    nested = {"a": 1, "b": {"c": None, "d": {"e": "x"}}, "f": [1, 2], "g": [], "h": [{"name": "m", "i": 2}, {"i": 3}]}
    assert dict(flat(nested)) == {
        "a": 1, "b.c": None, "b.d.e": "x", "f": "1, 2", "g": "", "h.m.name": "m", "h.m.i": 2, "h.1.i": 3,
    }  # fmt: skip


@pytest.mark.parametrize("kind", [wandb.errors.UsageError, ValueError])
def test_a_run_that_wandb_does_not_take_is_said_in_one_line(
    kind: type[Exception],
    tmp_path: Path,
    small_recording: Path,
    harness: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(**_: object) -> None:
        raise kind("No API key configured.\nUse `wandb login`.")

    monkeypatch.setattr(wandb, "init", refuse)
    assert harness("run", "--recording", small_recording, *RUN, "random", "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "No API key" in said and "WANDB_MODE=offline" in said and str(tmp_path) in said and said.count("\n") == 1
    assert load_run(tmp_path / "out")
