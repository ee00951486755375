"""Jinja's environment of the report's pages, and how their cells are written."""

from __future__ import annotations

from typing import Any

from harness.report.figures.style import inline_svg


def template_environment() -> Any:
    """Jinja's environment of the templates; what they show is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": _figure, "inline": inline_svg, "breakable": _breakable}
    return environment


def _figure(line: str) -> str:
    """A line of a cell, with the signs of print."""
    return line.replace("..", " to ").replace("-", "−")


def _breakable(name: str) -> Any:
    """The header of a column, which may be broken after an underscore."""
    from markupsafe import Markup, escape

    return escape(name).replace("_", Markup("_<wbr>"))
