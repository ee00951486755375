"""Where a run's tree comes from: a recording, or the models themselves. One seam; no other code asks which."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from harness.runs.config import DEFAULT_HOPS, LIVE_STORE
from harness.runs.manifest import origin
from pools.cost import MAX_RATE, RECORDED, CostModel
from pools.data.recording import Recording
from pools.data.recording import load_recording as read_recording
from pools.data.store import TransitionStore
from pools.errors import UserError
from pools.mdp.tree import Tree
from pools.models.engine import timing_of
from pools.models.generator import LiveGenerator
from pools.models.progress import Progress
from pools.pool import CandidateModel, Pool, Resources, load_pool, pool_names
from pools.types import SHARE, Item
from tasks import Suite, Task, chosen_suite, load_suite, registry, suite_names
from tasks.code.sandbox.session import choose_isolation
from tasks.suite import DEFAULT_SUITE

DEFAULT_POOL = "lightweight"
RESULTS = Path(__file__).parents[2] / "results"
INDEPENDENT = "no model reads earlier answers"
"""What is said of cascades over a table of outcomes, wherever figures of them stand."""


@dataclass(frozen=True)
class Source:
    """A tree over the items of a suite, the pool that answers, and where it is from (for the manifest).

    generator: the live models; None for a recording.
    """

    tree: Tree
    pool: Pool
    suite: str
    description: dict[str, Any]
    generator: LiveGenerator | None = None


def recording_folder(pool: str, suite: str) -> Path:
    """Where the shipped recording of a pool and a suite is."""
    return RESULTS / "recordings" / recording_name(pool, suite)


def load_recording(folder: Path | str | None = None, cost: str = "paper") -> Recording:
    """A recording, by default the one that ships: its tree of all items, its pool and its manifest.

    cost: the cost model that the tree's costs are by. Raises UserError for what is no recording.
    """
    return read_recording(recording_folder(DEFAULT_POOL, DEFAULT_SUITE) if folder is None else folder, cost)


def recording_name(pool: str, suite: str) -> str:
    """What the recording of a pool and a suite, given by name or file, is called."""
    return "-".join(Path(n).stem if n.endswith((".yaml", ".yml")) else n for n in (pool, suite))


def open_source(
    *,
    pool: str | None = None,
    suite: str | None = None,
    tasks: Sequence[str] = (),
    include_path: Path | None = None,
    recording: Path | None = None,
    live: bool = False,
    weights: Path | None = None,
    store: Path = LIVE_STORE,
    limit: int | None = None,
    max_hops: int | None = None,
    cost: str = "paper",
    on_progress: Progress | None = None,
) -> Source:
    """A recording, by default the shipped one of the pool and suite; or, with `live`, the models themselves.

    tasks: only these, by default all; with live models and no suite, any tasks. include_path: folder of further task
    files. store: keeps what live models answer. limit: only the first so many documents of each task. max_hops: by
    default the recording's, 3 with live models. cost: name of the cost model. on_progress: is
    told of live models, as `pools.models.progress` has it.
    Raises UserError for what is not there, or does not fit together.
    """
    registry.check_folder(include_path)
    if live:
        if recording is not None:
            raise UserError("--live and --recording exclude each other; name one")
        hops = DEFAULT_HOPS if max_hops is None else max_hops
        chosen = chosen_suite(suite, tasks, include_path)
        return live_source(load_pool(pool or DEFAULT_POOL), chosen, hops, limit, weights, store, on_progress, cost=cost)
    if recording is None:
        pool = pool or DEFAULT_POOL
    asked_pool = None if pool is None else load_pool(pool)
    asked_suite = None if suite is None else load_suite(suite, include_path)
    if recording is None:
        assert pool is not None
        recording = recording_folder(pool, suite or DEFAULT_SUITE)
        if not recording.is_dir():
            raise UserError(
                f"no recording of pool {pool} and {suite or ', '.join(tasks) or DEFAULT_SUITE} ships; "
                f"{_how_to_record(pool, suite, tasks, include_path)}"
            )
    known = load_recording(recording, cost)
    there = list(dict.fromkeys(item.task for item in known.tree.items))
    names = [registry.name_of(task) for task in tasks]
    if unknown := [task for name, task in zip(names, tasks, strict=True) if name not in there]:
        task = next((task for task in unknown if not registry.exists(task, include_path)), unknown[0])
        instead = _instead_of(task, tasks, there, known.pool, pool, include_path)
        raise UserError(
            f"unknown task {registry.name_of(task)!r}: the recording {recording} has {', '.join(there)}; {instead}"
        )
    own_suite = asked_suite is not None and suite not in suite_names()
    if own_suite or include_path is not None or any(registry.is_file(task) for task in tasks):
        _check_same_tasks(chosen_suite(suite if own_suite else None, tasks, include_path), known, recording)
    source = _recorded(known, recording, max_hops, names, limit)
    if asked_pool is not None and not same_models(asked_pool.models, source.pool.models):
        raise UserError(
            f"the recording {recording} was made with other models, templates or rates than those of pool {pool}; "
            "record that pool (python -m harness record), or name the recording alone (--recording)"
        )
    if asked_suite is not None and asked_suite.name != source.suite:
        raise UserError(f"the recording {recording} is of suite {source.suite}, not of {suite}; name another recording")
    return source


def same_models(first: Sequence[CandidateModel], second: Sequence[CandidateModel]) -> bool:
    """Whether they are equal but for how and where they are run: a recording's manifest says that, and no key."""

    def alone(models: Sequence[CandidateModel]) -> list[CandidateModel]:
        how: dict[str, Any] = {"batch_size": 1, "patience": 0.0, "resources": Resources()}
        return [replace(m, arguments=m.answering_arguments, **how) for m in models]

    return alone(first) == alone(second)


def command_to_record(pool: str, suite: str | None, tasks: Sequence[str], include_path: Path | None) -> str:
    """The command that records what these name."""
    words = ["python -m harness record", "--pool", pool]
    words += ["--suite", suite or DEFAULT_SUITE] if suite or not tasks else []
    words += ["--task", *tasks] if tasks else []
    return " ".join(words + ([] if include_path is None else ["--include-path", str(include_path)]))


def _check_same_tasks(asked: Suite, recorded: Recording, folder: Path) -> None:
    """Raise UserError if a task that a file describes is not what was recorded under its name, if anything was.

    Tasks of lm-eval and of this project are known by their names, so that their data need not be there.
    """
    prints, there = recorded.manifest.get("tasks", {}), {item.task for item in recorded.tree.items}
    of_files = tuple(
        task
        for task in asked.tasks
        if registry.name_of(task.name) in there and not registry.ships(task.name, asked.include_path)
    )
    for task in replace(asked, tasks=of_files).load() if of_files else ():
        if prints.get(task.name) != task.fingerprint:
            raise UserError(
                f"the recording {folder} is of another task {task.name} than that file describes (items, wording, "
                "examples, metric or filter); record yours (python -m harness record)"
            )


def _how_to_record(pool: str, suite: str | None, tasks: Sequence[str], include_path: Path | None) -> str:
    """How to get a recording that is not there. Raises UserError if it cannot be, as nothing of that name exists."""
    chosen = chosen_suite(suite, tasks, include_path)
    folder = Path("runs") / "recordings" / recording_name(pool, suite or chosen.name)
    command = command_to_record(pool, suite, tasks, include_path)
    return f"record it ({command}) and name that recording (--recording {folder}), or ask the models (--live)"


def _instead_of(
    task: str, asked: Sequence[str], there: Sequence[str], recorded: Pool, pool: str | None, include_path: Path | None
) -> str:
    """What to do about a task that a recording has not: how to record all that were asked, if there is such a task."""
    if recorded.billed:
        return "it is a table that was imported, so name one of these"
    if registry.exists(task, include_path):
        of_pool = pool or (recorded.name if recorded.name in pool_names() else "POOL.yaml")
        return _how_to_record(of_pool, None, asked, include_path)
    elsewhere = difflib.get_close_matches(task, [*registry.names(), *registry.lm_eval_names()], n=2, cutoff=0.8)
    close = difflib.get_close_matches(task, there, n=1) or elsewhere
    return f"did you mean {' or '.join(close)}?" if close else "name one of these"


def _recorded(
    recording: Recording, folder: Path, max_hops: int | None, tasks: Sequence[str], limit: int | None
) -> Source:
    """The tree of a recording, or the part of it with fewer hops, tasks or items per task."""
    check_positive(max_hops=max_hops, limit=limit)
    tree, manifest = recording.tree, recording.manifest
    hops = tree.max_hops if max_hops is None else max_hops
    if hops > tree.max_hops and tree.independent:  # each answer is known, at any hop
        tree = tree.shortened(1).cascade(hops)
    if hops > tree.max_hops:
        more = "name a deeper one (--recording), record more (python -m harness record), or use the models (--live)"
        if recording.pool.billed:
            more = "or import the table again, as cascades (python -m harness import --hops)"
        raise UserError(f"--max-hops {hops}: the recording {folder} has {tree.max_hops} hops; ask for fewer, {more}")
    if hops < tree.max_hops:
        tree = tree.shortened(hops)
    if tasks or limit is not None:
        # As a task's own `items(limit)`: the first documents, not the first items.
        chosen = ((not tasks or item.task in tasks) and (limit is None or item.doc_id < limit) for item in tree.items)
        tree = tree.subset([number for number, taken in enumerate(chosen) if taken])
    description = {
        "recording": folder.name,
        "suite_version": manifest.get("suite_version", 1),
        "sha256": manifest.get("sha256", {}),
        "single_hop": manifest.get("single_hop", False) or (tree.independent and hops == 1),
        "independent_answers": tree.independent and hops > 1,
        **({"seconds": manifest["seconds"]} if tree.latency else {}),
        "recorded": {k: manifest.get(k) for k in ("date", "commit", "command", "versions", "models")},
    }
    return Source(tree, recording.pool, suite_of(recording, folder), description)


def lessons_for(known: Source, pool: Pool, max_hops: int, cost_model: CostModel) -> Source:
    """A recording as routers learn from it that will be used on a pool, which need not be the one that was recorded.

    The pool's models go by the names that they have in the recording; others of it are left out. Its pipelines have
    `max_hops`, its answers cost what the pool's do by `cost_model`; if either side's costs were recorded, both have to
    be in one unit. What was changed is `adapted` in the description.
    Raises UserError for models, hops or costs that the recording has not.
    """
    tree, name = known.tree, known.description["recording"]
    if unknown := [model for model in pool.model_names if model not in tree.models]:
        raise UserError(
            f"--train-on {name} has no answers of {', '.join(unknown)}: it is of {', '.join(tree.models)}; name a "
            "recording of the pool's models, by the same names"
        )
    adapted = []
    if tree.models != pool.model_names:
        tree = tree.of_models(pool.model_names)
        adapted.append("models")
    if max_hops > tree.max_hops and tree.independent:  # each answer is known, at any hop
        tree = tree.shortened(1).cascade(max_hops)
    if max_hops > tree.max_hops:
        raise UserError(
            f"--train-on {name} has {tree.max_hops} hops, and routers are used for {max_hops}; use --max-hops "
            f"{tree.max_hops}, or name a deeper recording"
        )
    if max_hops < tree.max_hops:
        tree = tree.shortened(max_hops)
    if RECORDED in (cost_model.name, tree.cost_model.name):
        if cost_model.unit != tree.cost_model.unit:
            units = [unit or "no unit, as none were recorded" for unit in (tree.cost_model.unit, cost_model.unit)]
            raise UserError(
                f"--train-on {name} has costs in {units[0]}, and routers are used with costs in {units[1]}; name a "
                "recording with costs of the same unit"
            )
    elif cost_model != tree.cost_model:
        tree = tree.at_rates(cost_model)
        adapted += [] if _rates(known.pool, pool.model_names) == _rates(pool, pool.model_names) else ["rates"]
    description = known.description | {"independent_answers": tree.independent and max_hops > 1}
    description["single_hop"] |= tree.independent and max_hops == 1
    return replace(known, tree=tree, description=description | ({"adapted": adapted} if adapted else {}))


def _rates(pool: Pool, models: Sequence[str]) -> list[tuple[float, ...]]:
    """What the pool file says that a token of each model costs."""
    of = {m.name: (m.base_rate, *((m.price.input, m.price.output) if m.price else ())) for m in pool.models}
    return [of[model] for model in models]


def suite_of(recording: Recording, folder: Path) -> str:
    """The suite that a recording says it is of. Raises UserError if it says none."""
    if "suite" not in recording.manifest:
        raise UserError(f"the recording {folder} names no suite in manifest.json; record it again")
    return str(recording.manifest["suite"])


def recorded_pool(recording: Recording, folder: Path) -> str:
    """The pool that a recording was made with: its file if that is where it was, else its name.

    Raises UserError if it was a file, which is gone, and none of that name ships.
    """
    file, name = _file_of("pool", recording, folder), recording.pool.name
    if file is None and name not in pool_names():
        raise _gone("pool", name, recording, folder)
    return file or name


def recorded_suite(recording: Recording, folder: Path, include_path: Path | None = None) -> Suite:
    """The suite that a recording was made with, or its tasks alone: by their files if these are where they were.

    include_path: folder of further task files, by default the one that the recording was made with. Raises UserError if
    they are not, and none of their names is known.
    """
    file, name = _file_of("suite", recording, folder), suite_of(recording, folder)
    files: dict[str, str] = recording.manifest.get("files", {})
    if include_path is None and "include_path" in files:
        include_path = folder / files["include_path"]
    if file or name in suite_names():
        return load_suite(file or name, include_path)
    tasks = dict.fromkeys(item.task for item in recording.tree.items)
    of_tasks = {task: folder / files[f"task:{task}"] for task in tasks if f"task:{task}" in files}
    try:
        return chosen_suite(None, [str(of_tasks.get(task, task)) for task in tasks], include_path)
    except UserError:
        raise _gone("suite", name, recording, folder) from None


def _file_of(what: Literal["pool", "suite"], recording: Recording, folder: Path) -> str | None:
    written = recording.manifest.get("files", {}).get(what)
    return str(folder / written) if written is not None and (folder / written).is_file() else None


def _gone(what: Literal["pool", "suite"], name: str, recording: Recording, folder: Path) -> UserError:
    files = recording.manifest.get("files", {})
    if (written := files.get(what)) is not None:
        return UserError(
            f"{folder} was recorded with the {what} {name}, which does not ship; its file was {written}, seen from "
            f"there; name it (--{what})"
        )
    tasks = ", or its tasks as record was given them (--task)" if what == "suite" else ""
    of_tasks = [path for key, path in files.items() if key.startswith("task:")]
    was = "".join(f"; its task's file was {path}, seen from there" for path in of_tasks)
    return UserError(
        f"{folder} was recorded with the {what} {name}, which does not ship{was}; name its file (--{what}){tasks}"
    )


def live_source(
    pool: Pool,
    suite: Suite,
    max_hops: int,
    limit: int | None,
    weights_dir: Path | None,
    store: Path,
    progress: Progress | None = None,
    resident: int | None = None,
    engine: str = "local",
    cost: str = "paper",
) -> Source:
    """A tree that asks the pool's models for what it does not know, by way of a transition store.

    engine: where the models run, as `local` or `ray:ADDRESS`.
    """
    check_positive(max_hops=max_hops, limit=limit)
    check_weights_folder(weights_dir)
    loaded = suite.load()
    items = [item for task in loaded for item in task.items(limit)]
    # An engine of one's own may obtain seconds as it likes.
    timing = {m.name: timing_of(m) if engine.partition(":")[0] in ("local", "ray") else SHARE for m in pool.models}
    kept = TransitionStore(store, origin(pool) | {"seconds": timing})
    generator = LiveGenerator(pool, weights_dir, kept, resident, progress, engine)
    tree = Tree(items, pool.model_names, max_hops, pool.cost_model(cost), generator, scorer(loaded))
    description = {
        "live": True,
        "store": str(store),
        "suite_version": suite.version,
        **fingerprints(pool, loaded, weights_dir),
    }
    return Source(tree, pool, suite.name, description, generator)


def fingerprints(pool: Pool, tasks: Sequence[Task], weights_dir: Path | None) -> dict[str, dict[str, str]]:
    """What identifies the answers and the scores: `models` and `tasks` by name."""
    return {
        "models": {model.name: pool.fingerprint(model, weights_dir) for model in pool.models},
        "tasks": {task.name: task.fingerprint for task in tasks},
    }


def choose_sandbox(wanted: str, say: Callable[[str], None]) -> str:
    """Set the isolation of programs that models write, and say which it is. Raises UserError if it does not work."""
    chosen = choose_isolation(wanted)
    say(f"programs that models write run with isolation {chosen}")
    return chosen


def prices_of(
    latency_weight: float, cost_weights: Sequence[float], several: bool, source: Source
) -> tuple[float, float] | None:
    """The prices of a reward that charges for seconds, too: of a unit of cost, and of a second; None if it does not.

    several: whether other cost weights will be asked for. Raises UserError if there is no latency to charge for.
    """
    if not 0 <= latency_weight <= MAX_RATE:
        raise UserError(
            f"--latency-weight {latency_weight:g}: expected a number >= 0, in quality per second, and at most "
            f"{MAX_RATE:g}"
        )
    if not latency_weight:
        return None
    if len(cost_weights) != 1 or several:
        raise UserError("--latency-weight goes with one cost weight, and not with --frontier; give one of these alone")
    check_latency(source, f"--latency-weight {latency_weight:g}")
    if not source.tree.complete:
        raise UserError(f"--latency-weight {latency_weight:g}: the recording is not complete; record the rest of it")
    return cost_weights[0], latency_weight


def check_latency(source: Source, asked: str) -> None:
    """Raise UserError, for what was asked, if the seconds of a source are no latency; it says how to get some."""
    if source.tree.latency:
        return
    shares = [name for name, timing in zip(source.tree.models, source.tree.timing, strict=True) if timing == SHARE]
    whose = "all models" if len(shares) == len(source.tree.models) else ", ".join(shares)
    why = f"the seconds of {whose} are shares of a batch's time, no latency"
    if source.generator is not None:
        why = "latency is taken from recordings, not with --live"
    raise UserError(
        f"{asked}: {why}; record models behind a server or with `batch_size: 1` (python -m harness record), or import "
        "a table with a column latency"
    )


def check_weights_folder(folder: Path | None) -> None:
    """Raise UserError if a folder of weights was named and there is none."""
    if folder is not None and not folder.is_dir():
        raise UserError(f"--weights {folder}: no such folder; name one that holds folders named as on the hub")


def scorer(tasks: Sequence[Task]) -> Any:
    """A `Scorer` that hands each answer to its item's task."""
    by_name = {task.name: task for task in tasks}

    def score(answers: Sequence[tuple[Item, str]]) -> list[float]:
        scores = [0.0] * len(answers)
        for name in dict.fromkeys(item.task for item, _ in answers):
            mine = [n for n, (item, _) in enumerate(answers) if item.task == name]
            given = by_name[name].score([(answers[n][0].doc_id, answers[n][1]) for n in mine])
            for number, value in zip(mine, given, strict=True):
                scores[number] = value
        return scores

    return score


def check_positive(**flags: int | None) -> None:
    """Raise UserError for an option below 1."""
    for name, number in flags.items():
        if number is not None and number < 1:
            raise UserError(f"--{name.replace('_', '-')} {number}: expected at least 1")
