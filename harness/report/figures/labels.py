"""Labels of points that overlap neither each other nor the points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.report.figures.style import points

_DIRECTIONS = ((1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
_DISTANCES = (7.0, 16.0, 28.0, 44.0, 64.0, 90.0)
Box = tuple[float, float, float, float]


def place_labels(
    axes: Any, places: Sequence[tuple[float, float]], labels: Sequence[str], colours: Sequence[str], bars: Sequence[Box]
) -> None:
    """Write a label at each place (in data coordinates), where there is room, with a line to it where that is far.

    bars: boxes in data coordinates, as left, bottom, right, top, that are better left free. The axes' limits and the
    figure's size must be final.
    """
    figure = axes.figure
    renderer = figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    centres = axes.transData.transform(np.array(places))
    corners = [axes.transData.transform([(b[0], b[1]), (b[2], b[3])]).ravel() for b in bars]
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in centres]
    for (x, y), place, label, colour in zip(centres, places, labels, colours, strict=True):
        text = axes.annotate(label, place, (0, 0), textcoords="offset points", color=colour, annotation_clip=False)
        extent = text.get_window_extent(renderer)
        width, height = extent.width, extent.height * 0.85
        best: tuple[float, float, float] = (0.0, 0.0, 0.0)
        least = math.inf
        for distance in _DISTANCES:
            for right, up in _DIRECTIONS:
                # The label's nearest edge, not its middle, is at that distance; at a corner the eye sees it nearer.
                away = distance * (0.6 if right and up else 1.2)
                cx, cy = x + right * (away + width / 2), y + up * (away + height / 2)
                box = (cx - width / 2 - 2, cy - height / 2 - 1, cx + width / 2 + 2, cy + height / 2 + 1)
                outside = _overlap(box, box) - _overlap(box, (frame.x0 + 2, frame.y0 + 2, frame.x1, frame.y1 + 4))
                penalty = 4.0 * distance + 1000 * outside
                penalty += 50 * sum(_overlap(box, other) for other in taken)
                penalty += sum(_overlap(box, (a - 3, b - 3, c + 3, d + 3)) for a, b, c, d in corners)
                if penalty < least:
                    least, best = penalty, (cx, cy, distance)
        cx, cy, distance = best
        taken.append((cx - width / 2 - 2, cy - height / 2 - 1, cx + width / 2 + 2, cy + height / 2 + 1))
        # In points, which a picture at another resolution scales, and pixels it does not.
        text.set_position((points(cx - x - width / 2), points(cy - y - height / 2 + 1)))
        if distance > _DISTANCES[1]:
            nearest = np.clip(x, cx - width / 2, cx + width / 2), np.clip(y, cy - height / 2, cy + height / 2)
            axes.annotate(
                "", place, axes.transData.inverted().transform(nearest),
                arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 4},
            )  # fmt: skip


def _overlap(a: Box, b: Box) -> float:
    """Area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
