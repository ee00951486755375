"""What `estimate` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pools.cost import COST_WEIGHT


@dataclass(frozen=True)
class Estimate:
    """Estimate what one-hop routers would have attained on logged traffic, from one model's answer to each request.

    Each call needs a score and its propensity: the probability with which its model was chosen. The estimates are
    doubly robust, with 95% intervals; a router whose choices the log hardly tried is refused. Each model alone and
    random are always estimated, too, and so is the router of serve --shadow.
    """

    logs: tuple[Path, ...]
    """Logs of traffic: JSON lines of requests and responses (docs/guides/traffic.md), as serve --log writes them."""
    router: tuple[str, ...] = ()
    """Routers to estimate, by name or as a file of your own; one that learns is what --checkpoint holds."""
    checkpoint: Path | None = None
    """A router that was trained on other outcomes of the same models, such as an imported shadow sample."""
    split: Literal["train", "validation", "test", "all"] = "test"
    """Which items to estimate on: by a hash of the request's text, as import splits them. With all, no router may have
    learnt from the same requests."""
    cost_weight: float = COST_WEIGHT
    """The lambda of the value: quality given up for one unit of cost."""
    cost_unit: str | None = None
    """Unit of the costs; by default what the calls say, or US$."""
    prices: tuple[str, ...] = ()
    """For calls that give no cost: MODEL=INPUT,OUTPUT in US$ per million tokens."""
    quality_only: bool = False
    """Use no costs, also if some are logged."""
    encoder: str = "hashing"
    """Encoder of the requests, for the model of the outcomes."""
    weights: Path | None = None
    """Folder that holds model folders named as on the Hugging Face hub, for the sentence encoder."""
    seed: int = 1
    """Seed of the folds that the model of the outcomes is fitted on, and of a router that draws."""
    out: Path | None = None
    """JSON file to write the estimates to."""
    force: bool = False
    """Replace the file of --out."""
