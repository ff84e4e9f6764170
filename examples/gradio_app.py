# /// script
# requires-python = ">=3.11"
# dependencies = ["gradio==6.31.0", "httpx==0.28.1", "httpx-sse==0.4.3"]
# ///
"""Gradio front-end with a few fields: `uv run examples/gradio_app.py`, then open http://127.0.0.1:7860."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

import httpx
from client import GATEWAY, fetch, follow, submit
from PIL import Image

URL = os.environ.get("MFLUX_GATEWAY_URL", GATEWAY)


def models() -> list[str]:
    """Models that are on disk."""
    rows = httpx.get(f"{URL}/api/v1/models").json()["models"]
    return [model["title"] for model in rows if model["downloaded"]]


def draw(
    prompt: str, model: str, width: int, height: int, steps: int, seed: int, count: int
) -> Iterator[tuple[list[Image.Image], str]]:
    """The images so far, or a preview of the next one, and a line with the progress."""
    size = {"width": int(width), "height": int(height)}
    try:
        job = submit(
            prompt,
            URL,
            model=model,
            **size,
            steps=int(steps) or None,
            seed=int(seed),
            num_images=int(count),
            preview=True,
        )
        pictures: list[Image.Image] = []
        for name, data in follow(job["job_id"], URL):
            match name:
                case "position":
                    yield pictures, f"{data['position']} before it, done in about {data['eta_seconds']:.0f} s"
                case "loading" | "progress":
                    yield pictures, f"{data['percent']} %"
                case "preview":
                    preview = httpx.get(URL + data["url"])
                    if preview.content:  # a preview is removed when its image is finished
                        yield [*pictures, picture(preview.content)], "…"
                case "image":
                    pictures = [*pictures, picture(fetch(job["job_id"], data["image"], URL))]
                    yield pictures, f"seed {data['seed']}"
                case "complete":
                    yield pictures, "done"
    except RuntimeError as error:
        yield [], str(error)


def picture(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def page() -> Any:
    import gradio

    with gradio.Blocks(title="mflux-gateway") as blocks:
        with gradio.Row():
            with gradio.Column():
                prompt = gradio.Textbox(label="Prompt", lines=3, value="a red circle on a blue background")
                model = gradio.Dropdown(models(), label="Model")
                width = gradio.Slider(128, 4096, 512, step=16, label="Width")
                height = gradio.Slider(128, 4096, 512, step=16, label="Height")
                steps = gradio.Slider(0, 50, 0, step=1, label="Steps (0: the model's own)")
                seed = gradio.Number(-1, precision=0, label="Seed (-1: random)")
                count = gradio.Slider(1, 4, 1, step=1, label="Pictures")
                button = gradio.Button("Draw", variant="primary")
            with gradio.Column():
                gallery = gradio.Gallery(label="Pictures", columns=2, format="png")
                state = gradio.Markdown()
        button.click(draw, [prompt, model, width, height, steps, seed, count], [gallery, state], concurrency_limit=8)
    return blocks


if __name__ == "__main__":
    page().launch(server_name="127.0.0.1", server_port=7860)
