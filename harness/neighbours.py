"""The packages that are installed beside this one, whose names others may use too."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

NEIGHBOURS = ("pools", "routers", "tasks")


def check_neighbours() -> None:
    """Raise ImportError, whose text is one line, if Python finds others of these names before ours.

    Imports nothing of theirs: what an error says of a name that is missing in a strange `tasks` helps nobody.
    """
    here = Path(__file__).resolve().parents[1]
    for name in NEIGHBOURS:
        spec = find_spec(name)
        places = [] if spec is None else [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
        if here / name / "__init__.py" not in [Path(place).resolve() for place in places if place]:
            found = f"finds {places[0]}" if places else "finds nothing"
            raise ImportError(
                f"`import {name}` {found} and not {here / name}, which belongs to harness: go to a folder without it "
                "(python -m looks in the current one first, the command `harness` does not), or rename or uninstall it"
            )
