"""Quality per task: small multiples, one panel a task, one row a router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.figures.style import FONT_PX, LIGHT, WIDTH_PX, Series, new_figure, points, printable, shortened


def draw_tasks(
    routers: Sequence[tuple[Series, Mapping[str, Mapping[str, Any]]]], tasks: Sequence[str], narrow: bool
) -> Any:
    """A figure of dots with 95% intervals. routers: each with its figures per task."""
    row_px, axis_px, line_px, letter, width = 18, 28, 16, 0.56 * FONT_PX[narrow], WIDTH_PX[narrow]
    columns = min(len(tasks), 2 if narrow else 3)
    lines = -(-len(tasks) // columns)
    label_px = min(max(len(series.label) for series, _ in routers) * letter + 6, width * 0.42)
    gap = 16 if narrow else 24
    panel_width = (width - label_px - gap * (columns - 1) - 8) / columns
    limit = int((panel_width + gap) / (letter * 1.15))
    titles = [_wrapped(printable(task), limit) for task in tasks]
    panel, title_px = len(routers) * row_px, line_px * (1 + max(title.count("\n") for title in titles)) + 12
    height = lines * (panel + title_px + axis_px)
    figure = new_figure(width, height, narrow)
    for number, task in enumerate(tasks):
        line, column = divmod(number, columns)
        top = line * (panel + title_px + axis_px) + title_px
        axes = figure.add_axes(
            (
                (label_px + column * (panel_width + gap)) / width,
                1 - (top + panel) / height,
                panel_width / width,
                panel / height,
            )
        )
        axes.set(xlim=(-0.04, 1.04), ylim=(len(routers) - 0.5, -0.5), xticks=[0, 0.5, 1])
        axes.set_xticklabels(["0", "0.5", "1"])
        axes.grid(axis="x", linewidth=0.8)
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_title(titles[number], loc="left", fontweight="bold", pad=5, x=0)
        names = [shortened(series.label, int(label_px / letter * 1.05)) for series, _ in routers] if column == 0 else []
        axes.set_yticks(range(len(names)), names)
        for row, (series, figures) in enumerate(routers):
            found = figures[task]
            axes.axhline(row, color=LIGHT["grid"], linewidth=0.5, zorder=0)
            axes.plot(found["quality_interval"], [row, row], color=series.colour, linewidth=1.6, alpha=0.7)
            axes.plot(
                found["quality"], row, linestyle="", marker=series.marker, color=series.colour, clip_on=False,
                markersize=points(12 if series.marker == "*" else 8), markeredgecolor=LIGHT["paper"],
                markeredgewidth=0.6, zorder=3,
            )  # fmt: skip
        for label, (series, _) in zip(axes.get_yticklabels(), routers, strict=False):
            label.set_color(series.colour)
    return figure


def _wrapped(text: str, limit: int) -> str:
    """A name in one line, or in two that break after an underscore or a hyphen."""
    if len(text) <= limit:
        return text
    breaks = [n + 1 for n, c in enumerate(text[:limit]) if c in "_-"]
    at = breaks[-1] if breaks else limit
    return text[:at] + "\n" + shortened(text[at:], limit)
