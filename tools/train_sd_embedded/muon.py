"""Muon for weights of any rank, in float32: on a processor without bfloat16 units that is faster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 3


def orthogonalise(matrix: torch.Tensor, steps: int = STEPS) -> torch.Tensor:
    """Approximately the nearest semi-orthogonal matrix, by Newton-Schulz iteration."""
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix (output channels x rest) is orthogonalised; step sizes are comparable to Adam's."""

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad.flatten(1)
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(gradient)
                average = state["momentum"]
                average.lerp_(gradient, 1 - group["momentum"])
                update = orthogonalise(gradient.lerp(average, group["momentum"]))
                scale = 0.2 * max(update.shape) ** 0.5
                parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * scale)


OUTER = ("conv_in", "conv_out", "embedding", "time_embedding")
"""Parts whose matrices Adam trains."""


def optimizers_for(
    parameters: Mapping[str, torch.nn.Parameter], matrix_rate: float, other_rate: float
) -> list[torch.optim.Optimizer]:
    """Muon for inner matrices and convolutions, Adam for everything else."""
    inner, others = [], []
    for name, parameter in parameters.items():
        outer = parameter.ndim < 2 or any(part in name for part in OUTER)
        (others if outer else inner).append(parameter)
    return [Muon(inner, matrix_rate), torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.0)]
