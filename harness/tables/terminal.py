"""A grid on the screen, in rich tables."""

from __future__ import annotations

import itertools

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from harness.tables.grid import Cell, Grid, wrapped


def tables(grid: Grid, width: int) -> list[Table]:
    """A grid as one table, or as several with some of the columns each, one below the other.

    width: of the terminal; headers are broken and columns set closer as it takes, then names are broken.
    """
    columns = len(grid.headers)
    for parts, breaks in itertools.product(range(1, columns + 1), ((None, None), (None, 7), (16, 7))):
        ends = [columns * part // parts for part in range(parts + 1)]
        made = [_part(grid, slice(start, end), *breaks) for start, end in itertools.pairwise(ends)]
        if all(_needed(table) <= width for table in made):
            break
    for table in made[1:]:
        table.title = None
    return made


def _part(grid: Grid, part: slice, name_width: int | None, header_width: int | None) -> Table:
    """Some columns of a grid, with names broken at these widths."""

    def broken(name: str, at: int | None) -> str:
        return escape(name if at is None else "\n".join(wrapped(name, at)))

    table = Table(
        title="\n".join([f"[bold]{escape(grid.title)}[/bold]", *map(escape, grid.caption)]),
        title_style="",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        padding=(0, 1) if header_width is None else 0,
    )
    table.add_column("router", overflow="fold", min_width=25 if name_width is None else None)
    for header in grid.headers[part]:
        table.add_column(broken(header, header_width), justify="right", no_wrap=True)
    for row in grid.rows:
        if row.rule:
            table.add_section()
        name = broken(row.name, name_width) + (f" {row.mark}" if row.mark else "")
        notes = "".join(f"\n[dim]{broken(f'  {note}', name_width)}[/dim]" for note in row.notes)
        # Where a cell has a mark, each keeps a place for one, so that figures stand below each other.
        place = " " if any(cell.mark for each in grid.rows for cell in each.cells) else ""
        table.add_row(name + notes, *(_stacked(cell, place) for cell in row.cells[part]))
    return table


def _stacked(cell: Cell, place: str) -> str:
    first, *below = map(escape, cell.text)
    shown = (f"[bold]{first}[/bold]" if cell.best else first) + (cell.mark or place)
    return "\n".join([shown, *(f"[dim]{line}[/dim]" for line in below)])


def _needed(table: Table) -> int:
    """How many columns of a terminal the table takes with no name folded."""
    console = Console(width=10_000)
    return Measurement.get(console, console.options, table).maximum
