"""Compare finished runs, or the routers of one run, item by item."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from harness.evaluation.paired import Change, Comparison, compare_routers
from harness.runs.folder import FinishedRun, read_run
from harness.runs.manifest import Manifest, about, differences, write_text
from harness.tables.export import csv_cell, markdown
from harness.tables.grid import Grid, difference_grid
from harness.tables.terminal import tables
from pools.errors import UserError, shown
from pools.files import check_out_file

if TYPE_CHECKING:
    from harness.regression.config import Compare

SUFFIXES = (".md", ".csv", ".json")


@dataclass(frozen=True)
class Block:
    """What is compared with one reference: a title, what a reader must know before the figures, and the figures.

    before, after: names of the runs. unit: of the costs; empty if costs are not compared.
    """

    before: str
    after: str
    title: str
    notes: tuple[str, ...]
    unit: str
    comparisons: list[Comparison]


def compare(before: Path | str, after: Path | str, routers: Sequence[str] = (), seed: int = 1) -> list[Comparison]:
    """The differences of two runs, paired over the items that both have: of each router overall, then on each task.

    before, after: folders that runs wrote. routers: by default all that both have.
    """
    first, second = ((str(folder), read_run(Path(folder))) for folder in (before, after))
    return _between(first, second, routers, seed).comparisons


def compare_command(options: Compare, console: Console) -> None:
    """Print the differences, and write them to a file if one is named."""
    if not 0 <= options.seed < 2**32:
        raise UserError(f"--seed {shown(options.seed)}: expected a whole number >= 0, and below 2**32")
    check_out_file(options.out, options.force)
    if options.out is not None:
        if options.out.suffix not in SUFFIXES:
            raise UserError(f"--out {options.out}: expected a file that ends in {', '.join(SUFFIXES)}")
        options.out.parent.mkdir(parents=True, exist_ok=True)
    needed = 1 if options.against else 2
    if len(options.runs) < needed:
        raise UserError(
            f"compare got {len(options.runs)} runs, expected at least {needed}: name folders that python -m harness "
            "run wrote, or one of them and --against ROUTER"
        )
    runs = [(_name(path, options.runs), read_run(path)) for path in options.runs]
    if options.against:
        blocks = [_inside(name, run, options.against, options.router, options.seed) for name, run in runs]
    else:
        blocks = [_between(runs[0], other, options.router, options.seed) for other in runs[1:]]
    for block in blocks:
        for note in block.notes:
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        for table in tables(_table(block), console.width):
            console.print(table)
    if options.out is not None:
        _write(blocks, options.out)
        console.print(f"written to {options.out}", highlight=False, markup=False, soft_wrap=True)


def _name(path: Path, paths: Sequence[Path]) -> str:
    """The folder's own name if no other folder has it, else its whole path."""
    alone = [other.resolve().name for other in paths].count(path.resolve().name) == 1
    return path.resolve().name if alone else str(path)


def _between(first: tuple[str, FinishedRun], second: tuple[str, FinishedRun], asked: Sequence[str], seed: int) -> Block:
    """Each router of both runs, the first run's the reference."""
    (before, old), (after, new) = first, second
    routers = list(old.results.routers), list(new.results.routers)
    both = [name for name in routers[0] if name in routers[1]]
    missing = [name for name in asked if name not in both]
    if missing or not both:
        raise UserError(
            f"router {missing[0] if missing else 'of any name'} is not in both runs: {before} has "
            f"{', '.join(routers[0])}; {after} has {', '.join(routers[1])}; name one of both with --router"
        )
    there = set(new.results.items)
    common = [item for item in old.results.items if item in there]
    if not common:
        raise UserError(
            f"{before} ({about(old.manifest)}) and {after} ({about(new.manifest)}) have no item in common; "
            "compare runs of the same suite and split"
        )
    pools = [about(run.manifest) for run in (old, new)]
    notes = [f"{before} -> {after}", *([f"  {pools[0]} -> {pools[1]}"] if pools[0] != pools[1] else [])]
    notes += [f"  differs in {line}" for line in differences(old.manifest, new.manifest)]
    for name, results in ((before, old.results), (after, new.results)):
        alone = [router for router in results.routers if router not in both]
        if alone and not asked:
            notes.append(f"  only {name} has the routers {', '.join(alone)}")
        if len(results.items) > len(common):
            notes.append(f"  {len(results.items) - len(common)} items of {name} are not in the other run: left out")
    notes += _several_trainings(asked or both, old.manifest, new.manifest)
    unit = old.cost_unit if old.cost_unit == new.cost_unit else ""
    if old.cost_unit != new.cost_unit:
        notes.append(
            f"  costs are not compared: in {old.cost_unit or 'no unit'} there, in {new.cost_unit or 'no unit'} here"
        )
    pairs = [(name, name) for name in asked or both]
    made = compare_routers(old.results.on(common), new.results.on(common), pairs, bool(unit), seed)
    return Block(before, after, f"{after} compared with {before}: {len(common)} items", tuple(notes), unit, made)


def _inside(name: str, run: FinishedRun, against: str, asked: Sequence[str], seed: int) -> Block:
    """Each router of a run, one of them the reference."""
    routers = list(run.results.routers)
    missing = [router for router in (against, *asked) if router not in routers]
    if missing:
        raise UserError(f"{name} has no router {missing[0]!r}: it has {', '.join(routers)}; name one of them")
    pairs = [(against, router) for router in asked or routers if router != against]
    if not pairs:
        raise UserError(f"{name} has no router to compare with {against}; name another with --router or --against")
    made = compare_routers(run.results, run.results, pairs, bool(run.cost_unit), seed)
    title = f"{name}: routers compared with {against}, {len(run.results.items)} items"
    notes = _several_trainings([name for pair in pairs for name in pair], run.manifest)
    return Block(name, name, title, tuple(notes), run.cost_unit, made)


def _several_trainings(routers: Sequence[str], *runs: Manifest) -> list[str]:
    """What is said of routers whose figures are means over several trainings (`run --seeds`)."""
    of_runs = [Counter(learnt.router for learnt in run.learnt) for run in runs]
    means = [name for name in dict.fromkeys(routers) if any(learnt[name] > 1 for learnt in of_runs)]
    if not means:
        return []
    return [f"  {', '.join(means)}: means over several trainings; intervals here are over items alone"]


def _table(block: Block) -> Grid:
    """One row per router and task; of a router that is the same on all of them only the first."""
    differing = {c.router for c in block.comparisons if not c.same}
    told = [c for c in block.comparisons if c.task is None or c.router in differing]
    caption = "of a router that is the same on every task the tasks are left out" if told != block.comparisons else ""
    return difference_grid(block.title, told, block.unit, caption)


def _write(blocks: Sequence[Block], path: Path) -> None:
    """Write Markdown, CSV or JSON, by the suffix; whole or not at all."""
    if path.suffix == ".md":
        parts = [["".join(f"- {note.strip()}\n" for note in block.notes), markdown(_table(block))] for block in blocks]
        text = "\n".join(itertools.chain(*parts))
    elif path.suffix == ".json":
        found = [
            {
                "before": block.before,
                "after": block.after,
                "notes": [note.strip() for note in block.notes],
                "cost_unit": block.unit or None,
                "comparisons": [asdict(c) for c in block.comparisons],
            }
            for block in blocks
        ]
        text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    else:
        rows = [_row(block, c) for block in blocks for c in block.comparisons]
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: csv_cell(given) for name, given in row.items()} for row in rows)
        text = buffer.getvalue()
    write_text(text, path)


def _row(block: Block, c: Comparison) -> dict[str, object]:
    """One line of the CSV file; `task` is empty for all items, what is not compared is empty too."""
    changes = {
        f"{measure}_{field.name}": getattr(getattr(c, measure), field.name, "")
        for measure in ("quality", "cost", "latency")
        for field in fields(Change)
    }
    return {
        "before": block.before,
        "after": block.after,
        "reference": c.reference,
        "router": c.router,
        "task": c.task or "",
        "items": c.items,
        **changes,
        "cost_unit": block.unit,
    }
