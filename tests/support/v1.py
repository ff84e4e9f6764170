"""What the tests of /v1 share: a gateway of the fake engine, and openai's own client that counts what it sends."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import httpx2
from PIL import Image

from tests.support.live import Live
from tests.support.lora import TINY, save_lora

MODEL = "shapes"
"""A local model of 128 pixels: answers do not wait for large pictures."""
SLASHED = "org/m:4bit"
UNDISTILLED = "base"
"""Follows up to four pictures."""
SKETCH = "sketch"
"""Follows none: its edits are image-to-image."""
STEP_S = 0.03


def models_config(folder: Path) -> dict[str, Any]:
    weights = folder / "weights"
    (weights / "transformer").mkdir(parents=True)
    (weights / "transformer" / "model.safetensors").touch()
    local = {name: {"path": str(weights), "like": "flux2-tiny"} for name in (MODEL, SLASHED)}
    local[UNDISTILLED] = {"path": str(weights), "like": "flux2-klein-base-4b"}
    local[SKETCH] = {"path": str(weights), "like": "z-image-turbo"}
    empty = folder / "models"
    save_lora(empty / "loras", "style", TINY)
    return {"default": MODEL, "local": local, "aliases": {"studio": MODEL}, "cache_dir": str(empty)}


@contextmanager
def gateway(folder: Path, config: dict[str, Any] | None = None, ready: bool = True, **script: Any) -> Iterator[Live]:
    """A gateway whose fake engine does as `script` says; where it has keys, nobody may ask it whether it is ready."""
    values = {"models": models_config(folder), "engine": {"memory_gb": 100}, **(config or {})}
    running = Live(folder, fake_script={"step_seconds": STEP_S, **script}, config=values)
    try:
        yield running.start(ready=ready)
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()


@dataclass
class Counting:
    """openai's client as its users make it; `hits` are the requests it really sent."""

    url: str
    options: dict[str, Any] = field(default_factory=dict)
    hits: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        import openai  # takes a second, which tests of other rooms need not wait for

        transport = httpx2.Client(event_hooks={"request": [lambda request: self.hits.append(request.method)]})
        options = {"api_key": "none", "timeout": 60, **self.options}
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", http_client=transport, **options)


@contextmanager
def openai_client(gateway: Live, **options: Any) -> Iterator[Counting]:
    counting = Counting(gateway.url, options)
    with counting.client:
        yield counting


@contextmanager
def plain_client(gateway: Live, **headers: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=60, headers=headers) as client:
        yield client


def opened(data: str | bytes | None) -> Image.Image:
    """The picture in base64 text or bytes, loaded."""
    assert data is not None
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True) if isinstance(data, str) else data))
    image.load()
    return image


def assert_openai_error(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The envelope, short, without what was sent and without where it failed (S-13)."""
    assert answer.status_code == status, answer.text[:500]
    body = answer.json()
    error: dict[str, Any] = body["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert body["detail"] == error["message"]
    assert len(answer.content) <= 4096
    assert "Traceback" not in answer.text
    assert answer.headers["x-request-id"]
    return error


def input_png(picture_format: str = "PNG") -> bytes:
    """A picture of 96x64 to begin from: a grey ramp."""
    out = io.BytesIO()
    Image.linear_gradient("L").resize((96, 64)).convert("RGB").save(out, picture_format, lossless=True)
    return out.getvalue()


def hole_mask() -> bytes:
    """OpenAI's meaning: its left half is transparent and may change."""
    mask, out = Image.new("RGBA", (96, 64), (0, 0, 0, 255)), io.BytesIO()
    mask.paste((0, 0, 0, 0), (0, 0, 48, 64))
    mask.save(out, "PNG")
    return out.getvalue()


def white_mask() -> bytes:
    """Xinference's meaning: its left half is white and is repainted."""
    mask, out = Image.new("RGB", (96, 64)), io.BytesIO()
    mask.paste((255, 255, 255), (0, 0, 48, 64))
    mask.save(out, "PNG")
    return out.getvalue()


def jobs(client: httpx.Client) -> list[dict[str, Any]]:
    """This client's jobs, the newest first, as the native protocol tells them."""
    found: list[dict[str, Any]] = client.get("/api/v1/jobs").json()["jobs"]
    return found


def fill_queue(plain: httpx.Client, status: int = 503) -> None:
    """Have one job drawn, and others wait until no more are taken, which `status` says."""
    body = {"prompt": "x", "steps": 8}
    first = plain.post("/api/v1/generate", json=body).json()["job_id"]
    wait_for_status(plain, "generating", job_id=first)
    while plain.post("/api/v1/generate", json=body).status_code != status:
        pass


def wait_for_status(
    client: httpx.Client, status: str, timeout_s: float = 20.0, *, job_id: str | None = None
) -> dict[str, Any]:
    """The newest job of this client, or the one of that id, once it stands there."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = [job for job in jobs(client) if job_id in (None, job["id"])]
        if found and found[0]["status"] == status:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"the job never was {status}: {jobs(client)[:1]}")
