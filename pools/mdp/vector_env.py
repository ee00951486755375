"""Thousands of episodes at once as a `gymnasium.vector.VectorEnv`, stepped by array gathers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from pools.mdp.env import UNANSWERED, Embed, observation_space
from pools.mdp.tree import IntArray, Tree
from pools.types import Context


class RoutingVectorEnv(gymnasium.vector.VectorEnv[dict[str, NDArray[Any]], NDArray[Any], NDArray[Any]]):
    """`B` episodes of the MDP of `RoutingEnv`, with the same actions, observations and rewards.

    No Python runs per episode: a step gathers tokens, scores and context numbers out of the tree's arrays, and each
    distinct context is embedded once, when it is first seen. Over a live tree a step also asks each model, in one
    batch, for the responses that are not known yet.

    An episode that ends begins anew in the same step (`AutoresetMode.SAME_STEP`), on a new item. `infos` then holds
    `final_obs` of the ended episodes and `episode`, a dict of arrays `r` (return), `l` (hops), `quality`, `cost`,
    each with its mask `_final_obs`, `_episode`. `item` and `node` tell where the step led, before any new beginning.

    Attributes for trainers that look embeddings up themselves: `item`, `node`, int64 `[B]`; `cost`, float64 `[B]`;
    `context_id`, int32 `[B]`, rows of `embeddings`, float32 `[distinct contexts, d]`; `weight`, int64 `[B]`, which of
    `cost_weights` each episode is charged at. With several of them one is drawn for each episode, and observed as
    `cost_weight`, float32 `[1]`.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        tree: Tree,
        embed: Embed,
        num_envs: int,
        cost_weight: float | Sequence[float] = 0.0,
        allow_stop: bool = False,
    ) -> None:
        self.tree, self.embed = tree, embed
        self.num_envs, self.allow_stop = num_envs, allow_stop
        self.cost_weights = np.atleast_1d(np.asarray(cost_weight, np.float64))
        self.embeddings = np.empty((0, embed([Context("")]).shape[1]), np.float32)
        self.single_observation_space = observation_space(self.embeddings.shape[1], tree.max_hops)
        if len(self.cost_weights) > 1:
            self.single_observation_space["cost_weight"] = gymnasium.spaces.Box(0.0, np.inf, (1,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(len(tree.models) + int(allow_stop))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.item: IntArray = np.zeros(num_envs, np.int64)
        self.node: IntArray = np.zeros(num_envs, np.int64)
        self.weight: IntArray = np.zeros(num_envs, np.int64)
        self.cost = np.zeros(num_envs)
        self._return = np.zeros(num_envs)

    @property
    def context_id(self) -> NDArray[np.int32]:
        """`[B]` numbers of the current contexts."""
        return self.tree.context_ids(self.item, self.node)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Start all episodes, on items drawn at random or named by `options["items"]`, int `[B]`."""
        super().reset(seed=seed)
        named = (options or {}).get("items")
        self.item = self._draw(self.num_envs) if named is None else np.array(named, np.int64)
        self.weight = self._draw_weights()
        self.node = np.zeros(self.num_envs, np.int64)
        self.cost = np.zeros(self.num_envs)
        self._return = np.zeros(self.num_envs)
        return self.observe(), {"item": self.item.copy()}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Let a model answer in each episode, or stop it."""
        rewards, ended = self.advance(np.asarray(actions, np.int64))
        infos: dict[str, Any] = {"item": self.item.copy(), "node": self.node.copy()}
        if ended.any():
            infos |= {"final_obs": self.observe(), "_final_obs": ended, "episode": self.episodes(), "_episode": ended}
            self.restart(ended)
        return self.observe(), rewards, ended, np.zeros(self.num_envs, bool), infos

    # --- the parts of a step, for trainers that need no observation dict ------------------------------------------

    def advance(self, actions: IntArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Step all episodes without starting ended ones anew: rewards `[B]`, whether each ended `[B]`."""
        if actions.min(initial=0) < 0 or actions.max(initial=0) >= len(self.tree.models) + int(self.allow_stop):
            raise ValueError(f"actions {actions} are not all in {self.single_action_space}")
        stopped = actions == len(self.tree.models)
        node = np.where(stopped, self.node, self.tree.child(self.node, actions))
        self.tree.require(self.item, node)
        place = self.item, node
        hop_cost = np.where(stopped, 0.0, self.tree.cost[place])  # a stopped episode made no hop
        ended = stopped | (self.tree.depth[node] == self.tree.max_hops)
        final = np.where(node > 0, self.tree.score[place], UNANSWERED)
        rewards = np.where(ended, final, 0.0) - self.cost_weights[self.weight] * hop_cost
        self.node = node
        self.cost = self.cost + hop_cost
        self._return += rewards
        return rewards, ended

    def episodes(self) -> dict[str, NDArray[Any]]:
        """Return, hops, quality and cost `[B]` of the episodes as they stand."""
        return {
            "r": self._return.copy(),
            "l": self.tree.depth[self.node],
            "quality": self.tree.score[self.item, self.node].astype(np.float64),
            "cost": self.cost.copy(),
        }

    def restart(self, ended: NDArray[np.bool_]) -> None:
        """Start the ended episodes anew, on new items."""
        self.item = np.where(ended, self._draw(self.num_envs), self.item)
        self.weight = np.where(ended, self._draw_weights(), self.weight)
        self.node = np.where(ended, 0, self.node)
        self.cost = np.where(ended, 0.0, self.cost)
        self._return = np.where(ended, 0.0, self._return)

    def observe(self) -> dict[str, NDArray[Any]]:
        """The observations of all episodes."""
        ids = self.context_id
        seen: dict[str, NDArray[Any]] = {
            "embedding": self.table()[ids],
            "hop": self.tree.depth[self.node],
            "cost": self.cost[:, None].astype(np.float32),
        }
        if len(self.cost_weights) > 1:
            seen["cost_weight"] = self.cost_weights[self.weight][:, None].astype(np.float32)
        return seen

    def table(self) -> NDArray[np.float32]:
        """`embeddings`, with those of contexts that have come up since it was last asked for."""
        if len(self.embeddings) < len(self.tree.contexts):
            new = self.embed(self.tree.contexts[len(self.embeddings) :])
            self.embeddings = np.concatenate([self.embeddings, new])
        return self.embeddings

    def state(self) -> dict[str, NDArray[Any]]:
        """Where all episodes stand, to be given to `restore`."""
        where: dict[str, NDArray[Any]] = {"item": self.item, "node": self.node, "weight": self.weight}
        return where | {"cost": self.cost, "return": self._return}

    def random_state(self) -> dict[str, Any]:
        """The state of the generator that draws items, as JSON can hold it."""
        return dict(self.np_random.bit_generator.state)

    def restore(self, state: Mapping[str, ArrayLike], random_state: dict[str, Any]) -> None:
        """Put all episodes back to where they stood."""
        self.item, self.node = np.array(state["item"], np.int64), np.array(state["node"], np.int64)
        self.weight = np.array(state["weight"], np.int64)
        self.cost, self._return = np.array(state["cost"], np.float64), np.array(state["return"], np.float64)
        self.np_random.bit_generator.state = random_state
        self.tree.require(self.item, self.node)

    def _draw(self, count: int) -> IntArray:
        return self.np_random.integers(len(self.tree.items), size=count)

    def _draw_weights(self) -> IntArray:
        if len(self.cost_weights) == 1:
            return np.zeros(self.num_envs, np.int64)
        return self.np_random.integers(len(self.cost_weights), size=self.num_envs)
