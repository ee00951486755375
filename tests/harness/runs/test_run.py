"""`run`, `train` and `record` on real input: the shipped recording, and tiny real models."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from shipped import POLICY, RECORDING

import harness as harness_package
from harness.evaluation.summary import Summary
from harness.runs.manifest import provenance
from harness.tables.grid import overall_grid
from pools.cost import COST_WEIGHT
from pools.data.recording import load_recording
from pools.data.store import TransitionStore
from pools.models.progress import Batch
from pools.pool import load_pool
from routers import load, ppo_hierrouter
from routers.fixed import FixedRouter
from tasks import load_suite

Harness = Callable[..., int]


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def default_run(tmp_path_factory: pytest.TempPathFactory, harness: Harness) -> Path:
    """The run of the README."""
    out = tmp_path_factory.mktemp("run") / "out"
    assert harness("run", "--router", "hierrouter", "--out", out) == 0
    return out


def test_the_default_run_has_every_row_and_the_documented_form(default_run: Path) -> None:
    found = summary(default_run)
    baselines = [
        *(f"single:{m}" for m in load_pool("lightweight").model_names),
        "random",
        "best-pipeline",
        "best-pipeline-per-task",
    ]
    baselines += ["best-pipeline-per-kind", "query-only"]
    assert list(found["routers"]) == ["hierrouter", *baselines, "oracle"]
    tasks = {task.name for task in load_suite("offline").tasks}
    for entry in found["routers"].values():
        assert set(entry["tasks"]) == tasks
        for figures in (entry["overall"], entry["macro"], *entry["tasks"].values()):
            assert {"quality", "quality_interval", "cost", "cost_interval", "quality_ahead"} <= set(figures)
            for name in ("quality", "cost"):
                low, high = figures[f"{name}_interval"]
                assert low - 1e-12 <= figures[name] <= high + 1e-12
            assert figures["cost_interval"][0] > 0
        assert entry["overall"]["regret"] >= 0
        assert entry["overall"]["exact"]
    overall = {name: entry["overall"] for name, entry in found["routers"].items()}
    assert overall["oracle"]["regret"] == 0
    assert overall["oracle"]["gap_closed"] == pytest.approx(1)
    best = max((n for n in overall if n.startswith("single:")), key=lambda n: overall[n]["value"])
    assert overall[best]["gap_closed"] == 0
    assert overall[best]["quality_ratio"] == 1
    bars = [n for n in overall if n not in ("hierrouter", "random", "oracle")]
    assert all(overall["hierrouter"]["value"] > overall[bar]["value"] for bar in bars)


def test_what_is_marked_is_the_difference_to_the_best_bar(default_run: Path) -> None:
    found = Summary.model_validate_json((default_run / "summary.json").read_text())
    overall = {name: entry.overall for name, entry in found.routers.items()}
    bars = [name for name in overall if name not in ("hierrouter", "random", "oracle")]
    best = max(bars, key=lambda name: overall[name].value)
    assert found.best_bar == best and not best.startswith("single:")
    gap = overall["oracle"].value - overall[best].value
    rows = pq.read_table(default_run / "items.parquet").to_pylist()
    value = {
        name: np.array([r["quality"] - COST_WEIGHT * r["cost"] for r in rows if r["router"] == name])
        for name in overall
    }
    grid = overall_grid(found)
    for row in grid.rows:
        figures = overall[row.name]
        ahead = value[row.name] - value[best]
        assert figures.value_ahead_of_bar == pytest.approx(ahead.mean())
        assert figures.gap_closed_from_bar == pytest.approx(ahead.mean() / gap)
        draws = np.random.default_rng(7).choice(ahead, (2000, len(ahead))).mean(axis=1)
        assert figures.value_ahead_of_bar_interval == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.015)
        for task, of_task in found.routers[row.name].tasks.items():
            theirs = found.routers[best].tasks[task].quality
            assert of_task.quality_ahead_of_bar == pytest.approx(of_task.quality - theirs)
    lines = {row.name: row.cells[-1].lines for row in grid.rows}
    assert lines[best][1] == "0%" and lines["oracle"][1] == "100%" and lines["random"][1].startswith(("-", "< -"))
    marks = {row.name: row.mark for row in grid.rows}
    assert (marks[best], marks["random"], marks["hierrouter"], marks["oracle"]) == ("", "-", "+", "+")
    assert any(f"worse in value than {best}" in clause for clause in grid.caption)


def test_a_single_models_row_is_what_the_parquet_says(default_run: Path) -> None:
    items = {(r["task"], r["doc_id"]): r["split"] for r in pq.read_table(RECORDING / "items.parquet").to_pylist()}
    table = pq.read_table(RECORDING / "transitions.parquet")
    rows = table.filter(pc.equal(pc.list_value_length(table["pipeline"]), 1)).to_pylist()
    mine = [r for r in rows if r["pipeline"] == ["reader"] and items[r["task"], r["doc_id"]] == "test"]
    entry = summary(default_run)["routers"]["single:reader"]
    assert entry["overall"]["items"] == len(mine)
    assert entry["overall"]["quality"] == pytest.approx(np.mean([r["score"] for r in mine]))
    [rate] = [model.base_rate for model in load_pool("lightweight").models if model.name == "reader"]
    assert entry["overall"]["cost"] == pytest.approx(np.mean([rate * (r["tokens_in"] + r["tokens_out"]) for r in mine]))
    for task, figures in entry["tasks"].items():
        assert figures["quality"] == pytest.approx(np.mean([r["score"] for r in mine if r["task"] == task]))


def test_the_run_says_how_to_make_it_again(default_run: Path) -> None:
    manifest = json.loads((default_run / "manifest.json").read_text())
    assert manifest["seed"] == 1
    assert manifest["arguments"]["router"] == ["hierrouter"]
    assert set(manifest["source"]["sha256"]) == {"items.parquet", "transitions.parquet"}
    assert "torch" in manifest["versions"]
    assert manifest["cost_model"]["source"]
    tables = (default_run / "tables.md").read_text()
    assert "| hierrouter" in tables and "| single:reader - |" in tables
    assert "T param-tokens" in tables


def test_same_seed_same_summary_and_the_checkpoint_gives_it_too(
    default_run: Path, small_recording: Path, tmp_path: Path, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert harness("run", "--out", tmp_path / "again") == 0
    assert summary(tmp_path / "again") == summary(default_run)
    assert summary(default_run)["routers"]["hierrouter"]["overall"]["notes"] == ["shipped policy, seed 1"]

    def short(args: ppo_hierrouter.Args, *parts: Any) -> Any:
        return real(replace(args, total_timesteps=10_000), *parts)

    real = ppo_hierrouter.train
    monkeypatch.setattr(ppo_hierrouter, "train", short)
    on = ("--recording", small_recording)
    assert harness("run", *on, "--retrain", "--out", tmp_path / "trained") == 0
    assert harness("train", *on, "--out", tmp_path / "policy.safetensors") == 0
    assert harness("run", *on, "--checkpoint", tmp_path / "policy.safetensors", "--out", tmp_path / "loaded") == 0
    loaded, trained = summary(tmp_path / "loaded"), summary(tmp_path / "trained")
    notes = [found["routers"]["hierrouter"]["overall"].pop("notes") for found in (trained, loaded)]
    assert [note[0] for note in notes] == ["trained by this run", "from policy.safetensors"]
    assert notes[0][1:] == notes[1][1:] and loaded == trained


def test_what_flatters_a_router_and_what_bounds_it_is_said_in_its_row(
    small_recording: Path, tmp_path: Path, harness: Harness
) -> None:
    policy, out = tmp_path / "p.safetensors", tmp_path / "out"
    on = ("--recording", small_recording)
    assert harness("train", *on, "--total-timesteps", 10_000, "--out", policy, "--preset", "paper") == 0
    arguments = ("--checkpoint", policy, "--split", "all", "--preset", "paper", "--cost-weight", 0.5)
    assert harness("run", *on, *arguments, "--router", "hierrouter", "oracle:per-item", "--out", out) == 0
    rows = {name: entry["overall"] for name, entry in summary(out)["routers"].items()}
    assert rows["hierrouter"]["notes"][-2:] == [
        f"trained at cost weight {COST_WEIGHT:g} alone",
        "on items it was trained or chosen on",
    ]
    assert {name: row["notes"] for name, row in rows.items() if row["bound"]} == {
        "oracle:per-item": ["cheapest way to each item's best score: a bound"],
        "oracle:no-stop": ["optimum of exactly L hops: a bound"],
        "oracle": ["exact optimum: a bound"],
    }
    assert rows["hierrouter"]["hops"] == rows["oracle:no-stop"]["hops"] == 3 > rows["oracle"]["hops"]
    # The optimum that may stop bounds them all, the single models too, which always may.
    assert all(row["regret"] >= -1e-12 for name, row in rows.items())
    assert rows["oracle:no-stop"]["value"] < rows["oracle"]["value"]


@dataclass(frozen=True)
class Always:
    """Learns nothing, and calls one model once."""

    model: str

    def fit(self, train: Any, validation: Any, request: Any) -> Any:
        return load(f"single:{self.model}", request)


BELOW = "value below the best single model's on validation items"


@pytest.mark.parametrize(
    ("model", "weights", "note"),
    [
        ("calculator", [0.0], BELOW),
        ("qwen2.5-coder-0.5b", [0.0], None),
        ("qwen2.5-coder-0.5b", [0.0, 100.0, 1000.0], f"{BELOW} at cost weights 100, 1000"),
        ("calculator", [0.0, 0.1], BELOW),
    ],
)
def test_a_learner_below_the_best_single_model_on_validation_items_says_so(
    model: str, weights: list[float], note: str | None, small_recording: Path
) -> None:
    options = {"always": {"model": model}}
    made = harness_package.evaluate(
        {"always": Always}, small_recording, baselines="no", cost_weights=weights, router_args=options
    )
    found = [text for text in made.summary.routers["always"].overall.notes if text.startswith("value below")]
    assert found == ([] if note is None else [note])


@pytest.fixture
def changing(tmp_path: Path, harness: Harness) -> Callable[[str], Path]:
    """A recording of 100 train items and 20 of `split`: `late` is right on these and on every fifth of those.

    `early` is right on the others. Queries tell nothing.
    """

    def recording(split: str) -> Path:
        with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["item", "task", "prompt", "model", "score", "cost", "split"])
            for n in range(140):
                of = "train" if n % 7 < 5 else ("test", split)[n % 7 - 5]
                late = n % 7 == 4 or n % 7 == 6
                for model, right in (("early", not late), ("late", late)):
                    writer.writerow([1000 + n, "t", f"question {1000 + n}", model, float(right), 1, of])
        assert harness("import", tmp_path / "t.csv", "--out", tmp_path / "recording") == 0
        return tmp_path / "recording"

    return recording


def test_without_validation_items_learners_are_compared_on_the_train_items_that_are_held_out(
    changing: Callable[[str], Path],
) -> None:
    # Every fifth train item is held out, on which `late` is right.
    recording = changing("test")
    for model, below in (("early", True), ("late", False)):
        made = harness_package.evaluate(
            {"always": Always}, recording, baselines="no", router_args={"always": {"model": model}}
        )
        assert (BELOW in made.summary.routers["always"].overall.notes) == below


@pytest.mark.parametrize("router", ["fitted-q", "query-only"])
def test_nothing_is_said_of_a_router_that_is_fitted_on_validation_items_too(
    router: str, changing: Callable[[str], Path]
) -> None:
    # On train and validation items together `early` is the better model, on validation items alone `late`.
    asked: dict[str, Any] = {"always": Always, router: router}
    options = {"always": {"model": "early"}}
    made = harness_package.evaluate(asked, changing("validation"), baselines="no", router_args=options)
    rows = {name: of.overall for name, of in made.summary.routers.items()}
    assert rows[router].collapsed_to == rows["always"].collapsed_to == "early"
    assert BELOW in rows["always"].notes and BELOW not in rows[router].notes


def test_another_pool_than_was_recorded_is_refused(
    tmp_path: Path, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    import pools

    shipped = (Path(pools.__file__).parent / "lightweight.yaml").read_text(encoding="utf-8")
    (tmp_path / "lightweight.yaml").write_text(shipped.replace("base_rate: 0.000494033", "base_rate: 7.0"))
    assert harness("run", "--pool", tmp_path / "lightweight.yaml", "--out", tmp_path / "out") == 2
    assert "other models, templates or rates" in capsys.readouterr().err
    # How many requests a batch has, and where it runs, says nothing of a model.
    elsewhere = "device: cpu, num_concurrent: 2, gpu_memory_utilization: 0.5"
    run_otherwise = shipped.replace("batch_size: 64", "batch_size: 2").replace(
        "dtype: float32", f"dtype: float32, {elsewhere}"
    )
    assert run_otherwise.count(elsewhere) == 6
    (tmp_path / "lightweight.yaml").write_text(run_otherwise)
    arguments = ("--router", "single:reader", "--baselines", "no", "--pool", tmp_path / "lightweight.yaml")
    assert harness("run", *arguments, "--out", tmp_path / "out") == 0


def test_part_of_the_recording(tmp_path: Path, harness: Harness) -> None:
    arguments = ("--task", "records", "human_eval", "--limit", 7, "--max-hops", 1, "--split", "all")
    assert harness("run", "--router", "random", *arguments, "--out", tmp_path / "part") == 0
    found = summary(tmp_path / "part")
    assert found["items"] == 14
    assert found["routers"]["random"]["overall"]["hops"] == pytest.approx(1)
    singles = [found["routers"][f"single:{m}"]["overall"]["quality"] for m in load_pool("lightweight").model_names]
    assert found["routers"]["random"]["overall"]["quality"] == pytest.approx(np.mean(singles))


def test_several_cost_weights_give_the_frontier_of_one_policy(
    small_recording: Path, tmp_path: Path, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    on = ("--recording", small_recording)
    arguments = ("--checkpoint", POLICY, "--cost-weight", "0", "0.1", "30")
    assert harness("run", *on, *arguments, "--out", tmp_path / "out") == 0
    assert "by cost weight" in capsys.readouterr().out
    found = summary(tmp_path / "out")
    points = {point["cost_weight"]: point["routers"] for point in found["frontier"]}
    assert list(points) == [0.0, 0.1, 30.0] and found["cost_weight"] == 0.0
    for weight, routers in points.items():
        assert set(routers) == set(found["routers"])
        for name, figures in routers.items():
            assert figures["value"] == pytest.approx(figures["quality"] - weight * figures["cost"])
            assert figures["regret"] >= -1e-12
            assert name != "oracle" or figures["regret"] == 0
    assert points[0.0]["random"]["quality"] == points[30.0]["random"]["quality"]
    for name in ("hierrouter", "best-pipeline", "oracle"):
        assert points[30.0][name]["cost"] < points[0.0][name]["cost"]
    # One that was trained for a single weight cannot follow, and says so.
    assert harness("train", *on, "--total-timesteps", 10_000, "--out", tmp_path / "one.safetensors") == 0
    arguments = ("--checkpoint", tmp_path / "one.safetensors", "--cost-weight", "0.1", "0.3")
    assert harness("run", *on, *arguments, "--out", tmp_path / "fixed") == 0
    fixed = summary(tmp_path / "fixed")
    assert f"trained at cost weight {COST_WEIGHT:g} alone" in fixed["routers"]["hierrouter"]["overall"]["notes"]
    assert len({point["routers"]["hierrouter"]["cost"] for point in fixed["frontier"]}) == 1


def test_record_goes_on_after_an_interruption_and_replays_as_live(
    tiny_pool_file: Path,
    tiny_tasks: Path,
    tmp_path: Path,
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    selection = ("--pool", tiny_pool_file, "--suite", tiny_tasks / "suite.yaml", "--max-hops", 2)
    assert harness("record", *selection, "--store", tmp_path / "a.sqlite", "--out", tmp_path / "whole") == 0

    batches: list[Batch] = []

    @contextmanager
    def interrupted(_: Any) -> Iterator[Any]:
        def on_progress(event: Any) -> None:
            batches.extend([event] if isinstance(event, Batch) and event.done else [])
            if len(batches) == 5:
                raise KeyboardInterrupt

        yield on_progress

    command = ("record", *selection, "--store", tmp_path / "b.sqlite", "--out", tmp_path / "resumed")
    with monkeypatch.context() as patched:
        patched.setattr("harness.recorder.record.generation_progress", interrupted)
        assert harness(*command) == 130
    assert "goes on from there" in capsys.readouterr().err
    assert not (tmp_path / "resumed").exists()
    stored = len(TransitionStore(tmp_path / "b.sqlite"))
    assert stored == 5 * 4  # five batches of four
    assert harness(*command) == 0
    whole, resumed = load_recording(tmp_path / "whole").tree, load_recording(tmp_path / "resumed").tree
    assert len(TransitionStore(tmp_path / "a.sqlite")) == len(TransitionStore(tmp_path / "b.sqlite"))
    np.testing.assert_array_equal(whole.score, resumed.score)
    np.testing.assert_array_equal(whole.cost, resumed.cost)
    assert whole.contexts == resumed.contexts
    assert 0 < whole.score[:, 1:].mean() < 1

    replay = ("run", "--recording", tmp_path / "whole", "--split", "all", "--router", "pipeline:tiny-b>tiny-a")
    assert harness(*replay, "--out", tmp_path / "recorded") == 0
    live = ("run", "--live", *selection, "--split", "all", "--router", "pipeline:tiny-b>tiny-a")
    assert harness(*live, "--store", tmp_path / "c.sqlite", "--out", tmp_path / "live") == 0
    rows = [pq.read_table(tmp_path / name / "items.parquet").to_pylist() for name in ("recorded", "live")]
    mine = [r for r in rows[0] if r["router"] == "pipeline:tiny-b>tiny-a"]
    assert mine == rows[1]


def test_a_run_from_python_says_what_it_was_asked_for(small_recording: Path) -> None:
    models = load_pool("lightweight").model_names

    class First:
        def act(self, states: Any) -> Any:
            return np.where(states.hop == 0, 0, len(models))

    asked: dict[str, Any] = {"seed": 4, "cost_weights": [0.5], "tasks": ["records"]}
    made = harness_package.evaluate({"first": First()}, small_recording, baselines="no", **asked)
    asked = made.manifest.arguments.model_dump()
    assert (asked["router"], asked["cost_weight"], asked["seed"], asked["task"]) == (("first",), [0.5], 4, ["records"])
    assert made.summary.routers["first"].overall.collapsed_to == models[0]
    with pytest.raises(harness_package.UserError, match="router a has no `act`"):
        harness_package.evaluate({"a": object()})


def test_what_was_trained_is_evaluated_tabulated_and_drawn(small_recording: Path, tmp_path: Path) -> None:
    taught = harness_package.train("knn", small_recording)
    made = harness_package.evaluate([taught, "random"], small_recording)
    by_name = harness_package.evaluate({"mine": taught, "knn": "knn"}, small_recording, baselines="no")
    overall = {name: entry.overall.quality for name, entry in by_name.summary.routers.items()}
    assert list(made.summary.routers)[:2] == ["knn", "random"] and overall["mine"] == overall["knn"]
    over_all, both = made.table(), made.table(None)
    assert list(over_all.index) == list(made.summary.routers)
    for name, entry in made.summary.routers.items():
        assert (
            over_all.loc[name, "quality"] == entry.overall.quality and over_all.loc[name, "cost"] == entry.overall.cost
        )
        assert made.table("records").loc[name, "quality"] == entry.tasks["records"].quality
    assert len(both) == len(made.summary.routers) * len(both["task"].unique())
    drawn = made.plot()
    assert made.summary.title in repr(drawn) and drawn._repr_png_().startswith(b"\x89PNG")
    assert len(drawn.parts) == len(made.summary.routers)
    on_records = harness_package.evaluate("random", small_recording, tasks=["records"], baselines="no")
    with pytest.raises(harness_package.UserError, match="not evaluated on the same items"):
        harness_package.plot([made.save(tmp_path / "all"), on_records.save(tmp_path / "records")])
    made.save(tmp_path / "all")  # the same again
    with pytest.raises(harness_package.UserError, match="all holds another run"):
        on_records.save(tmp_path / "all")
    one, other = FixedRouter((0,), 6), FixedRouter((1,), 6)
    for router, said in ((one, None), (one, None), (other, "all2 holds another run")):
        with nullcontext() if said is None else pytest.raises(harness_package.UserError, match=said):
            harness_package.evaluate({"mine": router}, small_recording, baselines="no").save(tmp_path / "all2")
    with pytest.raises(harness_package.UserError, match="all2 holds another run"):
        harness_package.evaluate({"mine": one}, small_recording, baselines="yes").save(tmp_path / "all2")
    replaced = harness_package.load_run(on_records.save(tmp_path / "all", force=True))
    assert replaced.summary == on_records.summary
    harness_package.train("knn", small_recording, out=tmp_path / "knn.safetensors")
    with pytest.raises(harness_package.UserError, match="it differs in seed"):
        harness_package.train("knn", small_recording, seed=2, out=tmp_path / "knn.safetensors")


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["harness", "run", "--seed", "2"], "python -m harness run --seed 2"),
        (["/a/harness/__main__.py", "run"], "python -m harness run"),
        (["study.py", "--api-key", "secret"], "python study.py --api-key '***'"),
    ],
)
def test_the_command_of_a_manifest_is_what_was_typed(
    argv: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", argv)
    assert provenance()["command"] == command


def test_a_task_of_a_file_is_not_mistaken_for_one_of_that_name_that_was_recorded(
    small_recording: Path, tmp_path: Path, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "items.jsonl").write_text('{"question": "Capital of France?", "answer": "Paris"}\n')
    (tmp_path / "sums.yaml").write_text(
        f"task: sums\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/items.jsonl}}}}\n"
        'test_split: test\noutput_type: generate_until\ndoc_to_text: "{{question}}"\ndoc_to_target: "{{answer}}"\n'
        "metric_list: [{metric: exact_match}]\n"
    )
    run = ("run", "--recording", small_recording, "--router", "random", "--out", tmp_path / "run")
    suite = tmp_path / "suite.yaml"
    suite.write_text(f"name: {load_recording(small_recording).manifest['suite']}\ntasks: [{{name: sums.yaml}}]\n")
    of_file = ("--task", tmp_path / "sums.yaml"), ("--task", "sums", "--include-path", tmp_path), ("--suite", suite)
    for asked in of_file:
        assert harness(*run, *asked) == 2
        assert "is of another task sums than that file describes" in capsys.readouterr().err
    assert harness(*run, "--task", "sums") == 0
