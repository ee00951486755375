"""`hierrouter`: the PPO agent of HierRouter (arXiv 2511.09873)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pools.answers import answer_reader
from pools.cost import MAX_COST, MAX_RATE
from pools.mdp.tree import Tree
from routers import ppo_hierrouter
from routers.encoders.base import SEEN, ContextEncoder, load_encoder, save_encoder
from routers.ppo_hierrouter import Agent, Inputs, Options
from routers.registry import register
from routers.router import Learnt, RouterRequest, RoutingStates
from routers.states import PARTS, TEXTS, StateFeatures


def taught_weights(tree: Tree) -> tuple[float, ...]:
    """The cost weights to learn a frontier at: a call of the most expensive model costs 0.003 to 1 of a score.

    None if costs are not known.
    """
    most = float(tree.cost[:, tree.level(1)].mean(axis=0).max()) if tree.complete and tree.items else 0.0
    return tuple((np.geomspace(0.003, 1.0, 9) / most).clip(max=MAX_RATE).tolist()) if most > 0 else ()


@register("hierrouter")
@dataclass(frozen=True)
class HierRouterPPO(Options):
    """The PPO agent of HierRouter; hierrouter:stochastic draws its actions."""

    greedy: bool = True
    """Take the most probable action, instead of drawing one."""

    variants: ClassVar = {"stochastic": {"greedy": False}}
    explores: ClassVar = True

    def adapted(self, request: RouterRequest) -> RouterRequest:
        """The paper's preset has neither STOP nor several cost weights; else a frontier takes a range of them."""
        if self.preset == "paper":
            return replace(request, allow_stop=False, cost_weights=())
        if request.frontier and request.train is not None and (usual := taught_weights(request.train)):
            asked = {request.cost_weight, *request.cost_weights, *usual}
            return replace(request, cost_weights=tuple(sorted(asked)))
        return request

    def fit(self, train: Tree, validation: Tree, request: RouterRequest) -> HierRouter:
        """Train with PPO; the policy with the best value on validation items is kept."""
        agent, inputs = ppo_hierrouter.train(self, train, validation, request)
        return HierRouter(agent, inputs, request, request.cost_weight, self.greedy)

    def load(self, learnt: Learnt, request: RouterRequest) -> HierRouter:
        """The router that was saved."""
        import torch

        sees = tuple(str(learnt["sees"]).split())
        if not set(sees) <= set(PARTS):
            raise ValueError(f"it sees {sees}, expected some of {PARTS}")
        embedded = tuple(part for part in SEEN if part in sees)
        embed = ContextEncoder(load_encoder(learnt, request.weights), embedded) if embedded else None
        scale = float(learnt["cost_scale"])
        if not 1e-12 <= scale <= MAX_COST:
            raise ValueError(f"cost_scale is {scale}")
        hops, models = request.max_hops, len(request.models)
        answers = str(learnt["answers"])
        answer_reader(answers)  # raises UserError for no kind of answers
        features = StateFeatures(hops, models, sees, embed, answers, scale)
        mean, spread = (np.asarray(learnt[name], np.float32) for name in ("mean", "scale"))
        inputs = Inputs(features, mean, spread, request.cost_weights, self.caps)
        weights = {n.removeprefix("actor."): a for n, a in learnt.items() if n.startswith("actor.")}
        # Before anything of that size is made: the options and the problem could ask for any.
        form = self.hidden, inputs.dimension
        if (found := np.shape(weights["0.weight"])) != form:
            raise ValueError(f"actor.0.weight is {found}, its options ask for {form}")
        if hops > len(mean) or models > np.size(weights["4.bias"]):
            raise ValueError(f"{hops} hops of {models} models are more than the actor takes")
        if not mean.shape == spread.shape == (features.width,) or not (spread > 0).all():
            raise ValueError(f"mean {mean.shape} and scale {spread.shape} of {features.width} numbers")
        agent = Agent(inputs.dimension, models, request.allow_stop, self.hidden)
        agent.nets.actor.load_state_dict({name: torch.from_numpy(np.asarray(array)) for name, array in weights.items()})
        return HierRouter(agent, inputs, request, request.cost_weight, self.greedy)


@dataclass(eq=False)
class HierRouter:
    """Embeds the context and lets the policy choose: the most probable action, or with `greedy=False` a drawn one.

    cost_weight: is shown to a policy that was trained for several. cap: on what an item may cost; what is left of it is
    shown to a policy that was trained under caps.
    """

    agent: Agent
    inputs: Inputs
    fitted_for: RouterRequest
    cost_weight: float
    greedy: bool
    cap: float = np.inf
    drawn: np.random.Generator = field(init=False, default_factory=lambda: np.random.default_rng(0))

    def at(self, cost_weight: float) -> HierRouter:
        """The same policy, shown another lambda."""
        return replace(self, cost_weight=cost_weight)

    def within(self, cap: float) -> HierRouter:
        """The same policy, shown what is left of a cap."""
        return replace(self, cap=cap)

    def notes(self, cost_weights: Sequence[float]) -> list[str]:
        """That it reads no texts; at which cost weights it was trained, where these are others."""
        notes = [] if set(TEXTS) & set(self.inputs.features.sees) else ["reads no texts"]
        trained = self.fitted_for.cost_weights or (self.fitted_for.cost_weight,)
        if not min(trained) <= min(cost_weights) <= max(cost_weights) <= max(trained):
            several = f"s {min(trained):g} to {max(trained):g}" if len(trained) > 1 else f" {trained[0]:g} alone"
            notes.append(f"trained at cost weight{several}")
        return notes

    def probabilities(self, states: RoutingStates) -> NDArray[np.float64]:
        """`[B, A]` probability of each action; one-hot if the router is greedy."""
        logits = self.ranking(states)
        if self.greedy:
            return np.eye(logits.shape[1])[logits.argmax(axis=1)]
        chance = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(chance / chance.sum(axis=1, keepdims=True))

    def ranking(self, states: RoutingStates) -> NDArray[np.float64]:
        """`[B, A]` the policy's logits."""
        import torch

        with torch.inference_mode():
            seen = self.inputs.seen(states.contexts, states.hop, states.cost, states.actions)
            weight = np.full(len(seen), self.cost_weight)
            seen = self.inputs.with_left(self.inputs.with_weight(seen, weight), self.cap - states.cost)
            logits = self.agent.logits(torch.from_numpy(seen))
        return np.asarray(logits.double().numpy())

    def act(self, states: RoutingStates) -> NDArray[np.int64]:
        """`[B]` actions."""
        chance = self.probabilities(states)
        if self.greedy:
            return np.asarray(chance.argmax(axis=1), np.int64)
        above = self.drawn.random((len(chance), 1)) > chance.cumsum(axis=1)
        return np.asarray(above.sum(axis=1).clip(max=chance.shape[1] - 1), np.int64)

    def routing_cost(self, states: RoutingStates) -> NDArray[np.float64]:
        """`[B]` cost of the encoder at each state; 0 for `hashing`, which runs no model."""
        return self.inputs.features.cost(states.contexts)

    def save(self) -> Learnt:
        """The actor's weights, the encoder, and how states become numbers."""
        weights = {f"actor.{name}": tensor.numpy() for name, tensor in self.agent.nets.actor.state_dict().items()}
        features = self.inputs.features
        encoder = {} if features.embed is None else save_encoder(features.embed.encoder)
        standard = {"mean": self.inputs.mean, "scale": self.inputs.scale}
        return {
            **weights,
            **encoder,
            **standard,
            "sees": " ".join(features.sees),
            "answers": features.answers,
            "cost_scale": np.array(features.cost_scale),
        }
