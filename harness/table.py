"""The quality-versus-cost tables, on the screen and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.paired import Change, Comparison


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


def task_table(summary: dict[str, Any]) -> Table:
    """Quality and, below it, cost of every router on every task."""
    costs = bool(summary["cost_unit"])
    title = "per task: quality, and below it cost" if costs else "per task: quality"
    table = _table(title, f"cost per item in {summary['cost_unit']}" if costs else "no costs were recorded")
    tasks = list(next(iter(summary["routers"].values()))["tasks"])
    for task in tasks:
        # Names are broken where they may be, so that six tasks fit.
        table.add_column(task.replace("_", "_\n"), justify="right", no_wrap=True)
    for name, entry in summary["routers"].items():
        cells = [entry["tasks"][task] for task in tasks]
        table.add_row(escape(name), *(f"{c['quality']:.3f}{_below(c['cost'])}" for c in cells))
    items = [str(next(iter(summary["routers"].values()))["tasks"][task]["items"]) for task in tasks]
    table.add_section()
    table.add_row("items", *items)
    return table


def frontier_table(summary: dict[str, Any]) -> Table:
    """Quality, cost and share of the gap closed of every router at each of several cost weights."""
    unit = summary["cost_unit"]
    below = f"cost per item in {unit} and the gap closed at that cost weight" if unit else "the gap closed"
    caption = f"quality, below it {below}"
    table = _table("by cost weight", caption)
    points = summary["frontier"]
    for point in points:
        table.add_column(f"{point['cost_weight']:g}", justify="right", no_wrap=True)
    for name in summary["routers"]:
        cells = []
        for point in points:
            figures = point["routers"][name]
            gap = "-" if figures["gap_closed"] is None else f"{figures['gap_closed']:.0%}"
            cells.append(f"{figures['quality']:.3f}{_below(figures['cost'])}\n[dim]{gap}[/dim]")
        table.add_row(escape(name), *cells)
    return table


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
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("router", overflow="fold", min_width=25)
    return table


def markdown(table: Table) -> str:
    """A rich table as a Markdown table, with its title above and its caption below."""
    plain = Console(width=10_000, no_color=True)

    def text(cell: Any) -> str:
        shown = plain.render_str(str(cell)).plain if isinstance(cell, str) else str(cell)
        return shown.replace("|", "\\|").replace("\n", "<br>")

    columns = [list(column.cells) for column in table.columns]
    lines = [
        f"**{table.title}**",
        "",
        "| " + " | ".join(text(str(c.header).replace("_\n", "_")) for c in table.columns) + " |",
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
