"""A page on what `stress` found: words, an overview as a figure, the tables. One HTML file, no network."""

from __future__ import annotations

from pathlib import Path

from harness.evaluation.metrics import told_apart
from harness.report.figures.heatmap import draw_leads
from harness.report.figures.style import COLOURS, Drawing
from harness.report.html import template_environment
from harness.robustness.card import Card, read_card
from harness.robustness.tables import stress_grids


def overview(card: Card) -> Drawing:
    """All leads of all routers."""
    leads = {
        (cell.question, cell.name, name): (cell.ahead, told_apart(cell.ahead, cell.ahead_interval) != "no")
        for name, router in card.routers.items()
        for cell in router.cells
    }
    rows = list(dict.fromkeys((question, column) for question, column, _ in leads))
    said = [f"{name}: {'; '.join(router.words)}" for name, router in card.routers.items()]
    return Drawing(
        "overview",
        f"Value ahead of the best single model, {card.title}",
        "A row for each change, a column for each router.",
        said,
        lambda narrow: draw_leads(rows, list(card.routers), leads, narrow),
    )


def page_of(folder: Path) -> tuple[str, list[Drawing]]:
    """The page on the card in a folder, and its figures. Raises UserError if the card is damaged."""
    card = read_card(folder)
    drawing, template = overview(card), template_environment().get_template("stress.html.jinja")
    return template.render(card=card, drawing=drawing, grids=stress_grids(card), colours=COLOURS), [drawing]
