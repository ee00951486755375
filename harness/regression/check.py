"""The regression check: run what a baseline says, and fail where its routers have become worse."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from rich.console import Console

from harness.evaluation.metrics import NOISE
from harness.evaluation.paired import Change, Comparison, ItemKey, Results, compare_routers, results_of
from harness.regression.baseline import (
    MEASURES,
    BaselineFile,
    BaselineRun,
    new_baseline,
    read_baseline,
    run_of,
    write_baseline,
)
from harness.runs.checkpoints import shipped_path
from harness.runs.folder import FinishedRun, read_run
from harness.runs.manifest import Arguments, Manifest, differences
from harness.runs.run import evaluate
from harness.runs.source import RESULTS, open_source
from harness.tables.grid import difference_grid
from harness.tables.terminal import tables
from pools.errors import UserError
from pools.files import whole_file
from routers.registry import learns

if TYPE_CHECKING:
    from harness.regression.config import Check

SHIPPED = RESULTS / "baselines" / "offline.json"
# Trainings with other seeds that say how far one may fall from another.
OTHER_SEEDS = 4
# Flags that may stand in for the baseline's own without --update: the same routers and items, on another recording
# or with another policy.
STAND_IN = ("recording", "checkpoint")


@dataclass(frozen=True)
class Finding:
    """One figure that was checked. worse, better: what to say of it; empty where it is neither."""

    router: str
    scope: str
    measure: str
    worse: str
    better: str


def check(options: Check, console: Console) -> bool:
    """Compare with the baseline, print what is worse, and say whether nothing is; or, with `--update`, rewrite it."""
    start = time.monotonic()
    path = options.baseline or SHIPPED
    _check_flags(options, path)
    if options.update:
        _update(options, path, console)
        return True
    baseline = read_baseline(path)
    now, trained = (read_run(options.run), None) if options.run else _evaluated(options, baseline, console)
    results = _same_items(baseline, now, path)
    pairs = [(name, name) for name in baseline.results.routers]
    comparisons = compare_routers(baseline.results, results, pairs, bool(now.cost_unit), baseline.run.seed)
    findings = [f for c in comparisons for f in _judge(c, baseline, options)]
    _show_changes(f"compared with the baseline {path.name}: {len(results.items)} items", comparisons, now, console)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for line in differences(_manifest(baseline), now.manifest):
        say(f"differs from the baseline in {line}")
    recording = now.manifest.source.get("recording", "")
    ships = [name for name in trained or () if shipped_path(recording, name, baseline.run.seed)]
    if ships and not baseline.spread:
        say(f"{', '.join(ships)}: trained by this check, which the baseline's was not; nothing is tolerated for that")
    worse = [f.worse for f in findings if f.worse]
    better = [f.better for f in findings if f.better]
    for text in better:
        say(f"better: {text}")
    if better and not worse:
        say("python -m harness check --update would keep what is better as the new baseline")
    for text in worse:
        say(f"WORSE: {text}")
    counted = f"{len(findings)} figures of {len(pairs)} routers"
    say(f"check FAILED: {len(worse)} of {counted} are worse" if worse else f"check passed: none of {counted} is worse")
    if options.junit is not None:
        cases = [Case(f.router, f"{f.scope} {f.measure}", f.worse) for f in findings]
        write_junit("harness.regression.check", cases, time.monotonic() - start, options.junit)
    return not worse


def _show_changes(title: str, comparisons: Sequence[Comparison], now: FinishedRun, console: Console) -> None:
    """Every router overall, and the tasks where something differs."""
    shown = [c for c in comparisons if c.task is None or not c.quality.same or not (c.cost is None or c.cost.same)]
    left_out = len(comparisons) - len(shown)
    caption = f"{left_out} rows of tasks where nothing differs are left out" if left_out else ""
    for table in tables(difference_grid(title, shown, now.cost_unit, caption), console.width):
        console.print(table)


def _check_flags(options: Check, path: Path) -> None:
    given = [name for name in BaselineRun.model_fields if getattr(options, name) not in (None, ())]
    if options.update and (options.run is not None or options.junit is not None):
        raise UserError("--update runs the routers anew and checks nothing; leave out --run and --junit")
    foreign = [name for name in given if options.run is not None or name not in STAND_IN]
    if foreign and not options.update:
        flag = f"--{foreign[0].replace('_', '-')}"
        raise UserError(f"{flag} says what a baseline runs: give it with --update, else leave it out")
    for name in ("tolerance_quality", "tolerance_cost"):
        tolerance = getattr(options, name)
        if not 0 <= tolerance < math.inf:
            raise UserError(f"--{name.replace('_', '-')} {tolerance}: expected a number >= 0")
    for file in (path, options.junit):
        if file is not None and file.is_dir():
            raise UserError(f"{file} is a folder; name a file")
    if options.junit is not None:
        options.junit.parent.mkdir(parents=True, exist_ok=True)


def _evaluated(options: Check, baseline: BaselineFile, console: Console) -> tuple[FinishedRun, tuple[str, ...]]:
    """What the baseline's routers attain now, and which of them were trained for it."""
    instead = {name: str(getattr(options, name)) for name in STAND_IN if getattr(options, name) is not None}
    run = baseline.run.model_copy(update=instead)
    if "recording" not in instead or run.checkpoint is not None:
        return _run(run, options.weights, console)
    # Of another recording nothing ships. Trained anew, it would differ from the baseline's for that reason alone.
    shipped = _checkpoint_that_shipped(baseline.run)
    now, trained = _run(run.model_copy(update={"checkpoint": shipped}), options.weights, console)
    arguments = now.manifest.arguments.model_copy(update={"checkpoint": None})
    return replace(now, manifest=now.manifest.model_copy(update={"arguments": arguments})), trained


def _checkpoint_that_shipped(run: BaselineRun) -> str | None:
    """The shipped checkpoint that a run uses, where its recording can be read."""
    try:
        source = open_source(
            pool=run.pool, suite=run.suite, recording=None if run.recording is None else Path(run.recording)
        )
    except UserError:
        return None
    paths = (shipped_path(source.description["recording"], name, run.seed) for name in run.router if learns(name))
    return next((str(path) for path in paths if path is not None), None)


def _run(
    run: BaselineRun, weights: Path | None, console: Console, retrain: bool = False
) -> tuple[FinishedRun, tuple[str, ...]]:
    evaluation = evaluate(
        **run.parameters(),
        weights=weights,
        retrain=retrain,
        arguments=run.model_dump(),
        say=lambda text: console.print(text, highlight=False, markup=False),
    )
    unit = evaluation.summary.cost_unit
    results = results_of(evaluation.outcomes, evaluation.tree, bool(unit))
    trained = tuple(router.name for router in evaluation.routers if router.taught is not None)
    return FinishedRun(results, unit, evaluation.manifest), trained


def _manifest(baseline: BaselineFile) -> Manifest:
    """The baseline's provenance in the form of a run's manifest."""
    run = baseline.run
    arguments = Arguments(**run.model_dump())
    return Manifest(**dict(baseline.provenance), seed=run.seed, arguments=arguments, suite=run.suite or "", pool={})


def _same_items(baseline: BaselineFile, now: FinishedRun, path: Path) -> Results:
    """The results in the order of the baseline's items. Raises UserError where there is nothing to compare."""
    renew = f"python -m harness check --baseline {path} --update makes a new baseline"
    missing = [name for name in baseline.results.routers if name not in now.results.routers]
    if missing:
        raise UserError(
            f"router {missing[0]} of the baseline is not in the run, which has {', '.join(now.results.routers)}; name "
            "a run with all of the baseline's routers"
        )
    if now.cost_unit != baseline.cost_unit:
        raise UserError(
            f"the baseline's costs are in {baseline.cost_unit or 'no unit'}, this run's in "
            f"{now.cost_unit or 'no unit'}; {renew}"
        )
    old, new = set(baseline.results.items), set(now.results.items)
    parts = [
        f"{len(alone)} only in the {where} ({_few(alone)})"
        for where, items, other in (("baseline", baseline.results.items, new), ("run", now.results.items, old))
        for alone in [[item for item in items if item not in other]]
        if alone
    ]
    if parts:
        raise UserError(f"the items are not those of the baseline {path}: {'; '.join(parts)}; {renew}")
    return now.results.on(baseline.results.items)


def _few(items: Sequence[ItemKey]) -> str:
    """Items by task, a few of each: `rg_aiw 3, 7, 12 and 5 more`."""
    by_task: dict[str, list[int]] = defaultdict(list)
    for task, doc_id in items:
        by_task[task].append(doc_id)
    return "; ".join(
        f"{task} {', '.join(map(str, ids[:3]))}" + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
        for task, ids in by_task.items()
    )


def _judge(c: Comparison, baseline: BaselineFile, options: Check) -> Iterator[Finding]:
    """Worse is a quality whose interval lies below what is tolerated, or a cost whose interval lies above it."""
    scope = "overall" if c.task is None else c.task
    where = "overall" if c.task is None else f"on {c.task}"
    for measure in MEASURES:
        change: Change | None = getattr(c, measure)
        if change is None:
            continue
        spread = baseline.tolerated.get((c.router, c.task, measure), 0.0)
        if measure == "quality":
            tolerated = options.tolerance_quality + spread
            is_worse, is_better = change.high < -tolerated - NOISE, change.risen
            size, unit = f"by {abs(change.difference):.3g}", ""
        else:
            tolerated = options.tolerance_cost * abs(change.before) + spread
            is_worse, is_better = change.low > tolerated + NOISE, change.fallen
            size = f"by {_percent(abs(change.difference / change.before))}" if change.before else "from 0"
            unit = f" {baseline.cost_unit}"
        verb = "rose" if change.difference > 0 else "fell"
        interval = f"({change.difference:+.2g} [{change.low:.2g}, {change.high:.2g}]{unit})"
        text = f"{c.router}: {measure} {where} {verb} {size} {interval}"
        allowed = f", more than the {tolerated:.2g} that is tolerated" if tolerated else ""
        yield Finding(c.router, scope, measure, text + allowed if is_worse else "", text if is_better else "")


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else f"{100 * share:.1g}%"


def _update(options: Check, path: Path, console: Console) -> None:
    """Run what the flags say, else what the baseline that is there says, and write the baseline."""
    old = read_baseline(path) if path.exists() else None
    names = BaselineRun.model_fields
    given = {name: getattr(options, name) for name in names if getattr(options, name) not in (None, ())}
    run = run_of(given, old.run if old else None)
    run = run.model_copy(update={"router": tuple(dict.fromkeys(run.router))})
    now, trained = _run(run, options.weights, console)
    spread = _spread(run, now.results, trained, options.weights, console) if trained else {}
    write_baseline(new_baseline(run, now.results, now.cost_unit, spread, now.manifest), path)
    if old is not None and set(old.results.items) == set(now.results.items) and old.cost_unit == now.cost_unit:
        both = [(name, name) for name in now.results.routers if name in old.results.routers]
        changes = compare_routers(old.results, now.results.on(old.results.items), both, bool(now.cost_unit), run.seed)
        _show_changes(f"the new {path.name} compared with the old", changes, now, console)
    console.print(
        f"baseline written to {path}: {len(now.results.routers)} routers, {len(now.results.items)} items",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _spread(
    run: BaselineRun, results: Results, trained: tuple[str, ...], weights: Path | None, console: Console
) -> dict[tuple[str, str | None, str], float]:
    """How far the means of trainings with other seeds are at most from the results', overall and per task.

    Training is repeated exactly on one machine, but arithmetic of another order makes it another draw on another
    processor, as another seed does: so what other seeds do is what another processor may do.
    """
    console.print(f"training {OTHER_SEEDS} times more, with other seeds: how far one training is from another ...")
    spread: dict[tuple[str, str | None, str], float] = defaultdict(float)
    for seed in range(run.seed + 1, run.seed + 1 + OTHER_SEEDS):
        again = run.model_copy(update={"router": trained, "seed": seed})
        other, _ = _run(again, weights, Console(quiet=True), retrain=True)
        for c in compare_routers(results, other.results, [(name, name) for name in trained], True, run.seed):
            for measure in MEASURES:
                change: Change | None = getattr(c, measure)
                if change is not None:
                    key = (c.router, c.task, measure)
                    spread[key] = max(spread[key], abs(change.difference))
    return dict(spread)


@dataclass(frozen=True)
class Case:
    """One thing that was checked. failure: why it failed, in one line; empty where it did not."""

    group: str
    name: str
    failure: str = ""


def write_junit(suite: str, cases: Sequence[Case], seconds: float, path: Path) -> None:
    """Write one test suite, whole or not at all: `testsuites` > `testsuite` > `testcase` (> `failure`)."""
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(bool(case.failure) for case in cases)),
        "errors": "0",
        "time": f"{seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", counts)
    element = ElementTree.SubElement(root, "testsuite", {"name": suite, "skipped": "0", **counts})
    for case in cases:
        found = ElementTree.SubElement(
            element, "testcase", {"classname": f"{suite}.{case.group}", "name": case.name, "time": "0"}
        )
        if case.failure:
            failure = ElementTree.SubElement(found, "failure", {"message": case.failure, "type": "regression"})
            failure.text = case.failure
    ElementTree.indent(root)
    with whole_file(path) as partial:
        ElementTree.ElementTree(root).write(partial, encoding="utf-8", xml_declaration=True)
