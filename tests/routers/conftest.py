from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pools.cost import paper_cost
from pools.mdp.tree import Tree
from pools.types import Context, Generation, GenerationSettings, Item
from routers import RouterRequest
from routers.hierrouter import HierRouter
from routers.ppo_hierrouter import Args, plain, request_for
from routers.registry import teach

SETTINGS = GenerationSettings((), 32)
NAMES = ("Ann", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal", "Ida", "Jo")


class Echo:
    """A pool of three: each answers with its own name and how often it was asked, so the text tells who spoke."""

    def generate(self, model: int, requests: list[tuple[Context, GenerationSettings]]) -> list[Generation]:
        words = ("alpha", "beta", "gamma")
        return [
            Generation(f"{words[model]} after {len(c.responses)}", 10 * (1 + len(c.responses)), 10, "stop", 0.0)
            for c, _ in requests
        ]


def planted_score(answers: list[tuple[Item, str]]) -> list[float]:
    """Sums need model 0 and then 1; colours need model 2 at any hop."""
    return [float(r == "beta after 1" if "sum" in item.query else r.startswith("gamma")) for item, r in answers]


@pytest.fixture(scope="session")
def planted() -> Tree:
    """A complete tree of two families of items, told apart by their text, with an optimum that is known."""
    rng = np.random.default_rng(0)
    items = []
    for n in range(80):
        name = NAMES[rng.integers(10)]
        query = (
            f"{name} asks for the sum of {n} and {rng.integers(99)}"
            if n % 2
            else f"Which colour has {name}'s cube number {n}?"
        )
        items.append(Item("sums" if n % 2 else "colours", n, query, SETTINGS, "train" if n < 60 else "validation"))
    tree = Tree(items, ("a", "b", "c"), 2, paper_cost((1.0, 1.0, 2.0), "unit"), Echo(), planted_score)
    rows, nodes = np.indices(tree.known.shape)
    tree.require(rows.ravel(), nodes.ravel())
    return tree


@pytest.fixture(scope="session")
def request_(planted: Tree) -> RouterRequest:
    """What a router is asked for on these items."""
    tree = planted
    return RouterRequest(
        models=tree.models, max_hops=2, cost_model=tree.cost_model, cost_weight=0.001, train=tree.select("train"),
        validation=tree.select("validation"), evaluation=tree,
    )  # fmt: skip


@pytest.fixture(scope="session")
def train(planted: Tree) -> Callable[[Args], HierRouter]:
    """`train(args)`: HierRouter, as the command line trains it, on the planted items; its checkpoint is `args.out`."""
    tree = planted

    def on_planted(args: Args) -> HierRouter:
        request = request_for(args, tree.select("train"), tree.select("validation"))
        taught = teach("hierrouter", request, plain(args))
        if args.out is not None:
            taught.save(args.out)
        assert isinstance(taught.router, HierRouter)
        return taught.router

    return on_planted
