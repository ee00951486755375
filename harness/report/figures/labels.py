"""Labels of points that overlap neither each other nor the points."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.report.figures.style import points

_DIRECTIONS = ((1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
_DISTANCES = (7.0, 16.0, 28.0, 44.0, 64.0, 90.0)
_LINE_FROM = 28.0
_MEET = 12.0  # pixels


def place_labels(
    axes: Any, places: Any, labels: Sequence[str], colours: Sequence[str], bars: Sequence[Sequence[float]]
) -> None:
    """Write a label at each place `[n, 2]` in data coordinates, where there is room; with a line to it if that is far.

    Places of one colour that meet share a label of several lines. The first has the first choice. (adjustText, which
    pushes labels apart, leaves overlaps where points meet.)

    bars: boxes in data coordinates, as left, bottom, right, top, that are better left free. The axes' limits and the
    figure's size must be final.
    """
    renderer = axes.figure.canvas.get_renderer()
    frame = np.add(axes.get_window_extent(renderer).extents, (2, 2, 0, 4))
    centres = axes.transData.transform(places)
    corners = axes.transData.transform(np.reshape(bars, (-1, 2))).reshape(-1, 4)
    avoided = np.add(corners, (-3, -3, 3, 3))
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in centres]
    names: dict[int, str] = {}  # by the first place that they are at
    for i, label in enumerate(labels):
        meets = (k for k in names if colours[k] == colours[i] and np.hypot(*(centres[k] - centres[i])) < _MEET)
        first = next(meets, i)
        names[first] = f"{names[first]}\n{label}" if first in names else label
    for i, label in names.items():
        (x, y), place, colour = centres[i], places[i], colours[i]
        text = axes.annotate(label, place, (0, 0), textcoords="offset points", color=colour, annotation_clip=False)
        extent = text.get_window_extent(renderer)
        width, height = extent.width, extent.height * 0.85
        best, least = (0.0, 0.0, 0.0), np.inf
        for distance, (right, up) in itertools.product(_DISTANCES, _DIRECTIONS):
            # The label's nearest edge, not its middle, is at that distance; at a corner the eye sees it nearer.
            away = distance * (0.6 if right and up else 1.2)
            cx, cy = x + right * (away + width / 2), y + up * (away + height / 2)
            box = (cx - width / 2 - 2, cy - height / 2 - 1, cx + width / 2 + 2, cy + height / 2 + 1)
            outside = _overlap(box, [box]) - _overlap(box, [frame])
            penalty = 4.0 * distance + 1000 * outside + 50 * _overlap(box, taken) + _overlap(box, avoided)
            if penalty < least:
                least, best, chosen = penalty, (cx, cy, distance), box
        taken.append(chosen)
        cx, cy, distance = best
        # In points, which a picture at another resolution scales, and pixels it does not.
        text.set_position((points(cx - x - width / 2), points(cy - y - height / 2 + 1)))
        if distance >= _LINE_FROM:
            nearest = np.clip((x, y), (cx - width / 2, cy - height / 2), (cx + width / 2, cy + height / 2))
            axes.annotate(
                "", place, axes.transData.inverted().transform(nearest),
                arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 4},
            )  # fmt: skip


def _overlap(box: Sequence[float], others: Any) -> float:
    """Area that a box shares with others `[n, 4]`, summed."""
    left, bottom, right, top = np.transpose(others)
    wide = np.minimum(box[2], right) - np.maximum(box[0], left)
    tall = np.minimum(box[3], top) - np.maximum(box[1], bottom)
    return float((wide.clip(0) * tall.clip(0)).sum())
