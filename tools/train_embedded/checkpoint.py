"""Checkpoints and clocks that let an interrupted training continue."""

import os
import time
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The checkpoint, or None when there is none."""
    return torch.load(path, map_location="cpu", weights_only=False) if path.exists() else None


class Budget:
    """Seconds of training left, counted over restarts."""

    def __init__(self, seconds: float, spent: float = 0.0) -> None:
        self._seconds = max(seconds, 1.0)
        self._start = time.monotonic() - spent

    @property
    def spent(self) -> float:
        return time.monotonic() - self._start

    @property
    def fraction(self) -> float:
        """Share of the budget used, from 0 to 1."""
        return min(1.0, self.spent / self._seconds)


def learning_rate(fraction: float, warmup: float = 0.02, hold: float = 0.6) -> float:
    """Multiplier that rises briefly, stays, then falls to zero at the end of the budget."""
    if fraction < warmup:
        return max(fraction / warmup, 0.02)
    return 1.0 if fraction < hold else max(0.0, (1.0 - fraction) / (1.0 - hold))


class Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self._decay = decay
        self.shadow = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        names, values = zip(*module.named_parameters(), strict=True)
        torch._foreach_lerp_([self.shadow[name] for name in names], [v.detach() for v in values], 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: torch.nn.Module) -> None:
        for name, value in module.named_parameters():
            value.copy_(self.shadow[name])
