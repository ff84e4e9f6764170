"""mfluxible in the bench: one process, which loads its model before it listens. It has no cancel."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import httpx

from benchmarks.peers.environments import Install
from benchmarks.peers.order import Order, at_once


class Mfluxible:
    """Requests are its own: those of OpenAI's protocol have no steps there. An image is a request."""

    name = "mfluxible"
    install: Install | None = Install(
        pins=("mfluxible==0.9.2", "mflux==0.24.0", "jinja2==3.1.6"), python="3.11", mlx="0.32.2"
    )
    sizes_px: tuple[int, ...] = (128, 256)
    health = "/health"
    ready = "/health"
    ends: tuple[str, ...] = ("hang-up",)

    def command(self, python: Path, port: int, folder: Path, checkpoint: Path) -> list[str]:
        return [str(python.with_name("mfluxible-server")), "--port", str(port)]

    def variables(self, folder: Path, checkpoint: Path) -> Mapping[str, str]:
        return {
            "MFLUXIBLE_CONFIG": "none",
            "MFLUXIBLE_MODEL": "flux2-klein-4b",
            "MFLUXIBLE_MODEL_DIR": str(checkpoint.parent),
            "MFLUXIBLE_QUANTIZE": "none",
        }

    def draw(self, client: httpx.Client, order: Order) -> list[bytes]:
        size = {"width": order.size_px, "height": order.size_px}

        def one(seed: int) -> bytes:
            body = {"prompt": order.prompt, "seed": seed, "steps": order.steps, "stream": False, **size}
            answer = client.post("/mfluxible/v1/images/generations", json=body)
            return base64.b64decode(answer.raise_for_status().json()["data"])

        return at_once(one, order.seeds)

    def cancel(self, client: httpx.Client, order: Order, after_s: float) -> None:
        raise ValueError("mfluxible has no cancel")
