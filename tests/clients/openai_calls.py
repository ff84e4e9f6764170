"""What an older major of openai does against a gateway: run in an environment of its own, prints one JSON object.

python openai_calls.py URL PICTURE MASK; knows nothing of this project.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import httpx
import openai

URL, (PICTURE, MASK) = sys.argv[1], (Path(name).read_bytes() for name in sys.argv[2:4])
APPLE = {"prompt": "an apple"}
warnings.simplefilter("ignore", DeprecationWarning)
hits: list[str] = []


def png_size(row: Any) -> list[int]:
    raw = base64.b64decode(row.b64_json) if row.b64_json else httpx.get(row.url).content
    return [int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")]


def raised(call: Any) -> list[Any]:
    hits.clear()
    try:
        call()
    except openai.APIError as error:
        return [type(error).__name__, error.param, len(hits)]
    return ["nothing", None, len(hits)]


def types(stream: Any) -> list[str]:
    return sorted({event.type for event in stream})


def main() -> dict[str, Any]:
    transport = httpx.Client(event_hooks={"request": [lambda request: hits.append(request.method)]})
    client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", http_client=transport, timeout=100)
    images = client.images
    size: Any = "64x96"
    return {
        "version": openai.__version__,
        "generate": png_size(images.generate(**APPLE, size=size).data[0]),
        "url": png_size(images.generate(**APPLE, size=size, response_format="url").data[0]),
        "null": png_size(images.generate(**APPLE, size=size, n=None, model=None, user="me").data[0]),
        "edit": png_size(images.edit(**APPLE, image=PICTURE).data[0]),
        "edit of a list": png_size(images.edit(**APPLE, image=[PICTURE]).data[0]),
        "edit with a mask": png_size(images.edit(**APPLE, image=PICTURE, mask=MASK, extra_body={"seed": 1}).data[0]),
        "variation": png_size(images.create_variation(image=PICTURE, extra_body=APPLE).data[0]),
        "stream": types(images.generate(**APPLE, size=size, stream=True, partial_images=2)),
        "stream of an edit": types(images.edit(**APPLE, image=PICTURE, stream=True, partial_images=2)),
        "models": "shapes" in [model.id for model in client.models.list()],
        "slash": client.models.retrieve("org/m:4bit").id,
        "bad size": raised(lambda: images.generate(**APPLE, size="9x9")),
        "bad picture": raised(lambda: images.edit(**APPLE, image=b"no picture")),
        "no model": raised(lambda: images.generate(**APPLE, model="none-such")),
        "bad stream": raised(lambda: images.generate(**APPLE, n=11, stream=True)),
        "async": asyncio.run(beside()),
    }


async def beside() -> list[list[int]]:
    async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="none", timeout=100) as client:
        drawn = [client.images.generate(**APPLE, size="64x64"), client.images.edit(**APPLE, image=PICTURE)]
        return [png_size(answer.data[0]) for answer in await asyncio.gather(*drawn)]


print(json.dumps(main()))
