"""Evaluate routers on a suite: quality versus cost. What `harness.evaluate` and `python -m harness run` do."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from harness.evaluation.evaluate import Outcome, mean_outcome
from harness.evaluation.evaluate import evaluate as outcome_of
from harness.evaluation.frontier_metrics import FrontierMetrics, frontier_metrics
from harness.evaluation.latency import decision_seconds
from harness.evaluation.metrics import value
from harness.evaluation.summary import ARROW, Summary, frontier_point, newly_worded, pipeline_models, summarise
from harness.evaluation.sweep import Sweep, collect, seen_of, sweep, sweepable
from harness.runs.checkpoints import shipped_checkpoint
from harness.runs.config import LIVE_STORE, TRACKING
from harness.runs.folder import check_run_target, load_run, new_run
from harness.runs.goals import AMOUNTS, Reached, check_goals, checked_goals, read_amount, set_and_judge, written_amount
from harness.runs.kept import UNFINISHED, any_kept, file_name, kept_in
from harness.runs.manifest import Arguments, LearntFile, Manifest, provenance, write_json, write_text
from harness.runs.progress import generation_progress
from harness.runs.routers import (
    BOUNDS,
    OPTIMUM,
    Named,
    RouterLike,
    RunRouter,
    assemble,
    below_best_single,
    check_checkpoint,
    items_apart,
    named,
    options_of_learners,
    row_notes,
    with_baselines,
)
from harness.runs.source import (
    INDEPENDENT,
    Source,
    check_latency,
    choose_sandbox,
    lessons_for,
    open_source,
    prices_of,
    recording_name,
)
from harness.runs.train import training_command, training_facts
from harness.tables.export import latex, markdown, tidy, tidy_rows
from harness.tables.grid import ALL, Grid, grids
from harness.tables.terminal import tables
from pools.cost import COST_WEIGHT, MAX_RATE
from pools.errors import UserError, shown
from pools.mdp.tree import Tree
from pools.models.progress import Progress
from pools.secrets import clean
from pools.types import UpstreamError
from pools.weights import file_hash
from routers import RouterRequest, load
from routers.encoders.base import ENCODERS
from routers.options import parse_arguments
from routers.registry import Taught, learns, registered_name, row_name
from routers.router import Log, Training

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from harness.report.figures.style import Drawing
    from harness.runs.config import Run

# Of what a router's own model costs, whatever unit the pool's costs are in: its parameters / 10^12 per token.
ENCODER_UNIT = "T param-tokens"
MAX_SEEDS = 1000
SplitName = Literal["train", "validation", "test", "all"]


@dataclass(frozen=True)
class Evaluation:
    """What routers attained on items, and how that was made; in memory alone until `save`.

    summary: every figure of every router (docs/reference/summary.md). manifest: how it was made. tree: the items, and
    what the models answered. routers: all of them; of one that was trained with several seeds each training. outcomes:
    of each router on each item, at the first cost weight, the mean over its trainings. taught: by router, what learnt
    anew for `no_worse_than`.
    """

    summary: Summary
    manifest: Manifest
    tree: Tree
    routers: tuple[RunRouter, ...]
    outcomes: dict[str, Outcome]
    taught: Mapping[str, Taught] = field(default_factory=dict)

    @property
    def grids(self) -> list[Grid]:
        """The tables: over all items, by task and, with several cost weights, by cost weight."""
        return grids(self.summary)

    def items(self) -> pd.DataFrame:
        """A row per router and item; the columns are documented in docs/reference/run-folder.md."""
        return items_table(self.outcomes, self.tree).to_pandas()

    def table(self, task: str | None = ALL) -> pd.DataFrame:
        """A row per router, over all items or of one task; None: per router and task. The columns are tables.csv's."""
        import pandas as pd

        rows = pd.DataFrame(tidy_rows(self.summary)).set_index("router")
        kept = rows if task is None else rows[rows["task"] == task].drop(columns="task")
        return kept.dropna(axis="columns", how="all")

    def plot(self) -> Drawing:
        """Quality against cost, each router with its 95% intervals. A notebook shows it."""
        import harness

        with tempfile.TemporaryDirectory() as scratch:
            return harness.plot([self.save(Path(scratch) / "run")])

    def markdown(self) -> str:
        """The tables as Markdown."""
        return "\n".join(map(markdown, self.grids))

    def report(self, path: Path | str) -> Path:
        """Write the report, one HTML file that needs no network, its figures beside it; where it is."""
        import harness

        with tempfile.TemporaryDirectory() as scratch:
            return harness.write_report([self.save(Path(scratch) / Path(path).stem)], path)

    def save(self, folder: Path | str, force: bool = False) -> Path:
        """Write the run's folder, whole or not at all; where it is.

        It holds `summary.json`, `items.parquet`, `manifest.json`, the tables as `.md`, `.tex` and `.csv`, and the
        checkpoints of routers that were asked for and trained, those of `no_worse_than` as `NAME.no-worse-than`. Raises
        UserError if the folder holds something else, or, without `force`, a run that was asked for something else.
        """
        import pyarrow.parquet as pq

        folder = Path(folder)
        if not force:
            # Of a router that is no name nothing says what it is but its figures.
            named = all(isinstance(each.given, str) for each in self.routers)
            _check_not_another(folder, self.manifest.arguments, None if named else self.summary)
        with new_run(folder) as to:
            taught = [(each.name, _checkpoint_name(each, self.routers), each.taught) for each in self.routers]
            taught += [(name, f"{file_name(name)}.no-worse-than.safetensors", it) for name, it in self.taught.items()]
            for name, checkpoint, learnt in taught:
                if learnt is not None and name in self.manifest.arguments.asked:
                    learnt.save(to / checkpoint)
            # As an open file: pyarrow takes a path with a colon for an address.
            with (to / "items.parquet").open("wb") as file:
                table = items_table(self.outcomes, self.tree)
                pq.write_table(table, file, compression="zstd")
            write_text(self.markdown(), to / "tables.md")
            write_text("\n".join(latex(grid, self.summary.title) for grid in self.grids), to / "tables.tex")
            write_text(tidy(self.summary), to / "tables.csv")
            write_json(self.summary.model_dump(mode="json"), to / "summary.json")
            hashes = {path.name: file_hash(path) for path in sorted(to.iterdir())}
            manifest = self.manifest.model_copy(update={"sha256": hashes})
            write_json(manifest.model_dump(mode="json"), to / "manifest.json")
        return folder


def evaluate(
    routers: RouterLike | Taught | Sequence[RouterLike | Taught] | Mapping[str, RouterLike | Taught] = "hierrouter",
    recording: Path | str | None = None,
    *,
    train_on: Path | str | None = None,
    pool: str | None = None,
    suite: str | None = None,
    tasks: Sequence[str] = (),
    include_path: Path | str | None = None,
    live: bool = False,
    weights: Path | str | None = None,
    store: Path | str = LIVE_STORE,
    sandbox: str = "auto",
    limit: int | None = None,
    split: SplitName = "test",
    max_hops: int | None = None,
    allow_stop: bool = True,
    preset: Literal["default", "paper"] = "default",
    cost: str = "paper",
    cost_weights: float | Sequence[float] = COST_WEIGHT,
    latency_weight: float = 0.0,
    frontier: bool = False,
    strong: str | None = None,
    weak: str | None = None,
    budget: Mapping[str, float] | None = None,
    cap: Mapping[str, float] | None = None,
    no_worse_than: Mapping[str, float] | None = None,
    confidence: float = 0.95,
    router_args: Mapping[str, Mapping[str, Any]] | None = None,
    encoder: str = "hashing",
    checkpoint: Path | str | None = None,
    retrain: bool = False,
    baselines: Literal["auto", "yes", "no"] = "auto",
    seed: int = 1,
    seeds: int = 1,
    keep: Path | str | None = None,
    arguments: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
    on_progress: Progress | None = None,
    log: Log | None = None,
) -> Evaluation:
    """Evaluate routers: quality and cost with intervals, beside baselines and the exact optimum.

    routers: a name (`python -m harness list routers`), a router (what has `act`, or what `train` gives), the class of
    one, several of these, or a mapping to them from the names of their rows.
    recording: folder to replay, by default the shipped one of the pool and suite. train_on: another one to learn from,
    of models of the same names, by default the same. live: ask the pool's models instead; store: keeps what they
    answer. tasks: only these; with live models and no suite any. include_path: folder of more task files. limit: only
    the first so many documents of each task.
    cost_weights: the lambda of the reward, in quality per unit of cost; several give a frontier.
    latency_weight: quality given up for a second, where the recording has latency; with one cost weight.
    frontier: also with a single cost weight. AIQ, cost at parity, APGR and CPT do not depend on the weights: each
    router is swept over as many as its curve takes, if the tree is complete and has costs.
    budget, cap: what an item may cost on average, and what any item may cost, as {"cost": 0.02}, or take, in seconds,
    as {"latency": 2}: routers are set to the best quality within it on validation items, and judged on the others.
    no_worse_than: a model and a margin in quality, as {"gpt-4": 0.01}: routers are set to the least cost at which they
    are, with `confidence`, not below it by more.
    router_args: options of routers that learn, by router. checkpoint: of one that was trained; without it one that
    ships is used if it fits, or the router is trained on the train items.
    baselines: each single model, random, the best pipelines and the optimum; auto: not with live models.
    seeds: with how many seeds, from `seed` on, each router that learns is trained; its figures are means over these,
    and how far they lie apart is said beside. keep: folder that keeps every trained router, so that a call that was
    stopped goes on from there.
    arguments: what the manifest keeps besides of how this was called. say: is told what takes a while; on_progress: of
    live models, as `pools.models.progress` has it; log: of each iteration of a training. The others are the options of
    `python -m harness run`.
    Raises UserError for what is not there, or does not fit together.
    """
    start = time.monotonic()
    recording, train_on, weights, checkpoint, include = (
        None if p is None else Path(p) for p in (recording, train_on, weights, checkpoint, include_path)
    )
    lambdas = _checked_weights(cost_weights)
    goals = checked_goals(budget, cap, no_worse_than, confidence)
    if checkpoint is not None and not checkpoint.is_file():
        what = "is a folder; name a .safetensors file" if checkpoint.is_dir() else "is not there"
        raise UserError(f"--checkpoint {checkpoint} {what}; train one with python -m harness train")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed {shown(seed)}: expected a whole number >= 0, and below 2**32")
    if not 1 <= seeds <= MAX_SEEDS or seed + seeds > 2**32:
        raise UserError(f"--seeds {shown(seeds)}: expected how many seeds, from --seed on; at most {MAX_SEEDS}")
    if seeds > 1 and goals is not None:
        raise UserError("--budget, --cap and --no-worse-than set one training of a router: omit --seeds")
    ENCODERS.find(encoder)  # one in a file is known from here on, to checkpoints, too
    asked = named(routers)
    if not asked:
        raise UserError("`--router` is empty; omit it to use hierrouter, or see python -m harness list routers")
    if seeds > 1 and not any(isinstance(given, Named) and learns(given) for given in asked.values()):
        raise UserError(f"--seeds {seeds} has no effect: none of {', '.join(asked)} learns; omit it")
    if live:
        choose_sandbox(sandbox, say)
    known = None if train_on is None else open_source(recording=train_on)
    if live and known is not None and max_hops is None:
        max_hops = known.tree.max_hops
    source = open_source(
        pool=pool, suite=suite, tasks=tasks, include_path=include, recording=recording, live=live, weights=weights,
        store=Path(store), limit=limit, max_hops=max_hops, cost=cost, on_progress=on_progress,
    )  # fmt: skip
    if goals is not None and latency_weight:
        raise UserError("--budget, --cap and --no-worse-than set routers by cost weights alone: omit --latency-weight")
    if goals is not None and split != "test":
        raise UserError(
            f"{goals.asked} sets routers on validation items and judges them on test items: omit --split {split}"
        )
    if goals is not None and goals.resource == "latency":
        check_latency(source, goals.asked)
    prices = prices_of(latency_weight, lambdas, frontier, source)
    whole_tree = source.tree if prices is None else source.tree.charged(*prices)
    if not allow_stop and whole_tree.max_hops == 1:
        raise UserError("--no-allow-stop has no effect with one hop, as nothing can be called after it; leave it out")
    lessons = source
    if known is not None:
        lessons = lessons_for(known, source.pool, source.tree.max_hops, source.tree.cost_model)
        prices_of(latency_weight, lambdas, frontier, lessons)  # it has to have latency, too
    learnt_from = lessons.tree if prices is None else lessons.tree.charged(*prices)
    tree = whole_tree if split == "all" else whole_tree.select(split)
    if not tree.items:
        raise UserError(f"no items of split {split!r} in this selection; raise --limit, or use --split all")
    if frontier and not tree.cost_model.unit and strong is None and len(tree.models) != 2:
        raise UserError(
            "--frontier: no costs were recorded, and APGR and CPT are of two models: name --strong, --weak, or omit it"
        )
    _check_two_models(strong, weak, frontier or len(lambdas) > 1, tree.models)
    train, validation = learnt_from.select("train"), learnt_from.select("validation")
    rewards = lambdas if prices is None else (1.0,)
    request = RouterRequest(
        models=tree.models,
        max_hops=tree.max_hops,
        allow_stop=allow_stop and preset != "paper",
        cost_model=tree.cost_model,
        cost_weight=rewards[0],
        cost_weights=rewards if len(rewards) > 1 else (),
        prices=prices,
        frontier=frontier or len(lambdas) > 1 or goals is not None,
        seed=seed,
        weights=weights,
        train=train,
        validation=validation,
        evaluation=tree,
        training=Training(log=log, facts=training_facts(lessons, () if known else tasks, None if known else limit)),
    )
    if goals is not None:
        check_goals(goals, request)
    with_them = asked
    if baselines == "yes" or (baselines == "auto" and not live):
        with_them = with_baselines(asked, source.pool, not live, train.items, request.allow_stop)
    own = {row_name(name): given for name, given in (router_args or {}).items()}
    options = options_of_learners(with_them, {"encoder": encoder, "preset": preset}, own)
    of_checkpoint = None if checkpoint is None else check_checkpoint(checkpoint, with_them, own)

    def checkpoint_of(router: Named, given: Mapping[str, Any], of_seed: int) -> Path | None:
        if checkpoint is not None:
            return checkpoint if registered_name(router) == of_checkpoint else None
        whole = known is not None or (not tasks and limit is None)
        with_seed = replace(request, seed=of_seed)
        return None if retrain else shipped_checkpoint(router, given, with_seed, lessons, whole)

    kept = None if keep is None else kept_in(Path(keep), request)
    of_seeds = range(seed, seed + seeds)
    rows = assemble(with_them, options, checkpoint_of, checkpoint is None, request, of_seeds, kept, say)
    assembled = [row[0] for row in rows.values()]
    swept: list[dict[str, Outcome]] = []
    trainings: list[dict[str, dict[int, Outcome]]] = []  # of the rows with several, at each cost weight
    below_single: dict[str, list[float]] = {name: [] for name in rows}
    apart = items_apart(request)
    for weight in rewards:
        at_weight = replace(request, cost_weight=weight)
        built = {
            name: [each.router if weight == rewards[0] else each.at(at_weight) for each in row]
            for name, row in rows.items()
        }
        of_row = {
            name: {
                each.seed: outcome_of(router, tree, each.seed) for each, router in zip(row, built[name], strict=True)
            }
            for name, row in rows.items()
        }
        swept.append({name: mean_outcome([*outcomes.values()]) for name, outcomes in of_row.items()})
        trainings.append({name: outcomes for name, outcomes in of_row.items() if len(outcomes) > 1})
        for name, row in rows.items():
            if apart is not None and below_best_single(row, built[name], apart[1], weight, prices):
                below_single[name].append(weight)
    learnt = {item.query for part in (train, validation) for item in part.items}
    seen = split != "test" if known is None else any(item.query in learnt for item in tree.items)
    on = "" if known is None else str(lessons.description["recording"])
    notes = {name: row_notes(row, rewards, below_single[name], seen, on) for name, row in rows.items()}
    new_wording = None if request.train is None else newly_worded(tree.items, request.train.items)
    metrics = None
    if frontier or len(lambdas) > 1:
        metrics = _frontier_metrics(dict(zip(lambdas, swept, strict=True)), rows, request, strong, weak, say)
    reached = Reached() if goals is None else set_and_judge(assembled, request, goals, say)
    own_seconds = {
        router.name: decision_seconds(router.router, tree, swept[0][router.name].end, seed)
        for router in assembled
        if tree.latency and router.name not in BOUNDS
    }
    points = [
        _figures(*at, latency_weight, tree, seed, notes, new_wording, own_seconds)
        for at in zip(swept, trainings, lambdas, strict=True)
    ]
    summary = points[0].model_copy(
        update={
            "title": _title(source, split, len(tree.items), tasks),
            "split": split,
            "frontier": [frontier_point(point) for point in points] if len(points) > 1 else None,
            "frontier_metrics": metrics,
            "budget": reached.within,
            "no_worse_than": reached.at_risk,
        }
    )
    asked_for: dict[str, Any] = {
        **{"router": tuple(asked), "pool": pool, "suite": suite, "recording": recording, "task": list(tasks)},
        **{"include_path": include, "train_on": train_on, "seeds": seeds},
        **{"live": live, "weights": weights, "store": store, "baselines": baselines, "retrain": retrain},
        **{"limit": limit, "split": split, "max_hops": max_hops, "allow_stop": allow_stop, "preset": preset},
        **{"cost": cost, "cost_weight": list(lambdas)},
        **{"latency_weight": latency_weight, "encoder": encoder},
        **{"checkpoint": checkpoint, "seed": seed, "frontier": frontier, "strong": strong, "weak": weak},
        "budget": budget and written_amount(budget),
        "cap": cap and written_amount(cap),
        "no_worse_than": no_worse_than and written_amount(no_worse_than),
        "confidence": confidence,
        "router_args": [f"{name}:{key}={given}" for name, of in own.items() for key, given in of.items()],
        **(arguments or {}),
        "rows": tuple(asked),
    }
    everyone = tuple(each for row in rows.values() for each in row)
    manifest = Manifest(
        **provenance(),
        source=source.description,
        cost_model=tree.cost_model,
        seconds=round(time.monotonic() - start, 2),
        seed=seed,
        arguments=_arguments(asked_for),
        suite=source.suite,
        max_hops=tree.max_hops,
        pool=source.pool.to_dict(),
        learnt_from=None if known is None else lessons.description,
        learnt=[_learnt(each, everyone, asked_for, lessons) for each in everyone if each.from_where],
    )
    return Evaluation(summary, manifest, tree, everyone, swept[0], reached.taught)


def run(options: Run, console: Console, log: Log | None = None) -> Path:
    """Evaluate, print the tables and write the run's folder; where it is. log: as of `evaluate`."""
    was_there = options.out is not None and options.out.exists()
    out = options.out or new_folder("run")
    kept = out / UNFINISHED
    kept_before = kept.exists()
    check_run_target(out)
    if not options.force:
        _check_not_another(out, _arguments(vars(options)))
    out.mkdir(parents=True, exist_ok=True)  # what cannot be written is known before anything is computed
    of_the_command = ("router", "task", "cost_weight", "router_args", *AMOUNTS, "out", "force", *TRACKING)
    amounts: dict[str, Any] = {name: read_amount(name, getattr(options, name)) for name in AMOUNTS}
    try:
        with generation_progress(console) as on_progress:
            evaluation = evaluate(
                **{key: given for key, given in vars(options).items() if key not in of_the_command},
                routers=options.router,
                tasks=options.task,
                cost_weights=options.cost_weight,
                router_args=read_router_args(options.router_args, options.router),
                **amounts,
                arguments=vars(options),
                keep=kept,
                say=lambda text: console.print(text, highlight=False, markup=False),
                on_progress=on_progress,
                log=log,
            )
        evaluation.save(out, force=True)
    except BaseException as error:
        bad_input = isinstance(error, UserError) and not isinstance(error, UpstreamError)
        if bad_input and not kept_before and not any_kept(kept, options.router):
            shutil.rmtree(kept, ignore_errors=True)  # baselines alone
        with suppress(OSError):  # something is kept there, or nothing ever was
            kept.rmdir()
        next_step = [f"what was trained is kept: --out {out} goes on from there"] if kept.is_dir() else []
        if not was_there:
            with suppress(OSError):  # another program wrote there meanwhile, or it is gone
                out.rmdir()
        if isinstance(error, KeyboardInterrupt):
            next_step += [f"what live models answered is kept in {options.store}"] if options.live else []
            raise KeyboardInterrupt("; ".join(next_step)) from None
        for text in next_step:
            console.print(text, highlight=False, markup=False)
        raise
    for table in (table for grid in evaluation.grids for table in tables(grid, console.width)):
        console.print(table, end="\n\n")
    console.print(f"written to {out}", highlight=False, markup=False)
    return out


def _arguments(given: Mapping[str, Any]) -> Arguments:
    """What a run is asked for, as its manifest keeps it."""
    return Arguments.model_validate(
        {name: clean(str(each)) if isinstance(each, Path | str) else each for name, each in given.items()}
    )


def _check_not_another(out: Path, asked: Arguments, summary: Summary | None = None) -> None:
    """Raise UserError if the folder holds a run that was asked for something else, or has another summary than this."""
    try:
        run = load_run(out)
    except UserError:  # none, or a damaged one
        return
    there = run.manifest
    before, now = there.arguments.model_dump(mode="json"), asked.model_dump(mode="json")
    compared = now.keys() & before.keys() - {"out", "force", "rows", *TRACKING}
    if any(before[name] != now[name] for name in compared) or summary not in (None, run.summary):
        raise UserError(f"{out} holds another run ({there.command}); name a new folder, or replace it with --force")


def _checkpoint_name(router: RunRouter, among: Sequence[RunRouter]) -> str:
    """The file of a training in the run's folder; with its seed if there are several."""
    several = sum(other.name == router.name for other in among) > 1
    return f"{file_name(router.name)}{f'-{router.seed}' if several else ''}.safetensors"


def _learnt(router: RunRouter, among: Sequence[RunRouter], asked_for: Mapping[str, Any], lessons: Source) -> LearntFile:
    """What a router of a run learnt, where it is, and how to make it again."""
    if router.checkpoint is not None:
        # What ships is named as in the project: results/policies/RECORDING/ROUTER-SEED.safetensors.
        loaded = str(Path(*router.checkpoint.parts[-4:]) if router.ships else router.checkpoint)
        digest = file_hash(router.checkpoint)
        return LearntFile(router=router.name, seed=router.seed, how=router.from_where, file=loaded, sha256=digest)
    file = _checkpoint_name(router, among) if router.name in asked_for["rows"] else None
    again = None
    if isinstance(router.given, str) and not lessons.description.get("adapted"):
        again = training_command(router, asked_for)
    return LearntFile(router=router.name, seed=router.seed, how=router.from_where, file=file, command=again)


def new_folder(kind: str) -> Path:
    """A new folder under runs/ that no other run has."""
    name = time.strftime(f"{kind}-%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):  # of a run in the same second
            path.mkdir(parents=True)
            break
    return path


def read_router_args(texts: Sequence[str], routers: Sequence[str]) -> dict[str, dict[str, str]]:
    """`--router-args` by router: of the one that each names, or of the only one. Raises UserError for another form."""
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        router, colon, arguments = text.rpartition(":") if ":" in text.partition("=")[0] else ("", "", text)
        if not colon and len(routers) != 1:
            raise UserError(f"--router-args {text}: of which router? write NAME:{text}, one of {', '.join(routers)}")
        found.setdefault(router if colon else routers[0], {}).update(parse_arguments(arguments))
    return found


def _checked_weights(weights: float | Sequence[float]) -> tuple[float, ...]:
    several = tuple(dict.fromkeys(map(float, [weights] if isinstance(weights, int | float) else weights)))
    if not several or not all(0 <= weight <= MAX_RATE for weight in several):
        given = " ".join(map(str, several))
        raise UserError(
            f"--cost-weight {given}: expected a number >= 0, in quality per unit of cost, and at most {MAX_RATE:g}, "
            "or several as in 0 0.1 1"
        )
    return several


def _title(source: Source, split: str, items: int, tasks: Sequence[str]) -> str:
    """What was evaluated on what, in one line; a recording is named unless it is the usual one.

    tasks: those of the suite that were asked for; empty for all.
    """
    of = source.description
    recording, one_hop, independent = of.get("recording"), of.get("single_hop"), of.get("independent_answers")
    usual = one_hop or independent or recording in (None, recording_name(source.pool.name, source.suite))
    on = f"{source.pool.name} on {source.suite}" + ("" if usual else f" (recording {recording})")
    on += f", {'task' if len(tasks) == 1 else 'tasks'} {', '.join(tasks)}" if tasks else ""
    how = ", one call each" if one_hop else ""
    if independent:
        how = f", cascades of {source.tree.max_hops} hops ({INDEPENDENT})"
    return f"{on}: {items} {'' if split == 'all' else f'{split} '}items{how}"


def _figures(
    outcomes: Mapping[str, Outcome],
    trainings: Mapping[str, Mapping[int, Outcome]],
    cost_weight: float,
    latency_weight: float,
    tree: Tree,
    seed: int,
    notes: Mapping[str, Sequence[str]],
    new_wording: NDArray[np.bool_] | None,
    own_seconds: Mapping[str, float],
) -> Summary:
    """The figures at one cost weight."""
    weights = cost_weight, latency_weight
    singles = [outcome for name, outcome in outcomes.items() if name.startswith("single:")]
    best_single = max(singles, key=lambda outcome: value(outcome, *weights).mean(), default=None)
    about = seed, notes, ENCODER_UNIT, new_wording
    return summarise(outcomes, best_single, OPTIMUM, tree, cost_weight, *about, latency_weight, own_seconds, trainings)


def _frontier_metrics(
    swept: Mapping[float, Mapping[str, Outcome]],
    rows: Mapping[str, Sequence[RunRouter]],
    request: RouterRequest,
    strong: str | None,
    weak: str | None,
    say: Callable[[str], None],
) -> FrontierMetrics:
    """AIQ, cost at parity, APGR and CPT. Live models that no row asked are not asked for it.

    swept: the routers' outcomes at each of the run's cost weights.
    """
    tree = request.evaluation
    assert tree is not None
    at_first = next(iter(swept.values()))
    singles = {
        model: collect({0.0: seen_of(at_first.get(name) or outcome_of(load(name, request), tree), tree)})
        for model in tree.models
        for name in [f"single:{model}"]
        if name in at_first or tree.complete
    }
    if len(singles) < len(tree.models):
        if strong is not None:
            raise UserError("--strong and --weak need every single model's answers: add --baselines yes")
        singles = {}
    costs = bool(tree.cost_model.unit)
    given = {
        name: collect({weight: seen_of(of[name], tree) for weight, of in swept.items()}, found=False) for name in rows
    }
    sweeps = dict(given)
    if costs and tree.complete and sweepable(tree):
        say("sweeping the routers over cost weights ...")
        for name, row in rows.items():
            if row[0].follows:
                sweeps[name] = _sweep(row, request)
            elif not (isinstance(row[0].given, Named) and learns(row[0].given)):  # the same whatever cost weighs
                sweeps[name] = collect({request.cost_weight: seen_of(at_first[name], tree)})
    one_call_each = tree.max_hops == 1 or tree.independent
    return frontier_metrics(given, sweeps, singles, costs, one_call_each, request.seed, strong, weak)


def _sweep(row: Sequence[RunRouter], request: RouterRequest) -> Sweep:
    tree = request.evaluation
    assert tree is not None

    def at(weight: float) -> Outcome:
        with_weight = replace(request, cost_weight=weight)
        return mean_outcome([outcome_of(each.at(with_weight), tree, each.seed) for each in row])

    return sweep(at, tree)


def _check_two_models(strong: str | None, weak: str | None, frontier: bool, models: Sequence[str]) -> None:
    """Raise UserError if `--strong` and `--weak` are not two models of the pool, or there is no frontier."""
    if strong is None and weak is None:
        return
    if strong is None or weak is None or strong == weak:
        raise UserError("--strong and --weak go together: name two models of the pool")
    unknown = [model for model in (strong, weak) if model not in models]
    if unknown:
        raise UserError(f"unknown model {unknown[0]!r} in --strong, --weak: the pool has {', '.join(models)}")
    if not frontier:
        raise UserError(
            "--strong and --weak are for a frontier: add --frontier, or give several cost weights, as in 0 0.1 1"
        )


def items_table(outcomes: Mapping[str, Outcome], tree: Tree) -> pa.Table:
    """A row per router and item: what it attained, in expectation; without costs their column is null."""
    import pyarrow as pa

    count = len(tree.items)
    columns = {
        "router": np.repeat(list(outcomes), count).tolist(),
        "task": [item.task for item in tree.items] * len(outcomes),
        "doc_id": [item.doc_id for item in tree.items] * len(outcomes),
        "split": [item.split for item in tree.items] * len(outcomes),
    }
    for name in ("quality", "cost", "routing_cost", "hops"):
        columns[name] = np.concatenate([getattr(outcome, name) for outcome in outcomes.values()]).tolist()
    if not tree.cost_model.unit:
        columns["cost"] = [None] * len(columns["router"])
    likeliest = np.concatenate([outcome.end.argmax(axis=1) for outcome in outcomes.values()])
    waits = [outcome.waits for outcome in outcomes.values()]
    columns["seconds"] = [each for w in waits for each in ([None] * count if w is None else w.mean.tolist())]
    columns["pipeline"] = [ARROW.join(pipeline_models(tree, node)) for node in likeliest.tolist()]
    columns["pipeline_share"] = np.concatenate([outcome.end.max(axis=1) for outcome in outcomes.values()]).tolist()
    calls = np.concatenate([outcome.calls for outcome in outcomes.values()])
    columns |= {f"calls:{model}": calls[:, index].tolist() for index, model in enumerate(tree.models)}
    return pa.table(columns)
