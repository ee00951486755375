"""Muon with the precision of its parameters: for processors that are slow at products in bfloat16."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration; Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/"""
ITERATIONS = 5


def orthogonalised(matrices: torch.Tensor, eps: float = 1e-7) -> torch.Tensor:
    """`[n, r, c]` matrices with their singular values moved close to one, by Newton-Schulz iterations.

    A zero matrix stays zero.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """The update of `torch.optim.Muon` with its defaults, equal matrices in one batch and nothing in bfloat16.

    Torch's own iterates in bfloat16 whatever the parameters are. Measured on one core of an AMD EPYC without bfloat16
    units, of a specialist's training step in float32: 4.2 s for torch's, 0.2 s for this one, 0.6 s for all the rest.
    """

    def __init__(self, params: Iterable[torch.Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": 0.95, "weight_decay": 0.1})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """One step; there is no closure to evaluate."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                rate = group["lr"] * math.sqrt(max(1.0, shape[0] / shape[1]))
                updates = torch.stack([self._nesterov(parameter, group["momentum"]) for parameter in parameters])
                for parameter, update in zip(parameters, orthogonalised(updates), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _nesterov(self, parameter: torch.Tensor, momentum: float) -> torch.Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: torch.Tensor = state["momentum_buffer"]
        buffer.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(buffer, momentum)
