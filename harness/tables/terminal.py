"""The quality-versus-cost tables, on the screen and as Markdown."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.evaluation.paired import Change, Comparison
from harness.tables.grid import Cell, Grid, wrapped


def tables(grid: Grid, width: int | None = None) -> list[Table]:
    """A grid as one table, or as several with some of the columns each, one below the other.

    width: of the terminal; names are broken and columns set closer as it takes. None: nothing is broken.
    """
    if width is None:
        return [_part(grid, slice(None))]
    columns = len(grid.headers)
    for parts in range(1, columns + 1):
        ends = [columns * part // parts for part in range(parts + 1)]
        for breaks in ((None, None), (None, 7), (16, 7)):
            made = [_part(grid, slice(start, end), *breaks) for start, end in itertools.pairwise(ends)]
            if all(_needed(table) <= width for table in made):
                break
        else:
            continue
        break
    for table in made[1:]:
        table.title = None
    for table in made[:-1]:
        table.caption = None
    return made


def _part(grid: Grid, part: slice, name_width: int | None = None, header_width: int | None = None) -> Table:
    """Some columns of a grid, with names broken at these widths."""

    def broken(name: str, at: int | None) -> str:
        return escape(name if at is None else "\n".join(wrapped(name, at)))

    table = _table(grid.title, "\n".join(grid.caption))
    if name_width is not None:
        table.columns[0].min_width, table.padding = None, (0, 0, 0, 0)
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
    first, *below = map(escape, cell.lines)
    shown = (f"[bold]{first}[/bold]" if cell.best else first) + (cell.mark or place)
    return "\n".join([shown, *(f"[dim]{line}[/dim]" for line in below)])


def _needed(table: Table) -> int:
    """How many columns of a terminal the table takes with no name folded."""
    console = Console(width=10_000)
    return Measurement.get(console, console.options, table).maximum


def difference_table(title: str, comparisons: Sequence[Comparison], unit: str, caption: str = "") -> Table:
    """One row per comparison, tasks below their router; unit: of the costs, empty where none are compared."""
    lines = (
        *([f"cost per item in {unit}"] if unit else []),
        "(items); below a figure that differs: what it was, and the difference's 95% interval, paired over items",
        "*: the interval excludes 0; many are compared, with no correction, so some are marked by chance",
        "p: two-sided sign-flip test; where items are few, trust it more than the interval",
        *([caption] if caption else []),
    )
    table = _table(title, "\n".join(lines))
    table.caption_justify = "left"
    for measure in ("quality", "cost") if unit else ("quality",):
        table.add_column(measure, justify="right", no_wrap=True)
        table.add_column("difference", justify="right", no_wrap=True)
    for c in comparisons:
        if c.task is None:
            table.add_section()
        name = f"{escape(c.router if c.task is None else f'  {c.task}')} [dim]({c.items})[/dim]"
        cells = [*_change(c.quality, "{:.3f}"), *(_change(c.cost, "{:.3g}") if c.cost else ["-", "-"] if unit else [])]
        table.add_row(name, *cells)
    return table


def _change(change: Change, form: str) -> list[str]:
    after = form.format(change.after)
    if change.same:
        return [after, "[dim]same[/dim]"]
    mark = "*" if change.risen or change.fallen else ""
    return [
        f"{after}\n[dim]{form.format(change.before)}[/dim]",
        f"{change.difference:+.2g}{mark} p={change.p:.1g}\n[dim]{change.low:.2g}..{change.high:.2g}[/dim]",
    ]


def _table(title: str, caption: str) -> Table:
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, show_edge=False, collapse_padding=True)
    table.pad_edge = False
    table.caption_justify = "left"
    table.add_column("router", overflow="fold", min_width=25)
    return table


def markdown(table: Table) -> str:
    """A rich table as a Markdown table, with its title above and its caption below."""
    plain = Console(width=10_000, no_color=True)

    def text(cell: Any) -> str:
        shown = plain.render_str(str(cell))
        for span in reversed(shown.spans):
            if span.style == "bold":
                bold = f"**{shown.plain[span.start : span.end]}**"
                shown = Text(shown.plain[: span.start] + bold + shown.plain[span.end :])
        return "<br>".join(line.rstrip() for line in shown.plain.replace("|", "\\|").split("\n"))

    columns = [list(column.cells) for column in table.columns]
    lines = [
        f"**{table.title}**",
        "",
        "| " + " | ".join(text(str(c.header)) for c in table.columns) + " |",
    ]
    lines.append("|" + "|".join("---:" if c.justify == "right" else "---" for c in table.columns) + "|")
    lines += ["| " + " | ".join(text(cell) for cell in row) + " |" for row in zip(*columns, strict=True)]
    return "\n".join([*lines, "", str(table.caption).replace("\n", "; "), ""])
