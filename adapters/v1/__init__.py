"""The prefix /v1: OpenAI's Images API, and the dialects of Xinference and others where they meet it."""

from adapters.v1 import content, ocr, openai, registered, xinference
from adapters.v1.answers import CONTENT
from adapters.v1.described import DESCRIBED, Problem
from adapters.v1.errors import render_error
from gateway.http.adapter import Adapter

ADAPTER = Adapter(
    name="v1",
    prefix="/v1",
    routes=(*xinference.ROUTES, *registered.ROUTES, *openai.ROUTES, *ocr.ROUTES, *content.ROUTES),
    render_error=render_error,
    image_paths=(openai.EDITS, openai.VARIATIONS, xinference.INPAINTING, ocr.OCR),
    picture_prefix=CONTENT,
    more_prefixes=(registered.LOGIN,),
    open_paths=(xinference.AUTH, registered.LOGIN),
    unprefixed=("/images", "/models"),
    described=DESCRIBED,
    error=Problem,
)
