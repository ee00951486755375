"""The figures of a report, drawn with matplotlib."""

from harness.figures.flow import draw_flow
from harness.figures.plane import draw_plane
from harness.figures.style import COLOURS, Drawing, Series, inline_svg, printable, write_files
from harness.figures.tasks import draw_tasks

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
