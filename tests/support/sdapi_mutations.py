"""Valid requests of /sdapi/v1 changed at random, and what may come of them. benchmarks/soak.py uses them, too."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from hypothesis import strategies as st

from adapters.sdapi.request_schemas import ExtraBatch, ExtraSingle, Img2Img, OptionsBody, PngInfo, TaskProgress, Txt2Img
from tests.support.sdapi import SMALL, an_image

PICTURE = base64.b64encode(an_image((64, 64), "blue")).decode()
GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "sdapi").glob("*.json"))
ANSWER_S = 100.0
"""Later than this an answer counts as none."""

ANSWERED = frozenset({200, 404, 413, 422})
AS_A1111 = frozenset({"AssertionError", "RuntimeError"})
"""The names of the 500s that are A1111's own: an upscaler, a checkpoint or a number of pictures that cannot be."""

FIELDS = {
    "txt2img": sorted(Txt2Img.model_fields),
    "img2img": sorted(Img2Img.model_fields),
    "extra-single-image": sorted(ExtraSingle.model_fields),
    "extra-batch-images": sorted(ExtraBatch.model_fields),
    "png-info": sorted(PngInfo.model_fields),
    "options": [*sorted(OptionsBody.model_fields), "samples_format", "jpeg_quality", "send_seed", "return_mask"],
    "../../internal/progress": sorted(TaskProgress.model_fields),
    "interrupt": ["x"],
    "skip": ["x"],
}

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sent:
    """One request; `path` is relative to /sdapi/v1/."""

    path: str
    content: bytes
    headers: dict[str, str]


def _recorded() -> list[tuple[str, Body]]:
    """What the recorded clients post, small."""
    calls = [call for file in GOLDEN for call in json.loads(file.read_text())["calls"]]
    bodies = [(call["path"], call["json"]) for call in calls if isinstance(call.get("json"), dict)]
    texts = [(path, json.dumps(body)) for path, body in bodies if path in FIELDS]
    for name in ("$INIT", "$MASK", "$IMAGE"):
        texts = [(path, text.replace(name, PICTURE)) for path, text in texts]
    small = {"width": 64, "height": 64}
    return [(path, json.loads(text) | (small if path.endswith("2img") else {})) for path, text in texts]


MASKED = {**SMALL, "init_images": [PICTURE], "mask": PICTURE, "mask_blur": 2, "resize_mode": 1, "inpainting_fill": 2}
VALID: list[tuple[str, Body]] = [
    ("txt2img", {**SMALL, "seed": 1, "enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "styles": ["None"]}),
    ("txt2img", {**SMALL, "subseed": 5, "subseed_strength": 0.5, "n_iter": 2, "prompt": "x <lora:a:1>"}),
    ("txt2img", {**SMALL, "infotext": "a cat\nSteps: 4, Seed: 1, Size: 64x64, Hires upscale: 2, Model: flux2-tiny"}),
    ("txt2img", {**SMALL, "lora": [{"path": "a", "multiplier": 0.5}], "lora_files": ["b"], "num_images": 2}),
    ("txt2img", {**SMALL, "extra_images": [PICTURE], "distilled_cfg_scale": 3.5}),
    ("img2img", MASKED),
    ("img2img", {**MASKED, "inpaint_full_res": False, "override_settings": {"return_mask": True}}),
    ("img2img", {**SMALL, "init_images": [PICTURE], "mode": "edit", "image_strength": 0.5}),
    ("extra-single-image", {"image": PICTURE, "upscaler_1": "Lanczos", "upscaling_resize": 1.5}),
    ("extra-batch-images", {"imageList": [{"data": PICTURE, "name": "a"}], "upscaler_1": "Nearest"}),
    ("png-info", {"image": PICTURE}),
    ("options", {"samples_format": "png", "send_seed": True, "sd_model_checkpoint": "flux2-tiny"}),
    ("../../internal/progress", {"id_task": "task(1)", "id_live_preview": -1}),
    ("interrupt", {"x": 1}),
    ("skip", {"x": 1}),
    *_recorded(),
]

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
NUMBERS = [0, -1, 1, 0.5, 63, 65, 150, 151, 2**31, 2**32, 2**53 + 1, 2**63, 2**64 - 1, 1e308, -0.0, True]
WORDS = ["1e5", "0x10", " 7 ", "-1.0", "nan", "", "None", "null", "x" * 5000, "\u202e", "<lora:a:1>" * 20]
EDGES = st.sampled_from([*NUMBERS, *WORDS, "data:,", "http://127.0.0.1/", "../../x", [], {}])
TWISTS: tuple[Callable[[Any], Any], ...] = (
    str,
    lambda value: [value],
    lambda value: {"value": value},
    lambda value: None,
    lambda value: value * 2 if isinstance(value, int | float | str | list) else value,
    lambda value: -value if isinstance(value, int | float) else value,
    lambda value: value + 0.5 if isinstance(value, int | float) else value,
    lambda value: value[: len(value) // 2] if isinstance(value, str | list) else value,
    lambda value: value.swapcase() if isinstance(value, str) else value,
)
"""One value become another one that is like it."""

KINDS = ("application/json", "application/json; charset=utf-8", "application/vnd.x+json", "text/plain", "x", "")


@st.composite
def changed(draw: st.DrawFn) -> Sent:
    """A valid request with one to three changes in its values, and now and then some in its bytes."""
    path, body = draw(st.sampled_from(VALID))
    body = dict(body)
    for _ in range(draw(st.integers(1, 3))):
        _change(draw, body, FIELDS[path])
    content = json.dumps(body, ensure_ascii=draw(st.booleans())).encode()
    kind = "application/json"
    if draw(st.integers(0, 9)) == 0:
        kind = draw(st.sampled_from(KINDS))
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(st.binary(max_size=4)) + content[at + draw(st.integers(0, 4)) :]
    return Sent(path, content, {"content-type": kind} if kind else {})


def _change(draw: st.DrawFn, body: Body, fields: list[str]) -> None:
    """One key of the body, or one it might have, gets another value or goes."""
    name = draw(st.sampled_from([*sorted(body), draw(st.sampled_from(fields))]))
    match draw(st.sampled_from(["anything", "edge", "twist", "twist", "gone", "other"])):
        case "anything":
            body[name] = draw(ANYTHING)
        case "edge":
            body[name] = draw(EDGES)
        case "twist":
            body[name] = draw(st.sampled_from(TWISTS))(body.get(name, 1))
        case "gone":
            body.pop(name, None)
        case _:
            body[name] = body[draw(st.sampled_from(sorted(body)))] if body else None


def send(client: httpx.Client, request: Sent) -> httpx.Response:
    """Raises: httpx.TimeoutException where no answer comes."""
    return client.post(request.path, content=request.content, headers=request.headers, timeout=ANSWER_S)


def outcome(response: httpx.Response) -> str:
    """The outcome of a request, in a word or two. Raises: AssertionError for an error of the gateway."""
    assert "Traceback" not in response.text
    body = response.json()
    if response.status_code == 500 and body["error"] in AS_A1111:
        return "500, as A1111"
    assert response.status_code in ANSWERED, (response.status_code, response.text[:300])
    if response.status_code != 200:
        assert body["detail"], response.text[:300]
    return str(response.status_code)
