"""What LiteLLM, LangChain and LlamaIndex do against a gateway: in an environment of its own, prints one JSON object.

python wrapper_calls.py URL PICTURE MASK; knows nothing of this project.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

URL, PICTURE, MASK = sys.argv[1:4]
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_BASE_URL": f"{URL}/v1", "OPENAI_API_KEY": "none"}
warnings.simplefilter("ignore")

import httpx  # noqa: E402
import litellm  # noqa: E402
from langchain_community.tools.openai_dalle_image_generation import OpenAIDALLEImageGenerationTool  # noqa: E402
from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper  # noqa: E402
from llama_index.tools.openai import OpenAIImageGenerationToolSpec  # noqa: E402

APPLE = "an apple"


def size_of(png: bytes) -> list[int]:
    return [int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")]


def fetched(url: str) -> list[int]:
    return size_of(httpx.get(url).raise_for_status().content)


def sizes(answer: Any) -> list[list[int]]:
    return [size_of(base64.b64decode(row.b64_json)) if row.b64_json else fetched(row.url) for row in answer.data]


def by_litellm() -> dict[str, Any]:
    """Its users name any model behind `openai/`; what it does not know goes along in the body."""
    here: Any = {"api_base": f"{URL}/v1", "api_key": "none"}
    model = "openai/shapes"
    found = {
        "generation": sizes(litellm.image_generation(prompt=APPLE, model=model, size="64x96", n=2, **here)),
        "more": sizes(litellm.image_generation(prompt=APPLE, model=model, seed=7, width=64, height=64, **here)),
        "alias": sizes(
            litellm.image_generation(prompt=APPLE, model="openai/dall-e-3", size="64x96", quality="hd", **here)
        ),
        "async": sizes(asyncio.run(litellm.aimage_generation(prompt=APPLE, model=model, size="64x96", **here))),
    }
    with open(PICTURE, "rb") as picture, open(MASK, "rb") as mask:
        found["edit"] = sizes(litellm.image_edit(image=picture, prompt=APPLE, model=model, **here))
        picture.seek(0)
        found["variation"] = sizes(litellm.image_variation(image=picture, model="openai/dall-e-2", **here))
        picture.seek(0)
        found["edit with a mask"] = sizes(
            litellm.image_edit(image=[picture], mask=mask, prompt=APPLE, model=model, size="64x64", **here)
        )
    try:
        litellm.image_generation(prompt=APPLE, model=model, size="9x9", **here)
    except litellm.BadRequestError as error:
        found["refused"] = error.status_code
    return found


def by_langchain() -> dict[str, Any]:
    """The wrapper reads `url` and sends no response_format."""
    here: Any = {"base_url": f"{URL}/v1", "api_key": "none", "size": "64x96"}
    tool = OpenAIDALLEImageGenerationTool(api_wrapper=DallEAPIWrapper(model="dall-e-3", quality="standard", **here))
    return {
        "wrapper": [fetched(url) for url in DallEAPIWrapper(n=2, **here).run(APPLE).splitlines()],
        "tool": fetched(tool.run(APPLE)),
        "model": fetched(DallEAPIWrapper(model="shapes", **here).run(APPLE)),
    }


def by_llamaindex() -> dict[str, Any]:
    """The tool asks for a url, or for base64 that it writes to a file; its models and sizes are a table of its own."""
    with tempfile.TemporaryDirectory() as folder:
        tool = OpenAIImageGenerationToolSpec(cache_dir=folder)
        kept: Any = tool.image_generation(APPLE, model="dall-e-2", size="256x256", download=True)
        return {
            "url": fetched(tool.image_generation(APPLE, model="dall-e-2", size="256x256")),
            "file": size_of(Path(kept[0]).read_bytes()),
            "tools": [made.metadata.name for made in tool.to_tool_list()],
        }


print(json.dumps({"litellm": by_litellm(), "langchain": by_langchain(), "llamaindex": by_llamaindex()}))
