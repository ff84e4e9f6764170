"""The prefix /v1: OpenAI's Images API, and the dialects of Xinference and others where they meet it."""

from adapters.v1.errors import render_error
from adapters.v1.response_schemas import Problem
from adapters.v1.responses import CONTENT
from adapters.v1.routes import DESCRIBED, IMAGE_PATHS, LOGIN, OPEN_PATHS, ROUTES
from gateway.http.adapter import Adapter

ADAPTER = Adapter(
    name="v1",
    prefix="/v1",
    routes=ROUTES,
    render_error=render_error,
    image_paths=IMAGE_PATHS,
    image_prefix=CONTENT,
    more_prefixes=(LOGIN,),
    open_paths=OPEN_PATHS,
    unprefixed=("/images", "/models"),
    described=DESCRIBED,
    error=Problem,
)
