"""The tables of a card: one for each question, a row per router, the first column as trained."""

from __future__ import annotations

from harness.evaluation.metrics import told_apart
from harness.robustness.card import Card, RouterCard
from harness.robustness.card import Cell as Figures
from harness.robustness.scenarios import AS_TRAINED, QUESTIONS
from harness.tables.grid import MARKS, Cell, Grid, Row

TITLES = {
    "tasks": "a task that it never saw",
    "kinds": "a kind of question that it never saw",
    "items": "trained on some of the train items",
    "retired": "a model is retired",
    "new": "a model is new",
    "prices": "a price changes",
    "wording": "queries in other words",
    "seeds": "trained with other seeds",
}
SAYS = {
    "tasks": "each column: trained without the task, judged on it",
    "kinds": "each kind in turn is left out of training, and judged; pooled",
    "items": "random items of train and validation, the smaller shares within the larger",
    "retired": "each model in turn is gone, mean over models; routers that rank their actions go on without it, the "
    "others are trained anew; the best single model is that of those left",
    "new": "trained anew on so many items alone, of which all outcomes are known; mean over three draws",
    "prices": "of the model whose calls cost the most; told: trained anew; lost: not told, beside told",
    "wording": "the recorded answers stay; flips: first decisions that change",
    "seeds": "each column another training",
}


LOST = "lost: value as trained minus value here, on the same items; *: its 95% interval excludes 0"


def stress_grids(card: Card) -> list[Grid]:
    """A table for each question that was asked."""
    asked = [question for question in QUESTIONS if any(_of(router, question) for router in card.routers.values())]
    return [_grid(card, question) for question in asked] or [_grid(card, AS_TRAINED)]


def _of(router: RouterCard, question: str) -> list[Figures]:
    return [cell for cell in router.cells if cell.question == question]


def _grid(card: Card, question: str) -> Grid:
    asked = [] if question == AS_TRAINED else [question]
    columns = dict.fromkeys(c.name for router in card.routers.values() for c in _of(router, question) if asked)
    rows = []
    for name, router in card.routers.items():
        found = {cell.name: cell for cell in _of(router, question)}
        first = _of(router, AS_TRAINED)
        cells = [_cell(first[0] if first else None), *(_cell(found.get(column)) for column in columns)]
        rows.append(Row(name, tuple(cells)))
    unit = f" per item in {card.cost_unit}" if card.cost_unit else ""
    return Grid(
        title=f"{card.title}: {TITLES.get(question, AS_TRAINED)}",
        headers=(AS_TRAINED, *columns),
        rows=tuple(rows),
        caption=(
            *([SAYS[question]] if question in SAYS else []),
            f"value (quality - {card.cost_weight:g} x cost{unit}) ahead of the single model that is best on what was "
            "known, with its 95% interval, paired over items; + or -: it excludes 0",
            *([] if question in (AS_TRAINED, "seeds") else [LOST]),
        ),
    )


def _cell(figures: Figures | None) -> Cell:
    if figures is None:
        return Cell(("cannot",))
    low, high = figures.ahead_interval
    lines = [signed(figures.ahead), f"{signed(low)}..{signed(high)}"]
    if figures.lost is not None and figures.question != "seeds":
        sure = told_apart(figures.lost, figures.lost_interval) != "no"
        lines.append(f"lost {figures.lost:z.3f}{'*' if sure else ''}")
    if figures.flips is not None:
        lines.append(f"{figures.flips:.0%} flips")
    if figures.worst is not None and figures.worst_ahead is not None:
        lines.append(f"worst {signed(figures.worst_ahead)}: {figures.worst}")
    if figures.cannot:
        had, where = len(figures.parts), "without" if figures.question in ("retired", "kinds") else "in"
        lines += [
            f"mean of {had} of {had + len(figures.cannot)}: cannot",
            f"be had {where} {', '.join(figures.cannot)}",
        ]
    return Cell(tuple(lines), MARKS.get(told_apart(figures.ahead, figures.ahead_interval), ""))


def signed(number: float) -> str:
    """With its sign, and three decimals; without one if these are 0."""
    shown = f"{number:+z.3f}"
    return shown.removeprefix("+") if float(shown) == 0 else shown
