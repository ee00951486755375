"""Grids as Markdown and LaTeX, and the figures of the one by task with their intervals as tidy CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from harness.evaluation.limits import Attained
from harness.evaluation.metrics import verdict
from harness.evaluation.summary import LatencyFigures, QualityCost, Summary
from harness.tables.grid import ALL, MEAN, Cell, Grid, Row, columns_of, wrapped

COLUMNS = (
    *("router", "task", "items", "quality", "quality_low", "quality_high", "cost", "cost_low", "cost_high"),
    *("quality_ratio", "cost_ratio", "significant", "hops", "regret", "gap_closed"),
    *("significant_from_bar", "gap_closed_from_bar"),
    *("seconds", "seconds_low", "seconds_high", "p50", "p95", "p95_low", "p95_high", "p99", "tail_hops", "own_seconds"),
)
NAME_WIDTH, HEADER_WIDTH = 16, 8
ESCAPES = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    # What the font of plain LaTeX has at these places is something else.
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
}


def markdown(grid: Grid) -> str:
    """A Markdown table, with its title and its caption above."""
    lines = [
        f"**{grid.title}**: {'; '.join(grid.caption)}",
        "",
        _markdown_row(["router", *grid.headers]),
        "|---" + "|---:" * len(grid.headers) + "|",
    ]
    for row in grid.rows:
        name = "<br>".join([f"{row.name} {row.mark}".rstrip(), *(f"  {note}" for note in row.notes)])
        lines.append(_markdown_row([name, *map(_markdown_cell, row.cells)]))
    return "\n".join([*lines, ""])


def _markdown_cell(cell: Cell) -> str:
    first, *below = cell.text
    return "<br>".join([(f"**{first}**" if cell.best else first) + cell.mark, *below])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def escape(text: str) -> str:
    """The text with LaTeX's special characters made ordinary."""
    return "".join(ESCAPES.get(character, character) for character in text)


def latex(grid: Grid, title: str) -> str:
    """A `table` environment that needs the package booktabs alone. title: of the run, for caption and label."""
    own = "" if grid.title == title else grid.title
    label = re.sub("[^a-z0-9]+", "-", f"{title.partition(':')[0]} {own}".lower()).strip("-")
    caption = ", ".join(filter(None, (title, own))) + ": " + "; ".join(grid.caption)
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(caption)}.}}",
        rf"\label{{tab:{label}}}",
        r"\smallskip",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        rf"\begin{{tabular}}{{l{'r' * len(grid.headers)}}}",
        r"\toprule",
        " & ".join(map(_header, ("router", *grid.headers))) + r" \\",
        r"\midrule",
    ]
    for number, row in enumerate(grid.rows):
        if number:
            lines.append(r"\midrule" if row.rule else r"\addlinespace[2pt]")
        lines += _lines(row)
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def tidy(summary: Summary) -> str:
    """CSV: a row per router and task, then `test: new wording`, `mean` (over tasks), `all` (items) and each seed.

    Its columns are in docs/reference/run-folder.md.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(given) for name, given in row.items()} for row in tidy_rows(summary))
    return text.getvalue()


def csv_cell(value: object) -> object:
    """A cell of a CSV file. A text that a spreadsheet would run as a formula has a quote before it (OWASP)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def tidy_rows(summary: Summary) -> Iterator[dict[str, Any]]:
    """The rows of the CSV file, with None for what is not known."""
    for router, entry in summary.routers.items():
        parts = columns_of(entry)
        counts = {task: figures.items for task, figures in parts.items()}
        for task, figures in {**parts, MEAN: entry.macro, ALL: entry.overall}.items():
            yield {
                **{"router": router, "task": task, "items": counts.get(task, entry.overall.items)},
                **_quality_cost(figures),
                **{"quality_ratio": figures.quality_ratio, "cost_ratio": figures.cost_ratio},
                "significant": verdict(figures.quality_ahead_interval) or None,
                **{name: getattr(figures, name, None) for name in ("hops", "regret", "gap_closed")},
                "significant_from_bar": verdict(figures.quality_ahead_of_bar_interval) or None,
                "gap_closed_from_bar": getattr(figures, "gap_closed_from_bar", None),
                **_latency(entry.latency if task == ALL else None),
            }
        for seed, training in entry.seeds.trainings.items() if entry.seeds is not None else ():
            yield {
                **{"router": router, "task": f"seed {seed}", "items": entry.overall.items},
                **_quality_cost(training),
                **{name: getattr(training, name) for name in ("hops", "regret", "gap_closed", "gap_closed_from_bar")},
            }
    yield from _limited_rows(summary)


def _limited_rows(summary: Summary) -> Iterator[dict[str, Any]]:
    """The rows of routers within limits, if any were asked for: what was attained over all items."""
    within, at_risk = summary.budget, summary.no_worse_than
    found: list[tuple[str, str, Attained]] = []
    if within is not None:
        limited: dict[str, Attained] = {**within.routers, "zero router": within.zero_router, "optimum": within.optimum}
        found += [(name, within.title, figures) for name, figures in limited.items()]
    if at_risk is not None:
        passed = {name: each.kept for name, each in at_risk.routers.items() if each.kept is not None}
        found += [(name, at_risk.title, figures) for name, figures in passed.items()]
    for router, task, figures in found:
        seconds_low, seconds_high = figures.seconds_interval or (None, None)
        yield {
            **{"router": router, "task": task, "items": summary.items},
            **_quality_cost(figures),
            **{"seconds": figures.seconds, "seconds_low": seconds_low, "seconds_high": seconds_high},
        }


def _quality_cost(figures: QualityCost | Attained) -> dict[str, float | None]:
    """The columns of quality and cost, with their intervals."""
    quality_low, quality_high = figures.quality_interval
    cost_low, cost_high = figures.cost_interval or (None, None)
    return {
        **{"quality": figures.quality, "quality_low": quality_low, "quality_high": quality_high},
        **{"cost": figures.cost, "cost_low": cost_low, "cost_high": cost_high},
    }


def _latency(figures: LatencyFigures | None) -> dict[str, float | None]:
    """The columns of a router's latency, which is known over all items alone."""
    if figures is None:
        return dict.fromkeys(COLUMNS[COLUMNS.index("seconds") :])
    (low, high), (p95_low, p95_high) = figures.seconds_interval, figures.p95_interval
    bounds = {"seconds_low": low, "seconds_high": high, "p95_low": p95_low, "p95_high": p95_high}
    named = ("seconds", "p50", "p95", "p99", "tail_hops", "own_seconds")
    return bounds | {name: getattr(figures, name) for name in named}


def _header(name: str) -> str:
    lines = [escape(line) for line in wrapped(name, HEADER_WIDTH)]
    return lines[0] if len(lines) == 1 else r"\shortstack[r]{" + r"\\".join(lines) + "}"


def _lines(row: Row) -> Iterator[str]:
    """The lines of one router: its name and note on the left, and on the right each line of its cells."""
    names = [escape(name) for name in wrapped(row.name, NAME_WIDTH)]
    names[-1] += _mark(row.mark)
    names += [rf"{{\scriptsize {escape(note)}}}" for note in row.notes]
    columns = [_figures(cell) for cell in row.cells]
    for cells in zip_longest(names, *columns, fillvalue=""):
        yield " & ".join(cells).rstrip() + r" \\"


def _figures(cell: Cell) -> list[str]:
    first, *below = (escape(line).replace("-", "$-$") for line in cell.text)
    shown = rf"\textbf{{{first}}}" if cell.best else first
    return [shown + (rf"\rlap{{{_mark(cell.mark)}}}" if cell.mark else ""), *(rf"{{\scriptsize {b}}}" for b in below)]


def _mark(mark: str) -> str:
    return f"$^{{{mark}}}$" if mark else ""
