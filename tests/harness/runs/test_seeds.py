"""Runs of several seeds: a row is the mean of its trainings, and what was trained outlives a run that is stopped."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from own_encoder import LETTERS

import harness as api
from harness.runs import kept, manifest
from harness.runs.folder import load_run
from pools.data.recording import load_recording
from pools.errors import UserError
from routers import RouterRequest, ppo_hierrouter
from routers.registry import teach

Harness = Callable[..., int]
STOPPED = 130


def asked(recording: Path, *more: object) -> tuple[object, ...]:
    return ("run", "--recording", recording, "--max-hops", 2, "--baselines", "no", *more)


def rows(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Quality and cost of each router by item."""
    table = pq.read_table(folder / "items.parquet").to_pylist()
    names = dict.fromkeys(row["router"] for row in table)
    return {n: {k: np.array([r[k] for r in table if r["router"] == n]) for k in ("quality", "cost")} for n in names}


def test_a_row_is_the_mean_of_the_runs_with_each_seed(
    small_recording: Path, tmp_path: Path, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    command = asked(small_recording, "--router", "mlp", "query-only", "random", "--cost-weight", "0.5", "2")
    for seed in (4, 5, 6):
        assert harness(*command, "--seed", seed, "--out", tmp_path / str(seed)) == 0
    assert harness(*command, "--seed", 4, "--seeds", 3, "--out", tmp_path / "all") == 0
    each, mean = [rows(tmp_path / str(seed)) for seed in (4, 5, 6)], rows(tmp_path / "all")
    assert not np.array_equal(
        each[0]["query-only"]["quality"], each[1]["query-only"]["quality"]
    )  # so the mean is of something
    for router in ("mlp", "query-only", "random"):
        for figure in ("quality", "cost"):
            assert np.allclose(mean[router][figure], np.mean([of[router][figure] for of in each], axis=0))
    run = load_run(tmp_path / "all")
    seeds = run.summary.routers["query-only"].seeds
    assert seeds is not None and list(seeds.trainings) == ["4", "5", "6"]
    alone = [load_run(tmp_path / str(seed)).summary.routers["query-only"].overall for seed in (4, 5, 6)]
    assert [f.value for f in seeds.trainings.values()] == pytest.approx([f.value for f in alone])
    assert seeds.value.deviation == pytest.approx(np.std([f.value for f in alone], ddof=1))
    assert run.summary.routers["query-only"].overall.notes[0] == "trained by this run, seeds 4 to 6"
    assert run.summary.routers["random"].seeds is None
    points = [load_run(tmp_path / str(seed)).summary.frontier for seed in (4, 5, 6)]
    assert run.summary.frontier is not None
    assert run.summary.frontier[1].routers["query-only"].quality == pytest.approx(
        np.mean([point[1].routers["query-only"].quality for point in points if point is not None])
    )
    tidy = (tmp_path / "all" / "tables.csv").read_text()
    assert tidy.count("query-only,seed ") == 3 and f"query-only,seed 5,68,{alone[1].quality}," in tidy
    tables = (tmp_path / "all" / "tables.md").read_text()
    assert "seeds ±" in tables and "| query-only, seed 5" in tables and "| query-only, mean" in tables
    capsys.readouterr()
    assert harness("compare", tmp_path / "all", "--against", "random") == 0
    assert (
        "mlp, query-only: means over several trainings; intervals here are over items alone" in capsys.readouterr().out
    )


def test_the_manifest_says_how_each_training_is_made_again(
    small_recording: Path, tmp_path: Path, harness: Harness
) -> None:
    arguments = (
        "--router-args",
        "knn:neighbours=[1,5]",
        "mlp:hidden=8",
        "--cost-weight",
        "0.5",
        "2",
        "--task",
        "records",
    )
    command = asked(small_recording, "--router", "knn", "mlp", *arguments, "--seeds", 2, "--out", tmp_path / "run")
    assert harness(*command) == 0
    learnt = load_run(tmp_path / "run").manifest.learnt
    assert [(of.router, of.seed) for of in learnt] == [("knn", 1), ("knn", 2), ("mlp", 1), ("mlp", 2)]
    for of in learnt:
        assert of.command is not None and of.file is not None
        said = shlex.split(of.command)
        again = [*said[3:-1], str(tmp_path / "again.safetensors"), "--force"]
        assert harness(*again) == 0
        assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "run" / of.file).read_bytes()
    assert [of.file for of in learnt] == [f"{name}-{seed}.safetensors" for name in ("knn", "mlp") for seed in (1, 2)]


def test_a_run_that_is_stopped_keeps_what_was_trained(
    small_recording: Path,
    tmp_path: Path,
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained: list[tuple[Any, int]] = []
    stops = [KeyboardInterrupt()]

    def taught(router: Any, request: RouterRequest, options: Any) -> Any:
        if (router, request.seed) == ("mlp", 2) and stops:
            raise stops.pop()
        trained.append((router, request.seed))
        return teach(router, request, options)

    command = asked(small_recording, "--router", "ridge", "mlp", "--seeds", 2, "--out")
    assert harness(*command, tmp_path / "whole") == 0
    monkeypatch.setattr(kept, "teach", taught)
    out = tmp_path / "stopped"
    assert harness(*command, out) == STOPPED
    said = capsys.readouterr()
    assert said.err == f"harness: stopped; what was trained is kept: --out {out} goes on from there\n"
    assert "kept" not in said.out
    assert trained == [("ridge", 1), ("ridge", 2), ("mlp", 1)]
    assert harness(*command, out) == 0
    assert trained == [("ridge", 1), ("ridge", 2), ("mlp", 1), ("mlp", 2)]
    assert "as trained before" in capsys.readouterr().out
    assert not (out / kept.UNFINISHED).exists()
    assert (out / "summary.json").read_bytes() == (tmp_path / "whole" / "summary.json").read_bytes()
    for name in ("ridge-1", "ridge-2", "mlp-1", "mlp-2"):
        file = f"{name}.safetensors"
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_training_that_is_stopped_says_how_it_goes_on(
    small_recording: Path, tmp_path: Path, harness: Harness, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "one.safetensors"
    command = ("train", "--recording", small_recording, "--router-args", "total_trees=3000,save_every=1", "--out", out)

    def stop(*parts: Any) -> None:
        if not before:
            real(*parts)
        raise KeyboardInterrupt

    before, real = True, ppo_hierrouter._save
    monkeypatch.setattr(ppo_hierrouter, "_save", stop)
    assert harness(*command) == STOPPED
    assert "stopped; nothing was written yet: start it again" in capsys.readouterr().err
    before = False
    assert harness(*command) == STOPPED
    assert f"stopped; --resume goes on from {out}.state" in capsys.readouterr().err
    monkeypatch.setattr(ppo_hierrouter, "_save", real)
    assert harness(*command, "--resume") == 0


BAD = """
import numpy as np
from routers import register

@register("bad")
class Bad:
    def __init__(self, request): pass
    def act(self, states):
        {}
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return np.full(len(states.contexts), 99)", "act returned 99"),
        ("return np.where(states.hop == 1, 99, 0)", "act returned 99"),
        ("return states.queri", "an error in a router"),
    ],
)
def test_a_router_that_fails_does_so_before_others_are_trained(
    body: str, said: str, small_recording: Path, tmp_path: Path, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.py").write_text(BAD.format(body))
    out = tmp_path / "out"
    command = ("run", "--recording", small_recording, "--router", "knn", tmp_path / "bad.py", "--out", out)
    assert harness(*command) == 2
    seen = capsys.readouterr()
    assert said in seen.err and not seen.out and not out.exists()


def test_after_bad_input_baselines_alone_are_not_kept_and_after_a_crash_they_are(
    small_recording: Path, tmp_path: Path, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is right on the first item, and wrong when all are evaluated."""
    many = "return np.full(len(states.contexts), 0 if len(states.contexts) == 1 else {})"
    for number, (wrong, asked_for, keeps) in enumerate([("99", [], False), ("99", ["knn"], True), ("1 / 0", [], True)]):
        file, out = tmp_path / f"bad-{number}.py", tmp_path / f"out-{number}"
        file.write_text(BAD.format(many.format(wrong)))
        assert harness("run", "--recording", small_recording, "--router", file, *asked_for, "--out", out) == 2
        said = " ".join(capsys.readouterr().out.split())
        assert "training query-only" in said
        assert (f"kept: --out {out} goes on" in said) == (out / kept.UNFINISHED).is_dir() == out.exists() == keeps


def test_a_training_that_is_stopped_goes_on_where_it_was(
    small_recording: Path, tmp_path: Path, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--retrain", "--router-args", "total_trees=3000,save_every=1,num_trees=300")
    command = asked(small_recording, "--router", "hierrouter", *options, "--out")
    assert harness(*command, tmp_path / "whole") == 0
    saved: list[int] = []

    def save(path: Path, identity: str, iteration: int, *parts: Any) -> None:
        real(path, identity, iteration, *parts)
        saved.append(iteration)
        if len(saved) == 4:
            raise KeyboardInterrupt

    real = ppo_hierrouter._save
    monkeypatch.setattr(ppo_hierrouter, "_save", save)
    assert harness(*command, tmp_path / "stopped") == STOPPED
    assert harness(*command, tmp_path / "stopped") == 0
    assert saved == [*range(1, 11)]
    file = "hierrouter.safetensors"
    assert (tmp_path / "stopped" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_what_is_kept_is_of_whatever_decides_it(small_recording: Path, tmp_path: Path) -> None:
    tree = load_recording(small_recording).tree.shortened(1)
    request = RouterRequest(
        models=tree.models, cost_model=tree.cost_model, cost_weight=2.0, seed=1, train=tree.select("train")
    )
    file = tmp_path / "mine.py"
    page = (Path(__file__).parents[3] / "docs" / "guides" / "routers.md").read_text(encoding="utf-8")
    file.write_text(page.split("```python\n# word_router.py\n")[1].split("```")[0], encoding="utf-8")
    rng = np.random.default_rng(0)
    fewer = replace(request, train=tree.select("train").subset(rng.permutation(20)))
    paths = [
        kept.kept_in(tmp_path, of).path(name, of, options)
        for name, of, options in (
            ("knn", request, {}),
            ("ridge", request, {}),
            ("knn", request, {"neighbours": "[3]"}),
            ("knn", replace(request, seed=2), {}),
            ("knn", replace(request, cost_weight=1.0), {}),
            ("knn", replace(request, frontier=True), {}),
            ("knn", fewer, {}),
            (str(file), request, {}),
        )
    ]
    file.write_text(file.read_text() + "\n# edited\n")
    paths.append(kept.kept_in(tmp_path, request).path(str(file), request, {}))
    encoder = tmp_path / "letters.py"
    for text in (LETTERS, LETTERS + "\n# edited\n"):
        encoder.write_text(text)
        paths.append(kept.kept_in(tmp_path, request).path("knn", request, {"encoder": str(encoder)}))
    assert len(set(paths)) == len(paths)
    assert kept.kept_in(tmp_path, request).path("knn", request, {}) == paths[0]


def test_shipped_policies_of_the_seeds_are_used(
    small_by_default: Path, tmp_path: Path, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.runs import checkpoints

    folder = tmp_path / "policies"
    for seed in (1, 2):
        out = folder / small_by_default.name / f"hierrouter-{seed}.safetensors"
        assert harness("train", "--router-args", "total_trees=600,num_trees=300", "--seed", seed, "--out", out) == 0
    monkeypatch.setattr(checkpoints, "FOLDER", folder)
    options = ("--baselines", "no", "--router-args", "total_trees=600,num_trees=300")
    assert harness("run", "--seeds", 3, *options, "--out", tmp_path / "run") == 0
    run = load_run(tmp_path / "run")
    notes = run.summary.routers["hierrouter"].overall.notes
    assert notes[:2] == ["shipped policy, seeds 1 to 2", "trained by this run, seed 3"]
    assert [(of.seed, of.sha256 is not None) for of in run.manifest.learnt] == [(1, True), (2, True), (3, False)]
    assert [path.name for path in (tmp_path / "run").glob("*.safetensors")] == ["hierrouter-3.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"seeds": 0}, "--seeds 0: expected how many seeds"),
        ({"seeds": 2, "seed": 2**32 - 1}, "--seeds 2: expected how many seeds"),
        ({"seeds": 2, "budget": {"cost": 0.02}}, "omit --seeds"),
    ],
)
def test_what_makes_no_seeds_is_said(small_recording: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        api.evaluate("knn", small_recording, **arguments)


def test_runs_of_other_seeds_differ_in_their_seeds(small_recording: Path, tmp_path: Path, harness: Harness) -> None:
    for count in (1, 2):
        command = asked(small_recording, "--router", "ridge", "--seeds", count, "--task", "records")
        assert harness(*command, "--out", tmp_path / str(count)) == 0
    one, two = (load_run(tmp_path / str(count)).manifest for count in (1, 2))
    assert manifest.differences(one, two) == ["seeds: none -> 2"]
    assert json.loads((tmp_path / "2" / "manifest.json").read_text())["arguments"]["seeds"] == 2
