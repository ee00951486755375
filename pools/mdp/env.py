"""One item after another as a `gymnasium.Env`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pools.mdp.tree import Tree
from pools.types import Context

UNANSWERED = -1.0  # the reward of stopping before any model was asked
Embed = Callable[[Sequence[Context]], NDArray[np.float32]]


class RoutingEnv(gymnasium.Env[dict[str, Any], int]):
    """Answer an item by calling candidate models one after another.

    ## Description
    The MDP of HierRouter (arXiv 2511.09873): at each hop the agent picks the model that answers next; that model reads
    the context, its response is appended to it, and the hop is charged.

    ## Action Space
    `Discrete(M)`: the index of the model that answers next. With `allow_stop`, `Discrete(M + 1)`: action `M` ends the
    episode with the last response. STOP is not open at hop 0, where nothing has answered yet: it ends the episode there
    with a reward of -1, less than a wrong answer's.

    ## Observation Space
    `Dict`: `embedding`, float32 `[d]`, of the context; `hop`, hops made so far, `Discrete(L + 1)`; `cost`, float32
    `[1]`, cost spent so far, `>= 0`.

    ## Starting State
    An item drawn uniformly, with no response yet; `reset(options={"item": index})` names one.

    ## Rewards
    `-cost_weight * hop_cost` at each hop; at the end also the task's score of the last response.

    ## Episode End
    Terminated after `L` hops or by STOP. Never truncated.

    ## Information
    `item`: its index; `node`: the tree's node; at the end also `quality` and `cost`.

    ## Arguments
    tree: recorded or live, with what its hops cost. embed: contexts to float32 `[n, d]`. cost_weight: the lambda
    of the reward, in score per unit of cost. allow_stop: whether STOP is an action.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so

    def __init__(self, tree: Tree, embed: Embed, cost_weight: float = 0.0, allow_stop: bool = False) -> None:
        self.tree, self.embed = tree, embed
        self.cost_weight, self.allow_stop = cost_weight, allow_stop
        dimension = embed([Context("")]).shape[1]
        self.observation_space = observation_space(dimension, tree.max_hops)
        self.action_space = gymnasium.spaces.Discrete(len(tree.models) + int(allow_stop))  # type: ignore[assignment]
        self._item, self._node, self._cost, self._ended = 0, 0, 0.0, True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start on an item, drawn at random or named by `options["item"]`."""
        super().reset(seed=seed)
        named = (options or {}).get("item")
        self._item = int(self.np_random.integers(len(self.tree.items))) if named is None else int(named)
        self._node, self._cost, self._ended = 0, 0.0, False
        return self._observation(), {"item": self._item, "node": 0}

    def step(self, action: int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Let a model answer, or stop. Raises ValueError for what is no action, and after the episode's end."""
        if not self.action_space.contains(action):
            raise ValueError(f"no action {action!r}: the action space is {self.action_space}")
        if self._ended:
            raise ValueError("the episode has ended: call reset() first")
        reward = 0.0
        stopped = int(action) == len(self.tree.models)
        if not stopped:
            node = int(self.tree.child(self._node, action))
            self.tree.require([self._item], [node])
            hop_cost = float(self.tree.cost[self._item, node])
            self._node, self._cost = node, self._cost + hop_cost
            reward -= self.cost_weight * hop_cost
        info: dict[str, Any] = {"item": self._item, "node": self._node}
        terminated = stopped or int(self.tree.depth[self._node]) == self.tree.max_hops
        self._ended = terminated
        if terminated:
            quality = float(self.tree.score[self._item, self._node])
            reward += quality if self._node else UNANSWERED
            info |= {"quality": quality, "cost": self._cost}
        return self._observation(), reward, terminated, False, info

    def _observation(self) -> dict[str, Any]:
        return {
            "embedding": self.embed([self.tree.context(self._item, self._node)])[0],
            "hop": int(self.tree.depth[self._node]),
            "cost": np.array([self._cost], np.float32),
        }


def observation_space(dimension: int, max_hops: int) -> gymnasium.spaces.Dict:
    """What the agent sees: the context's embedding, the hops made and the cost spent."""
    return gymnasium.spaces.Dict(
        {
            "embedding": gymnasium.spaces.Box(-np.inf, np.inf, (dimension,), np.float32),
            "hop": gymnasium.spaces.Discrete(max_hops + 1),
            "cost": gymnasium.spaces.Box(0.0, np.inf, (1,), np.float32),
        }
    )
