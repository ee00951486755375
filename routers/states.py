"""What a router sees of a state, as numbers: named parts, in the same columns at every hop."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pools.answers import WORD, answer_reader
from pools.mdp.tree import IntArray, Tree
from pools.types import Context
from routers.encoders.base import SEEN, ContextEncoder, build_encoder
from routers.encoders.surface import surface, surfaces
from routers.router import RouterRequest

FloatArray = NDArray[np.float64]

Part = Literal["models", "agreement", "surface", "cost", "query", "response"]
"""A part of a state: who spoke at which hop; whether the last answer agrees with each earlier one; the surface of query
and last response (lengths, digits, markers); what was spent; the embeddings of query and last response."""
PARTS: tuple[Part, ...] = ("models", "agreement", "surface", "cost", "query", "response")
TEXTS: tuple[Part, ...] = ("surface", "query", "response")
"""The parts that are made of texts."""
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, eq=False)
class StateFeatures:
    """Turns states into numbers: the hop, and the parts that are seen.

    max_hops: `L`. models: `M`. sees: parts, of `Part`. embed: of the parts `query` and `response`; None if neither is
    seen. answers: how a response's answer is read, a kind of `pools.answers`. cost_scale: what costs are divided by.
    """

    max_hops: int
    models: int
    sees: tuple[str, ...]
    embed: ContextEncoder | None
    answers: str = WORD
    cost_scale: float = 1.0

    def blocks(
        self, contexts: Sequence[Context], hop: IntArray, cost: FloatArray, actions: IntArray
    ) -> dict[str, FloatArray]:
        """The columns `[n, ...]` of each part of `n` states, by name; zero in those of later hops.

        hop, cost: `[n]` hops made and cost spent. actions: `[n, L]` the models called, padded with -1.
        """
        rows, length = np.arange(len(contexts)), self.max_hops
        made = {"hop": np.eye(length)[hop]}
        spoke = np.eye(self.models + 1)[actions[:, : length - 1]][:, :, : self.models]  # -1 is the column cut off
        last = np.eye(self.models + 1)[np.where(hop > 0, actions[rows, hop - 1], -1)][:, : self.models]
        if "models" in self.sees:
            made |= {"spoke": spoke.reshape(len(rows), -1), "last": last}
        if "agreement" in self.sees:
            agrees = self._agreements(contexts)
            by_model = (agrees[:, :, None] * spoke[:, : agrees.shape[1]]).max(axis=1, initial=0)
            made |= {"agrees": agrees, "agrees with": by_model}
        if "cost" in self.sees:
            made["cost"] = cost[:, None] / self.cost_scale
        if "surface" in self.sees:
            made["query surface"] = surfaces(context.query for context in contexts)
            made["response surface"] = _response_surfaces(contexts)
        if self.embed is not None:
            made["embedding"] = self.embed(contexts).astype(np.float64)
        return made

    def _agreements(self, contexts: Sequence[Context]) -> FloatArray:
        """`[n, L - 2]` whether the last answer is the same as each earlier one; no answer is like no other."""
        found = np.zeros((len(contexts), max(self.max_hops - 2, 0)))
        if not found.size:
            return found
        for row, context in enumerate(contexts):
            given = [self._read(text) for text in context.responses]
            if len(given) > 1 and given[-1]:
                found[row, : len(given) - 1] = [each == given[-1] for each in given[:-1]]
        return found

    @property
    def width(self) -> int:
        """How many columns there are, the embedding's the last."""
        start = np.zeros(1, np.int64), np.zeros(1), np.full((1, self.max_hops), -1)
        return sum(block.shape[1] for block in self.blocks([Context("")], *start).values())

    @cached_property
    def _read(self) -> Callable[[str], str]:
        return lru_cache(maxsize=1 << 16)(answer_reader(self.answers))

    def cost(self, contexts: Sequence[Context]) -> FloatArray:
        """`[n]` cost of the encoder at each context, in the unit of the paper's cost model."""
        return np.zeros(len(contexts)) if self.embed is None else self.embed.cost(contexts)


def features_of(
    tree: Tree, sees: Sequence[str], encoder: str, request: RouterRequest, cost_scale: float = 1.0
) -> StateFeatures:
    """What a router sees of the states of a tree, its encoder fitted on the texts of the decision nodes."""
    embedded = tuple(part for part in SEEN if part in sees)
    embed = None
    if embedded:
        seen = np.unique(tree.context_id[:, : tree.decision_nodes])
        contexts = [tree.contexts[c] for c in seen.tolist() if c >= 0]
        embed = ContextEncoder(build_encoder(encoder, contexts, request.seed, request.weights), embedded)
    return StateFeatures(tree.max_hops, len(tree.models), tuple(sees), embed, tree.answers, cost_scale)


def _response_surfaces(contexts: Sequence[Context]) -> FloatArray:
    """`[n, s + 5]` the surface of each last response and how it relates to its query; zeros if there is none."""
    answered = [(context.query, context.responses[-1]) for context in contexts if context.responses]
    found = np.zeros((len(contexts), len(surface("")) + len(_relation("", ""))))
    if answered:
        rows = np.array([bool(context.responses) for context in contexts])
        own = surfaces(response for _, response in answered)
        found[rows] = np.concatenate([own, [_relation(*pair) for pair in answered]], axis=1)
    return found


@lru_cache(maxsize=1 << 16)
def _relation(query: str, response: str) -> tuple[float, ...]:
    """A response beside its query: numbers and words taken up, new numbers, the ratio of lengths, what marks the end.

    The last is the length of what follows the last line of an answer's mark, as `####`; 0 without one.
    """
    asked, said = set(_NUMBER.findall(query)), set(_NUMBER.findall(response))
    words, own = set(query.lower().split()), set(response.lower().split())
    mark = response.rfind("####")
    return (
        len(asked & said) / max(1, len(asked)),
        float(np.log1p(len(said - asked))) / 3,
        float(np.log1p(len(response) / (1 + len(query)))),
        len(words & own) / max(1, len(words)),
        float(np.log1p(len(response) - mark)) / 5 if mark >= 0 else 0.0,
    )
