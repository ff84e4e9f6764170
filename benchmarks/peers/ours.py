"""This gateway in the bench: as it is started by its README, with the checkpoint as a local model."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from benchmarks.peers.environments import Install
from benchmarks.peers.order import Order
from tests.support.live import ROOT

MODEL = "bench"


class MfluxGateway:
    """Requests are those of OpenAI's protocol; `engine` is that part of the settings."""

    name = "mflux-gateway"
    install: Install | None = None
    sizes_px: tuple[int, ...] = (128, 256)
    health = "/health/live"
    ready = "/health/live"
    ends: tuple[str, ...] = ("hang-up", "cancel")

    def __init__(self, engine: Mapping[str, str] | None = None) -> None:
        self._engine = engine or {"backend": "mlx"}

    def command(self, python: Path, port: int, folder: Path, checkpoint: Path) -> list[str]:
        local = {MODEL: {"path": str(checkpoint), "like": "flux2-klein-4b"}}
        config = {
            "engine": {**self._engine},
            # More steps than a distilled model is drawn with: an image that takes long enough to be cancelled.
            "models": {"default": MODEL, "local": local, "steps_as_sent": True, "cache_dir": str(folder / "models")},
            "store": {"data_dir": str(folder / "data")},
            "generation": {"output_dir": str(folder / "output")},
        }
        file = folder / "config.yaml"
        file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        return [str(python), str(ROOT / "api_main.py"), "--config", str(file), "--port", str(port)]

    def variables(self, folder: Path, checkpoint: Path) -> Mapping[str, str]:
        return {}

    def draw(self, client: httpx.Client, order: Order) -> list[bytes]:
        body = {"prompt": order.prompt, "n": len(order.seeds), "seed": order.seeds[0], "steps": order.steps}
        size = f"{order.size_px}x{order.size_px}"
        answer = client.post("/v1/images/generations", json={**body, "size": size, "response_format": "b64_json"})
        return [base64.b64decode(row["b64_json"]) for row in answer.raise_for_status().json()["data"]]

    def cancel(self, client: httpx.Client, order: Order, after_s: float) -> None:
        size = {"width": order.size_px, "height": order.size_px}
        body = {"prompt": order.prompt, "steps": order.steps, "seed": order.seeds[0], **size}
        job = client.post("/api/v1/generate", json=body).raise_for_status().json()["job_id"]
        time.sleep(after_s)
        client.delete(f"/api/v1/jobs/{job}").raise_for_status()
