"""Jinja's environment of the report's pages, and how their cells are written."""

from __future__ import annotations

import re
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
    """A line of a cell, with the signs of print: in numbers alone, as names have hyphens, too."""
    line = re.sub(r"(?<=[\d%])\.\.(?=[-+\d])", " to ", line)
    return "−" if line == "-" else re.sub(r"(?<![\w.-])-(?=\.?\d)", "−", line)


def _breakable(name: str) -> Any:
    """A name, which may be broken after `_`, `:`, `/` and `>`; the browser does so after a hyphen."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(piece) for piece in re.split(r"(?<=[_:/>])", name))
