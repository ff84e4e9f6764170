"""mflux-webui-uno in the bench: one process, which loads the model for its first job. Its page submits jobs.

Its `requires-python` asks for 3.12, which the others do not need.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from benchmarks.peers.environments import Install
from benchmarks.peers.order import Order

COMMAND = "mflux-generate-flux2"
CSRF = "x-mflux-csrf"
POLL_S = 0.05


class MfluxWebuiUno:
    """Requests are those of its page, with a poll in place of its events, which come up to 0.25 s late."""

    name = "mflux-webui-uno"
    install: Install | None = Install(pins=("mflux-webui-uno==0.2.3", "mflux==0.23.0"), python="3.12", mlx="0.32.2")
    sizes_px: tuple[int, ...] = (128, 256)
    health = "/api/commands/progress"
    ready = "/api/session"
    ends: tuple[str, ...] = ("cancel",)

    def __init__(self) -> None:
        self._models: str = ""

    def command(self, python: Path, port: int, folder: Path, checkpoint: Path) -> list[str]:
        self._models = str(checkpoint)
        folders = ["--output-dir", str(folder / "output"), "--models-dir", str(checkpoint.parent)]
        words = ["--port", str(port), "--config", str(folder / "state.json"), "--log-level", "error"]
        return [str(python.with_name("mflux-webui")), *words, *folders]

    def variables(self, folder: Path, checkpoint: Path) -> Mapping[str, str]:
        return {}

    def draw(self, client: httpx.Client, order: Order) -> list[bytes]:
        job = self._submit(client, order)
        while (state := client.get(f"/api/jobs/{job}").raise_for_status().json())["status"] in ("queued", "running"):
            time.sleep(POLL_S)
        if state["status"] != "done":
            raise ValueError(f"its job ended as {state['status']}: {state.get('error')}")
        return [client.get(f"/api/images/{name}").raise_for_status().content for name in state["images"]]

    def cancel(self, client: httpx.Client, order: Order, after_s: float) -> None:
        job = self._submit(client, order)
        time.sleep(after_s)
        client.post(f"/api/jobs/{job}/cancel").raise_for_status()

    def _submit(self, client: httpx.Client, order: Order) -> Any:
        options = {
            "--prompt": order.prompt,
            "--width": order.size_px,
            "--height": order.size_px,
            "--steps": order.steps,
            "--base-model": "flux2-klein-4b",
        }
        model = {"source": "local", "value": self._models}
        body = {"command": COMMAND, "options": options, "model": model, "seeds": list(order.seeds)}
        if CSRF not in client.headers:  # without which it takes nothing that changes something
            client.headers[CSRF] = client.get("/api/session").raise_for_status().json()["csrf"]
        return client.post("/api/generate", json=body).raise_for_status().json()["id"]
