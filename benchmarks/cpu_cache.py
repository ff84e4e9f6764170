"""Memory that a CPU engine keeps for the next image: python -m benchmarks.cpu_cache

One process for each way of keeping freed memory, in turns: MLX's own cache (32 MiB), a cache of the size that the
gateway sets, and glibc's own lists. Each draws the embedded model's images of several sizes in the engine's
environment. Prints the processor time and the page faults of an image, and their ratios to MLX's own cache; the pixels
have to be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from engine.catalog import EMBEDDED_PATH
from engine.client.environment import child_environment
from engine.client.options import EngineOptions
from gateway.residency.device import default_cache_bytes, expected

ROOT = Path(__file__).parents[1]
SIZES_PX = (128, 256, 512)
STEPS = 4
GLIBC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**30)}
CHILD = f"""
import hashlib, json, resource, sys
from pathlib import Path
import mlx.core as mx
from engine.pipelines import flux2_tiny
if sys.argv[1] != "None":
    mx.set_cache_limit(int(sys.argv[1]))
model = flux2_tiny.build(Path({str(EMBEDDED_PATH)!r}))
print("ready", flush=True)
for line in sys.stdin:
    seed, size = map(int, line.split())
    if size != globals().get("last"):
        mx.clear_cache()
    last = size
    before = resource.getrusage(resource.RUSAGE_SELF)
    image = model.generate_image(seed=seed, prompt=f"a red circle {{seed}}", num_inference_steps={STEPS},
                                 width=size, height=size, guidance=1.0).image
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps([seconds, after.ru_minflt - before.ru_minflt, after.ru_maxrss,
                      hashlib.sha256(image.tobytes()).hexdigest()]), flush=True)
"""


class Drawing:
    """A process that draws."""

    def __init__(self, cache_bytes: int | None, variables: dict[str, str]) -> None:
        environment = {**child_environment(EngineOptions(), os.environ), "PYTHONPATH": str(ROOT), **variables}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(cache_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        assert self._line() == "ready"

    def draw(self, seed: int, size_px: int) -> tuple[float, int, int, str]:
        """Seconds of processor, page faults, peak KiB of the process so far, and a digest of the pixels."""
        assert self._process.stdin is not None
        print(seed, size_px, file=self._process.stdin, flush=True)
        seconds, faults, peak_kib, digest = json.loads(self._line())
        return seconds, faults, peak_kib, digest

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3, help="processes of each kind")
    parser.add_argument("--rounds", type=int, default=5, help="images of each size and process")
    args = parser.parse_args()
    ways: dict[str, tuple[int | None, dict[str, str]]] = {
        "MLX's own, 32 MiB": (None, {}),
        "the gateway's": (default_cache_bytes(expected()), {}),
        "glibc's lists": (None, GLIBC),
        "both": (default_cache_bytes(expected()), GLIBC),
    }
    first = next(iter(ways))
    ratios: dict[tuple[str, int], list[float]] = defaultdict(list)
    faults: dict[tuple[str, int], list[int]] = defaultdict(list)
    peaks: dict[str, list[int]] = defaultdict(list)
    for _ in range(args.pairs):
        drawings = {name: Drawing(*way) for name, way in ways.items()}
        for size in SIZES_PX:
            for seed in range(args.rounds + 1):
                row = {name: drawing.draw(seed, size) for name, drawing in drawings.items()}
                assert len({digest for *_, digest in row.values()}) == 1, "the pixels differ"
                if seed:  # the first image of a size fills the cache
                    for name, (seconds, missed, peak_kib, _) in row.items():
                        ratios[name, size].append(seconds / row[first][0])
                        faults[name, size].append(missed)
                        peaks[name].append(peak_kib)
        for drawing in drawings.values():
            drawing.close()
    print("processor time of an image against MLX's own cache, page faults of an image")
    for name in ways:
        figures = [
            f"{size} px {statistics.median(ratios[name, size]):.2f}, {statistics.median(faults[name, size]):8,.0f}"
            for size in SIZES_PX
        ]
        print(f"{name:20} {';  '.join(figures)};  peak {max(peaks[name]) / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
