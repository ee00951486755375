"""The main table of HierRouter's paper as text: a row per router, a column per task, quality above cost in each cell.

`harness/table.py` prints it, `harness/formats.py` writes it as LaTeX and CSV; what is best and which difference is
significant is decided here, once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.metrics import verdict

MARKS = {"better": "+", "worse": "-"}


@dataclass(frozen=True)
class Cell:
    """One router in one column.

    above: quality, or the improvement over the best single model. below: cost, or the added cost; empty without costs.
    mark: `+` or `-` where the quality is significantly above or below the best single model's, else empty.
    best: whether no router has a better one in the column, to the digits shown; bounds are no routers.
    """

    above: str
    below: str
    mark: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One router. mark: as a cell's, but of its value. cells: of the tasks, the mean over them, and the ratios."""

    router: str
    mark: str
    bound: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Grid:
    """The table. tasks: the first columns. items: how many each task has. caption: its sentences."""

    title: str
    tasks: tuple[str, ...]
    items: tuple[int, ...]
    rows: tuple[Row, ...]
    caption: tuple[str, ...]


MEAN, RATIOS = "mean", "x best single"


def grid(summary: Mapping[str, Any]) -> Grid:
    """The table of the content of `summary.json`."""
    routers = summary["routers"]
    tasks = next(iter(routers.values()))["tasks"]
    columns = {name: [*entry["tasks"].values(), entry["macro"]] for name, entry in routers.items()}
    bounds = {name for name, entry in routers.items() if entry["overall"]["bound"]}
    contenders = [[_quality(figures) for figures in column] for name, column in columns.items() if name not in bounds]
    best = [max(column) for column in zip(*contenders, strict=True)] or [""] * (len(tasks) + 1)
    dearest = max((figures["cost"] or 0 for column in columns.values() for figures in column), default=0)
    scale = 1000 if 0 < dearest < 0.01 else 1
    rows = []
    for name, column in columns.items():
        cells = [
            Cell(
                above=_quality(figures),
                below="" if figures["cost"] is None else f"{figures['cost'] * scale:.4f}",
                mark=MARKS.get(verdict(figures["quality_ahead_interval"]), ""),
                best=name not in bounds and _quality(figures) == top,
            )
            for figures, top in zip(column, best, strict=True)
        ]
        ratios = Cell(_times(column[-1]["quality_ratio"]), _times(column[-1]["cost_ratio"]))
        overall = routers[name]["overall"]
        mark = MARKS.get(verdict(overall["value_ahead_interval"]), "")
        rows.append(Row(name, mark, name in bounds, (*cells, ratios)))
    return Grid(
        title=summary["title"],
        tasks=tuple(tasks),
        items=tuple(figures["items"] for figures in tasks.values()),
        rows=tuple(rows),
        caption=_caption(summary, scale, any(row.cells[-1].above for row in rows)),
    )


def wrapped(name: str, width: int) -> list[str]:
    """A name in lines of at most `width` characters where it can be broken: after `_ - : > /` or a space."""
    lines = [""]
    for piece in re.findall(r"[^-_:>/ ]*[-_:>/ ]|[^-_:>/ ]+", name):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _quality(figures: Mapping[str, Any]) -> str:
    return f"{figures['quality']:.3f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"x{ratio:.2f}"


def _caption(summary: Mapping[str, Any], scale: int, compared: bool) -> tuple[str, ...]:
    unit, weight = summary["cost_unit"], summary["cost_weight"]
    per = "1,000 items" if scale > 1 else "item"
    below = f"quality, below it cost per {per} in {unit}" if unit else "quality; no costs were recorded"
    said = [f"{below}; {MEAN}: over tasks, each counts the same"]
    if compared:
        value = f"value, quality - {weight:g} x cost over all items" if unit else "quality over all items"
        said.append(f"{RATIOS}: the {MEAN} relative to that of the single model with the best value")
        said.append("+ or - after a figure: quality above or below that model's, after a router's name:")
        said.append(f"{value}; the 95% interval of the paired bootstrap excludes 0")
    return tuple(said)
