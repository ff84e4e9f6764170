"""mlx-openai-server in the bench: one process that listens, and one that draws. It has no cancel.

Its mflux is of April 2026 and imports torch, which it does not use to draw with FLUX.2: torch is an empty module here.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import httpx

from benchmarks.peers.environments import Install
from benchmarks.peers.order import Order, at_once

MODEL = "bench"


class MlxOpenaiServer:
    """Requests are those of OpenAI's protocol. An image is a request, and none is smaller than 256 pixels."""

    name = "mlx-openai-server"
    install: Install | None = Install(pins=("mlx-openai-server==1.8.1", "mflux==0.17.5"), python="3.11", mlx="0.31.2")
    sizes_px: tuple[int, ...] = (256,)
    health = "/health"
    ready = "/health"
    ends: tuple[str, ...] = ("hang-up",)

    def command(self, python: Path, port: int, folder: Path, checkpoint: Path) -> list[str]:
        model = ["--model-path", str(checkpoint), "--model-type", "image-generation", "--served-model-name", MODEL]
        where = ["--host", "127.0.0.1", "--port", str(port), "--no-log-file", "--config-name", "flux2-klein-4b"]
        return [str(python.with_name("mlx-openai-server")), "launch", *model, *where]

    def variables(self, folder: Path, checkpoint: Path) -> Mapping[str, str]:
        return {"PEERS_EMPTY": "torch,safetensors.torch,torchvision,cv2"}

    def draw(self, client: httpx.Client, order: Order) -> list[bytes]:
        size = f"{order.size_px}x{order.size_px}"

        def one(seed: int) -> bytes:
            body = {"model": MODEL, "prompt": order.prompt, "seed": seed, "steps": order.steps, "size": size}
            answer = client.post("/v1/images/generations", json={**body, "guidance_scale": 1.0})
            return base64.b64decode(answer.raise_for_status().json()["data"][0]["b64_json"])

        return at_once(one, order.seeds)

    def cancel(self, client: httpx.Client, order: Order, after_s: float) -> None:
        raise ValueError("mlx-openai-server has no cancel")
