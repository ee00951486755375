"""Leads as a table of coloured cells: a row per change, a column per router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.report.figures.style import (
    FONT_PX,
    LIGHT,
    WIDTH_PX,
    axes_at,
    fitted,
    new_figure,
    points,
    printable,
    text_width,
)

MAX_ALPHA = 0.5  # of a cell's colour, so that its figure stays readable


def draw_leads(
    rows: Sequence[tuple[str, str]],
    routers: Sequence[str],
    leads: Mapping[tuple[str, str, str], tuple[float, bool]],
    narrow: bool,
) -> Any:
    """A figure of cells. rows: question and column, questions together.

    leads: by question, column and router the lead, and whether it is told apart from 0; a cell without one stays empty.
    """
    width, row_px, gap_px = WIDTH_PX[narrow], 20, 22
    label_px, max_px = (100, 180) if narrow else (190, 260)
    longest = max(text_width(printable(router), new_figure(width, max_px)) for router in routers)
    head_px = round(min(longest, max_px)) + 14
    breaks = [n for n in range(1, len(rows)) if rows[n][0] != rows[n - 1][0]]
    height = head_px + len(rows) * row_px + len(breaks) * gap_px + 4
    figure = new_figure(width, height)
    axes = axes_at(figure, 0, 0, width, height)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    column_px = (width - label_px) / len(routers)
    most = max((abs(lead) for lead, _ in leads.values()), default=1.0) or 1.0
    for number, router in enumerate(routers):
        axes.text(
            label_px + (number + 0.5) * column_px, head_px - 6, fitted(router, head_px - 12, figure), rotation=90,
            ha="center", va="bottom",
        )  # fmt: skip
    top = float(head_px)
    for number, (question, name) in enumerate(rows):
        if number in breaks:
            top += gap_px
            axes.text(0, top - 2, question, va="bottom", color=LIGHT["muted"])
        axes.text(0, top + row_px / 2, fitted(name, label_px - 8, figure), va="center")
        for place, router in enumerate(routers):
            if (question, name, router) not in leads:
                continue
            lead, sure = leads[question, name, router]
            left, colour = label_px + place * column_px, LIGHT["blue" if lead > 0 else "red"]
            alpha = MAX_ALPHA * min(1.0, abs(lead) / most)
            axes.fill_between(
                (left + 1, left + column_px - 1), top + 1, top + row_px - 1, color=colour, alpha=alpha, linewidth=0
            )
            shown = f"{lead:+.2f}".replace("0.", ".") if narrow else f"{lead:+.3f}"
            shown = shown if any(digit in shown for digit in "123456789") else "0"
            axes.text(
                left + column_px / 2, top + row_px / 2, shown, ha="center", va="center",
                fontsize=points(FONT_PX[narrow] * (0.75 if narrow else 0.92)), fontweight="bold" if sure else "normal",
            )  # fmt: skip
        top += row_px
    return figure
