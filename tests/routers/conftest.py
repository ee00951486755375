from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pools.cost import CostModel, paper_cost
from pools.mdp.tree import Tree
from pools.types import Context, Generation, GenerationSettings, Item

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
def planted() -> Callable[[], tuple[Tree, CostModel]]:
    """A complete tree of two families of items, told apart by their text, with an optimum that is known."""

    def build() -> tuple[Tree, CostModel]:
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
        tree = Tree(items, ("a", "b", "c"), 2, Echo(), planted_score)
        rows, nodes = np.meshgrid(np.arange(len(items)), np.arange(tree.nodes), indexing="ij")
        tree.require(rows.ravel(), nodes.ravel())
        return tree, paper_cost((1.0, 1.0, 2.0), "unit")

    return build
