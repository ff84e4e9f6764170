"""What the tests of /api/v1 share: jobs, and server-sent events as a client reads them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

SMALL = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 4}
ENDS = ("complete", "error", "cancelled")


def client_of(url: str, owner: str | None = None) -> httpx.Client:
    """A client with jobs of its own."""
    headers = {"X-Client-Id": owner or secrets.token_hex(8)}
    return httpx.Client(base_url=f"{url}/api/v1", timeout=60, headers=headers)


def submit(client: httpx.Client, **said: Any) -> dict[str, Any]:
    answer = client.post("/generate", json={**SMALL, **said})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """As the documentation's second example waits: by asking again and again; pytest's timeout bounds it."""
    while True:
        job = client.get(f"/jobs/{job_id}").json()
        if job["status"] in ("completed", "failed", "cancelled"):
            return dict(job)
        time.sleep(0.05)


def read(client: httpx.Client, path: str, last: str | None = None) -> Iterator[dict[str, Any]]:
    """The events of a stream as they come, comments included; leaving the loop closes the connection."""
    with client.stream("GET", path, headers={"Last-Event-ID": last} if last is not None else {}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        event: dict[str, Any] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(":")
            if not line:
                if "event" in event or "comment" in event:
                    yield event
                event = {}
            elif name == "data":
                event["data"] = json.loads(value)
            else:
                event[name or "comment"] = value.strip()


def events(client: httpx.Client, job_id: str, last: str | None = None, stop_after: int = 10**6) -> list[dict[str, Any]]:
    """Of one job, to its end or to as many."""
    found: list[dict[str, Any]] = []
    for event in read(client, f"/jobs/{job_id}/stream", last):
        if "event" in event:
            found.append(event)
        if len(found) >= stop_after:
            break
    return found


def put_weights(folder: Path) -> None:
    """A folder that looks like a model's."""
    folder.mkdir(parents=True)
    header = b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    (folder / "0.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"w")
