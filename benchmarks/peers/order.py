"""One request for images, and what draws it: a server of the bench, or mflux alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

STEPS = 2
"""Half of what FLUX.2 Klein is drawn with, so that a run takes minutes."""


@dataclass(frozen=True)
class Order:
    """Images of one prompt, one for each seed; `size_px` is both edges."""

    prompt: str
    seeds: tuple[int, ...]
    size_px: int
    steps: int = STEPS


class Contender(Protocol):
    """What is measured."""

    @property
    def name(self) -> str: ...

    @property
    def sizes_px(self) -> tuple[int, ...]:
        """Sizes that it can draw."""

    def draw(self, order: Order) -> list[bytes]:
        """The images as PNG, by one client that waits for them."""

    def draw_all(self, orders: list[Order], clients: int) -> None:
        """Draw them for so many clients at once."""


def at_once(draw: Callable[[int], bytes], seeds: tuple[int, ...]) -> list[bytes]:
    """An image for each seed, all asked for at once: the best that a client can do where a request has one image."""
    with ThreadPoolExecutor(len(seeds)) as pool:
        return list(pool.map(draw, seeds))
