"""The regression check: run what a baseline says, and fail if its routers have become worse."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from rich.console import Console

from harness.evaluation.metrics import NOISE
from harness.evaluation.paired import (
    Change,
    Comparison,
    Measure,
    Results,
    compare_routers,
    holm,
    results_of,
    worse_p,
)
from harness.regression.baseline import (
    MEASURES,
    BaselineFile,
    BaselineRun,
    Distances,
    RouterSpread,
    read_baseline,
    write_baseline,
)
from harness.runs.checkpoints import shipped_path
from harness.runs.folder import FinishedRun, load_run, read_run
from harness.runs.manifest import Arguments, Manifest, about, differences
from harness.runs.run import Evaluation, evaluate
from harness.runs.source import DEFAULT_POOL, DEFAULT_SUITE, RESULTS, recording_folder
from harness.tables.grid import difference_grid
from harness.tables.terminal import tables
from pools.errors import UserError
from pools.files import whole_file
from pools.numbers import counted
from pools.schema import from_plain
from routers.registry import learns

if TYPE_CHECKING:
    from harness.regression.config import Check

SHIPPED = RESULTS / "baselines" / "offline.json"
# Trainings with other seeds that say how far one may fall from another.
OTHER_SEEDS = 4
# Flags that may stand in for the baseline's own without --update: the same routers and items, on another recording
# or with another policy.
STAND_IN = ("recording", "checkpoint")
# Of one side of a 95% interval: the chance that a figure looks worse if nothing but chance has changed it.
ONE_SIDE = 0.025


@dataclass(frozen=True)
class Finding:
    """One figure that was checked, on a task, or over all items (task None).

    tolerated: in the measure's unit. differs: whether it does on any resample. worse, better: what to say of it; empty
    if it is neither. by_chance: the same of what a correction no longer calls worse.
    """

    router: str
    task: str | None
    measure: Measure
    tolerated: float
    differs: bool
    worse: str
    better: str
    by_chance: str = ""

    @property
    def scope(self) -> str:
        """The items that it is of."""
        return "overall" if self.task is None else self.task


def check(options: Check, console: Console) -> bool:
    """Compare with the baseline, print what is worse, and say whether nothing is; or, with `--update`, rewrite it."""
    start = time.monotonic()
    path = options.baseline or SHIPPED
    given = {name: getattr(options, name) for name in BaselineRun.model_fields}
    given = {name: str(g) if isinstance(g, Path) else g for name, g in given.items() if g not in (None, ())}
    if options.update and options.junit is not None:
        raise UserError("--update runs the routers anew and checks nothing; leave out --junit")
    foreign = [name for name in given if options.run is not None or name not in STAND_IN]
    if foreign and not options.update:
        flag = f"--{foreign[0].replace('_', '-')}"
        raise UserError(f"{flag} says what a baseline runs: give it with --update, else leave it out")
    tolerances = {"quality": options.tolerance_quality, "cost": options.tolerance_cost}
    tolerances["latency"] = options.tolerance_latency
    for measure, tolerance in tolerances.items():
        if not 0 <= tolerance < math.inf:
            raise UserError(f"--tolerance-{measure} {tolerance}: expected a number >= 0")
    if options.tolerance_quality > 1:
        raise UserError(f"--tolerance-quality {options.tolerance_quality:g}: expected a number from 0 to 1, as quality")
    for file in (path, options.junit):
        if file is not None and file.is_dir():
            raise UserError(f"{file} is a folder; name a file")

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    if options.update:
        _update(path, {**(_asked_of(options.run) if options.run else {}), **given}, options.weights, console)
        return True
    baseline = read_baseline(path)
    before = baseline.results
    now = read_run(options.run) if options.run else _evaluated(baseline.run, given, options.weights, console)
    after = _same_items(before, baseline.cost_unit, now, path)
    if options.tolerance_latency and all(figures.seconds is None for figures in before.routers.values()):
        raise UserError(
            f"--tolerance-latency: the baseline {path} keeps no seconds; make it on a recording that holds latency "
            "(docs/guides/latency.md), or leave it out"
        )
    pairs = [(name, name) for name in before.routers]
    comparisons = compare_routers(before, after, pairs, bool(now.cost_unit), baseline.run.seed)
    findings = [
        finding
        for c in comparisons
        for finding in _judge(c, baseline.spread.get(c.router, RouterSpread()).of(c.task), tolerances, now.cost_unit)
    ]
    if options.correction == "holm":
        findings = correct(findings, before, after, baseline.run.seed)
    _show_changes(
        f"compared with the baseline {path.name}: {counted(len(after.items), 'item')}", comparisons, now, console
    )
    differing = sum(f.differs for f in findings)
    for line in differences(_manifest(baseline), now.manifest):
        # The code has another commit whenever it is checked; that tells something only if a figure differs.
        if differing or not line.startswith("commit:"):
            say(f"differs from the baseline in {line}")
    worse = [f.worse for f in findings if f.worse]
    better = [f.better for f in findings if f.better]
    for text in better:
        say(f"better: {text}")
    if better and not worse:
        say("python -m harness check --update would keep what is better as the new baseline")
    for text in (f.by_chance for f in findings if f.by_chance):
        say(f"may be chance: {text}")
    for text in worse:
        say(f"WORSE: {text}")
    if differing:
        say(_false_alarms(differing, options.correction))
    of_all = f"{counted(len(findings), 'figure')} of {counted(len(pairs), 'router')}"
    verb = "is" if len(worse) == 1 else "are"
    say(f"check FAILED: {len(worse)} of {of_all} {verb} worse" if worse else f"check passed: none of {of_all} is worse")
    if options.junit is not None:
        options.junit.parent.mkdir(parents=True, exist_ok=True)
        write_junit(findings, time.monotonic() - start, options.junit)
    return not worse


def correct(findings: Sequence[Finding], before: Results, after: Results, seed: int) -> list[Finding]:
    """Call worse only what stays so by Holm's procedure over all figures that differ: docs/reference/baseline.md.

    The p-value of a figure that its interval does not call worse is taken for 1, so that nothing becomes worse.
    """
    family = [index for index, f in enumerate(findings) if f.differs]
    # So many that a p-value can be below the least level that the procedure asks for, a twentieth of it.
    draws = max(4999, math.ceil(20 * len(family) / ONE_SIDE))
    of_item = np.array([task for task, _ in before.items])
    p = []
    for index in family:
        f = findings[index]
        chosen = np.flatnonzero((of_item == f.task) | (f.task is None))
        old, new = (results.routers[f.router].on(chosen) for results in (before, after))
        p.append(worse_p(f.measure, old, new, f.tolerated, seed, draws) if f.worse else 1.0)
    corrected = list(findings)
    for index, alone, adjusted in zip(family, p, holm(p), strict=True):
        f = findings[index]
        if f.worse:
            text = f"{f.worse}, p = {alone:.2g}, corrected {adjusted:.2g}"
            rejected = adjusted <= ONE_SIDE
            corrected[index] = replace(f, worse=text if rejected else "", by_chance="" if rejected else text)
    return corrected


def _false_alarms(differing: int, correction: str) -> str:
    """How many figures would look worse by chance, of so many that differ."""
    if correction == "holm":
        return (
            f"figures that differ: {differing}; if that were chance alone, the probability that any is called worse "
            f"would be at most {ONE_SIDE:.1%} (Holm)"
        )
    return (
        f"figures that differ: {differing}; if that were chance alone, about {ONE_SIDE * differing:.2g} would be "
        f"called worse ({ONE_SIDE:.1%} of them); --correction holm allows for their number"
    )


def _show_changes(title: str, comparisons: Sequence[Comparison], now: FinishedRun, console: Console) -> None:
    """Every router overall, and the tasks where something differs."""
    shown = [c for c in comparisons if c.task is None or not c.same]
    left_out = len(comparisons) - len(shown)
    caption = f"left out, as nothing differs: {counted(left_out, 'row')} of tasks" if left_out else ""
    for table in tables(difference_grid(title, shown, now.cost_unit, caption), console.width):
        console.print(table)


def _evaluated(run: BaselineRun, given: Mapping[str, str], weights: Path | None, console: Console) -> FinishedRun:
    """What the baseline's routers attain now, on the recording or with the policy that is given in place of its own."""
    checkpoint = given.get("checkpoint", run.checkpoint)
    if "recording" in given and checkpoint is None:
        # Of another recording nothing ships. Trained anew, it would differ from the baseline's for that reason alone.
        own = Path(run.recording or recording_folder(run.pool or DEFAULT_POOL, run.suite or DEFAULT_SUITE)).name
        policies = [shipped_path(own, name, run.seed) for name in run.router if learns(name)]
        checkpoint = next((str(path) for path in policies if path is not None), None)
    return _finished(_run(run.model_copy(update=given), weights, console, checkpoint=checkpoint))


def _run(run: BaselineRun, weights: Path | None, console: Console, **instead: Any) -> Evaluation:
    return evaluate(
        **{**run.parameters(), **instead},
        weights=weights,
        arguments=run.model_dump(),
        say=lambda text: console.print(text, highlight=False, markup=False),
    )


def _finished(evaluation: Evaluation) -> FinishedRun:
    unit = evaluation.summary.cost_unit
    return FinishedRun(results_of(evaluation.outcomes, evaluation.tree, bool(unit)), unit, evaluation.manifest)


def _asked_of(folder: Path) -> dict[str, Any]:
    """What a finished run was asked for, as far as a baseline runs it. Raises UserError if live models answered."""
    manifest = load_run(folder).manifest
    if manifest.source.get("live"):
        raise UserError(f"{folder} asked live models, and a baseline is of a recording; record them, and run that")
    asked = manifest.arguments.model_dump()
    given = {name: asked[name] for name in BaselineRun.model_fields if asked.get(name) is not None}
    if "recording" in given:  # it says itself of which pool and suite it is; their files need not be there
        given = {name: value for name, value in given.items() if name not in ("pool", "suite")}
    return from_plain(BaselineRun, given, f"{folder}: arguments in manifest.json").model_dump(exclude_unset=True)


def _manifest(baseline: BaselineFile) -> Manifest:
    """The baseline's provenance in the form of a run's manifest."""
    run = baseline.run
    arguments = Arguments(**run.model_dump())
    return Manifest(**dict(baseline.provenance), seed=run.seed, arguments=arguments, suite=run.suite or "", pool={})


def _same_items(before: Results, cost_unit: str, now: FinishedRun, path: Path) -> Results:
    """The results in the order of the baseline's items. Raises UserError if there is nothing to compare."""
    renew = f"python -m harness check --baseline {path} --update makes a new baseline"
    missing = [name for name in before.routers if name not in now.results.routers]
    if missing:
        raise UserError(
            f"router {missing[0]} of the baseline is not in the run ({about(now.manifest)}), which has "
            f"{', '.join(now.results.routers)}; name a run with all of the baseline's routers, or that run's own "
            "baseline (--baseline)"
        )
    if now.cost_unit != cost_unit:
        raise UserError(
            f"the baseline's costs are in {cost_unit or 'no unit'}, this run's in {now.cost_unit or 'no unit'}; {renew}"
        )
    untimed = [n for n, f in before.routers.items() if f.seconds is not None and now.results.routers[n].seconds is None]
    if untimed:
        raise UserError(
            f"the baseline keeps seconds of {untimed[0]}, and this run's recording holds no latency to compare; name "
            f"one that does, or {renew}"
        )
    different = sorted({*before.items} ^ {*now.results.items})
    if different:
        task, doc_id = different[0]
        raise UserError(
            f"the items ({about(now.manifest)}) are not those of the baseline {path}: {len(different)} are in one of "
            f"the two alone, as {task} {doc_id}; name another --baseline, or {renew}"
        )
    return now.results.on(before.items)


def _judge(c: Comparison, spread: Distances, tolerances: Mapping[str, float], unit: str) -> Iterator[Finding]:
    """Worse is a quality whose interval lies below what is tolerated, or a cost or a p95 whose interval lies above."""
    where = "overall" if c.task is None else f"on {c.task}"
    for measure in MEASURES:
        change: Change | None = getattr(c, measure)
        if change is None:
            continue
        tolerated = tolerances[measure] * (1 if measure == "quality" else abs(change.before))
        tolerated += spread.get(measure, 0.0)
        verb = "rose" if change.difference > 0 else "fell"
        interval = f"{change.difference:+.2g} [{change.low:.2g}, {change.high:.2g}]"
        if measure == "quality":
            worse, better = change.high < -tolerated - NOISE, change.risen
            size = f"by {abs(change.difference):.3g} ({interval})"
        else:
            worse, better = change.low > tolerated + NOISE, change.fallen
            size = f"by {_percent(abs(change.difference / change.before))}" if change.before else "from 0"
            size += f" ({interval} {unit if measure == 'cost' else 'seconds'})"
        figure = "p95 latency" if measure == "latency" else measure
        text = f"{c.router}: {figure} {where} {verb} {size}"
        allowed = f", more than the {tolerated:.2g} that is tolerated" if tolerated else ""
        said = text + allowed if worse else "", text if better else ""
        yield Finding(c.router, c.task, measure, tolerated, not change.same, *said)


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else f"{100 * share:.1g}%"


def _update(path: Path, given: Mapping[str, Any], weights: Path | None, console: Console) -> None:
    """Run what is given, for the rest what the baseline that is there says, and write the baseline."""
    old = read_baseline(path) if path.exists() else None
    run = (old.run if old else BaselineRun()).model_copy(update=given)
    run = run.model_copy(update={"router": tuple(dict.fromkeys(run.router))})
    evaluation = _run(run, weights, console)
    now = _finished(evaluation)
    trained = tuple(router.name for router in evaluation.routers if router.taught is not None)
    spread = _spread(run, now.results, trained, weights, console) if trained else {}
    write_baseline(path, run, now.results, now.cost_unit, spread, now.manifest)
    before = old.results if old else None
    if before and old and set(before.items) == set(now.results.items) and old.cost_unit == now.cost_unit:
        both = [(name, name) for name in now.results.routers if name in before.routers]
        changes = compare_routers(before, now.results.on(before.items), both, bool(now.cost_unit), run.seed)
        _show_changes(f"the new {path.name} compared with the old", changes, now, console)
    console.print(
        f"baseline written to {path}: {counted(len(now.results.routers), 'router')}, "
        f"{counted(len(now.results.items), 'item')}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _spread(
    run: BaselineRun, results: Results, trained: tuple[str, ...], weights: Path | None, console: Console
) -> dict[str, RouterSpread]:
    """How far the means of trainings with other seeds are at most from the results', overall and per task.

    Training is repeated exactly on one machine, but arithmetic of another order makes it another draw on another
    processor, as another seed does: so what other seeds do is what another processor may do.
    """
    console.print(f"training {OTHER_SEEDS} times more, with other seeds: how far one training is from another ...")
    spread = {name: RouterSpread() for name in trained}
    for seed in range(run.seed + 1, run.seed + 1 + OTHER_SEEDS):
        again = run.model_copy(update={"router": trained, "seed": seed})
        other = _finished(_run(again, weights, Console(quiet=True), retrain=True)).results
        for c in compare_routers(results, other, [(name, name) for name in trained], True, run.seed):
            furthest = spread[c.router].of(c.task)
            for measure in MEASURES:
                change: Change | None = getattr(c, measure)
                if change is not None:
                    furthest[measure] = max(furthest.get(measure, 0.0), abs(change.difference))
    return spread


def write_junit(findings: Sequence[Finding], seconds: float, path: Path) -> None:
    """Write one test suite, a test case for each finding: `testsuites` > `testsuite` > `testcase` (> `failure`)."""
    name = "harness.regression.check"
    failures = str(sum(bool(finding.worse) for finding in findings))
    counts = {"tests": str(len(findings)), "failures": failures, "errors": "0", "time": f"{seconds:.3f}"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": name, "skipped": "0", **counts})
    for finding in findings:
        of = {"classname": f"{name}.{finding.router}", "name": f"{finding.scope} {finding.measure}", "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", of)
        if finding.worse:
            failure = ElementTree.SubElement(case, "failure", {"message": finding.worse, "type": "regression"})
            failure.text = finding.worse
    ElementTree.indent(root)
    with whole_file(path) as partial:
        ElementTree.ElementTree(root).write(partial, encoding="utf-8", xml_declaration=True)
