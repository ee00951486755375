"""The figures of a report, drawn with matplotlib."""

from harness.report.figures.flow import draw_flow
from harness.report.figures.plane import draw_plane
from harness.report.figures.style import COLOURS, Drawing, Series, inline_svg, printable, write_files
from harness.report.figures.tasks import draw_tasks

__all__ = [
    "COLOURS",
    "Drawing",
    "Series",
    "draw_flow",
    "draw_plane",
    "draw_tasks",
    "inline_svg",
    "printable",
    "write_files",
]
