"""Time of a cancel in each phase of an image that MLX generates: python -m benchmarks.cancel [--size PX] [--rounds N]

For each phase it prints how long DELETE took, and how soon after it the next image, a small one of the same model, was
finished. Then, for a client that hangs up while it waits, how soon its job had ended, and how many steps were drawn
until then. The model is the embedded one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from tests.support.hang_up import Caller
from tests.support.live import Live, live

PHASES = ("loading", "denoising", "decoding")
LARGE_STEPS = 8
DELAYS_S = (0.0, 0.2)
"""Seconds after the phase was reported: at its beginning, and within it."""
LARGE = {"prompt": "a red circle on a blue background", "steps": LARGE_STEPS}
SMALL = {"prompt": "a circle", "width": 64, "height": 64, "steps": 1}


def phase_begins(client: httpx.Client, job_id: str, phase: str) -> bool:
    """Wait until the job is reported in that phase; False where it ended before."""
    with client.stream("GET", f"/api/v1/jobs/{job_id}/stream") as answer:
        for line in answer.iter_lines():
            told = json.loads(line[5:]) if line.startswith("data:") else None
            if isinstance(told, dict) and told.get("phase") == phase:
                return True
    return False


def cancelled_s(client: httpx.Client, size: int, phase: str, delay_s: float) -> tuple[float, float] | None:
    """Seconds of DELETE, and from then until a small image was finished; None where the cancel was too late."""
    if phase == "loading":
        client.post("/sdapi/v1/unload-checkpoint").raise_for_status()
    submitted = client.post("/api/v1/generate", json={**LARGE, "width": size, "height": size}).raise_for_status()
    job_id = submitted.json()["job_id"]
    if not phase_begins(client, job_id, phase):
        return None
    time.sleep(delay_s)
    began = time.monotonic()
    answer = client.delete(f"/api/v1/jobs/{job_id}").raise_for_status().json()
    took_s = time.monotonic() - began
    if answer["status"] != "cancelled":
        return None
    client.post("/sdapi/v1/txt2img", json=SMALL).raise_for_status()
    return took_s, time.monotonic() - began - took_s


def hang_up(gateway: Live, size: int) -> tuple[float, int]:
    """Seconds from a hang-up to the end of its job, and the steps that were drawn in them."""
    caller = Caller(gateway)
    body = {"json": {**LARGE, "width": size, "height": size, "batch_size": 10}}
    with caller.steps() as steps:
        connection = caller.send(caller.request("POST /sdapi/v1/txt2img", body))
        next(steps)
        connection.close()
        began = time.monotonic()
        drawn = sum(1 for _ in steps)
        took_s = time.monotonic() - began
    caller.close()
    return took_s, drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="edge of the picture that is cancelled, pixels")
    parser.add_argument("--rounds", type=int, default=5)
    said = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        live(Path(folder), backend="mlx") as gateway,
        httpx.Client(base_url=gateway.url, timeout=300) as client,
    ):
        client.post("/sdapi/v1/txt2img", json=SMALL).raise_for_status()
        for phase in PHASES:
            tries = [cancelled_s(client, said.size, phase, delay_s) for _ in range(said.rounds) for delay_s in DELAYS_S]
            found = [pair for pair in tries if pair is not None]
            if not found:
                print(f"{phase}: over before it could be cancelled")
                continue
            took, after = ([pair[i] for pair in found] for i in (0, 1))
            print(
                f"{phase}: DELETE at most {max(took):.2f} s, median {statistics.median(took):.2f} s; "
                f"next picture after {max(after):.2f} s at most ({len(found)} cancels)"
            )
        hang_ups = [hang_up(gateway, said.size) for _ in range(said.rounds)]
        took = [took_s for took_s, _ in hang_ups]
        print(
            f"hang-up: job ended after at most {max(took):.2f} s, median {statistics.median(took):.2f} s; "
            f"{max(steps for _, steps in hang_ups)} steps more at most ({said.rounds} hang-ups)"
        )


if __name__ == "__main__":
    main()
