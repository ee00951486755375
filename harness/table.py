"""The quality-versus-cost tables, on the screen and as Markdown."""

from __future__ import annotations

import itertools
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.grid import MARKS, MEAN, RATIOS, Cell, Grid, wrapped
from harness.metrics import verdict


def overall_table(summary: dict[str, Any]) -> Table:
    """One row per router over all items, from the content of `summary.json`; it fits a terminal of 80 columns."""
    table = _table(summary["title"], _caption(summary["cost_unit"], summary["cost_weight"]))
    for header in ("quality", "cost", "hops", "regret", "gap\nclosed"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, entry in summary["routers"].items():
        o = entry["overall"]
        gap = "-" if o["gap_closed"] is None else f"{o['gap_closed']:.0%}"
        table.add_row(
            "\n".join([escape(name), *(f"  [dim]{escape(note)}[/dim]" for note in _notes(o))]),
            f"{_times(o['quality_ratio'])} {o['quality']:.3f}\n{_interval(o['quality_interval'])}",
            "-" if o["cost"] is None else f"{_times(o['cost_ratio'])} {o['cost']:.4f}\n{_interval(o['cost_interval'])}",
            f"{o['hops']:.2f}",
            "-" if o["regret"] is None else f"{o['regret']:.3f}",
            gap,
        )
    return table


def task_tables(table: Grid, width: int | None = None) -> list[Table]:
    """Every router on every task, quality above cost: one table, or several with some of the tasks each.

    width: of the terminal; names are broken and columns set closer as it takes. None: nothing is broken.
    """
    if width is None:
        return [_task_table(table, slice(None), None, None)]
    columns = len(table.tasks) + 2
    for parts in range(1, columns + 1):
        ends = [columns * part // parts for part in range(parts + 1)]
        slices = [slice(start, end) for start, end in itertools.pairwise(ends)]
        for name_width, header_width in ((None, None), (None, 7), (16, 7)):
            tables = [_task_table(table, part, name_width, header_width) for part in slices]
            if all(_needed(each) <= width for each in tables):
                break
        else:
            continue
        break
    for each in tables[1:]:
        each.title = None
    for each in tables[:-1]:
        each.caption = None
    return tables


def _task_table(table: Grid, part: slice, name_width: int | None, header_width: int | None) -> Table:
    def broken(name: str, at: int | None) -> str:
        return name if at is None else "\n".join(wrapped(name, at))

    shown = _table("by task", "\n".join(table.caption))
    if name_width is not None:
        shown.columns[0].min_width, shown.padding = None, (0, 0, 0, 0)
    for name in (*table.tasks, MEAN, RATIOS)[part]:
        shown.add_column(escape(broken(name, header_width)), justify="right", no_wrap=True)
    for number, row in enumerate(table.rows):
        if row.bound and number and not table.rows[number - 1].bound:
            shown.add_section()
        name = broken(row.router, name_width) + (f" {row.mark}" if row.mark else "")
        shown.add_row(escape(name), *map(_stacked, row.cells[part]))
    shown.add_section()
    shown.add_row("items", *[*map(str, table.items), "", ""][part])
    return shown


def _needed(table: Table) -> int:
    """How many columns of a terminal the table takes with no name folded."""
    console = Console(width=10_000)
    return Measurement.get(console, console.options, table).maximum


def _stacked(cell: Cell) -> str:
    # A place is kept for the mark, so that figures stand below each other.
    above = (f"[bold]{cell.above}[/bold]" if cell.best else cell.above) + (cell.mark or " ")
    return above + (f"\n[dim]{cell.below}[/dim]" if cell.below else "")


def frontier_table(summary: dict[str, Any]) -> Table:
    """Every router at each of several cost weights, with its AIQ and, where two models are compared, APGR and CPT."""
    unit, points, metrics = summary["cost_unit"], summary["frontier"], summary["frontier_metrics"]
    zero, two = metrics["zero_router"], metrics["two_models"]
    caption = [f"quality, below it {f'cost per item in {unit} and ' if unit else ''}the gap closed at that cost weight"]
    table = _table("by cost weight", "")
    for point in points:
        table.add_column(f"{point['cost_weight']:g}", justify="right", no_wrap=True)
    if zero is not None:
        low, high = metrics["cost_range"]
        table.add_column("AIQ", justify="right", no_wrap=True)
        caption += [
            f"AIQ: mean quality over costs {low:.4g} to {high:.4g}, the cheapest to the dearest single model's; below it",
            "the zero router's taken off, + or - where the 95% interval of the paired bootstrap excludes 0",
        ]
    if two is not None and two["undefined"]:
        caption.append(two["undefined"])
        two = None
    if two is not None:
        table.add_column("APGR", justify="right", no_wrap=True)
        table.add_column("CPT\n50%\n80%", justify="right", no_wrap=True)
        caption += [
            f"APGR: mean share of the gap from {two['weak']} to {two['strong']} that is recovered, over the share of",
            f"calls of {two['strong']}; CPT: the least such share that recovers 50% and 80%",
        ]
        if any(max(figures["other_share"]) > 0 for figures in two["routers"].values()):
            caption.append("calls of other models count as calls of neither")
    for name in summary["routers"]:
        cells = []
        for point in points:
            figures = point["routers"][name]
            gap = "-" if figures["gap_closed"] is None else f"{figures['gap_closed']:.0%}"
            cells.append(f"{figures['quality']:.3f}{_below(figures['cost'])}\n[dim]{gap}[/dim]")
        if zero is not None:
            cells.append(_aiq(metrics["routers"][name]))
        if two is not None:
            of_two = two["routers"][name]
            cells += [f"{of_two['apgr']:.3f}", f"\n{_share(of_two['cpt_50'])}\n{_share(of_two['cpt_80'])}"]
        table.add_row(escape(name), *cells)
    if zero is not None:
        table.add_section()
        cells = [*[""] * len(points), f"{zero['aiq']:.3f} "]
        table.add_row("zero router\n  [dim]hull of the single models[/dim]", *cells)
    table.caption = "\n".join(caption)
    return table


def _aiq(figures: dict[str, Any]) -> str:
    low, high = figures["aiq_ahead_interval"]
    mark = MARKS.get(verdict([low, high]), "")
    ahead = f"{figures['aiq_ahead']:+.3f}{mark or ' '}\n{low:+.2f}..{high:+.2f}"
    return f"{figures['aiq']:.3f} \n[dim]{ahead}[/dim]"


def _share(share: float | None) -> str:
    return "unreached" if share is None else f"{share:.0%}"


def _table(title: str, caption: str) -> Table:
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
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


def _caption(unit: str, weight: float) -> str:
    if not unit:
        return "no costs were recorded; x: relative to the best single model"
    return (
        f"cost per item in {unit}; x: relative to the best single model\n"
        f"value = quality - {weight:g} x cost; regret: the optimum's value minus the router's\n"
        "gap closed: how far from the best single model to the optimum"
    )


def _interval(bounds: list[float]) -> str:
    return f"[dim]{bounds[0]:.3f}..{bounds[1]:.3f}[/dim]"


def _below(cost: float | None) -> str:
    return "" if cost is None else f"\n[dim]{cost:.4f}[/dim]"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"[dim]x{ratio:.2f}[/dim]"


def _notes(overall: dict[str, Any]) -> list[str]:
    notes = list(overall["notes"])
    if overall["collapsed_to"]:
        notes.append(f"collapsed to {overall['collapsed_to']}")
    if not overall["exact"]:
        notes.append("sampled")
    if overall["routing_cost"]:
        notes.append(f"+ {overall['routing_cost']:.3g} {overall['routing_cost_unit']} for its encoder")
    return notes
