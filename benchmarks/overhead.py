"""Overhead of the gateway: python -m benchmarks.overhead

An image through HTTP against the same image by mflux in a bare process, alternating in one run; the time of
/health/live while images are generated and encoded.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import psutil
from PIL import Image

from benchmarks.timeline import timeline
from engine.catalog import EMBEDDED_PATH
from engine.client.environment import child_environment
from engine.client.options import EngineOptions
from tests.support.live import ROOT, Live, free_port

SIZE_PX, STEPS = 128, 16
TURN = 25
"""Requests before the other checkout's turn."""
PROMPT = "a red circle on a blue background"
BARE = f"""
import sys
from pathlib import Path
from engine.embedded.style import style_numbers, with_style
from engine.pipelines import flux2_tiny
from engine.pipelines.cpu import replace_slow_functions
replace_slow_functions()
model = flux2_tiny.build(Path({str(EMBEDDED_PATH)!r}))
print("ready", flush=True)
for line in sys.stdin:
    prompt = with_style({PROMPT!r}, style_numbers(int(line)))
    image = model.generate_image(seed=int(line), prompt=prompt, num_inference_steps={STEPS},
                                 width={SIZE_PX}, height={SIZE_PX}, guidance=1.0)
    image.image.save("/dev/null" if line == "0\\n" else sys.argv[1], format="PNG", compress_level=1)
    print("done", flush=True)
"""


class Bare:
    """mflux alone in a process with the environment of the engine and its functions for a CPU."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "bare.png"
        environment = {**child_environment(EngineOptions(), os.environ), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", BARE, str(self.file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        self._hear("ready")

    def draw(self, seed: int) -> float:
        assert self.process.stdin is not None
        began = time.perf_counter()
        print(seed, file=self.process.stdin, flush=True)
        self._hear("done")
        return time.perf_counter() - began

    def _hear(self, word: str) -> None:
        assert self.process.stdout is not None
        while (line := self.process.stdout.readline().strip()) != word:
            if not line and self.process.poll() is not None:
                raise SystemExit("mflux could not draw in a bare process")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def through_http(client: httpx.Client, seed: int) -> tuple[float, bytes]:
    began = time.perf_counter()
    body = {"prompt": PROMPT, "seed": seed, "size": f"{SIZE_PX}x{SIZE_PX}", "steps": STEPS}
    answer = client.post("/v1/images/generations", json={**body, "response_format": "b64_json"})
    answer.raise_for_status()
    png = base64.b64decode(answer.json()["data"][0]["b64_json"])
    return time.perf_counter() - began, png


def overhead(home: Path, pairs: int, rounds: int) -> None:
    """Two processes with the same code differ by some per cent for their whole life: several of each are compared."""
    alone, served, ratios, found = [], [], [], []
    for pair in range(pairs):
        folder = home / f"pair{pair}"
        folder.mkdir()
        bare, gateway = Bare(folder), serving(folder)
        with httpx.Client(base_url=gateway.url, timeout=120) as client:
            for seed in range(2):
                bare.draw(seed + 1)
                through_http(client, seed + 1)
            for seed in range(10, 10 + rounds):
                alone.append(bare.draw(seed))
                seconds, png = through_http(client, seed)
                served.append(seconds)
                same = Image.open(io.BytesIO(png)).tobytes() == Image.open(bare.file).convert("RGB").tobytes()
                assert same, "the gateway drew another picture than mflux alone"
        bare.close()
        gateway.stop()
        these = [s / a for s, a in zip(served[-rounds:], alone[-rounds:], strict=True)]
        found.append(100 * (statistics.median(these) - 1))
        ratios += these
    print(
        f"same pixels in all {len(served)} pictures, {SIZE_PX}x{SIZE_PX}, {STEPS} steps, {pairs} processes of each kind"
    )
    print(f"mflux alone       median {statistics.median(alone):.3f} s")
    print(f"through HTTP      median {statistics.median(served):.3f} s")
    print(f"overhead          median {100 * (statistics.median(ratios) - 1):+.1f} % of a picture", end="")
    print(f" ({min(found):+.1f} to {max(found):+.1f} % by pair of processes)")


def serving(folder: Path) -> Live:
    return Live(folder, backend="mlx", config={"models": {"steps_as_sent": True}}).start()


def liveness(gateway: Live, title: str, size: int, count: int) -> None:
    """p50 and p99 of /health/live while images are generated."""

    def draw() -> None:
        body = {"prompt": PROMPT, "n": 1, "size": f"{size}x{size}", "response_format": "b64_json"}
        for _ in range(count):
            httpx.post(f"{gateway.url}/v1/images/generations", json=body, timeout=300).raise_for_status()

    work = threading.Thread(target=draw)
    work.start()
    times = []
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        while work.is_alive():
            began = time.perf_counter()
            client.get("/health/live").raise_for_status()
            times.append((time.perf_counter() - began) * 1000)
            time.sleep(0.01)
    work.join()
    p99 = statistics.quantiles(times, n=100)[98]
    print(f"/health/live {title}: median {statistics.median(times):.1f} ms, p99 {p99:.1f} ms ({len(times)} calls)")


def door(folder: Path, requests: int, against: Path | None) -> None:
    """p50 of a small native submit and of /health/live: one client on one connection, with the fake engine.

    With another checkout of the project, both take turns after some requests each.
    """
    roots = [ROOT, *([] if against is None else [against.resolve()])]
    gateways: list[Live] = []
    submits: list[list[float]] = [[] for _ in roots]
    lives: list[list[float]] = [[] for _ in roots]
    with contextlib.ExitStack() as stack:
        clients = []
        for number, root in enumerate(roots):
            (home := folder / f"door{number}").mkdir()
            gateways.append(Live(home, config={"queue": {"waiting": 100_000}}, root=root).start())
            stack.callback(gateways[-1].stop)
            clients.append(stack.enter_context(httpx.Client(base_url=gateways[-1].url, timeout=60)))
            clients[-1].post("/api/v1/queue/pause").raise_for_status()
        for _ in range(max(2, requests // TURN)):
            for client, of_submits, of_lives in zip(clients, submits, lives, strict=True):
                took = [_door_times(client) for _ in range(TURN)]
                of_submits += [submit for submit, _ in took]
                of_lives += [live for _, live in took]
    for root, of_submits, of_lives in zip(roots, submits, lives, strict=True):
        title = "door" if root == ROOT else f"door of {root.name}"
        print(
            f"{title}: submit p50 {statistics.median(of_submits):.2f} ms, "
            f"/health/live p50 {statistics.median(of_lives):.3f} ms"
        )


def _door_times(client: httpx.Client) -> tuple[float, float]:
    """Milliseconds of a submit and of /health/live."""
    began = time.perf_counter()
    client.post("/api/v1/generate", json={"prompt": PROMPT, "width": 64, "height": 64, "steps": 1}).raise_for_status()
    middle = time.perf_counter()
    client.get("/health/live").raise_for_status()
    return (middle - began) * 1000, (time.perf_counter() - middle) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="processes of each kind")
    parser.add_argument("--rounds", type=int, default=9, help="pictures of each pair")
    parser.add_argument("--door", type=int, metavar="REQUESTS", help="measure only what comes in, by so many requests")
    parser.add_argument(
        "--against", type=Path, metavar="FOLDER", help="another checkout, to compare what comes in with"
    )
    parser.add_argument("--timeline", type=int, metavar="REQUESTS", help="print only the stages of a request")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.timeline:
            body = {"prompt": PROMPT, "size": f"{SIZE_PX}x{SIZE_PX}", "steps": STEPS, "response_format": "b64_json"}
            print(timeline(folder, free_port(), args.timeline, body))
            return
        door(folder, args.door or 1000, args.against)
        if args.door:
            return
        overhead(folder, args.pairs, args.rounds)
        (folder / "gateway").mkdir()
        gateway = serving(folder / "gateway")
        try:
            liveness(gateway, "while drawing", SIZE_PX, 20)
            liveness(gateway, "while encoding 1024x1024 PNGs", 1024, 20)
            assert gateway.process is not None
            print(f"gateway after that: {psutil.Process(gateway.process.pid).memory_info().rss / 2**20:.0f} MB RSS")
        finally:
            gateway.stop()


if __name__ == "__main__":
    main()
