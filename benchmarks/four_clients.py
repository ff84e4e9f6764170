"""Images a minute of four clients, with and without decoding beside the next image: python -m benchmarks.four_clients

Two gateways with the embedded model take turns, round by round; one has `engine.decode_beside: false`. Each client asks
for one image at a time, as many times as --each says. With --against FOLDER the second gateway is another checkout's
instead, with the same settings.
"""

from __future__ import annotations

import argparse
import base64
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.support.live import ROOT, Live

CLIENTS = 4
PROMPTS = ("a red circle on a blue background", "two green triangles on yellow")


def images(gateway: Live, size: int, steps: int, each: int) -> tuple[float, list[bytes]]:
    """Images a minute, and the images, in the order of clients."""

    def ask(client_number: int) -> list[bytes]:
        found = []
        with httpx.Client(base_url=gateway.url, timeout=300) as client:
            for number in range(each):
                body = {
                    "prompt": PROMPTS[number % 2],
                    "seed": 100 * client_number + number,
                    "size": f"{size}x{size}",
                    "steps": steps,
                    "response_format": "b64_json",
                }
                answer = client.post("/v1/images/generations", json=body).raise_for_status()
                found.append(base64.b64decode(answer.json()["data"][0]["b64_json"]))
        return found

    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as clients:
        found = [image for of_client in clients.map(ask, range(CLIENTS)) for image in of_client]
    return 60 * len(found) / (time.perf_counter() - began), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="128,256", help="in pixels")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--each", type=int, default=3, help="images of each client and round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout of the project")
    args = parser.parse_args()
    against = args.against and args.against.resolve()
    kinds = [
        ("beside", {}, ROOT),
        (against.name, {}, against) if against else ("after", {"decode_beside": False}, ROOT),
    ]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        gateways = []
        for kind, engine, root in kinds:
            (folder := Path(name) / kind).mkdir()
            config = {"engine": engine, "models": {"steps_as_sent": True}}
            gateways.append(Live(folder, backend="mlx", config=config, root=root).start())
            stack.callback(gateways[-1].stop)
        for size in (int(size) for size in args.sizes.split(",")):
            rates: list[list[float]] = [[], []]
            for gateway in gateways:
                images(gateway, size, args.steps, 1)
            for turn in range(args.rounds):
                drawn = {}
                for which in (0, 1) if turn % 2 == 0 else (1, 0):
                    rate, drawn[which] = images(gateways[which], size, args.steps, args.each)
                    rates[which].append(rate)
                assert drawn[0] == drawn[1], "the files differ"
            ratios = sorted(one / other for one, other in zip(*rates, strict=True))
            medians = [statistics.median(of) for of in rates]
            print(
                f"{size} px, {args.steps} steps, {CLIENTS} clients: {kinds[0][0]} {medians[0]:.1f}, {kinds[1][0]} "
                f"{medians[1]:.1f} images a minute; ratio {statistics.median(ratios):.2f} "
                f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
