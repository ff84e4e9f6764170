# /// script
# requires-python = ">=3.11"
# dependencies = ["httpx==0.28.1", "httpx-sse==0.4.3"]
# ///
"""Generate an image from Python: submit, follow, fetch. `uv run examples/client.py "a red apple"` runs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import connect_sse

GATEWAY = "http://127.0.0.1:7861"


def submit(prompt: str, gateway: str = GATEWAY, **more: Any) -> dict[str, Any]:
    """Submit a job; `more` is any field of POST /api/v1/generate, such as width, steps, seed, num_images."""
    answer = httpx.post(f"{gateway}/api/v1/generate", json={"prompt": prompt, **more})
    if answer.is_error:
        raise RuntimeError(answer.json()["error"])
    return dict(answer.json())


def follow(job_id: str, gateway: str = GATEWAY) -> Iterator[tuple[str, dict[str, Any]]]:
    """Events of the job until it has ended: ("progress", {"progress": 0.5, ...}), ("preview", {"url": ...}), ...

    Raises: RuntimeError with the reason if it failed or was cancelled.
    """
    url = f"{gateway}/api/v1/jobs/{job_id}/stream?images=false"
    with httpx.Client(timeout=60) as client, connect_sse(client, "GET", url) as stream:
        for event in stream.iter_sse():
            data = json.loads(event.data) if event.data else {}
            if event.event in ("error", "cancelled"):
                raise RuntimeError(data.get("error") or "The job was cancelled.")
            yield event.event, data
            if event.event == "complete":
                return


def fetch(job_id: str, image: int = 0, gateway: str = GATEWAY, format: str = "png") -> bytes:
    """A finished image."""
    answer = httpx.get(f"{gateway}/api/v1/jobs/{job_id}/images/{image}", params={"format": format})
    return answer.raise_for_status().content


def draw(prompt: str, gateway: str = GATEWAY, **more: Any) -> bytes:
    """One image, in one call."""
    job = submit(prompt, gateway, **more)
    for name, data in follow(job["job_id"], gateway):
        if name in ("position", "progress"):
            print(f"{name}: about {data['eta_seconds']} s", file=sys.stderr)
    return fetch(job["job_id"], gateway=gateway)


if __name__ == "__main__":
    Path("picture.png").write_bytes(draw(sys.argv[1] if len(sys.argv) > 1 else "a red circle on a blue background"))
