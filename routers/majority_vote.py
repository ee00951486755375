"""`majority-vote`: every model answers the query itself, and the answer that most of them give is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pools.answers import WORD, answer_reader
from pools.errors import UserError
from routers.registry import items_to_learn_from, register
from routers.router import RouterRequest, RoutingStates


@dataclass(frozen=True)
class MajorityVote:
    """No path through the MDP, whose responses build on each other: a reference for what asking everybody costs.

    order: all model indices; of answers with as many votes that of the earliest model in it is taken. answers: how a
    response's answer is read, a kind of `pools.answers`; responses that give none agree with nothing.
    """

    order: tuple[int, ...]
    answers: str = WORD

    def choose_response(self, responses: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """`[B]` the model whose response is taken, for the responses `[B][M]` of all models to each query."""
        read, chosen = answer_reader(self.answers), []
        for given in responses:
            answers = [read(response) for response in given]
            votes = Counter(answer for answer in answers if answer)
            chosen.append(max(self.order, key=lambda model: votes[answers[model]]))
        return np.array(chosen, np.int64)

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """Raises UserError: it makes no choice before the responses are there."""
        raise UserError("majority-vote asks every model and routes nothing; it is evaluated by python -m harness run")


@register("majority-vote")
def majority_vote(request: RouterRequest) -> MajorityVote:
    """What most models answer to the query alone; of equals that of the model with the best value on train items.

    Answers are compared as the recording says; a response that gives none agrees with no other.
    """
    if request.argument:
        raise UserError(f"router majority-vote takes no argument, got {request.argument!r}")
    tree, _ = items_to_learn_from(request, "majority-vote")
    nodes = tree.level(1)
    cost = tree.cost[:, nodes]
    value = (tree.score[:, nodes] - request.cost_weight * cost).mean(axis=0)
    return MajorityVote(tuple(np.argsort(-value, kind="stable").tolist()), tree.answers)
