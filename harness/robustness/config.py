"""What `stress` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pools.cost import COST_WEIGHT


@dataclass(frozen=True)
class Stress:
    """Ask of routers what a team asks before one goes live: new tasks, few items, other models, prices and wordings.

    Everything is replayed from a recording, exactly. After Ctrl-C the same command goes on from there if it has the
    same --out.
    """

    recording: Path | None = None
    """Folder of the recording; by default the shipped one."""
    router: tuple[str, ...] = ("hierrouter",)
    """Routers, by name (python -m harness list routers) or as a file of your own; beside them is the best single
    model."""
    router_args: tuple[str, ...] = ()
    """Options of routers that learn, as of `run`: ROUTER:name=value,name=value."""
    cost: str = "paper"
    """Cost model: paper, dollars, or FILE.py with your own."""
    cost_weight: float = COST_WEIGHT
    """The lambda of the reward, in quality per unit of cost."""
    max_hops: int | None = None
    """Horizon L; by default the recording's."""
    encoder: str = "hashing"
    """Encoder of the routers that learn: hashing, surface, sentence[:PATH], two as in hashing+surface, or FILE.py."""
    weights: Path | None = None
    """Folder that holds the sentence encoder's weights."""
    only: tuple[str, ...] = ()
    """Only these questions: tasks, kinds, items, retired, new, prices, wording, seeds."""
    seed: int = 1
    """Seed of everything that is drawn."""
    processes: int | None = None
    """How many trainings run at the same time; by default one on each core."""
    out: Path | None = None
    """Folder to write to, or to go on in; by default a new one under runs/, which is named at the start."""
    force: bool = False
    """Replace another card in the folder of --out."""
