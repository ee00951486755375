"""Which pipelines a router used: a flow from hop to hop, each band as thick as its share of the items."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from harness.report.figures.style import LIGHT, MODEL_COLOURS, WIDTH_PX, axes_at, fitted, new_figure

ANSWERED = "answered"
_GAP = 0.055  # between two bars of a hop, as a share of all items


def draw_flow(pipelines: Mapping[tuple[str, ...], float], models: Sequence[str], narrow: bool) -> Any:
    """A figure of the flow. pipelines: the models of each, and its share of the items. models: their order."""
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path

    order = {name: number for number, name in enumerate([*models, ANSWERED])}
    colour = {name: MODEL_COLOURS[number % len(MODEL_COLOURS)] for number, name in enumerate(models)}
    colour[ANSWERED] = LIGHT["muted"]
    hops = max(map(len, pipelines))
    # The bars that each pipeline passes, one a hop; one that ends before the longest does passes a bar that says so.
    flows = {(*pipeline, ANSWERED)[:hops]: share for pipeline, share in pipelines.items()}
    letters = {name: chr(ord("A") + number) if number < 26 else str(number) for number, name in enumerate(models)}
    keyed = narrow and hops > 2
    key_px = 18 * len(models) + 6 if keyed else 0
    width, height = WIDTH_PX[narrow], (300 if narrow else 320) + key_px
    figure = new_figure(width, height)
    axes = axes_at(figure, 0, key_px, width, height - key_px)
    axes.set_axis_off()
    # In pixels from the upper left corner.
    axes.set(xlim=(0, width), ylim=(height - key_px, 0))
    top, scale = 26.0, (height - key_px - 34) / (1 + _GAP * len(models))
    label_px = 60 if keyed else 146 if narrow else 185
    # Where nothing flows, the bars themselves are the picture.
    bar_px = 14 if hops > 1 else width - label_px - 2
    step = (width - label_px - bar_px - 2) / max(1, hops - 1)
    room = (min(step - bar_px, label_px) if hops > 1 else label_px) - 10
    where: dict[tuple[str, ...], float] = {}
    for hop in range(hops):
        x = 1 + hop * step
        here = [(order[bars[hop]], where.get(bars, 0.0), bars) for bars in flows if len(bars) > hop]
        axes.text(x, 12, f"hop {hop + 1}", va="center", color=LIGHT["muted"])
        y, before, parts_of = top, "", defaultdict(list)
        for _, start, bars in sorted(here):
            name, tall = bars[hop], flows[bars] * scale
            if before and name != before:
                y += _GAP * scale
            before = name
            parts_of[name].append((y, tall))
            if hop:
                end = y
                x0, x1 = x - step + bar_px, x
                middle = (x0 + x1) / 2
                vertices = [
                    (x0, start), (middle, start), (middle, end), (x1, end),
                    (x1, end + tall), (middle, end + tall), (middle, start + tall), (x0, start + tall), (x0, start),
                ]  # fmt: skip
                codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
                band = colour[bars[hop - 1]]
                axes.add_patch(PathPatch(Path(vertices, codes), facecolor=band, alpha=0.3, linewidth=0, zorder=1))
            where[bars] = y
            y += tall
        for name, parts in parts_of.items():
            first, tall = parts[0][0], sum(t for _, t in parts)
            axes.add_patch(Rectangle((x, first), bar_px, max(tall, 1.0), facecolor=colour[name], linewidth=0, zorder=2))
            share = f"{tall / scale:.0%}" if tall / scale >= 0.01 else "<1%"
            shown = letters.get(name, "end") if keyed else fitted(name, room if tall > 20 else room - 32, figure)
            between = "\n" if tall > 20 and not keyed else " "
            axes.text(
                x + bar_px + 5, first + tall / 2, f"{shown}{between}{share}", va="center", zorder=3, linespacing=1.15
            )
    if keyed:
        key = axes_at(figure, 0, 0, width, key_px)
        key.set_axis_off()
        key.set(xlim=(0, width), ylim=(key_px, 0))
        for number, name in enumerate(models):
            key.add_patch(Rectangle((1, 4 + 18 * number), 10, 10, facecolor=colour[name], linewidth=0))
            key.text(17, 9 + 18 * number, f"{letters[name]}  {fitted(name, width - 40, figure)}", va="center")
    return figure
