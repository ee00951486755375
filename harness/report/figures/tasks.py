"""Quality per task: small multiples, one panel a task, one row a router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.evaluation.summary import TaskFigures
from harness.report.figures.style import FONT_PX, LIGHT, WIDTH_PX, Series, axes_at, fitted, new_figure, points


def draw_tasks(routers: Sequence[tuple[Series, Mapping[str, TaskFigures]]], tasks: Sequence[str], narrow: bool) -> Any:
    """A figure of dots with 95% intervals. routers: each with its figures per task."""
    row_px, axis_px, line_px, letter, width = 18, 28, 16, 0.56 * FONT_PX[narrow], WIDTH_PX[narrow]
    columns = min(len(tasks), 2 if narrow else 3)
    lines = -(-len(tasks) // columns)
    label_px = min(max(len(series.label) for series, _ in routers) * letter + 6, width * 0.44)
    gap = 16 if narrow else 24
    panel_width = (width - label_px - gap * (columns - 1) - 8) / columns
    sketch = new_figure(width, 100)
    titles = [_wrapped(task, panel_width + gap - 4, sketch) for task in tasks]
    panel, title_px = len(routers) * row_px, line_px * (1 + max(title.count("\n") for title in titles)) + 12
    height = lines * (panel + title_px + axis_px)
    figure = new_figure(width, height)
    for number, task in enumerate(tasks):
        line, column = divmod(number, columns)
        top = line * (panel + title_px + axis_px) + title_px
        axes = axes_at(figure, label_px + column * (panel_width + gap), top, panel_width, panel)
        axes.set(xlim=(-0.04, 1.04), ylim=(len(routers) - 0.5, -0.5), xticks=[0, 0.5, 1])
        axes.set_xticklabels(["0", "0.5", "1"])
        axes.grid(axis="x", linewidth=0.8)
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_title(titles[number], loc="left", fontweight="bold", pad=5, x=0)
        names = [fitted(series.label, label_px - 8, figure) for series, _ in routers] if column == 0 else []
        axes.set_yticks(range(len(names)), names)
        for row, (series, figures) in enumerate(routers):
            found = figures[task]
            axes.axhline(row, color=LIGHT["grid"], linewidth=0.5, zorder=0)
            axes.plot(found.quality_interval, [row, row], color=series.colour, linewidth=1.6, alpha=0.7)
            axes.plot(
                found.quality, row, linestyle="", marker=series.marker, color=series.colour, clip_on=False,
                markersize=points(12 if series.marker == "*" else 8), markeredgecolor=LIGHT["paper"],
                markeredgewidth=0.6, zorder=3,
            )  # fmt: skip
        for label, (series, _) in zip(axes.get_yticklabels(), routers, strict=False):
            label.set_color(series.colour)
    return figure


def _wrapped(name: str, width: float, figure: Any) -> str:
    """A bold name in one line, or in two that break after an underscore or a hyphen, each at most so many pixels."""
    first = fitted(name, width, figure, "bold")
    if not first.endswith("…"):
        return first
    at = max(first.rfind("_"), first.rfind("-")) + 1 or len(first) - 1
    return first[:at] + "\n" + fitted(name[at:], width, figure, "bold")
