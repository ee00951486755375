"""Quality against cost or latency: every router a point with its intervals, over what mixing single models attains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.evaluation.frontier import concave_hull
from harness.report.figures.labels import place_labels
from harness.report.figures.style import LIGHT, WIDTH_PX, Series, axes_at, fitted, new_figure, points


@dataclass(frozen=True)
class Point:
    """A router in the plane: what it takes and the quality that it attains, with their 95% intervals."""

    series: Series
    taken: float
    taken_interval: tuple[float, float]
    quality: float
    quality_interval: tuple[float, float]


def draw_plane(
    routers: Sequence[Point],
    curves: Sequence[tuple[Series, Sequence[tuple[float, float]]]],
    axis: str,
    mixed: bool,
    narrow: bool,
    budgets: Sequence[tuple[float, float]] = (),
) -> Any:
    """A figure of points `(taken, quality)` with 95% intervals.

    curves: of a router over many cost weights, `(taken, quality)` in their order. axis: names what is taken. mixed:
    whether the hull of the series whose role is "single model" is drawn, as a mixture takes the mean of what they take.
    budgets: each with the quality of the exact optimum within it.
    """
    width, height = WIDTH_PX[narrow], 430 if narrow else 500
    left, right, bottom, top = (46, 8, 46, 78) if narrow else (58, 14, 52, 40)
    figure = new_figure(width, height)
    axes = axes_at(figure, left, top, width - left - right, height - bottom - top)
    reach = [point.taken_interval[1] for point in routers] + [c for _, curve in curves for c, _ in curve]
    most = max(reach) * 1.06 or 1.0
    axes.set(xlim=(-0.03 * most, most), ylim=(-0.03, 1.05), xlabel=axis, ylabel="quality")
    axes.grid(linewidth=0.8)
    axes.tick_params(length=0)
    axes.locator_params(axis="x", nbins=4 if narrow else 8)
    singles = [(p.taken, p.quality) for p in routers if mixed and p.series.role == "single model"]
    lines = [np.array(curve).T for _, curve in curves]
    if singles:
        at, height_at = concave_hull(*np.array(singles).T)
        hull = np.append(at, most), np.append(height_at, height_at[-1])
        lines.append(np.array(hull))
        axes.plot(
            *hull, color=LIGHT["slate"], linewidth=1.3, linestyle=(0, (5, 3)), label="single models, mixed at random",
        )  # fmt: skip
        axes.fill_between(*hull, -0.03, color=LIGHT["slate"], alpha=0.06, linewidth=0)
    for series, curve in curves:
        axes.plot(
            *np.array(curve).T, color=series.colour, linewidth=1.3, marker=".", markersize=points(5), zorder=2.5,
        )  # fmt: skip
    for number, (budget, quality) in enumerate(budgets):
        line = {"color": LIGHT["green"], "linewidth": 1.1, "linestyle": ":", "marker": "d", "markersize": points(7)}
        label = None if number else "budget"
        axes.plot([budget, budget], [-0.03, quality], **line, markevery=[1], label=label, zorder=2.4)
    shown: set[str] = set()
    bars = [box for curve in lines for box in along(curve)]
    for p in routers:
        series, (c_low, c_high), (q_low, q_high) = p.series, p.taken_interval, p.quality_interval
        bar = {"color": series.colour, "linewidth": 1.1, "alpha": 0.65, "zorder": 2.6}
        axes.hlines(p.quality, c_low, c_high, **bar)
        axes.vlines(p.taken, q_low, q_high, **bar)
        axes.plot(
            p.taken, p.quality, linestyle="", marker=series.marker, color=series.colour,
            markersize=points(13 if series.marker == "*" else 9), markeredgecolor=LIGHT["paper"], markeredgewidth=0.8,
            zorder=3, label=None if series.role in shown else series.role,
        )  # fmt: skip
        shown.add(series.role)
        bars += [(c_low, p.quality, c_high, p.quality), (p.taken, q_low, p.taken, q_high)]
    figure.legend(
        loc="upper left", bbox_to_anchor=(0.0, 1.0), ncols=2 if narrow else 6, frameon=False, handletextpad=0.4,
        columnspacing=0.6 if narrow else 1.0, borderpad=0.2, handlelength=1.6,
    )  # fmt: skip
    place_labels(
        axes,
        [(p.taken, p.quality) for p in routers],
        [fitted(p.series.label, 160 if narrow else 280, figure) for p in routers],
        [p.series.colour for p in routers],
        bars,
    )
    return figure


def along(line: Any, pieces: int = 40) -> list[tuple[float, float, float, float]]:
    """Small boxes (left, bottom, right, top) that cover a line `[2, n]` of vertices."""
    at = np.linspace(0, line.shape[1] - 1, pieces * (line.shape[1] - 1) + 1)
    x, y = (np.interp(at, np.arange(line.shape[1]), values) for values in line)
    return [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in zip(x, y, x[1:], y[1:], strict=False)]
