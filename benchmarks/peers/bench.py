"""The contenders of a run: their turns, what they have drawn before, and what becomes of one that fails."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
from PIL import Image, ImageChops

from benchmarks.peers.bare import Bare
from benchmarks.peers.order import Order
from benchmarks.peers.servers import Failed, Server

SEEN = ("a red circle on a blue background", "two green triangles above a yellow house, soft evening light")
NEW = "a {} boat beside a {} lighthouse under a cloudy sky, picture {} of a long series"
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "orange", "purple")
SEED = 7
LARGE_PX, SMALL_PX = 256, 128
SERVER_MB = 1500
"""Memory that a server may need; where there is less for all, each runs only for its own turns."""


@dataclass
class Bench:
    """What runs, in an order that each round begins one further on; sentences about what failed."""

    bare: Bare
    servers: list[Server]
    deadline: float
    """On the monotonic clock; only the first round of a part begins after it."""
    notes: list[str] = field(default_factory=list)
    images: dict[str, bytes] = field(default_factory=dict)
    """The same image by each contender, as PNG."""
    prompts: int = 0
    keep_running: bool = True

    def __post_init__(self) -> None:
        enough_mb = SERVER_MB * (len(self.servers) + 1)
        self.keep_running = psutil.virtual_memory().available / 2**20 > enough_mb

    def new_prompt(self) -> str:
        """A prompt that no contender has drawn; all of them get it in the same round."""
        self.prompts += 1
        first, second = divmod(self.prompts, len(COLOURS))
        return NEW.format(COLOURS[first % len(COLOURS)], COLOURS[second], self.prompts)

    def rounds(self, count: int, *, bare: bool = True) -> Iterator[tuple[int, list[Bare | Server]]]:
        """Numbers of rounds with the contenders in their order, until the deadline."""
        for number in range(count):
            if number and time.monotonic() > self.deadline:
                self.notes.append(f"Time was up after {number} of {count} rounds.")
                return
            everyone: list[Bare | Server] = [*([self.bare] if bare else []), *self.servers]
            first = number % len(everyone) if everyone else 0
            yield number, everyone[first:] + everyone[:first]

    @contextmanager
    def turn(self, contender: Bare | Server, *, warm: bool = True) -> Iterator[None]:
        """The contender's turn; `warm`: it runs, and has drawn each prompt that counts as seen.

        A server that fails is stopped and left out from then on. Raises: Failed where it is mflux alone.
        """
        try:
            if warm and not contender.running:
                contender.start()
            if warm and contender.name not in self.images:
                self._warm_up(contender)
            yield
        except Failed as failure:
            self.stop(contender)
            if not isinstance(contender, Server):
                raise
            self.servers.remove(contender)
            self.notes.append(f"Left out from here on: {failure}")
        finally:
            if not self.keep_running:
                self.stop(contender)

    def _warm_up(self, contender: Bare | Server) -> None:
        """Draw each prompt and each size once."""
        for prompt, size_px in zip(SEEN, (LARGE_PX, contender.sizes_px[0]), strict=True):
            images = contender.draw(Order(prompt, (SEED,), size_px))
            if prompt == SEEN[0]:
                self.images[contender.name] = images[0]

    def stop(self, contender: Bare | Server) -> None:
        contender.stop()
        self.images.pop(contender.name, None)

    def stop_all(self) -> None:
        for server in self.servers:
            server.begin_stop()
        self.bare.stop()
        for server in self.servers:
            server.stop()


def differences(images: dict[str, bytes], bare: str) -> dict[str, int]:
    """The largest difference of a colour, of 255, to bare mflux's image of the same prompt, seed and size."""
    opened = {name: Image.open(io.BytesIO(image)).convert("RGB") for name, image in images.items()}
    if bare not in opened:
        return {}
    extremes = {
        name: ImageChops.difference(image, opened[bare]).getextrema() for name, image in opened.items() if name != bare
    }
    return {name: max(high for _, high in bands) for name, bands in extremes.items()}  # type: ignore[misc]
