"""POST png-info: the generation parameters in an image file, in A1111's format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from adapters.sdapi.gif_comment import comment, is_gif
from adapters.sdapi.protocol import body_of
from adapters.sdapi.request_schemas import PngInfo
from adapters.sdapi.response_schemas import Told
from adapters.shared.context import core_of, share_of
from gateway.clean_text import whole
from gateway.images.codec import base64_image, check_image
from gateway.images.exif_text import ASCII_TEXTS
from gateway.images.file_texts import COMMENT, USER_COMMENT, XMP, texts
from gateway.images.foreign.values import json_object
from gateway.images.hidden_text import hidden_texts, may_hide
from gateway.images.infotext import PNG_KEYWORD, parse
from gateway.images.png_chunks import SIGNATURE
from gateway.images.provenance import MARK, drawing_by, to_infotext
from gateway.images.sampling_infotext import of_version
from gateway.jobs.drawing import Drawing

DEFAULTS: Mapping[str, Any] = {
    "Clip skip": "1",
    "Hires resize-1": 0,
    "Hires resize-2": 0,
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires checkpoint": "Use same checkpoint",
    "Hires prompt": "",
    "Hires negative prompt": "",
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": 32,
    "RNG": "GPU",
    "Schedule type": "Automatic",
    "Schedule max sigma": 0,
    "Schedule min sigma": 0,
    "Schedule rho": 0,
    "VAE Encoder": "Full",
    "VAE Decoder": "Full",
    "FP8 weight": "Disable",
    "Cache FP16 weight for LoRA": False,
    "Emphasis": "Original",
    "Refiner switch by sampling steps": False,
}
"""Values of missing keys. Source: parse_generation_parameters."""
EXIF_COMMENT = "exif comment"
GIF_URL = "data:image/gif;base64,"
"""A GIF is no input image here; png-info reads its comment."""
NOVELAI: Mapping[str, object] = {"Clip skip": 2, "ENSD": 31337}
"""What A1111 adds to NovelAI's parameters, so that the same image can be drawn."""


def infotext_of(data: bytes) -> tuple[str, dict[str, str]]:
    """The infotext of an image file, empty where it has no generation parameters, and its other texts.

    A1111's own text is unchanged; parameters of other programs are written in its grammar.
    Source: A1111 1.10.1 modules/images.py read_info_from_image.
    """
    file_texts = {whole(keyword): whole(text) for keyword, text in texts(data).items()}
    items = dict(file_texts)
    if not data.startswith(SIGNATURE):  # A1111 lists none of these
        for name in (*ASCII_TEXTS.values(), XMP, COMMENT):
            items.pop(name, None)
    info = items.pop(PNG_KEYWORD, None)
    if (exif := items.pop(USER_COMMENT, None)) is not None:
        info = exif
        items[EXIF_COMMENT] = exif
    if is_gif(data):
        return comment(data) or "", items
    if (
        info is None
        or info.startswith(MARK)
        or json_object(info) is not None
        or file_texts.get("Software") == "NovelAI"
    ):
        infotext = _infotext(drawing_by(file_texts))
        if info is not None and infotext and PNG_KEYWORD in file_texts:
            items[PNG_KEYWORD] = file_texts[PNG_KEYWORD]
        info = infotext or info
    return info or "", items


def _infotext(drawing: Drawing | None) -> str:
    if drawing is None:
        return ""
    return to_infotext(drawing, NOVELAI if drawing.program == "NovelAI" else None)


def answer(data: bytes) -> Told:
    """The answer for an image file. Source: A1111 1.10.1 PNGInfoResponse."""
    return _answer(*infotext_of(data))


def answer_of_hidden(png: bytes) -> Told:
    """As `answer`, from text hidden in the pixels; `png` is the decoded image."""
    pixel_texts = hidden_texts(png)
    text = whole(pixel_texts.get(PNG_KEYWORD, ""))
    return _answer(text if text and json_object(text) is None else _infotext(drawing_by(pixel_texts)), {})


def _answer(info: str, items: dict[str, str]) -> Told:
    return {"info": info, "items": items, "parameters": with_defaults(parse(info))}


def with_defaults(pairs: Mapping[str, str]) -> dict[str, Any]:
    """The pairs of an infotext, with the values of missing keys and those that an old version of A1111 implies."""
    return {**pairs, **{key: value for key, value in DEFAULTS.items() if key not in pairs}, **of_version(pairs)}


async def png_info(request: Request) -> Response:
    """What a picture says of how it was made."""
    body = await body_of(PngInfo, request)
    core, share = core_of(request), share_of(request)
    data = await core.files.read(share, base64_image, body.image.removeprefix(GIF_URL), "image")
    image = None if is_gif(data) else await check_image(data, core.decoder, "image", share)
    response = await core.files.read(share, answer, data)
    if not response["info"] and image is not None and may_hide(data):
        hidden = await core.files.run(share, answer_of_hidden, image.png)
        response = Told(info=hidden["info"], items=response["items"], parameters=hidden["parameters"])
    return JSONResponse(response)
