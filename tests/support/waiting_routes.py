"""Every route that waits for a job or streams one, with a request of it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from adapters import ADAPTERS
from adapters.shared.table import TableRoute
from tests.support.native import put_weights


def png(grey: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (grey, grey, grey)).save(out, "PNG")
    return out.getvalue()


FILE = ("picture.png", png(9), "image/png")
MASK = ("mask.png", png(255), "image/png")
TEXT = base64.b64encode(png(9)).decode()
SIZE = {"width": 64, "height": 64}
UPSCALER = {"upscaler_1": "SeedVR2", "upscaling_resize": 2}

Body = Callable[[int], dict[str, Any]]
"""The arguments of httpx for a request of so many steps."""


def openai(files: dict[str, Any] | None = None, **more: Any) -> Body:
    def body(steps: int) -> dict[str, Any]:
        fields = {"prompt": "x", "model": "base", "size": "64x64", "steps": steps, **more}
        if files is None:
            return {"json": fields}
        return {"files": files, "data": {name: json.dumps(value).strip('"') for name, value in fields.items()}}

    return body


def sdapi(**more: Any) -> Body:
    return lambda steps: {"json": {"prompt": "x", **SIZE, "steps": steps, **more}}


def fixed(**said: Any) -> Body:
    return lambda _: said


EDITED = {"image": FILE}
DRAWN: dict[str, Body] = {
    "POST /sdapi/v1/txt2img": sdapi(force_task_id="mine"),
    "POST /sdapi/v1/img2img": sdapi(init_images=[TEXT]),
    "POST /sdapi/v1/extra-single-image": fixed(json={"image": TEXT, **UPSCALER}),
    "POST /sdapi/v1/extra-batch-images": fixed(json={"imageList": [{"data": TEXT, "name": "a"}], **UPSCALER}),
    "POST /v1/images/generations": openai(),
    "POST /v1/images/edits": openai(EDITED),
    "POST /v1/images/variations": openai(EDITED),
    "POST /v1/images/inpainting": openai({"image": FILE, "mask_image": MASK}),
}
"""Every route that waits for images."""
STREAMED: dict[str, Body] = {
    "POST /v1/images/generations": openai(stream=True),
    "POST /v1/images/edits": openai(EDITED, stream=True),
}
LOADED: dict[str, Body] = {
    "POST /sdapi/v1/options": fixed(json={"sd_model_checkpoint": "other"}),
    "POST /sdapi/v1/reload-checkpoint": fixed(),
    "POST /v1/models": fixed(json={"model_name": "other", "model_type": "image"}),
    "POST /api/load": fixed(json={"model": "other"}),
}
READ = {"POST /v1/images/ocr"}
"""Its hang-ups are in tests/ocr/test_ocr_http.py."""
WATCHED = {"GET /api/v1/jobs/{job_id}/stream", "GET /api/v1/events"}
"""Streams of jobs that go on without them; a client resumes them by Last-Event-ID."""


def config_of(folder: Path) -> dict[str, Any]:
    """Two models that follow images and take as many steps as they are asked for, and one that upscales."""
    for name in ("base", "other"):
        put_weights(folder / name / "transformer")
    put_weights(folder / "models" / "seedvr2-3b" / "transformer")
    local = {name: {"path": str(folder / name), "like": "flux2-klein-base-4b"} for name in ("base", "other")}
    return {
        "models": {"default": "base", "local": local, "cache_dir": str(folder / "models")},
        "engine": {"memory_gb": 100},
        "ocr": {"threads": 1},
    }


def rows() -> dict[str, TableRoute]:
    found = {}
    for adapter in ADAPTERS:
        for route in adapter.routes:
            if isinstance(route, TableRoute):
                found[f"{route.row.method} {route.row.path}"] = route
    return found
