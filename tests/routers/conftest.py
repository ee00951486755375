from __future__ import annotations

import hashlib
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
def planted_live() -> Callable[[], Tree]:
    """Makes a live tree, of which nothing is known yet, of two families of items that their texts tell apart."""
    return _planted


@pytest.fixture(scope="session")
def planted() -> Tree:
    """The same tree complete, with an optimum that is known."""
    return completed(_planted())


def _planted() -> Tree:
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
    return Tree(items, ("a", "b", "c"), 2, paper_cost((1.0, 1.0, 2.0), "unit"), Echo(), planted_score)


class Signpost:
    """A pool of three; what the first one says is of use only to who reads it; see `trap`."""

    def generate(self, model: int, requests: list[tuple[Context, GenerationSettings]]) -> list[Generation]:
        made = []
        for context, _ in requests:
            way = "left" if goes_left(context.query) else "right"
            said = f"ask {way}" if model == 0 else f"{('', 'left', 'right')[model]} after {context.responses[-1:]}"
            ended = context.responses[:1] not in ((), (f"ask {way}",))
            made.append(Generation(context.responses[0] if ended else said, 10, 10, "stop", 0.0))
        return made


def drawn(query: str, salt: str) -> float:
    """A number in [0, 1) for each query, in no order that could be learnt from its words."""
    return int.from_bytes(hashlib.sha256(f"{salt} {query}".encode()).digest()[:4], "big") / 2**32


def goes_left(query: str) -> bool:
    """Half of the queries do."""
    return drawn(query, "left") < 0.5


def trap_score(answers: list[tuple[Item, str]]) -> list[float]:
    """See `trap`."""
    right = []
    for item, said in answers:
        way = "left" if goes_left(item.query) else "right"
        lucky = said == "left after ()" and drawn(item.query, "lucky") < 0.8
        right.append(float(lucky or said == f"{way} after ('ask {way}',)"))
    return right


@pytest.fixture(scope="session")
def trap() -> Tree:
    """A tree whose best single model is a local optimum.

    `left`, called first, is right on about 80% of the items, whatever follows. `signpost` never is, but says whether
    `left` or `right` is right after it. So `signpost` first is worth little to a policy that does not read what it says
    yet, and all of the items to one that does.
    """
    items = [
        Item("questions", n, f"{NAMES[n % 10]} asks question {n}", SETTINGS, "train" if n < 100 else "validation")
        for n in range(140)
    ]
    cost_model = paper_cost((1.0, 1.0, 1.0), "unit")
    return completed(Tree(items, ("signpost", "left", "right"), 2, cost_model, Signpost(), trap_score))


def completed(tree: Tree) -> Tree:
    """Ask for all that is not known."""
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
def train(planted: Tree) -> Callable[..., HierRouter]:
    """`train(args, tree=planted)`: HierRouter, as the command line trains it; its checkpoint is `args.out`."""

    def on_tree(args: Args, tree: Tree = planted) -> HierRouter:
        request = request_for(args, tree.select("train"), tree.select("validation"))
        taught = teach("hierrouter", request, plain(args))
        if args.out is not None:
            taught.save(args.out)
        assert isinstance(taught.router, HierRouter)
        return taught.router

    return on_tree
