"""HierRouter's actor and critic."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Policy(nn.Module):
    """Two small MLPs over (context embedding, hop, cost so far): logits of the actions, and the state's value.

    The paper states neither sizes nor activations: two hidden layers of tanh are our choice.

    dimension: of the embedding. max_hops: `L`. models: `M`. allow_stop: whether action `M` is STOP, which is never
    open at hop 0. cost_scale: what the cost is divided by, about its size over a whole episode.
    """

    def __init__(
        self, dimension: int, max_hops: int, models: int, allow_stop: bool, cost_scale: float, hidden: int = 64
    ) -> None:
        super().__init__()
        self.max_hops, self.models, self.allow_stop, self.cost_scale = max_hops, models, allow_stop, cost_scale
        inputs, actions = dimension + max_hops + 1, models + int(allow_stop)
        self.actor, self.critic = _mlp(inputs, hidden, actions, 0.01), _mlp(inputs, hidden, 1, 1.0)

    def forward(self, embedding: Tensor, hop: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, A]` and values `[B]` from embeddings `[B, d]`, hops int64 `[B]` and costs `[B]`."""
        one_hot = nn.functional.one_hot(hop, self.max_hops)
        features = torch.cat([embedding, one_hot.to(embedding), (cost / self.cost_scale).to(embedding)[:, None]], dim=1)
        logits = self.actor(features)
        if self.allow_stop:
            closed = torch.zeros_like(logits, dtype=torch.bool)
            closed[:, self.models] = hop == 0
            logits = logits.masked_fill(closed, -1e9)
        return logits, self.critic(features).squeeze(1)


def _mlp(inputs: int, hidden: int, outputs: int, gain: float) -> nn.Sequential:
    """Orthogonal weights and zero biases, as is usual for PPO (Huang et al. 2022, "The 37 implementation details")."""
    layers = [nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)]
    for layer, scale in zip(layers, (math.sqrt(2), math.sqrt(2), gain), strict=True):
        nn.init.orthogonal_(layer.weight, scale)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
