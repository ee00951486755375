"""The main table as LaTeX, and its figures with their intervals as tidy CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from harness.grid import MEAN, RATIOS, Cell, Grid, Row, wrapped
from harness.metrics import verdict

COLUMNS = (
    *("router", "task", "items", "quality", "quality_low", "quality_high", "cost", "cost_low", "cost_high"),
    *("quality_ratio", "cost_ratio", "significant"),
)
NAME_WIDTH, HEADER_WIDTH = 18, 8
ESCAPES = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    # What the font of plain LaTeX has at these places is something else.
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
}


def escape(text: str) -> str:
    """The text with LaTeX's special characters made ordinary."""
    return "".join(ESCAPES.get(character, character) for character in text)


def latex(table: Grid) -> str:
    """A `table` environment that needs the package booktabs alone."""
    headers = ["router", *table.tasks, MEAN, RATIOS]
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(table.title + '. ' + _sentence(' '.join(table.caption)))}.}}",
        rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', table.title.partition(':')[0].lower()).strip('-')}}}",
        r"\smallskip",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\begin{{tabular}}{{l{'r' * (len(headers) - 1)}}}",
        r"\toprule",
        " & ".join(_header(header) for header in headers) + r" \\",
        r"\midrule",
    ]
    for number, row in enumerate(table.rows):
        if number:
            lines.append(r"\midrule" if row.bound and not table.rows[number - 1].bound else r"\addlinespace[2pt]")
        lines += _lines(row)
    items = ["items", *map(str, table.items), "", ""]
    return "\n".join(
        [*lines, r"\midrule", " & ".join(items) + r" \\", r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    )


def tidy(summary: Mapping[str, Any]) -> str:
    """CSV: a row per router and task, then `mean` over the tasks and `all` items; documented in docs/summary.md."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(tidy_rows(summary))
    return text.getvalue()


def tidy_rows(summary: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of the CSV file, with None for what is not known."""
    for router, entry in summary["routers"].items():
        mean = entry["macro"] | {"items": entry["overall"]["items"]}
        for task, figures in {**entry["tasks"], MEAN: mean, "all": entry["overall"]}.items():
            row = {"router": router, "task": task, "items": figures["items"]}
            for name in ("quality", "cost"):
                low, high = figures[f"{name}_interval"] or (None, None)
                row |= {name: figures[name], f"{name}_low": low, f"{name}_high": high}
            ratios = {key: figures[key] for key in ("quality_ratio", "cost_ratio")}
            yield row | ratios | {"significant": verdict(figures["quality_ahead_interval"]) or None}


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _header(name: str) -> str:
    lines = [escape(line) for line in wrapped(name, HEADER_WIDTH)]
    return lines[0] if len(lines) == 1 else r"\shortstack[r]{" + r"\\".join(lines) + "}"


def _lines(row: Row) -> Iterator[str]:
    """The lines of the table for one router: quality, cost, and more where its name takes more."""
    names = [escape(name) for name in wrapped(row.router, NAME_WIDTH)]
    names[-1] += _mark(row.mark)
    figures = [[_above(cell) for cell in row.cells]]
    if any(cell.below for cell in row.cells):
        figures.append([rf"{{\scriptsize {cell.below}}}" for cell in row.cells])
    for name, cells in zip_longest(names, figures):
        yield " & ".join([name or "", *(cells or [""] * len(row.cells))]) + r" \\"


def _above(cell: Cell) -> str:
    text = rf"\textbf{{{cell.above}}}" if cell.best else cell.above
    return text + (rf"\rlap{{{_mark(cell.mark)}}}" if cell.mark else "")


def _mark(mark: str) -> str:
    return f"$^{{{mark}}}$" if mark else ""
