"""Muon for weights of any rank: momentum whose matrix is orthogonalised before each step."""

from collections.abc import Iterable

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Approximately the nearest semi-orthogonal matrix, by Newton-Schulz iteration in bfloat16."""
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class ConvMuon(torch.optim.Optimizer):
    """Flattens every weight to output channels x rest; step sizes are comparable to Adam's."""

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad.flatten(1)
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(gradient)
                average = state["momentum"]
                average.lerp_(gradient, 1 - group["momentum"])
                update = orthogonalise(gradient.lerp(average, group["momentum"]))
                scale = 0.2 * max(update.shape) ** 0.5
                parameter.add_(update.view(parameter.shape), alpha=-group["lr"] * scale)
