"""HierRouter's actor and critic."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Policy(nn.Module):
    """Two small MLPs over the context embedding and the state's features: logits of the actions, and the state's value.

    The paper states neither sizes nor activations: two hidden layers of tanh are our choice.

    dimension: of the embedding. features: how many, as of `StateFeatures`. models: `M`. allow_stop: whether action `M`
    is STOP, which is never open at hop 0.
    """

    def __init__(self, dimension: int, features: int, models: int, allow_stop: bool, hidden: int = 64) -> None:
        super().__init__()
        self.models, self.allow_stop = models, allow_stop
        inputs, actions = dimension + features, models + int(allow_stop)
        self.actor, self.critic = _mlp(inputs, hidden, actions, 0.01), _mlp(inputs, hidden, 1, 1.0)

    def forward(self, embedding: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[B, A]` and values `[B]` from embeddings `[B, d]` and features `[B, f]`."""
        seen = torch.cat([embedding, features], dim=1)
        logits = self.actor(seen)
        if self.allow_stop:
            closed = torch.zeros_like(logits, dtype=torch.bool)
            closed[:, self.models] = features[:, 0] == 1  # hop 0
            logits = logits.masked_fill(closed, -1e9)
        return logits, self.critic(seen).squeeze(1)


def _mlp(inputs: int, hidden: int, outputs: int, gain: float) -> nn.Sequential:
    """Orthogonal weights and zero biases, as is usual for PPO (Huang et al. 2022, "The 37 implementation details")."""
    layers = [nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)]
    for layer, scale in zip(layers, (math.sqrt(2), math.sqrt(2), gain), strict=True):
        nn.init.orthogonal_(layer.weight, scale)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
