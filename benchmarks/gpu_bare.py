"""mflux alone in a process: python -m benchmarks.gpu_bare MODEL BITS PX FILE [toy]

Reads a JSON object a line (seed, prompt, steps), draws by mflux's FLUX.2 Klein from the folder MODEL at BITS (0: as it
lies there), saves the image as FILE, and prints `done`. With `toy` the model has the geometry of the tests' toy.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

from benchmarks.gpu_setup import LIKE, Setup


class Bare:
    """Context manager with the process."""

    def __init__(self, setup: Setup, bits: int | None, log: int) -> None:
        self.file = setup.work / f"bare-{bits or 'whole'}.png"
        words = [str(setup.weights), str(bits or 0), str(setup.size_px), str(self.file), *(["toy"] * setup.tiny)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu_bare", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=setup.environment(),
            text=True,
        )
        self._wait_for("ready")

    def draw(self, seed: int, prompt: str, steps: int) -> float:
        """Seconds of an image until its PNG is on disk."""
        assert self._process.stdin is not None
        began = time.perf_counter()
        print(json.dumps({"seed": seed, "prompt": prompt, "steps": steps}), file=self._process.stdin, flush=True)
        self._wait_for("done")
        return time.perf_counter() - began

    def image(self) -> Any:
        """The newest image as an array."""
        return np.asarray(Image.open(self.file).convert("RGB"))

    def _wait_for(self, word: str) -> None:
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()).strip() != word:
            if not line:
                raise RuntimeError("mflux could not draw in a bare process; gpu.log says why")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def main() -> None:
    import mlx.core as mx
    from mflux.models.common.config.model_config import AVAILABLE_MODELS, ModelConfig
    from mflux.models.flux2 import Flux2Klein

    from tests.support.toys import TOYS

    folder, bits, px, file, *toy = sys.argv[1:]
    size = int(px)
    with contextlib.ExitStack() as stack:
        if toy:
            stack.enter_context(next(one for one in TOYS if one.name == LIKE).in_place())
            ModelConfig.precision = mx.float32  # as the engine on a CPU
        model = Flux2Klein(model_path=folder, quantize=int(bits) or None, model_config=AVAILABLE_MODELS[LIKE])
        print("ready", flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            made = model.generate_image(
                seed=request["seed"],
                prompt=request["prompt"],
                num_inference_steps=request["steps"],
                width=size,
                height=size,
                guidance=1.0,
            )
            made.image.save(Path(file), format="PNG", compress_level=1)
            print("done", flush=True)


if __name__ == "__main__":
    main()
