"""What `report` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Report:
    """Write a page on one or several runs: the result in words, tables, figures and example items.

    It is one HTML file that needs no network; a folder beside it holds the figures as PNG and SVG.
    """

    runs: tuple[Path, ...]
    """Folders that python -m harness run wrote; or one of python -m harness stress."""
    out: Path | None = None
    """HTML file to write; by default report.html in the first of the folders."""
    force: bool = False
    """Replace the file of --out."""
    wandb: bool = False
    """Save a W&B Report that compares the runs, too; they have to be runs made with --track."""
