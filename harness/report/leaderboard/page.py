"""The page of a leaderboard, and its entries: read, checked, added, ranked. What `leaderboard` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from harness.evaluation.standings import standings
from harness.report.leaderboard.config import Leaderboard
from harness.report.leaderboard.entry import Entry, Table, entries_of, read_entry
from harness.runs.folder import load_runs
from harness.runs.manifest import write_text
from harness.tables.export import markdown
from harness.tables.grid import standings_grid
from pools.errors import UserError
from pools.files import check_out_file
from pools.numbers import counted

TITLE = "# Leaderboard\n"
INTRODUCTION = f"""{TITLE}
Routers on recordings, best value first. Each row is an entry: a JSON file with the router's figures on each item, of
which the figures here are made.

    {{command}}
"""


def leaderboard(options: Leaderboard, console: Console) -> None:
    """Add what is named, check all entries, and write the page; an earlier page of the same entries is replaced."""
    command, out = _command(options), options.out or options.entries / "README.md"
    # What lies among the entries may be called by another path, but is their page.
    ours = TITLE if options.out is None else INTRODUCTION.format(command=command)
    check_out_file(out, options.force or (out.is_file() and out.read_bytes().startswith(ours.encode())))
    entries = read_entries(options.entries)
    added = [
        entry
        for run in (load_runs(options.runs) if options.runs else [])
        for name, entry in entries_of(run, options.label)
        if _is_new(entry, name in run.asked, entries, options.entries)
    ]
    entries |= {entry.file: entry for entry in added}
    if not entries:
        raise UserError(f"{options.entries} holds no entries; name runs, whose routers become entries")
    page = page_of(entries, command)
    for entry in added:
        file = options.entries / entry.file
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(entry.model_dump_json() + "\n", file)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, out)
    said = f"entries: {len(entries)}, new: {len(added)}; written to {out}"
    console.print(said, highlight=False, markup=False, soft_wrap=True)


def read_entries(folder: Path) -> dict[Path, Entry]:
    """The entries by their files in the folder. Raises UserError for a file that is no entry, or not in its place."""
    entries = {}
    for path in sorted(folder.rglob("*.json")):
        entry = read_entry(path)
        if folder / entry.file != path:
            raise UserError(f"{path} is in another place than its table and router say; name it {folder / entry.file}")
        entries[entry.file] = entry
    return entries


def page_of(entries: Mapping[Path, Entry], command: str) -> str:
    """The page in Markdown: a table for each that entries are of. Raises UserError if their items differ."""
    of_table: dict[str, list[Entry]] = {}
    for entry in entries.values():
        of_table.setdefault(entry.table.slug, []).append(entry)
    parts = [INTRODUCTION.format(command=command)]
    for members in sorted(of_table.values(), key=lambda members: members[0].table.title):
        table = members[0].table
        found = {entry.router: entry for entry in members}
        ranked = standings(
            {entry.router: entry.figures_of(members[0].keys) for entry in _on_the_same_items(members)},
            frozenset(entry.router for entry in members if entry.bound),
            table.cost_weight,
        )
        notes = {name: [*entry.notes, entry.made.date[:10]] for name, entry in found.items()}
        grid = standings_grid(table.title, ranked, notes, table.cost_unit, table.cost_weight)
        parts += [f"## {_heading(table)}\n", markdown(grid)]
    return "\n".join(parts)


def _on_the_same_items(members: Sequence[Entry]) -> Sequence[Entry]:
    keys = {*members[0].keys}
    if other := next((entry for entry in members if {*entry.keys} != keys), None):
        raise UserError(
            f"{other.file} has other items than {members[0].file}; entries of a table need figures of the same items"
        )
    return members


def _is_new(entry: Entry, asked: bool, entries: Mapping[Path, Entry], folder: Path) -> bool:
    """Whether there is no such entry; of a run's baselines, which its seed may change, the first stays.

    Raises UserError if a router that was asked for is there with other figures.
    """
    if (there := entries.get(entry.file)) is None:
        return True
    if asked and there.items != entry.items:
        raise UserError(
            f"{folder / entry.file} is there with other figures; give a --label, or delete it to replace it"
        )
    return False


def _heading(table: Table) -> str:
    hops = f", at most {counted(table.max_hops, 'hop')}"
    stop = "" if table.allow_stop else ", no STOP"
    return f"{table.title.partition(':')[0]}, cost weight {table.cost_weight:g}{hops}{stop}"


def _command(options: Leaderboard) -> str:
    """The command that makes the page again of the entries."""
    out = "" if options.out is None else f" --out {options.out}"
    return f"python -m harness leaderboard --entries {options.entries}{out}"
