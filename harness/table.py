"""The quality-versus-cost tables, on the screen and as Markdown."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def overall_table(summary: dict[str, Any]) -> Table:
    """One row per router over all items, from the content of `summary.json`."""
    unit, weight = summary["cost_unit"], summary["cost_weight"]
    table = Table(title=f"{summary['title']}", caption=_caption(unit, weight))
    table.add_column("router")
    for name in ("quality", "95%", "cost", "95%", "hops", "x quality", "x cost", "regret", "gap closed"):
        table.add_column(name, justify="right")
    table.add_column("note")
    for name, entry in summary["routers"].items():
        o = entry["overall"]
        gap = "-" if o["gap_closed"] is None else f"{o['gap_closed']:.0%}"
        table.add_row(
            escape(name),
            f"{o['quality']:.3f}",
            _interval(o["quality_interval"]),
            f"{o['cost']:.4g}",
            _interval(o["cost_interval"]),
            f"{o['hops']:.2f}",
            _ratio(o["quality_ratio"]),
            _ratio(o["cost_ratio"]),
            "-" if o["regret"] is None else f"{o['regret']:.3f}",
            gap,
            _notes(o),
        )
    return table


def task_table(summary: dict[str, Any]) -> Table:
    """Quality and, below it, cost of every router on every task."""
    table = Table(title="per task: quality, and below it cost", caption=f"cost in {summary['cost_unit']}")
    table.add_column("router")
    tasks = list(next(iter(summary["routers"].values()))["tasks"])
    for task in tasks:
        table.add_column(task, justify="right")
    for name, entry in summary["routers"].items():
        cells = [entry["tasks"][task] for task in tasks]
        table.add_row(escape(name), *(f"{c['quality']:.3f}\n[dim]{c['cost']:.3g}[/dim]" for c in cells))
    items = [str(next(iter(summary["routers"].values()))["tasks"][task]["items"]) for task in tasks]
    table.add_section()
    table.add_row("items", *items)
    return table


def markdown(table: Table) -> str:
    """A rich table as a Markdown table, with its title above and its caption below."""
    plain = Console(width=10_000, no_color=True)

    def text(cell: Any) -> str:
        shown = plain.render_str(str(cell)).plain if isinstance(cell, str) else str(cell)
        return shown.replace("|", "\\|").replace("\n", "<br>")

    columns = [list(column.cells) for column in table.columns]
    lines = [f"**{table.title}**", "", "| " + " | ".join(str(c.header) for c in table.columns) + " |"]
    lines.append("|" + "|".join("---:" if c.justify == "right" else "---" for c in table.columns) + "|")
    lines += ["| " + " | ".join(text(cell) for cell in row) + " |" for row in zip(*columns, strict=True)]
    return "\n".join([*lines, "", f"{table.caption}", ""])


def _caption(unit: str, weight: float) -> str:
    return (
        f"cost per item in {unit}; x: relative to the best single model; value = quality - {weight:g} x cost\n"
        "regret: the optimum's value minus the router's; gap closed: from the best single model to the optimum"
    )


def _interval(bounds: list[float]) -> str:
    return f"{bounds[0]:.3g}..{bounds[1]:.3g}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _notes(overall: dict[str, Any]) -> str:
    notes = list(overall["notes"])
    if overall["collapsed_to"]:
        notes.append(f"collapsed to {overall['collapsed_to']}")
    if not overall["exact"]:
        notes.append("sampled")
    if overall["routing_cost"]:
        notes.append(f"+ {overall['routing_cost']:.3g} {overall['routing_cost_unit']} for its encoder")
    return "; ".join(notes)
