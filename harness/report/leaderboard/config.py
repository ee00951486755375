"""What `leaderboard` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Leaderboard:
    """Check the entries of a leaderboard and write its page; first add the routers of finished runs, if any are named.

    An entry is a JSON file: a router's quality and cost on each item of a recording. One that contradicts itself, or
    has other items than the others of its recording, is refused. docs/reference/leaderboard.md has its form.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders that run wrote, whose routers become entries."""
    entries: Path = Path("leaderboard")
    """Folder of the entries."""
    label: str = ""
    """Put behind the name of each router that the runs were asked for, as in 'hierrouter (seed 2)'."""
    out: Path | None = None
    """Markdown file of the page; by default README.md in the folder of the entries."""
    force: bool = False
    """Replace another file of --out."""
