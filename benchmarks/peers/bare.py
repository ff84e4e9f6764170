"""mflux alone in a process: a loop that loads the checkpoint once and draws what it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.peers.order import Order
from benchmarks.peers.servers import SHIM, STOP_S, Failed, offline, on_cpu

LOAD = """
import json, sys
from mflux.models.common.config.model_config import ModelConfig
from mflux.models.flux2.variants.txt2img.flux2_klein import Flux2Klein
model = Flux2Klein(model_path=sys.argv[1], model_config=ModelConfig.flux2_klein_4b())
"""
LOOP = f"""{LOAD}
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    for number, seed in enumerate(order["seeds"]):
        image = model.generate_image(seed=seed, prompt=order["prompt"], num_inference_steps=order["steps"],
                                     width=order["size_px"], height=order["size_px"], guidance=1.0)
        image.image.save(f"{{sys.argv[2]}}/{{number}}.png", compress_level=1)
    print("done", flush=True)
"""


def environment(checkpoint: Path, home: Path) -> dict[str, str]:
    """That of the peers."""
    return {**os.environ, **offline(home), **on_cpu(), "PEERS_CHECKPOINT": str(checkpoint), "PYTHONPATH": str(SHIM)}


class Bare:
    """A contender: mflux alone."""

    name = "bare mflux"
    sizes_px = (128, 256)

    def __init__(self, home: Path, checkpoint: Path) -> None:
        self._home = home
        self._checkpoint = checkpoint
        self._folder = home / "bare"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[str] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> float:
        """Seconds until the model is loaded. Raises: Failed."""
        began = time.monotonic()
        with (self._folder / "output.txt").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", LOOP, str(self._checkpoint), str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(self._checkpoint, self._home),
                text=True,
                start_new_session=True,
            )
        self._wait_for("ready")
        return time.monotonic() - began

    def draw(self, order: Order) -> list[bytes]:
        """Raises: Failed."""
        assert self._process is not None
        assert self._process.stdin is not None
        print(json.dumps(vars(order)), file=self._process.stdin, flush=True)
        self._wait_for("done")
        return [(self._folder / f"{number}.png").read_bytes() for number, _ in enumerate(order.seeds)]

    def draw_all(self, orders: list[Order], clients: int) -> None:
        """One after the other: a loop has no clients. Raises: Failed."""
        for order in orders:
            self.draw(order)

    def _wait_for(self, word: str) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()).strip() != word:
            if not line:
                text = (self._folder / "output.txt").read_text(encoding="utf-8", errors="replace")
                raise Failed(f"mflux could not draw in a process of its own: {text[-300:]}")

    def stop(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._process = None
